import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MissingTableError
from mobclip_core.mobility.graph import build_mobility_graph, csr_from_edges, heaviest_edges, open_graph
from mobclip_core.store import TableRef
from tests import lake as lakes

CELLS = lakes.disk(40.7, -74.0, 1)  # 7 cells
HERE, THERE = CELLS[1::2], CELLS[::2]  # the regions alternate in the order of nodes
FAR = lakes.disk(45.0, -74.0, 0)[0]


def write_edges(lake, region, edges):
    rows = sorted((src, dst, weight) for (src, dst), weight in edges.items())
    table = pa.table(
        {
            "src": pa.array([r[0] for r in rows], pa.uint64()),
            "dst": pa.array([r[1] for r in rows], pa.uint64()),
            "weight": pa.array([r[2] for r in rows], pa.float64()),
            "people": pa.array([9.0] * len(rows), pa.float64()),
        }
    )
    lake.store.write(TableRef("mobility_edges", region), table)


def world(folder, here, there, **mobility):
    lake = lakes.deployment(folder, ["here", "there"], mobility=mobility)
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    write_edges(lake, "here", here)
    write_edges(lake, "there", there)
    return lake


def graph_of(lake):
    result = build_mobility_graph(lake)
    return result, open_graph(lake.store.bundle("mobility_graph"))


def dense(graph, mask=slice(None)):
    matrix = np.zeros((graph.nodes, graph.nodes))
    rows = np.repeat(np.arange(graph.nodes), np.diff(graph.indptr))
    matrix[rows[mask], graph.indices[mask]] = graph.weight[mask]
    return matrix


def test_the_edges_of_all_regions_become_one_matrix_over_all_cells(tmp_path):
    n = CELLS
    lake = world(tmp_path, {(n[1], n[0]): 2.0, (n[1], n[5]): 1.5, (n[3], n[3]): 4.0}, {(n[0], n[1]): 3.0})
    result, graph = graph_of(lake)
    assert graph.cells.tolist() == CELLS
    assert graph.indptr.tolist() == [0, 1, 3, 3, 4, 4, 4, 4]
    assert graph.indices.tolist() == [1, 0, 5, 3]
    assert graph.weight.tolist() == [3, 2, 1.5, 4]
    assert graph.connected().tolist() == [True, True, False, True, False, True, False]
    assert (graph.nodes, graph.edges) == (7, 4)
    expected = {
        "nodes": 7,
        "edges": 4,
        "edges_kept": 4,
        "isolated_nodes": 3,
        "total_weight": 10.5,
        "edges_outside_grid": 0,
    }
    assert {key: result.counts[key] for key in expected} == expected


def test_types_and_files_are_as_documented_and_memory_mapped(tmp_path):
    lake = world(tmp_path, {(CELLS[1], CELLS[0]): 2.0}, {})
    _, graph = graph_of(lake)
    types = {name: getattr(graph, name).dtype for name in ("cells", "indptr", "indices", "weight", "keep")}
    assert types == {
        "cells": np.uint64,
        "indptr": np.int64,
        "indices": np.int32,
        "weight": np.float32,
        "keep": np.bool_,
    }
    assert all(isinstance(getattr(graph, name), np.memmap) for name in types)
    folder = lake.store.bundle("mobility_graph")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(f"{name}.npy" for name in types), "graph.json"])
    assert json.loads((folder / "graph.json").read_text())["top_fraction"] == 0.1


def test_edges_whose_end_is_no_node_are_dropped_and_counted(tmp_path):
    lake = world(tmp_path, {(CELLS[1], FAR): 2.0, (CELLS[1], CELLS[2]): 1.0}, {})
    result, graph = graph_of(lake)
    assert graph.edges == 1
    assert (result.counts["edges_outside_grid"], result.counts["weight_outside_grid"]) == (1, 2.0)


def test_undirected_adds_the_transpose(tmp_path):
    n = CELLS
    here, there = {(n[1], n[0]): 2.0, (n[1], n[2]): 1.0, (n[3], n[3]): 4.0}, {(n[0], n[1]): 3.0}
    directed = dense(graph_of(world(tmp_path / "a", here, there))[1])
    result, graph = graph_of(world(tmp_path / "b", here, there, directed=False))
    np.testing.assert_array_equal(dense(graph), directed + directed.T)
    assert result.counts["total_weight"] == 20


def test_pruning_keeps_the_heaviest_edges_of_each_node(tmp_path):
    n = CELLS
    weights = {(n[1], n[j]): w for j, w in enumerate([5.0, 1.0, 3.0, 3.0, 2.0, 4.0, 3.0])}
    lake = world(tmp_path, weights | {(n[3], n[0]): 1.0}, {}, top_fraction=0.5, min_edges=1, self_loops=True)
    _, graph = graph_of(lake)
    # ceil(7 / 2) = 4 of node 1: 5, 4, and two of the three 3s, lower destinations first; node 3's one edge
    kept = dense(graph, np.asarray(graph.keep))
    assert kept[1].tolist() == [5, 0, 3, 3, 0, 4, 0]
    assert kept[3].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert graph.keep.sum() == 5


@pytest.mark.parametrize(
    ("degree", "top_fraction", "min_edges", "kept"),
    [
        (30, 0.1, 1, 3),
        (31, 0.1, 1, 4),
        (70, 0.1, 1, 7),
        (30, 0.1, 8, 8),
        (5, 0.1, 8, 5),
        (9, 1.0, 1, 9),
        (1, 0.001, 1, 1),
    ],
)
def test_how_many_edges_are_kept(degree, top_fraction, min_edges, kept):
    weight = np.arange(degree, dtype=np.float32)
    keep = heaviest_edges(np.array([0, degree]), weight, top_fraction, min_edges)
    assert keep.sum() == kept
    assert keep[-kept:].all()


def test_no_edges_and_no_cells(tmp_path):
    result, graph = graph_of(world(tmp_path, {}, {}))
    assert (graph.nodes, graph.edges) == (7, 0)
    assert result.counts["isolated_nodes"] == 7
    lake = lakes.deployment(tmp_path / "empty", ["here"])
    lakes.write_grid(lake, "here", [])
    write_edges(lake, "here", {(FAR, FAR): 1.0})
    result, graph = graph_of(lake)
    assert (graph.nodes, graph.edges) == (0, 0)
    assert result.counts["edges_outside_grid"] == 1


def test_a_missing_partition_is_named(tmp_path):
    lake = lakes.deployment(tmp_path, ["here", "there"])
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    write_edges(lake, "here", {})
    with pytest.raises(MissingTableError, match=r"mobility_edges\[there\]"):
        build_mobility_graph(lake)


def test_an_incomplete_bundle_is_an_error(tmp_path):
    lake = world(tmp_path, {}, {})
    build_mobility_graph(lake)
    folder = lake.store.bundle("mobility_graph")
    (folder / "keep.npy").unlink()
    with pytest.raises(MissingTableError, match=r"keep\.npy"):
        open_graph(folder)


def test_opening_a_graph_needs_numpy_alone():
    code = (
        "import sys, mobclip_core.mobility.graph;"
        "loaded = {'duckdb', 'pydantic', 'h3', 'pyarrow', 'geopandas', 'torch', 'fsspec', 'pandas'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(1e-6, 1e6)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(EDGES, st.floats(0.01, 1.0), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_order_of_edges_changes_no_byte_and_mass_is_kept(edges, top_fraction, min_edges, random):
    def build(rows):
        src, dst, weight = (np.array([row[i] for row in rows]) for i in range(3))
        csr = csr_from_edges(6, src.astype(np.int32), dst.astype(np.int32), weight.astype(float))
        return (*csr, heaviest_edges(csr[0], csr[2], top_fraction, min_edges))

    indptr, indices, weight, keep = build(edges)
    shuffled = list(edges)
    random.shuffle(shuffled)
    assert [part.tobytes() for part in build(shuffled)] == [part.tobytes() for part in (indptr, indices, weight, keep)]
    expected = np.zeros((6, 6))
    for src, dst, w in edges:
        expected[src, dst] += w
    matrix = np.zeros((6, 6))
    matrix[np.repeat(np.arange(6), np.diff(indptr)), indices] = weight
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)
    for node in range(6):
        row = slice(indptr[node], indptr[node + 1])
        assert (np.diff(indices[row]) > 0).all()
        degree = indptr[node + 1] - indptr[node]
        assert keep[row].sum() == min(degree, max(np.ceil(top_fraction * degree - 1e-9), min_edges))
        if degree and not keep[row].all():
            assert weight[row][keep[row]].min() >= weight[row][~keep[row]].max()


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(7)))
def test_which_region_a_cell_is_in_changes_no_byte(tmp_path_factory, order):
    edges = {(CELLS[i], CELLS[j]): float(1 + (i * 3 + j) % 5) for i in range(7) for j in range(7) if (i + j) % 3}
    versions = set()
    for split in (HERE, [CELLS[i] for i in order[:3]]):
        lake = lakes.deployment(tmp_path_factory.mktemp("graph"), ["here", "there"])
        rest = [cell for cell in CELLS if cell not in split]
        for region, cells in (("here", split), ("there", rest)):
            lakes.write_grid(lake, region, cells)
            write_edges(lake, region, {edge: weight for edge, weight in edges.items() if edge[0] in cells})
        versions.add(build_mobility_graph(lake).written.data_version)
    assert len(versions) == 1
