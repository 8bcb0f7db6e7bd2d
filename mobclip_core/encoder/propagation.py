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
from scipy.spatial import cKDTree
from torch_geometric.utils import coalesce, to_undirected

from mobclip_core.encoder.line import Graph

_NEIGHBOURS = 6
_NEIGHBOUR_REACH = 1.2
"""Centres of adjacent H3 cells lie within this multiple of the median distance to the nearest centre."""


@dataclass(frozen=True)
class Adjacency:
    """A sparse square matrix and its transpose, both in CSR form.

    The transpose is kept because the backward pass multiplies by it; converting at every step is the classic slowness.

    Args:
        matrix: (N, N) sparse CSR tensor.
        transpose: (N, N) sparse CSR tensor.
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


class _Product(torch.autograd.Function):
    """`A @ x` whose backward pass is one product with the stored transpose."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        ctx.adjacency = adjacency
        return adjacency.matrix @ x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.adjacency.transpose @ gradients[0].contiguous(), None


def propagate(adjacency: Adjacency, x: torch.Tensor) -> torch.Tensor:
    """One layer: the product of the adjacency (N, N) and a table of vectors (N, d)."""
    product: torch.Tensor = _Product.apply(x, adjacency)  # type: ignore[no-untyped-call]
    return product


def _csr(edge_index: torch.Tensor, value: torch.Tensor, n: int) -> torch.Tensor:
    """CSR from entries (2, E) that are sorted by row."""
    row, col = edge_index
    indptr = torch.zeros(n + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(row, minlength=n), 0, out=indptr[1:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
        # int32 indices halve the traffic of a bandwidth-bound product
        return torch.sparse_csr_tensor(
            indptr.to(torch.int32), col.to(torch.int32), value, size=(n, n), check_invariants=False
        )


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
    x, y = np.radians(lon), np.radians(lat)
    points = np.column_stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])
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
        - **output:** (N, d)
    """

    def __init__(self, num_layers: int = 2) -> None:
        super().__init__()
        self.num_layers = num_layers

    def forward(self, x: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        """Sum of the layers 0 to L."""
        total = x
        for _ in range(self.num_layers):
            x = propagate(adjacency, x)
            total = total + x
        return total

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_layers={self.num_layers})"
