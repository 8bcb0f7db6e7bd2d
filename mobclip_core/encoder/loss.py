"""The contrastive loss: a star with mobility in the centre.

Belongs here: which pairs of which modality are contrasted, and how the modalities make up one loss. Does not belong
here: the loss of one pair of views (see `tiled`), other terms of the objective (see `modules`).

Sources: Radford et al. 2021 for the symmetric form (https://arxiv.org/abs/2103.00020), MobCLIP (arXiv 2506.01297,
section 4) for the star and its temperatures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mobclip_core.encoder.ranks import ALONE, Ranks
from mobclip_core.encoder.tiled import tiled_info_nce, tiled_sigmoid


@dataclass(frozen=True)
class StarLoss:
    """Mean over modalities of the contrast between mobility and each of them.

    A cell that lacks a modality is left out of that modality's rows and columns alike: it is no example, no negative.
    A modality with fewer than two cells in the batch has nothing to tell apart and is left out of the mean.

    Args:
        weights: Weight of each modality in the mean; 1 where it is not named.
        sigmoid: The sigmoid loss (SigLIP) in place of InfoNCE.
        half: Multiply in bfloat16.
        ranks: Processes that all hold the whole batch and share the work.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    sigmoid: bool = False
    half: bool = False
    ranks: Ranks = ALONE

    def __call__(
        self,
        centre: torch.Tensor,
        views: Mapping[str, torch.Tensor],
        masks: Mapping[str, torch.Tensor],
        temperatures: Mapping[str, torch.Tensor | float],
        *,
        biases: Mapping[str, torch.Tensor] | None = None,
        groups: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch.

        Args:
            centre: Mobility embeddings, (B, d).
            views: Modality embeddings, (B, d) each.
            masks: Whether a cell has the modality, bool (B,) each.
            temperatures: By modality.
            biases: By modality; for the sigmoid loss.
            groups: int64 (B,): cells of one group are no negatives of each other.

        Returns:
            The loss (scalar; zero, with a gradient of zero, if no modality is left) and the loss of each modality.
        """
        parts = {}
        for name, view in views.items():
            present = masks[name].nonzero().squeeze(1)
            if len(present) > 1:
                a, b = centre[present], view[present]
                kept = None if groups is None else groups[present]
                if self.sigmoid:
                    bias = 0.0 if biases is None else biases[name]
                    loss = tiled_sigmoid(a, b, temperatures[name], bias, kept, half=self.half, ranks=self.ranks)
                else:
                    loss = tiled_info_nce(a, b, temperatures[name], kept, half=self.half, ranks=self.ranks)
                parts[name] = loss
        weights = centre.new_tensor([self.weights.get(name, 1.0) for name in parts])
        if not parts or not bool(weights.any()):
            return centre.sum() * 0, {}
        return (torch.stack(list(parts.values())) * weights).sum() / weights.sum(), parts
