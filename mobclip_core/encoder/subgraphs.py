"""Parts of a graph: among some of its nodes, or without the edges of some.

Belongs here: renumbering nodes and edges. Does not belong here: normalised matrices (see `propagation`), the choice of
the nodes (see `embedding`, `validation`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mobclip_core.encoder.line import Graph


@dataclass(frozen=True)
class Subgraph:
    """The part of a graph among some of its nodes; fields as of `line.Graph`."""

    cells: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weight: np.ndarray
    keep: np.ndarray


def graph_among(graph: "Graph", cells: np.ndarray) -> "Graph":
    """The graph over other cells: edges between cells of both, in the same order; a cell that is new has none.

    Args:
        graph: "Graph", its cells ascending.
        cells: uint64 (M,), ascending.
    """
    if np.array_equal(graph.cells, cells):
        return graph
    number = positions(cells, np.asarray(graph.cells))
    source = np.repeat(number, np.diff(graph.indptr))
    target = number[graph.indices]
    kept = (source >= 0) & (target >= 0)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(source[kept], minlength=len(cells)))]).astype(np.int64)
    indices = target[kept].astype(np.int32)
    return Subgraph(cells, indptr, indices, np.asarray(graph.weight)[kept], np.asarray(graph.keep)[kept])


def positions(cells: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each cell wanted stands among cells without repetition: int64, -1 where it is not there."""
    order = np.argsort(cells, kind="stable")
    at = np.searchsorted(cells, wanted, sorter=order)
    found = np.full(len(wanted), -1, dtype=np.int64)
    inside = at < len(cells)
    found[inside] = order[at[inside]]
    found[inside] = np.where(cells[found[inside]] == wanted[inside], found[inside], -1)
    return found


def edges_among(edges: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The edges (2, E) between nodes that have a new number, renumbered; `number` (N,) is -1 for the others."""
    renumbered = number[edges]
    return np.asarray(renumbered[:, (renumbered >= 0).all(axis=0)])


def graph_without(graph: "Graph", nodes: np.ndarray) -> "Graph":
    """The graph over the same cells without the edges from and to some nodes, bool (N,)."""
    source = np.repeat(np.arange(len(nodes)), np.diff(graph.indptr))
    return graph_with(graph, ~nodes[source] & ~nodes[graph.indices])


def graph_with(graph: "Graph", kept: np.ndarray) -> "Graph":
    """The graph over the same cells with some of its edges, bool (E,)."""
    before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    arrays = (np.asarray(part)[kept] for part in (graph.indices, graph.weight, graph.keep))
    return Subgraph(np.asarray(graph.cells), before[np.asarray(graph.indptr)], *arrays)
