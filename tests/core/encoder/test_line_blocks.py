import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.encoder import line_blocks
from mobclip_core.encoder.line import line_gradients
from mobclip_core.encoder.line_blocks import (
    deal,
    draw_noise,
    fill_noise,
    parts_of,
    rounds_of,
    train_block,
    train_blocks,
)

from .conftest import make_cells, make_graph, random_edges


def dealt(graph, parts, samples, seed=0, noise=None):
    noise = np.ones(len(graph.cells)) if noise is None else noise
    edges = (graph.indptr, graph.indices, graph.weight)
    return deal(
        *edges, noise, total=float(edges[2].sum()), samples=samples, parts=parts, random=np.random.default_rng(seed)
    )


@given(st.integers(1, 20), st.integers(1, 80), st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
def test_every_edge_has_its_share_of_samples_in_the_block_of_its_parts(n, edges, parts, seed):
    graph = make_graph(make_cells(n + 1, 1), random_edges(n + 1, edges, seed) or [(0, 1, 2.0)])
    samples = 500
    now = dealt(graph, parts, samples, seed)
    assert sorted(now.nodes.tolist()) == list(range(n + 1))
    part = np.empty(n + 1, dtype=int)
    for number in range(parts):
        part[now.nodes[now.bounds[number] : now.bounds[number + 1]]] = number
    for number in range(parts * parts):
        within = slice(now.starts[number], now.starts[number + 1])
        assert (part[now.source[within]] == number // parts).all()
        assert (part[now.target[within]] == number % parts).all()
    assert now.starts[-1] == samples
    source = np.repeat(np.arange(n + 1), np.diff(graph.indptr))
    counts = np.zeros((n + 1, n + 1))
    np.add.at(counts, (now.source, now.target), 1)
    # samples are spread evenly over the running weight: no edge is more than one off at either end
    expected = samples * graph.weight / graph.weight.sum()
    assert (np.abs(counts[source, graph.indices] - expected) <= 2).all()
    assert counts.sum() == counts[source, graph.indices].sum()


@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 99))
def test_rounds_visit_every_block_once_and_share_no_part(parts, seed):
    apart = list(rounds_of(parts, False, np.random.default_rng(seed)))
    assert sorted(pair for group in apart for pair in group) == [(i, j) for i in range(parts) for j in range(parts)]
    for group in apart:
        assert all(len(set(side)) == len(group) for side in zip(*group, strict=True))
    shared = list(rounds_of(parts, True, np.random.default_rng(seed)))
    assert sorted(pair for group in shared for pair in group) == [(i, j) for i in range(parts) for j in range(i, parts)]
    for group in shared:
        used = [part for pair in group for part in set(pair)]
        assert len(used) == len(set(used))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True), st.booleans())
def test_noise_is_drawn_by_its_weight(weights, u, compiled):
    weights = np.array(weights)
    if not weights.sum() > 0:
        weights[0] = 1.0
    n = len(weights)
    sums, guide = np.empty(n), np.zeros(n, dtype=np.int32)
    fill = fill_noise if compiled else fill_noise.py_func
    fill(weights, np.arange(n, dtype=np.int32), np.array([0, n]), sums, guide)
    found = (draw_noise if compiled else draw_noise.py_func)(sums, guide, u)
    assert found == min(np.searchsorted(sums, u * sums[-1], side="right"), n - 1)


def one_step(function, negatives, samples=1, seed=3):
    """Samples of one edge from node 0 to node 1, noise from nodes 1 and 2."""
    random = np.random.default_rng(seed)
    vertex, context = random.normal(size=(2, 3, 5)).astype(np.float32)
    before = vertex.copy(), context.copy()
    noise, guide, nodes = np.array([1.0, 2.0]), np.zeros(2, dtype=np.int32), np.array([1, 2], dtype=np.int32)
    source, target = np.zeros(samples, np.int32), np.ones(samples, np.int32)
    how = (negatives, 0.5, np.float32(0.1), np.uint64(7), line_blocks._SIGMOID)
    told = function(vertex, context, source, target, nodes, noise, guide, *how)
    return before, (vertex, context), told


@pytest.mark.parametrize("function", [train_block, train_block.py_func], ids=["compiled", "plain"])
def test_a_sample_follows_the_gradient_of_the_objective(function):
    (vertex, context), (new_vertex, new_context), (objective, told) = one_step(function, 0)
    source, targets = torch.from_numpy(vertex[:1]), torch.from_numpy(context[None, [1]])
    expected, by_source, by_targets = line_gradients(source, targets)
    np.testing.assert_allclose(new_vertex[0], vertex[0] - 0.1 * by_source[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(new_context[1], context[1] - 0.1 * by_targets[0, 0].numpy(), atol=1e-6)
    assert np.array_equal(new_vertex[1:], vertex[1:])
    assert np.array_equal(new_context[[0, 2]], context[[0, 2]])
    assert objective == pytest.approx(expected.item(), rel=1e-5)
    assert told == 1


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_number_of_threads_changes_no_bit(first, seed, monkeypatch):
    monkeypatch.setattr(line_blocks, "parts_of", lambda *_: 4)
    graph = make_graph(make_cells(40), random_edges(40, 200, seed))

    def trained(threads):
        vertex = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
        context = vertex if first else np.zeros_like(vertex)
        told = []
        how = {"samples": 4000, "passes": 3, "negatives": 3, "rate": lambda share: 0.05 * (1 - share), "seed": seed}
        noise = np.ones(40)
        train_blocks(graph, noise, vertex, context, told=lambda *values: told.append(values), threads=threads, **how)
        return vertex, context, told

    one, three = trained(1), trained(3)
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])
    assert one[2] == three[2]
    assert one[2][-1][0] == 1
    assert np.isfinite(one[0]).all()


def test_parts_follow_the_sizes_of_tables_and_passes():
    assert parts_of(10, 128, 10**6) == 1
    assert parts_of(200_000, 128, 100) == 1
    assert parts_of(10_000, 128, 10**6) == 8
    assert parts_of(50_000_000, 128, 10**9) == line_blocks._MOST_PARTS
