import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.encoder import line_blocks
from mobclip_core.encoder.line import line_gradients
from mobclip_core.encoder.line_blocks import cut, draw_noise, parts_of, rounds_of, train_block, train_blocks

from .conftest import make_cells, make_graph, random_edges


def edges_of(graph):
    source = np.repeat(np.arange(len(graph.cells)), np.diff(graph.indptr))
    return sorted(zip(source.tolist(), graph.indices.tolist(), graph.weight.tolist(), strict=True))


def blocks_of(graph, parts, seed=0, noise=None):
    n = len(graph.cells)
    noise = np.ones(n) if noise is None else noise
    return cut(graph.indptr, graph.indices, graph.weight, noise, parts, seed)


@given(st.integers(1, 20), st.integers(0, 80), st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
def test_every_edge_is_in_the_block_of_its_parts(n, edges, parts, seed):
    graph = make_graph(make_cells(n, 1), random_edges(n, edges, seed))
    blocks = blocks_of(graph, parts, seed)
    node = np.argsort(blocks.place)
    found = []
    for number in range(parts * parts):
        within = slice(blocks.starts[number], blocks.starts[number + 1])
        for side, part in ((blocks.source[within], number // parts), (blocks.target[within], number % parts)):
            assert ((side >= blocks.bounds[part]) & (side < blocks.bounds[part + 1])).all()
        assert (np.diff(blocks.source[within]) >= 0).all()
        assert blocks.total[number] == pytest.approx(blocks.weight[within].sum())
        ends = (node[blocks.source[within]].tolist(), node[blocks.target[within]].tolist())
        found += zip(*ends, blocks.weight[within].tolist(), strict=True)
    assert sorted(found) == edges_of(graph)


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
    indptr = np.zeros(n + 1, dtype=np.int64)
    blocks = cut(indptr, np.zeros(0, np.int32), np.zeros(0, np.float32), weights, 1, 0)
    draw = draw_noise if compiled else draw_noise.py_func
    found = draw(blocks.noise, blocks.guide, u)
    expected = np.searchsorted(blocks.noise, u * blocks.noise[-1], side="right")
    assert found == min(expected, n - 1)


def one_step(function, negatives, samples=1, seed=3):
    """A block of one edge from row 0 to row 1, noise from rows 1 and 2."""
    random = np.random.default_rng(seed)
    vertex, context = random.normal(size=(2, 3, 5)).astype(np.float32)
    before = vertex.copy(), context.copy()
    noise, guide = np.array([1.0, 1.0]), np.zeros(2, dtype=np.int32)
    row, weight = np.zeros(1, np.int32), np.ones(1, np.float32)
    told = function(
        vertex, context, row, row + 1, weight, 1.0, noise, guide, 1, samples, negatives, np.float32(0.1),
        np.uint64(7), line_blocks._SIGMOID,
    )  # fmt: skip
    return before, (vertex, context), told


@pytest.mark.parametrize("function", [train_block, train_block.py_func], ids=["compiled", "plain"])
def test_a_sample_follows_the_gradient_of_the_objective(function):
    # the first of two noise rows is drawn every time: it alone has weight
    (vertex, context), (new_vertex, new_context), (objective, told) = one_step(function, 0)
    source, targets = torch.from_numpy(vertex[:1]), torch.from_numpy(context[None, [1]])
    expected, by_source, by_targets = line_gradients(source, targets)
    np.testing.assert_allclose(new_vertex[0], vertex[0] - 0.1 * by_source[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(new_context[1], context[1] - 0.1 * by_targets[0, 0].numpy(), atol=1e-6)
    assert np.array_equal(new_vertex[1:], vertex[1:])
    assert np.array_equal(new_context[[0, 2]], context[[0, 2]])
    assert objective == pytest.approx(expected.item(), rel=1e-5)
    assert told == 1


def test_compiled_and_plain_are_the_same():
    for negatives, samples in ((0, 1), (1, 1), (5, 40)):
        _, compiled, told = one_step(train_block, negatives, samples)
        with np.errstate(over="ignore"):
            _, plain, said = one_step(train_block.py_func, negatives, samples)
        for ours, theirs in zip(compiled, plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        assert told[1] == said[1]
        assert told[0] == pytest.approx(said[0], rel=1e-4)


@pytest.mark.parametrize("first", [False, True])
@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_the_number_of_threads_changes_no_bit(first, seed):
    graph = make_graph(make_cells(40), random_edges(40, 200, seed))
    blocks = blocks_of(graph, 4, seed)

    def trained(threads):
        vertex = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
        context = vertex if first else np.zeros_like(vertex)
        told = []
        train_blocks(
            blocks, vertex, context, samples=4000, passes=3, negatives=3, rate=lambda share: 0.05 * (1 - share),
            seed=seed, told=lambda *values: told.append(values), threads=threads,
        )  # fmt: skip
        return vertex, context, told

    one, three = trained(1), trained(3)
    assert np.array_equal(one[0], three[0])
    assert np.array_equal(one[1], three[1])
    assert one[2] == three[2]
    assert one[2][-1][0] == pytest.approx(1, abs=0.05)
    assert np.isfinite(one[0]).all()


def test_parts_follow_the_size_of_the_tables():
    assert parts_of(10, 128) == 1
    assert parts_of(100, 8) == 2
    assert parts_of(2_000, 128) == 2
    assert parts_of(50_000_000, 128) == line_blocks._MOST_PARTS
