"""LightGCN: vectors spread over the mobility graph.

Belongs here: the normalised adjacency and its product with a table of vectors. Does not belong here: what the vectors
are (see `modules`) and how the graph is built (see `mobility.graph`).

Source: He et al., "LightGCN", SIGIR 2020, equations 3 to 8 (https://arxiv.org/abs/2002.02126).
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree
from torch_geometric.utils import coalesce, to_undirected

from mobclip_core.encoder.line import Graph
from mobclip_core.encoder.ranks import ALONE, Ranks
from mobclip_core.sphere import unit_vectors

_NEIGHBOURS = 6
_NEIGHBOUR_REACH = 1.2
"""Centres of adjacent H3 cells lie within this multiple of the median distance to the nearest centre."""


@dataclass(frozen=True)
class RowBlock:
    """Some rows of an adjacency and their transpose.

    Args:
        index: Rows chosen, counted among the adjacency's own, int64 (B,).
        matrix: (B, N) sparse CSR tensor.
        transpose: (N, B) sparse CSR tensor.
    """

    index: torch.Tensor
    matrix: torch.Tensor
    transpose: torch.Tensor


@dataclass(frozen=True)
class Adjacency:
    """A sparse square matrix and its transpose, both in CSR form; or a stretch of the rows of both.

    The transpose is kept because the backward pass multiplies by it; converting at every step is the classic slowness.

    Args:
        matrix: (N, N) sparse CSR tensor, or (n, N): rows of A.
        transpose: (N, N) sparse CSR tensor, or (n, N): the same rows of the transpose of A.
    """

    matrix: torch.Tensor
    transpose: torch.Tensor

    @property
    def num_edges(self) -> int:
        """Entries stored."""
        return int(self.matrix.values().numel())

    def to(self, device: torch.device) -> "Adjacency":
        """The same matrix on another device."""
        return Adjacency(self.matrix.to(device), self.transpose.to(device))

    def stretch(self, rows: slice) -> "Adjacency":
        """The rows given of the matrix and of its transpose."""
        return Adjacency(_stretch(self.matrix, rows), _stretch(self.transpose, rows))

    def rows(self, index: torch.Tensor) -> RowBlock:
        """The rows of a batch, each once.

        Args:
            index: Rows, int64 (B,).
        """
        if self.matrix.device.type == "cpu":
            # scipy transposes by counting: a tenth of the time that torch takes to sort
            whole = sparse.csr_array(
                (self.matrix.values().numpy(), self.matrix.col_indices().numpy(), self.matrix.crow_indices().numpy()),
                shape=tuple(self.matrix.shape),
            )
            chosen = whole[index.numpy()]
            turned = chosen.T.tocsr()
            return RowBlock(index, _of_scipy(chosen), _of_scipy(turned))
        return _rows_on_device(self.matrix, index)

    def reached(self, nodes: np.ndarray, steps: int) -> np.ndarray:
        """Nodes whose vectors decide those of the nodes given after so many layers, sorted, these included.

        Args:
            nodes: Node numbers, (n,).
            steps: Number of layers.

        Returns:
            int64 (m,).
        """
        indptr, indices = self.matrix.crow_indices().numpy(), self.matrix.col_indices().numpy()
        found = np.zeros(len(indptr) - 1, dtype=bool)
        found[nodes] = True
        for _ in range(steps):
            found[indices[_entries(indptr, np.flatnonzero(found))]] = True
        return np.flatnonzero(found)

    def among(self, nodes: np.ndarray) -> "Adjacency":
        """The entries between the nodes given, numbered anew in their order.

        Args:
            nodes: Node numbers, sorted, (m,).
        """
        indptr, indices = self.matrix.crow_indices().numpy(), self.matrix.col_indices().numpy()
        number = np.full(len(indptr) - 1, -1, dtype=np.int64)
        number[nodes] = np.arange(len(nodes))
        entries = _entries(indptr, nodes)
        row = np.repeat(np.arange(len(nodes)), np.diff(indptr)[nodes])
        column = number[indices[entries]]
        inside = column >= 0
        edge_index = torch.from_numpy(np.stack([row[inside], column[inside]]))
        return adjacency_of([(edge_index, self.matrix.values()[torch.from_numpy(entries[inside])])], len(nodes))


def _entries(indptr: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Positions of all entries of some rows of a CSR matrix, row after row."""
    lengths = np.diff(indptr)[rows].astype(np.int64)
    starts = np.repeat(indptr[rows].astype(np.int64) - np.cumsum(lengths) + lengths, lengths)
    return np.asarray(starts + np.arange(lengths.sum()))


def _csr_tensor(
    indptr: torch.Tensor, column: torch.Tensor, value: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
        # int32 indices halve the traffic of a bandwidth-bound product
        return torch.sparse_csr_tensor(
            indptr.to(torch.int32), column.to(torch.int32), value, size=shape, check_invariants=False
        )


def _of_scipy(matrix: "sparse.csr_array") -> torch.Tensor:
    indptr, column, value = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    return _csr_tensor(indptr, column, value, matrix.shape)


def _stretch(matrix: torch.Tensor, rows: slice) -> torch.Tensor:
    indptr = matrix.crow_indices()[rows.start : rows.stop + 1]
    entries = slice(int(indptr[0]), int(indptr[-1]))
    shape = (rows.stop - rows.start, matrix.shape[1])
    return _csr_tensor(indptr - indptr[0], matrix.col_indices()[entries], matrix.values()[entries], shape)


def _rows_on_device(matrix: torch.Tensor, index: torch.Tensor) -> RowBlock:
    """`Adjacency.rows` in torch's own operations: nothing leaves the device."""
    indptr, column = matrix.crow_indices().to(torch.int64), matrix.col_indices()
    length = indptr[index + 1] - indptr[index]
    ends = torch.cumsum(length, 0)
    row = torch.repeat_interleave(torch.arange(len(index), device=index.device), length)
    entry = torch.arange(len(row), device=index.device) + (indptr[index] - ends + length)[row]
    column, value = column[entry].to(torch.int64), matrix.values()[entry]
    zero = ends.new_zeros(1)
    block = _csr_tensor(torch.cat([zero, ends]), column, value, (len(index), matrix.shape[1]))
    order = torch.argsort(column, stable=True)
    by_column = torch.cumsum(torch.bincount(column, minlength=matrix.shape[1]), 0)
    turned = _csr_tensor(torch.cat([zero, by_column]), row[order], value[order], (matrix.shape[1], len(index)))
    return RowBlock(index, block, turned)


class _LightGCN(torch.autograd.Function):
    """The sum of layers 0 to L at some rows, by Horner's rule: L - 1 products with the matrix, one with its rows.

    Z = X + A (X + A (X + ...)): the sums over layers cost no pass of their own, and nothing is kept for the backward
    pass, which is the same rule with the transposes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, adjacency: Adjacency, rows: RowBlock, layers: int, ranks: Ranks
    ) -> torch.Tensor:
        ctx.adjacency, ctx.rows, ctx.layers, ctx.ranks = adjacency, rows, layers, ranks
        if layers == 0:
            return x[rows.index]
        y = x
        for _ in range(layers - 1):
            y = torch.addmm(x, adjacency.matrix, ranks.gather(y))
        return torch.addmm(x[rows.index], rows.matrix, ranks.gather(y))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        adjacency, rows, ranks = ctx.adjacency, ctx.rows, ctx.ranks
        gradient = gradients[0].contiguous()
        by_x = gradient.new_zeros((len(adjacency.matrix), gradient.shape[1]))
        by_x.index_add_(0, rows.index, gradient)
        if ctx.layers > 0:
            whole = ranks.sum(rows.transpose @ gradient)
            own = ranks.own(whole)
            by_x += own
            for layer in range(ctx.layers - 1):
                if layer > 0:
                    whole = ranks.gather(own)
                own = adjacency.transpose @ whole
                by_x += own
        return by_x, None, None, None, None


def _csr(edge_index: torch.Tensor, value: torch.Tensor, n: int) -> torch.Tensor:
    """CSR from entries (2, E) that are sorted by row."""
    row, col = edge_index
    indptr = torch.zeros(n + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(row, minlength=n), 0, out=indptr[1:])
    return _csr_tensor(indptr, col, value, (n, n))


def normalised_adjacency(
    edge_index: torch.Tensor, weight: torch.Tensor, num_nodes: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Symmetric normalisation that is right for directed flows.

    .. math:: \hat A = D_{out}^{-1/2} A D_{in}^{-1/2}

    On an undirected graph both degrees agree and this is LightGCN's normalisation.

    Args:
        edge_index: Source and destination, int64 (2, E); repeated pairs add up.
        weight: Weights above zero, (E,).
        num_nodes: N.
        dtype: Type of the result.

    Returns:
        Edge index sorted by source, and the weights normalised (in float64, then cast).
    """
    edge_index, weight = coalesce(edge_index, weight.to(torch.float64), num_nodes)
    out = torch.zeros(num_nodes, dtype=torch.float64).index_add_(0, edge_index[0], weight)
    into = torch.zeros(num_nodes, dtype=torch.float64).index_add_(0, edge_index[1], weight)
    return edge_index, (weight / (out[edge_index[0]] * into[edge_index[1]]).sqrt()).to(dtype)


def adjacency_of(parts: Iterable[tuple[torch.Tensor, torch.Tensor]], num_nodes: int) -> Adjacency:
    """The sum of normalised edge lists as one matrix with its transpose.

    Args:
        parts: Edge index (2, E) and weights (E,) of each part.
        num_nodes: N.
    """
    indices, weights = zip(*parts, strict=True)
    edge_index, weight = coalesce(torch.cat(indices, 1), torch.cat(weights), num_nodes)
    by_col, by_col_weight = coalesce(edge_index.flip(0), weight, num_nodes)
    return Adjacency(_csr(edge_index, weight, num_nodes), _csr(by_col, by_col_weight, num_nodes))


def neighbour_edges(lon: np.ndarray, lat: np.ndarray) -> torch.Tensor:
    """Edges between adjacent cells, both directions, from the cells' centres alone.

    Args:
        lon: Degrees, (N,).
        lat: Degrees, (N,).

    Returns:
        int64 (2, E): up to six nearest centres of each, within 1.2 times the median spacing (border cells have fewer).
    """
    n = len(lon)
    if n < 2:
        return torch.zeros(2, 0, dtype=torch.int64)
    points = unit_vectors(lon, lat)
    distance, other = cKDTree(points).query(points, k=min(_NEIGHBOURS, n - 1) + 1)
    distance, other = distance[:, 1:], other[:, 1:]
    near = distance <= _NEIGHBOUR_REACH * np.median(distance[:, 0])
    source = np.broadcast_to(np.arange(n)[:, None], other.shape)[near]
    edges = torch.from_numpy(np.stack([source, other[near]]).astype(np.int64))
    both: torch.Tensor = to_undirected(edges, num_nodes=n)
    return both


def graph_adjacency(
    graph: Graph,
    *,
    directed: bool = True,
    spatial: torch.Tensor | None = None,
    spatial_weight: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Adjacency:
    """The matrix that the encoder propagates with.

    Args:
        graph: Mobility graph; only edges with `keep` take part.
        directed: Keep the direction of flows; else an edge kept in either direction counts in both.
        spatial: Edges between adjacent cells, int64 (2, E), see `neighbour_edges`.
        spatial_weight: Weight of the spatial matrix beside the mobility matrix, each normalised by itself, so that
            heavy flows cannot drown it.
        dtype: Type of the weights.
    """
    n = len(graph.cells)
    keep = np.asarray(graph.keep) & (np.asarray(graph.weight) > 0)
    source = np.repeat(np.arange(n, dtype=np.int64), np.diff(graph.indptr))[keep]
    edge_index = torch.from_numpy(np.stack([source, np.asarray(graph.indices)[keep].astype(np.int64)]))
    weight = torch.from_numpy(np.asarray(graph.weight)[keep].astype(np.float64))
    if not directed:
        edge_index, weight = to_undirected(edge_index, weight, num_nodes=n, reduce="max")
    parts = [normalised_adjacency(edge_index, weight, n, dtype)]
    if spatial is not None and spatial_weight > 0:
        index, value = normalised_adjacency(spatial, torch.ones(spatial.shape[1]), n, dtype)
        parts.append((index, spatial_weight * value))
    return adjacency_of(parts, n)


class LightGCN(torch.nn.Module):
    r"""Propagation without weights of its own, from `LightGCN <https://arxiv.org/abs/2002.02126>`_.

    .. math:: \mathbf Z = \sum_{l=0}^{L} \mathbf H^{(l)}, \quad \mathbf H^{(l+1)} = \hat A \mathbf H^{(l)}

    A node without edges keeps its own vector alone.

    Args:
        num_layers: L (the paper: 2).

    Shapes:
        - **input:** node vectors (N, d), adjacency (N, N)
        - **output:** (N, d), or (B, d) with `rows`
    """

    def __init__(self, num_layers: int = 2) -> None:
        super().__init__()
        self.num_layers = num_layers

    def forward(
        self, x: torch.Tensor, adjacency: Adjacency, rows: RowBlock | None = None, ranks: Ranks = ALONE
    ) -> torch.Tensor:
        """Sum of the layers 0 to L.

        Args:
            x: Vectors of the nodes (of this rank), (n, d).
            adjacency: Their rows.
            rows: Compute these rows only, `adjacency.rows(...)`: the last layer, forward and backward, costs their
                entries alone.
            ranks: The processes that the nodes are spread over.
        """
        if rows is None:
            every = torch.arange(len(x), device=x.device)
            rows = RowBlock(every, adjacency.matrix, adjacency.transpose)
            if ranks.size > 1:
                rows = adjacency.rows(every)
        z: torch.Tensor = _LightGCN.apply(x, adjacency, rows, self.num_layers, ranks)  # type: ignore[no-untyped-call]
        return z

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_layers={self.num_layers})"
