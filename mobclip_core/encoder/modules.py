"""The modules of MobCLIP: modality heads, feature fusion, decoders, and the model that joins them to the backbone.

Belongs here: what has parameters. Does not belong here: the graph product (see `propagation`), the contrastive term
(see `loss`), the optimiser (see `trainer`).
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch_geometric.nn import MLP

from mobclip_core.encoder.loss import StarLoss
from mobclip_core.encoder.propagation import Adjacency, LightGCN, RowBlock
from mobclip_core.encoder.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from mobclip_core.profile import EncoderConfig

Tensors = Mapping[str, torch.Tensor]

_SIGMOID_BIAS = -10.0
_LOWEST_TEMPERATURE = 0.01
_OTHER_TEMPERATURE = 0.5
"""Of a modality that is none of the paper's."""


def parameter_groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimiser, with weight decay on matrices only."""
    matrices = [p for p in module.parameters() if p.dim() > 1]
    others = [p for p in module.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


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
        num_nodes: N; of this rank's nodes where several processes share them.
        widths: Width of the features of each modality.
        config: Options.
        ranks: The processes that train together.

    Shapes:
        - **input:** features (N, D_m) and masks (N,) by modality, adjacency (N, N)
        - **output:** (N, d), or (B, d) for the rows of a batch
    """

    def __init__(
        self, num_nodes: int, widths: Mapping[str, int], config: "EncoderConfig", ranks: Ranks = ALONE
    ) -> None:
        super().__init__()
        self.ranks = ranks
        d = config.dimensions
        # sums over modalities run in this order: it decides the last bit
        widths = dict(sorted(widths.items()))
        named = {str(name): value for name, value in config.temperatures.items()}
        self.temperatures = {name: named.get(name, _OTHER_TEMPERATURE) for name in widths}
        sigmoid = config.contrast == "sigmoid"
        self.contrast = StarLoss(
            {str(k): v for k, v in config.modality_weights.items()}, sigmoid, config.precision == "bf16", ranks
        )
        self.reconstruction_weight = config.reconstruction_weight
        self.contrastive_weight = config.contrastive_weight
        self.node_table = torch.nn.Parameter(torch.zeros(num_nodes, d))
        self.backbone = LightGCN(config.layers)
        learned = widths if config.learned_temperatures else {}
        self.log_temperatures = torch.nn.ParameterDict({m: torch.nn.Parameter(torch.zeros(())) for m in learned})
        self.biases = torch.nn.ParameterDict({m: torch.nn.Parameter(torch.zeros(())) for m in widths if sigmoid})
        hidden = {"census": config.demographics_hidden}
        self.heads = torch.nn.ModuleDict({m: ModalityHead(w, d, hidden.get(m)) for m, w in widths.items()})
        fused = widths if config.feature_fusion else {}
        self.fusion = torch.nn.ModuleDict({m: ModalityHead(w, d, config.fusion_hidden) for m, w in fused.items()})
        decoded = widths if config.reconstruction_weight > 0 else {}
        self.decoders = torch.nn.ModuleDict({m: ModalityHead(d, w) for m, w in decoded.items()})

    def reset_parameters(self) -> None:
        """Draw new weights from torch's generator; the table to zero, temperatures to those of the options."""
        torch.nn.init.zeros_(self.node_table)
        for name, value in self.log_temperatures.items():
            torch.nn.init.constant_(value, math.log(self.temperatures[name]))
        for value in self.biases.values():
            # nearly all pairs are negatives (SigLIP, section 3.2)
            torch.nn.init.constant_(value, _SIGMOID_BIAS)
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

    def forward(
        self, features: Tensors, masks: Tensors, adjacency: Adjacency, rows: RowBlock | None = None
    ) -> torch.Tensor:
        """Embeddings of all cells, or of `rows`."""
        z: torch.Tensor = self.backbone(self.node_input(features, masks), adjacency, rows, self.ranks)
        return z

    def loss(
        self,
        z: torch.Tensor,
        features: Tensors,
        masks: Tensors,
        *,
        position: torch.Tensor | None = None,
        groups: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The objective on a batch of cells.

        Args:
            z: Embeddings of this rank's cells of the batch, (b, d).
            features: Features by modality of the same cells, (b, D_m).
            masks: Presence by modality of all cells of the batch, bool (B,).
            position: Place of this rank's cells in the batch, int64 (b,); None where it has all.
            groups: int64 (B,): cells of one group are no negatives of each other.

        Returns:
            The total (scalar) and its terms by name: the modality for contrast, `reconstruction_<modality>`.
        """
        size = len(next(iter(masks.values()))) if masks else len(z)
        place = torch.arange(size, device=z.device) if position is None else position
        views = {n: self.ranks.assemble(head(features[n]), place, size) for n, head in self.heads.items()}
        temperatures = {
            n: self.log_temperatures[n].exp().clamp(min=_LOWEST_TEMPERATURE) if n in self.log_temperatures else t
            for n, t in self.temperatures.items()
        }
        centre = self.ranks.assemble(z, place, size)
        contrast, terms = self.contrast(centre, views, masks, temperatures, biases=dict(self.biases), groups=groups)
        total = self.contrastive_weight * contrast
        errors = {}
        for name, decode in self.decoders.items():
            count = int(masks[name].sum())
            if count:
                error = (decode(z) - features[name])[masks[name][place]]
                # mean over dimensions: modalities count alike, however wide
                summed = error.square().sum() / (count * features[name].shape[1])
                errors[f"reconstruction_{name}"] = self.ranks.total(summed)
        if errors:
            total = total + self.reconstruction_weight * torch.stack(list(errors.values())).mean()
        return total, {**terms, **errors}
