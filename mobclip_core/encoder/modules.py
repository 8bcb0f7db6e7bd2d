"""The modules of MobCLIP: modality heads, feature fusion, decoders, and the model that joins them to the backbone.

Belongs here: what has parameters. Does not belong here: the graph product (see `propagation`), the contrastive term
(see `loss`), the optimiser (see `training`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch_geometric.nn import MLP

from mobclip_core.encoder.loss import star_loss
from mobclip_core.encoder.propagation import Adjacency, LightGCN

if TYPE_CHECKING:
    from mobclip_core.profile import EncoderConfig

Tensors = Mapping[str, torch.Tensor]


class ModalityHead(torch.nn.Module):
    r"""Maps the features of one modality into the space of the embeddings.

    From `MobCLIP <https://arxiv.org/abs/2506.01297>`_, section 4.

    .. math:: \mathbf y = W \mathbf x + \mathbf b \quad\text{or}\quad
        \mathbf y = W_2\, \mathrm{ReLU}(W_1 \mathbf x + \mathbf b_1) + \mathbf b_2

    Args:
        in_channels: Width of the features, D.
        out_channels: Width of the embedding, d.
        hidden_channels: Width of the one hidden layer; linear if None (the paper: POI and imagery linear, demographics
            64).

    Shapes:
        - **input:** (B, D)
        - **output:** (B, d)
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        widths = (
            [in_channels, out_channels] if hidden_channels is None else [in_channels, hidden_channels, out_channels]
        )
        self.mlp = MLP(widths, act="relu", norm=None)

    def reset_parameters(self) -> None:
        """Draw new weights from torch's generator."""
        self.mlp.reset_parameters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings of the cells' features."""
        out: torch.Tensor = self.mlp(x)
        return out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.mlp.channel_list))})"


class MobCLIP(torch.nn.Module):
    r"""The encoder: a trainable table of node vectors, propagated by LightGCN, with one head for each modality.

    .. math:: \mathbf h_i^{(0)} = \mathbf t_i + \sum_m \mathbb 1[m \in i]\, f_m(\mathbf x_i^m), \qquad
        \mathbf Z = \sum_{l=0}^{L} \hat A^l \mathbf H^{(0)}

    The sum over modalities is there only with `feature_fusion`; the paper's node input is the table alone, so that a
    cell's vector holds only what the contrast forces into it.

    Args:
        num_nodes: N.
        widths: Width of the features of each modality.
        config: Options.

    Shapes:
        - **input:** features (N, D_m) and masks (N,) by modality, adjacency (N, N)
        - **output:** (N, d)
    """

    def __init__(self, num_nodes: int, widths: Mapping[str, int], config: "EncoderConfig") -> None:
        super().__init__()
        d = config.dimensions
        # sums over modalities run in this order: it decides the last bit
        widths = dict(sorted(widths.items()))
        self.temperatures = {str(name): value for name, value in config.temperatures.items()}
        self.reconstruction_weight = config.reconstruction_weight
        self.contrastive_weight = config.contrastive_weight
        self.node_table = torch.nn.Parameter(torch.zeros(num_nodes, d))
        self.backbone = LightGCN(config.layers)
        hidden = {"census": config.demographics_hidden}
        self.heads = torch.nn.ModuleDict({m: ModalityHead(w, d, hidden.get(m)) for m, w in widths.items()})
        fused = widths if config.feature_fusion else {}
        self.fusion = torch.nn.ModuleDict({m: ModalityHead(w, d, config.fusion_hidden) for m, w in fused.items()})
        decoded = widths if config.reconstruction_weight > 0 else {}
        self.decoders = torch.nn.ModuleDict({m: ModalityHead(d, w) for m, w in decoded.items()})

    def reset_parameters(self) -> None:
        """Draw new weights from torch's generator, and set the table to zero."""
        torch.nn.init.zeros_(self.node_table)
        for module in self.modules():
            if isinstance(module, ModalityHead):
                module.reset_parameters()

    def node_input(self, features: Tensors, masks: Tensors, nodes: torch.Tensor | None = None) -> torch.Tensor:
        """Layer 0 of the nodes given, or of all: (N, d); features and masks are of the same nodes."""
        x: torch.Tensor = self.node_table if nodes is None else self.node_table[nodes]
        for name, projection in self.fusion.items():
            # the mask covers the bias too, so that presence itself is seen
            x = x + projection(features[name]) * masks[name].unsqueeze(1)
        return x

    def forward(self, features: Tensors, masks: Tensors, adjacency: Adjacency) -> torch.Tensor:
        """Embeddings of all cells."""
        z: torch.Tensor = self.backbone(self.node_input(features, masks), adjacency)
        return z

    def loss(self, z: torch.Tensor, features: Tensors, masks: Tensors) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The objective on a batch of cells.

        Args:
            z: Embeddings, (B, d).
            features: Features by modality, (B, D_m).
            masks: Presence by modality, bool (B,).

        Returns:
            The total (scalar) and its terms by name: the modality for contrast, `reconstruction_<modality>`.
        """
        views = {name: head(features[name]) for name, head in self.heads.items()}
        contrast, terms = star_loss(z, views, masks, self.temperatures)
        total = self.contrastive_weight * contrast
        errors = {}
        for name, decode in self.decoders.items():
            if bool(masks[name].any()):
                error = (decode(z) - features[name])[masks[name]]
                # mean over dimensions: modalities count alike, however wide
                errors[f"reconstruction_{name}"] = error.square().mean()
        if errors:
            total = total + self.reconstruction_weight * torch.stack(list(errors.values())).mean()
        return total, {**terms, **errors}
