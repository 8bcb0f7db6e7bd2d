"""Contrastive losses over all pairs of a batch, tile by tile: no B x B matrix is ever held.

Belongs here: InfoNCE and the sigmoid loss as functions with a backward pass of their own. Does not belong here: how
modalities make up the objective (see `loss`).

Forward, one product for each tile of the cosines and running sums of its exponentials by row and by column. Backward,
each tile is computed again, turned into the gradient of its cosines, and multiplied into the gradients of both sides:
four products of 2 B^2 d operations where a dense loss takes three, and a memory of O(B d) where it takes several B x B
matrices. Tiles stay in the cache, so that on the CPU and the GPU alike the products set the time.

Sources: van den Oord et al. 2018 (https://arxiv.org/abs/1807.03748) for InfoNCE; Zhai et al. 2023
(https://arxiv.org/abs/2303.15343) for the sigmoid loss; Dao et al. 2022 (https://arxiv.org/abs/2205.14135) for
recomputing tiles in the backward pass.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.functional import logsigmoid, normalize

TILE_ROWS, TILE_COLUMNS = 1024, 2048
_SAFE_SCALE = {torch.float64: 300.0, torch.float32: 40.0}
"""Up to this inverse temperature exp(-2 scale), the smallest term there can be, is a normal number."""


class _Tile(NamedTuple):
    rows: slice
    columns: slice
    hidden: torch.Tensor | None
    """Pairs that are no negatives, bool (rows, columns); None where there are none."""


class _Pairs:
    """The tiles of all pairs of two sides of a batch.

    Args:
        groups: Group of each row, ascending, int64 (B,); pairs within a group are no negatives. None: no groups.
        size: B.
        device: Where masks are made.
    """

    def __init__(self, groups: torch.Tensor | None, size: int, device: torch.device) -> None:
        self._groups, self._size, self._device = groups, size, device
        # where groups lie is asked for once, not once a tile: on a GPU each question waits for all work before it
        self._ends = None if groups is None else groups.cpu().numpy()

    def __iter__(self) -> Iterator[_Tile]:
        for row in range(0, self._size, TILE_ROWS):
            rows = slice(row, min(row + TILE_ROWS, self._size))
            for column in range(0, self._size, TILE_COLUMNS):
                columns = slice(column, min(column + TILE_COLUMNS, self._size))
                yield _Tile(rows, columns, self._hidden(rows, columns))

    def _hidden(self, rows: slice, columns: slice) -> torch.Tensor | None:
        if self._groups is None or self._ends is None:
            return None
        first, last = self._ends[rows][[0, -1]]
        if self._ends[columns][-1] < first or self._ends[columns][0] > last:
            return None
        same = self._groups[rows, None] == self._groups[None, columns]
        index = torch.arange(rows.start, rows.stop, device=self._device)
        own = index[:, None] == torch.arange(columns.start, columns.stop, device=self._device)
        return same & ~own


class _InfoNCE(torch.autograd.Function):
    """Symmetric InfoNCE of unit vectors; see `tiled_info_nce`."""

    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, groups: torch.Tensor | None
    ) -> torch.Tensor:
        pairs, factor = _Pairs(groups, len(a), a.device), float(scale)
        safe = factor <= _SAFE_SCALE.get(a.dtype, 40.0)
        start = 0.0 if safe else -torch.inf
        by_row, by_column = a.new_full((len(a),), start), a.new_full((len(a),), start)
        for tile in pairs:
            logits = _logits(a, b, factor, tile)
            if safe:
                terms = logits.sub_(factor).exp_()
                by_row[tile.rows] += terms.sum(1)
                by_column[tile.columns] += terms.sum(0)
            else:
                torch.logaddexp(by_row[tile.rows], logits.logsumexp(1), out=by_row[tile.rows])
                torch.logaddexp(by_column[tile.columns], logits.logsumexp(0), out=by_column[tile.columns])
        if safe:
            by_row, by_column = by_row.log_().add_(factor), by_column.log_().add_(factor)
        diagonal = (a * b).sum(1) * factor
        ctx.save_for_backward(a, b, by_row, by_column)
        ctx.pairs, ctx.factor, ctx.safe = pairs, factor, safe
        return (by_row + by_column - 2 * diagonal).mean() / 2

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        a, b, by_row, by_column = ctx.saved_tensors
        factor, size = ctx.factor, len(a)
        by_a, by_b = torch.zeros_like(a), torch.zeros_like(b)
        if ctx.safe:
            row_share, column_share = torch.exp(factor - by_row), torch.exp(factor - by_column)
        for tile in ctx.pairs:
            logits = _logits(a, b, factor, tile)
            if ctx.safe:
                shares = row_share[tile.rows, None] + column_share[None, tile.columns]
                slope = logits.sub_(factor).exp_().mul_(shares)
            else:
                slope = torch.exp(logits - by_row[tile.rows, None])
                slope += logits.sub_(by_column[tile.columns]).exp_()
            by_a[tile.rows].addmm_(slope, b[tile.columns])
            by_b[tile.columns].addmm_(slope.T, a[tile.rows])
        # the diagonal's two terms are taken off as vectors
        by_a.sub_(b, alpha=2)
        by_b.sub_(a, alpha=2)
        by_scale = (by_a * a).sum() / (2 * size)
        weight = gradients[0] * (factor / (2 * size))
        return by_a * weight, by_b * weight, by_scale * gradients[0], None


class _Sigmoid(torch.autograd.Function):
    """Sigmoid loss of unit vectors; see `tiled_sigmoid`. One pass: its gradient needs no sums over other tiles."""

    @staticmethod
    def forward(
        ctx: Any,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        groups: torch.Tensor | None,
    ) -> torch.Tensor:
        size, factor, shift = len(a), float(scale), float(bias)
        by_a, by_b, total, by_bias = torch.zeros_like(a), torch.zeros_like(b), a.new_zeros(()), a.new_zeros(())
        for tile in _Pairs(groups, size, a.device):
            # log sigma(-x) of every pair as if it were a negative; hidden pairs are at -inf: no loss, no slope
            logits = _logits(a, b, factor, tile).add_(shift)
            total -= logsigmoid(-logits).sum()
            slope = torch.sigmoid(logits)
            by_bias += slope.sum()
            by_a[tile.rows].addmm_(slope, b[tile.columns])
            by_b[tile.columns].addmm_(slope.T, a[tile.rows])
        # log sigma(-x) - log sigma(x) = -x: what makes a pair on the diagonal a positive
        diagonal = (a * b).sum(1)
        total -= (diagonal * factor + shift).sum()
        by_a.sub_(b)
        by_b.sub_(a)
        by_scale = (by_a * a).sum()
        by_a.mul_(factor / size)
        by_b.mul_(factor / size)
        ctx.save_for_backward(by_a, by_b, by_scale / size, (by_bias - size) / size)
        return total / size

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, None]:
        by_a, by_b, by_scale, by_bias = ctx.saved_tensors
        weight = gradients[0]
        return by_a * weight, by_b * weight, by_scale * weight, by_bias * weight, None


def _logits(a: torch.Tensor, b: torch.Tensor, factor: float, tile: _Tile) -> torch.Tensor:
    logits = torch.mm(a[tile.rows], b[tile.columns].T).mul_(factor)
    return logits if tile.hidden is None else logits.masked_fill_(tile.hidden, -torch.inf)


def tiled_info_nce(
    a: torch.Tensor, b: torch.Tensor, temperature: torch.Tensor | float, groups: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Symmetric InfoNCE between two views of the same cells, without a matrix of all pairs.

    .. math::
        \frac{1}{2B} \sum_i \Big[ -\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        - \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \Big], \quad s_{ij} = \cos(a_i, b_j) / \tau

    where j runs over all rows that are not of i's group, and i itself. Memory: O(B d).

    Args:
        a: (B, d).
        b: (B, d); row i belongs to row i of `a`.
        temperature: tau, above zero; a scalar tensor gets a gradient.
        groups: int64 (B,): rows of one group are no negatives of each other (cells of one H3 parent, say).

    Returns:
        Scalar.
    """
    a, b, groups = _sorted(normalize(a), normalize(b), groups)
    loss: torch.Tensor = _InfoNCE.apply(a, b, 1 / _scalar(temperature, a), groups)  # type: ignore[no-untyped-call]
    return loss


def tiled_sigmoid(
    a: torch.Tensor,
    b: torch.Tensor,
    temperature: torch.Tensor | float,
    bias: torch.Tensor | float,
    groups: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Sigmoid loss (SigLIP) between two views of the same cells, without a matrix of all pairs.

    .. math::
        -\frac{1}{B} \sum_{ij} \log\sigma\big(z_{ij} (\cos(a_i, b_j) / \tau + \beta)\big), \quad
        z_{ij} = 1 \text{ if } i = j \text{ else } -1

    Args:
        a: (B, d).
        b: (B, d); row i belongs to row i of `a`.
        temperature: tau, above zero; a scalar tensor gets a gradient.
        bias: beta; a scalar tensor gets a gradient.
        groups: int64 (B,): pairs of two rows of one group do not count.

    Returns:
        Scalar.
    """
    a, b, groups = _sorted(normalize(a), normalize(b), groups)
    scale, shift = 1 / _scalar(temperature, a), _scalar(bias, a)
    loss: torch.Tensor = _Sigmoid.apply(a, b, scale, shift, groups)  # type: ignore[no-untyped-call]
    return loss


def _scalar(value: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else like.new_tensor(value)


def _sorted(
    a: torch.Tensor, b: torch.Tensor, groups: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Rows in the order of their groups: only tiles near the diagonal have pairs to hide."""
    if groups is None:
        return a, b, None
    groups, order = torch.sort(groups, stable=True)
    return a[order], b[order], groups
