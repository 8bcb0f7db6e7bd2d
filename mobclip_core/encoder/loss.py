"""The contrastive loss: a star with mobility in the centre.

Belongs here: the symmetric InfoNCE and its mean over modalities. Does not belong here: other terms of the objective
(see `modules`).

Sources: van den Oord et al. 2018 (https://arxiv.org/abs/1807.03748), Radford et al. 2021 for the symmetric form
(https://arxiv.org/abs/2103.00020), MobCLIP (arXiv 2506.01297, section 4) for the star and its temperatures.
"""

from collections.abc import Mapping

import torch
from torch.nn.functional import cross_entropy, normalize


def symmetric_info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    r"""Symmetric InfoNCE between two views of the same cells.

    .. math::
        \frac{1}{2B} \sum_i \Big[ -\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        - \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \Big], \quad s_{ij} = \cos(a_i, b_j) / \tau

    Memory: the logits take 4 B^2 bytes in float32, a few times over with the backward pass.

    Args:
        a: (B, d).
        b: (B, d); row i belongs to row i of `a`.
        temperature: tau, above zero.

    Returns:
        Scalar.
    """
    logits = normalize(a) @ normalize(b).T / temperature
    labels = torch.arange(len(a), device=a.device)
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def star_loss(
    centre: torch.Tensor,
    views: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    temperatures: Mapping[str, float],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean over modalities of the symmetric InfoNCE between mobility and each of them.

    A cell that lacks a modality is left out of that modality's rows and columns alike: it is no example, no negative.
    A modality with fewer than two cells in the batch has nothing to tell apart and is left out of the mean.

    Args:
        centre: Mobility embeddings, (B, d).
        views: Modality embeddings, (B, d) each.
        masks: Whether a cell has the modality, bool (B,) each.
        temperatures: By modality.

    Returns:
        The loss (scalar; zero, with a gradient of zero, if no modality is left) and the loss of each modality.
    """
    parts = {}
    for name, view in views.items():
        present = masks[name].nonzero().squeeze(1)
        if len(present) > 1:
            parts[name] = symmetric_info_nce(centre[present], view[present], temperatures[name])
    if not parts:
        return centre.sum() * 0, {}
    return torch.stack(list(parts.values())).mean(), parts
