"""Several processes as one: who holds which nodes, and the sums and gathers between them.

Belongs here: every collective operation of the encoder. Does not belong here: what is computed between them (see
`propagation`, `tiled`, `training`) and the start of the processes (see `launch`).

Each process (rank) holds the rows of a stretch of the nodes: of the node table, of the adjacency and of its transpose,
and the features. A layer gathers the vectors of all nodes; the loss gathers the batch. One process is the case in which
every operation here does nothing.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

Rows = TypeVar("Rows", torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Args:
        rank: Number of this process.
        size: Number of processes.
        bounds: First node of each rank, and N, shape (size + 1,).
    """

    rank: int
    size: int
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, load: np.ndarray) -> "Ranks":
        """The processes of `torch.distributed`'s default group (one where there is none).

        Args:
            load: Work that each node means, (N,): stretches of nodes are cut so that they mean about the same.
        """
        if not _in_a_group():
            return cls(0, 1, (0, len(load)))
        size = dist.get_world_size()
        whole = np.concatenate([[0.0], np.cumsum(load, dtype=np.float64)])
        bounds = np.searchsorted(whole, whole[-1] * np.arange(1, size) / size)
        return cls(dist.get_rank(), size, (0, *map(int, bounds), len(load)))

    @property
    def nodes(self) -> slice:
        """The nodes of this rank."""
        return slice(self.bounds[self.rank], self.bounds[self.rank + 1])

    def own(self, rows: Rows) -> Rows:
        """Of the rows of all nodes, (N, ...), those of this rank."""
        return rows if self.size == 1 else rows[self.nodes]

    def among(self, index: torch.Tensor) -> torch.Tensor:
        """Positions in `index` (node numbers) of this rank's nodes."""
        own: torch.Tensor = (index >= self.nodes.start) & (index < self.nodes.stop)
        return own.nonzero().squeeze(1)

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all nodes, (N, ...), from this rank's. Not differentiable."""
        if self.size == 1:
            return rows
        lengths = np.diff(self.bounds)
        # gloo gathers tensors of one length
        padded = rows.new_zeros((int(lengths.max()), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """`value` summed over the ranks, in place. Not differentiable."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def highest(self, value: torch.Tensor) -> torch.Tensor:
        """The largest `value` of the ranks, element by element, in place. Not differentiable."""
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    def assemble(self, rows: torch.Tensor, position: torch.Tensor, length: int) -> torch.Tensor:
        """A batch whose rows lie on several ranks, on all of them.

        Args:
            rows: Rows of this rank, (b, d).
            position: Their place in the batch, int64 (b,).
            length: Rows of the batch, B.

        Returns:
            (B, d). Its gradient must be the same on all ranks; each takes that of its rows.
        """
        if self.size == 1:
            return rows
        whole: torch.Tensor = _Assembled.apply(rows, position, length, self)  # type: ignore[no-untyped-call]
        return whole

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """`value` summed over the ranks; its gradient flows to each rank's part."""
        if self.size == 1:
            return value
        summed: torch.Tensor = _Total.apply(value, self)  # type: ignore[no-untyped-call]
        return summed

    def strip(self, length: int) -> slice:
        """This rank's part of `length` rows that every rank holds."""
        return slice(length * self.rank // self.size, length * (self.rank + 1) // self.size)


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def first_rank() -> bool:
    """Whether this process writes for all."""
    return not _in_a_group() or dist.get_rank() == 0


ALONE = Ranks(0, 1, (0, 0))
"""One process, where the nodes do not matter."""


class _Assembled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, position: torch.Tensor, length: int, ranks: Ranks) -> torch.Tensor:
        ctx.save_for_backward(position)
        whole = rows.new_zeros((length, *rows.shape[1:]))
        whole[position] = rows
        return ranks.sum(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (position,) = ctx.saved_tensors
        return gradients[0][position], None, None, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        return ranks.sum(value.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None
