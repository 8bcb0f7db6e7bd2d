"""The mobility graph over all cells, as arrays on disk.

Belongs here: joining the edges of all regions into one compressed sparse row (CSR) matrix, choosing each node's
heaviest edges, opening the result without reading it. Does not belong here: learning from it (see `encoder`).

At import this module needs numpy alone, so that a training machine can open a graph.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobclip_core.errors import MissingTableError

if TYPE_CHECKING:
    from mobclip_core.deployment import Deployment, StepResult

_LOG = logging.getLogger(__name__)
_ARRAYS = {"cells": np.uint64, "indptr": np.int64, "indices": np.int32, "weight": np.float32, "keep": np.bool_}
BUNDLE = "mobility_graph"
"""Name of the bundle in the store."""


@dataclass(frozen=True)
class MobilityGraph:
    """A directed weighted graph over cells: CSR, row = source node, columns ascending within a row.

    Args:
        cells: uint64 H3 index of each node, ascending, shape (N,): all grid cells of all regions.
        indptr: int64, shape (N + 1,): edges of node i are at indptr[i] to indptr[i + 1].
        indices: int32 destination node of each edge, shape (E,).
        weight: float32 movements of each edge, shape (E,).
        keep: bool, shape (E,): the edge is among its source's heaviest, kept for propagation.
    """

    cells: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weight: np.ndarray
    keep: np.ndarray

    @property
    def nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.cells)

    @property
    def edges(self) -> int:
        """Number of edges, E."""
        return len(self.indices)

    def connected(self) -> np.ndarray:
        """Whether each node has an edge, in either direction: bool, shape (N,)."""
        touched = np.diff(self.indptr) > 0
        touched[self.indices] = True
        return touched


def open_graph(directory: Path) -> MobilityGraph:
    """Open a graph; its arrays are memory-mapped, nothing is read until used.

    Args:
        directory: Folder of the bundle, e.g. `store.bundle("mobility_graph")`.

    Raises:
        MissingTableError: If a file of the graph is not there.
    """
    arrays = {}
    for name in _ARRAYS:
        path = directory / f"{name}.npy"
        if not path.is_file():
            raise MissingTableError(f"{path} is not there; materialise mobility_graph again")
        arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    return MobilityGraph(**arrays)


def build_mobility_graph(deployment: Deployment) -> StepResult:
    """Join the edges of all regions into the bundle `mobility_graph`.

    Reads `grid_cells` and `mobility_edges` of every region of the profile. Nodes are all grid cells, ascending. With
    `mobility.directed: false` the matrix is A + A^T: both directions carry the sum (and a self-loop counts twice).

    Args:
        deployment: The deployment.

    Raises:
        MissingTableError: If a partition is not materialised.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.store import TableRef, Written

    config, store = deployment.profile.mobility, deployment.store
    regions = deployment.profile.regions.region_keys
    cells = np.sort(store.read_all("grid_cells", ["cell"], regions)["cell"].to_numpy())
    parts = []
    dropped, dropped_weight = 0, 0.0
    for region in regions:
        table = store.read(TableRef("mobility_edges", region), ["src", "dst", "weight"])
        src, dst, weight = (table[name].to_numpy() for name in ("src", "dst", "weight"))
        rows, columns = _nodes_of(cells, src), _nodes_of(cells, dst)
        known = (rows >= 0) & (columns >= 0)
        dropped += int((~known).sum())
        dropped_weight += float(weight[~known].sum())
        parts.append((rows[known], columns[known], weight[known]))
        _LOG.info("read %d edges of %s", table.num_rows, region)
    rows, columns, weight = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if not config.directed:
        rows, columns, weight = (np.concatenate(pair) for pair in ((rows, columns), (columns, rows), (weight, weight)))
    indptr, indices, summed = csr_from_edges(len(cells), rows, columns, weight)
    keep = heaviest_edges(indptr, summed, config.top_fraction, config.min_edges)
    graph = MobilityGraph(cells, indptr, indices, summed, keep)
    counts = _counts(graph) | {"edges_outside_grid": dropped, "weight_outside_grid": dropped_weight}
    settings = {"directed": config.directed, "top_fraction": config.top_fraction, "min_edges": config.min_edges}
    written: list[Written] = []
    with store.write_bundle(BUNDLE, written) as folder:
        for name, dtype in _ARRAYS.items():
            np.save(folder / f"{name}.npy", getattr(graph, name).astype(dtype, copy=False), allow_pickle=False)
        text = json.dumps(settings | counts, indent=2, sort_keys=True)
        (folder / "graph.json").write_text(text + "\n", encoding="utf-8")
    _LOG.info("graph of %d nodes, %d edges, %d kept", graph.nodes, graph.edges, counts["edges_kept"])
    return StepResult(written[0], dict(counts), markdown={"Edges of a node": _degree_markdown(graph)})


def csr_from_edges(
    nodes: int, rows: np.ndarray, columns: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges in any order as CSR; edges that repeat are summed, so that the order of the input changes no bit.

    Args:
        nodes: Number of nodes, N.
        rows: Source node of each edge, shape (M,).
        columns: Destination node, shape (M,).
        weight: Weight, shape (M,).

    Returns:
        indptr int64 (N + 1,), indices int32 (E,), weight float32 (E,).
    """
    key = rows.astype(np.int64) * nodes + columns
    # the weight is part of the order: floating sums depend on it
    order = np.lexsort((weight, key))
    key, weight = key[order], np.asarray(weight, dtype=np.float64)[order]
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[1:] != key[:-1]
    starts = np.flatnonzero(first)
    summed = np.add.reduceat(weight, starts) if len(starts) else weight
    key = key[starts]
    indptr = np.zeros(nodes + 1, dtype=np.int64)
    if nodes:
        np.cumsum(np.bincount(key // nodes, minlength=nodes), out=indptr[1:])
    return indptr, (key % max(nodes, 1)).astype(np.int32), summed.astype(np.float32)


def heaviest_edges(indptr: np.ndarray, weight: np.ndarray, top_fraction: float, min_edges: int) -> np.ndarray:
    """Which edges of each node are among its heaviest: ceil(top_fraction x degree) of them, at least `min_edges`.

    Edges of equal weight are taken by ascending destination. (The paper keeps the top 10% of each node's edges.)

    Args:
        indptr: CSR row starts, shape (N + 1,).
        weight: Weights, destinations ascending within a row, shape (E,).
        top_fraction: Fraction in (0, 1].
        min_edges: Edges kept however few the fraction gives.

    Returns:
        bool, shape (E,).
    """
    degree = np.diff(indptr)
    row = np.repeat(np.arange(len(degree)), degree)
    # the sort is stable: equal weights stay in the order of their destinations
    order = np.lexsort((-weight, row))
    rank = np.arange(len(row)) - indptr[row]
    # 0.1 x 30 is a hair above 3 in floating point; it means 3
    limit = np.maximum(np.ceil(top_fraction * degree - 1e-9), min_edges)
    keep = np.zeros(len(row), dtype=bool)
    keep[order] = rank < limit[row]
    return keep


def _nodes_of(cells: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Node number of each cell, int32; -1 for a cell that is no node."""
    if not len(cells):
        return np.full(len(wanted), -1, dtype=np.int32)
    found = np.minimum(np.searchsorted(cells, wanted), len(cells) - 1)
    return np.where(cells[found] == wanted, found, -1).astype(np.int32)


def _counts(graph: MobilityGraph) -> dict[str, int | float]:
    return {
        "nodes": graph.nodes,
        "edges": graph.edges,
        "edges_kept": int(graph.keep.sum()),
        "isolated_nodes": int((~graph.connected()).sum()),
        "total_weight": float(graph.weight.sum(dtype=np.float64)),
    }


def _degree_markdown(graph: MobilityGraph) -> str:
    degree = np.diff(graph.indptr)
    kept = np.bincount(np.repeat(np.arange(graph.nodes), degree)[graph.keep], minlength=graph.nodes)
    lines = ["| edges of a node | lowest | median | highest |", "| --- | ---: | ---: | ---: |"]
    for name, values in (("all", degree), ("kept", kept)):
        low, middle, high = np.quantile(values, [0, 0.5, 1]) if len(values) else (0, 0, 0)
        lines.append(f"| {name} | {low:,.0f} | {middle:,.0f} | {high:,.0f} |")
    return "\n".join(lines)
