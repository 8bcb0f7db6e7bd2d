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

from mobclip_core.encoder.ranks import ALONE, Ranks

TILE_ROWS, TILE_COLUMNS = 2048, 4096
_SAFE_SCALE = {torch.float64: 300.0, torch.float32: 40.0}
"""Up to this inverse temperature the exponential of no cosine overflows in a sum, or underflows."""


class _Options(NamedTuple):
    ranks: Ranks
    half: bool


class _Tile(NamedTuple):
    rows: slice
    columns: slice
    hidden: torch.Tensor | None
    """Pairs that are no negatives, bool (rows, columns); None where there are none."""


class _Pairs:
    """The tiles of all pairs of two sides of a batch, or of this rank's strip of rows.

    Args:
        groups: Group of each row, ascending, int64 (B,); pairs within a group are no negatives. None: no groups.
        like: Either side, (B, d): size and device.
        ranks: The processes that share the tiles.
    """

    def __init__(self, groups: torch.Tensor | None, like: torch.Tensor, ranks: Ranks) -> None:
        self._groups, self._size, self._device = groups, len(like), like.device
        self.ranks, self.strip = ranks, ranks.strip(len(like))
        # where groups lie is asked for once, not once a tile: on a GPU each question waits for all work before it
        self._ends = None if groups is None else groups.cpu().numpy()

    def __iter__(self) -> Iterator[_Tile]:
        for row in range(self.strip.start, self.strip.stop, TILE_ROWS):
            rows = slice(row, min(row + TILE_ROWS, self.strip.stop))
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


class _Sides:
    """Both sides in the type of the products: tiles of cosines times the inverse temperature, and products with them.

    Args:
        a: Unit vectors, (B, d).
        b: Unit vectors, (B, d).
        factor: Inverse temperature.
        half: Multiply in bfloat16.
    """

    def __init__(self, a: torch.Tensor, b: torch.Tensor, factor: float, half: bool) -> None:
        self.dtype = torch.bfloat16 if half else a.dtype
        self._wide = a.dtype
        self._scaled, self._a, self._b = ((a * factor).to(self.dtype), a.to(self.dtype), b.to(self.dtype))

    def logits(self, tile: _Tile) -> torch.Tensor:
        logits = torch.mm(self._scaled[tile.rows], self._b[tile.columns].T).to(self._wide)
        return logits if tile.hidden is None else logits.masked_fill_(tile.hidden, -torch.inf)

    def add(self, slope: torch.Tensor, tile: _Tile, by_a: torch.Tensor, by_b: torch.Tensor) -> None:
        """Add the slope times the one side to the gradient of the other."""
        slope = slope.to(self.dtype)
        if self.dtype == self._wide:
            by_a[tile.rows].addmm_(slope, self._b[tile.columns])
            by_b[tile.columns].addmm_(slope.T, self._a[tile.rows])
        else:
            by_a[tile.rows] += slope @ self._b[tile.columns]
            by_b[tile.columns] += slope.T @ self._a[tile.rows]


class _InfoNCE(torch.autograd.Function):
    """Symmetric InfoNCE of unit vectors; see `tiled_info_nce`."""

    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, groups: torch.Tensor | None, options: _Options
    ) -> torch.Tensor:
        ranks, factor = options.ranks, float(scale)
        pairs, sides = _Pairs(groups, a, ranks), _Sides(a, b, factor, options.half)
        safe = factor <= _SAFE_SCALE.get(a.dtype, 0.0)
        start = 0.0 if safe else -torch.inf
        by_row, by_column = a.new_full((2, len(a)), start).unbind()
        for tile in pairs:
            logits = sides.logits(tile)
            if safe:
                terms = logits.exp_()
                by_row[tile.rows] += terms.sum(1)
                by_column[tile.columns] += terms.sum(0)
            else:
                torch.logaddexp(by_row[tile.rows], logits.logsumexp(1), out=by_row[tile.rows])
                torch.logaddexp(by_column[tile.columns], logits.logsumexp(0), out=by_column[tile.columns])
        by_row, by_column = (_sum_of_logs(part, ranks, safe) for part in (by_row, by_column))
        diagonal = (a * b).sum(1) * factor
        ctx.save_for_backward(a, b, by_row, by_column)
        ctx.pairs, ctx.sides, ctx.factor, ctx.safe = pairs, sides, factor, safe
        return (by_row + by_column - 2 * diagonal).mean() / 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        a, b, by_row, by_column = ctx.saved_tensors
        factor, size = ctx.factor, len(a)
        by_a, by_b = a.new_zeros((2, *a.shape)).unbind()
        row_share, column_share = (-by_row).exp(), (-by_column).exp()
        for tile in ctx.pairs:
            logits = ctx.sides.logits(tile)
            if ctx.safe:
                slope = logits.exp_().mul_(row_share[tile.rows, None] + column_share[None, tile.columns])
            else:
                slope = torch.exp(logits - by_row[tile.rows, None])
                slope += logits.sub_(by_column[tile.columns]).exp_()
            ctx.sides.add(slope, tile, by_a, by_b)
        ctx.pairs.ranks.sum(by_a)
        ctx.pairs.ranks.sum(by_b)
        # the diagonal's two terms are taken off as vectors
        by_a.sub_(b, alpha=2)
        by_b.sub_(a, alpha=2)
        by_scale = (by_a * a).sum() / (2 * size)
        weight = gradients[0] * (factor / (2 * size))
        return by_a * weight, by_b * weight, by_scale * gradients[0], None, None


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
        options: _Options,
    ) -> torch.Tensor:
        ranks, size, factor, shift = options.ranks, len(a), float(scale), float(bias)
        sides = _Sides(a, b, factor, options.half)
        by_a, by_b = a.new_zeros((2, *a.shape)).unbind()
        sums = a.new_zeros(2)
        for tile in _Pairs(groups, a, ranks):
            # log sigma(-x) of every pair as if it were a negative; hidden pairs are at -inf: no loss, no slope
            logits = sides.logits(tile).add_(shift)
            slope = torch.sigmoid(logits)
            sums += torch.stack([-logsigmoid(-logits).sum(), slope.sum()])
            sides.add(slope, tile, by_a, by_b)
        for part in (by_a, by_b, sums):
            ranks.sum(part)
        total, by_bias = sums.unbind()
        # log sigma(-x) - log sigma(x) = -x: what makes a pair on the diagonal a positive
        diagonal = (a * b).sum(1)
        total = total - (diagonal * factor + shift).sum()
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
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        by_a, by_b, by_scale, by_bias = ctx.saved_tensors
        weight = gradients[0]
        return by_a * weight, by_b * weight, by_scale * weight, by_bias * weight, None, None


def _sum_of_logs(part: torch.Tensor, ranks: Ranks, safe: bool) -> torch.Tensor:
    """The logarithm of sums over all ranks, from this rank's sums (`safe`) or their logarithms."""
    if safe:
        return ranks.sum(part).log_()
    if ranks.size == 1:
        return part
    highest = ranks.highest(part.clone())
    return ranks.sum((part - highest).exp_()).log_().add_(highest)


def tiled_info_nce(
    a: torch.Tensor,
    b: torch.Tensor,
    temperature: torch.Tensor | float,
    groups: torch.Tensor | None = None,
    *,
    half: bool = False,
    ranks: Ranks = ALONE,
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
        half: Multiply in bfloat16, sum in the inputs' type: about twice as fast, cosines to three digits.
        ranks: Processes that all hold the whole batch and share the work; all get the same loss and gradients.

    Returns:
        Scalar.
    """
    a, b, groups = _sorted(normalize(a), normalize(b), groups)
    options = _Options(ranks, half)
    loss: torch.Tensor = _InfoNCE.apply(a, b, 1 / _scalar(temperature, a), groups, options)  # type: ignore[no-untyped-call]
    return loss


def tiled_sigmoid(
    a: torch.Tensor,
    b: torch.Tensor,
    temperature: torch.Tensor | float,
    bias: torch.Tensor | float,
    groups: torch.Tensor | None = None,
    *,
    half: bool = False,
    ranks: Ranks = ALONE,
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
        half: Multiply in bfloat16, sum in the inputs' type: about twice as fast, cosines to three digits.
        ranks: Processes that all hold the whole batch and share the work; all get the same loss and gradients.

    Returns:
        Scalar.
    """
    a, b, groups = _sorted(normalize(a), normalize(b), groups)
    scale, shift = 1 / _scalar(temperature, a), _scalar(bias, a)
    options = _Options(ranks, half)
    loss: torch.Tensor = _Sigmoid.apply(a, b, scale, shift, groups, options)  # type: ignore[no-untyped-call]
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
