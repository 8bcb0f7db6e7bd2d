from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.encoder import line_blocks
from mobclip_core.encoder.line_blocks import (
    Edges,
    deal,
    draw,
    draw_noise,
    parts_of,
    rounds_of,
    shuffle,
    train_block,
    train_blocks,
)

from .conftest import make_cells, make_graph, random_edges


def graph_of(n, edges, seed):
    return make_graph(make_cells(n, 1), random_edges(n, edges, seed) or [(0, 1, 2.0)])


@given(st.integers(2, 20), st.integers(1, 80), st.integers(0, 99))
def test_every_edge_has_its_share_of_samples(n, edges, seed):
    graph, samples = graph_of(n, edges, seed), 500
    drawn = draw(Edges.of(graph, np.ones(n)), samples, np.random.default_rng(seed))
    source = np.repeat(np.arange(n), np.diff(graph.indptr))
    counts = np.zeros((n, n))
    np.add.at(counts, drawn, 1)
    # samples are spread evenly over the running weight: no edge is more than one off at either end
    expected = samples * graph.weight / graph.weight.sum()
    assert (np.abs(counts[source, graph.indices] - expected) <= 2).all()
    assert counts.sum() == counts[source, graph.indices].sum() == samples


@given(st.integers(0, 50), st.integers(0, 99))
def test_shuffling_keeps_every_sample(samples, seed):
    source, target = np.arange(samples, dtype=np.int32), np.arange(samples, dtype=np.int32) * 3
    shuffle(source, target, np.uint64(seed))
    assert sorted(source.tolist()) == list(range(samples))
    assert np.array_equal(source * 3, target)


def dealt(graph, source, target, parts, negatives, noise, seed):
    with ThreadPoolExecutor(3) as pool:
        random = np.random.default_rng(seed)
        edges = Edges.of(graph, noise)
        return deal(edges, source, target, negatives=negatives, parts=parts, random=random, pool=pool)


@given(st.integers(2, 20), st.sampled_from([1, 2, 4, 8]), st.integers(0, 3), st.integers(0, 99))
def test_pairs_lie_in_the_block_of_their_parts(n, parts, negatives, seed):
    graph = graph_of(n, 40, seed)
    source, target = draw(Edges.of(graph, np.ones(n)), 70, np.random.default_rng(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "_CHUNK", 16)
        now = dealt(graph, source, target, parts, negatives, np.ones(n), seed)
    assert now.parts == parts
    assert now.starts[-1] == len(now.source) == 70 * (1 + negatives)
    # a node lies in one part, as source and as target
    sides = [{}, {}]
    for number in range(parts * parts):
        within = slice(now.starts[number], now.starts[number + 1])
        for node in now.source[within].tolist():
            assert sides[0].setdefault(node, number // parts) == number // parts
        for node in np.maximum(now.target[within], ~now.target[within]).tolist():
            assert sides[1].setdefault(node, number % parts) == number % parts
    assert all(sides[1].get(node, part) == part for node, part in sides[0].items())
    together = now.target >= 0
    assert sorted(zip(now.source[together], now.target[together], strict=True)) == sorted(
        zip(source, target, strict=True)
    )
    assert np.array_equal(np.bincount(now.source[~together], minlength=n), negatives * np.bincount(source, minlength=n))


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


def test_noise_is_drawn_by_its_weight():
    weights = np.array([0.0, 1.0, 2.0, 0.0, 5.0, 0.0])
    edges = Edges.of(graph_of(6, 20, 0), weights)
    samples, negatives = 20_000, 3
    source = np.zeros(samples, np.int32)
    others, counts = np.empty((samples, 1 + negatives), np.int32), np.zeros(1, np.int64)
    part = np.zeros(6, np.int32)
    draw_noise(source, source + 1, others, edges.noise, edges.guide, part, 1, counts, np.uint64(3))
    assert counts.tolist() == [samples * (1 + negatives)]
    assert (others[:, 0] == 1).all()
    assert (others[:, 1:] < 0).all()
    shares = np.bincount(~others[:, 1:].ravel(), minlength=6) / (samples * negatives)
    np.testing.assert_allclose(shares, weights / 8, atol=0.01)
    assert (shares[weights == 0] == 0).all()


@pytest.mark.parametrize("function", [train_block, train_block.py_func], ids=["compiled", "plain"])
def test_a_pair_follows_the_gradient_of_the_objective(function):
    random = np.random.default_rng(3)
    vertex, context = random.normal(size=(2, 3, 5)).astype(np.float32)
    new_vertex, new_context = vertex.copy(), context.copy()
    source, target = np.array([0, 2], np.int32), np.array([1, ~0], np.int32)
    found = [
        function(new_vertex, new_context, source[[k]], target[[k]], np.float32(0.1), line_blocks._SIGMOID)
        for k in range(2)
    ]
    expected = []
    for node, other, sign in ((0, 1, 1), (2, 0, -1)):
        u = torch.from_numpy(vertex[node]).requires_grad_()
        v = torch.from_numpy(context[other]).requires_grad_()
        loss = -torch.nn.functional.logsigmoid(sign * (u @ v))
        loss.backward()
        expected.append(loss.item())
        np.testing.assert_allclose(new_vertex[node], (u - 0.1 * u.grad).detach(), atol=1e-6)
        np.testing.assert_allclose(new_context[other], (v - 0.1 * v.grad).detach(), atol=1e-6)
    assert np.array_equal(new_vertex[1], vertex[1])
    assert np.array_equal(new_context[2], context[2])
    assert [told for _, told in found] == [1, 1]
    assert [objective for objective, _ in found] == pytest.approx(expected, rel=1e-5)


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
    assert parts_of(50_000_000, 128, 50_000_000) == line_blocks._MOST_PARTS
