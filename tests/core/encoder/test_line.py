from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mobclip_core.encoder import line
from mobclip_core.encoder.line import line_gradients, line_objective, out_degree, summed_degree, train_line

from .conftest import make_cells, make_graph, random_edges


@pytest.fixture
def config():
    defaults = {"dimensions": 8, "samples_per_edge": 20.0, "max_samples": 100_000, "negatives": 3}
    more = {"learning_rate": 0.025, "batch_size": 64, "seed": 0, "order": "second"}
    return lambda **changes: SimpleNamespace(**{**defaults, **more, **changes})


def test_objective_by_hand():
    vertex = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    context = torch.tensor([[0.5, 1.0], [2.0, -1.0]], dtype=torch.float64)
    # edge 0 -> 1 of weight 3: u_0 . u'_1 = 2; noise node 0: u_0 . u'_0 = 0.5
    found = line_objective(vertex, context, torch.tensor([[0, 1]]), torch.tensor([3.0]), torch.tensor([[0]]))
    sigma = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    assert found.item() == pytest.approx(-3 * (np.log(sigma(2.0)) + np.log(sigma(-0.5))), abs=1e-12)


def test_gradients_are_those_of_the_objective():
    generator = torch.Generator().manual_seed(0)
    vertex, context = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    edges = torch.tensor([[0, 1], [0, 2], [3, 3], [5, 1]])
    negatives = torch.tensor([[2, 2], [1, 4], [0, 3], [1, 5]])  # repeats and the true target occur
    vertex.requires_grad_()
    context.requires_grad_()
    expected = line_objective(vertex, context, edges, torch.ones(4, dtype=torch.float64), negatives)
    expected.backward()
    targets = torch.cat([edges[:, 1:], negatives], 1)
    with torch.no_grad():
        objective, by_source, by_targets = line_gradients(vertex[edges[:, 0]], context[targets])
        by_vertex = torch.zeros_like(vertex).index_add_(0, edges[:, 0], by_source)
        by_context = torch.zeros_like(context).index_add_(0, targets.reshape(-1), by_targets.reshape(-1, 4))
    assert objective.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(by_vertex, vertex.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(by_context, context.grad, rtol=1e-12, atol=1e-14)


def test_degrees():
    graph = make_graph(make_cells(4), [(0, 1, 2.0), (1, 2, 3.0), (0, 2, 5.0)])
    assert out_degree(graph).tolist() == [7, 3, 0, 0]
    assert summed_degree(graph).tolist() == [7, 5, 8, 0]


def test_same_seed_same_vectors(config):
    graph = make_graph(make_cells(20), random_edges(20, 80))
    first, second = train_line(graph, config()), train_line(graph, config())
    assert np.array_equal(first.vertex, second.vertex)
    assert first.loss == second.loss
    assert not np.array_equal(first.vertex, train_line(graph, config(seed=1)).vertex)


def test_vectors_have_unit_length_and_isolated_nodes_are_zero(config):
    # node 18 has an incoming edge only, node 19 none
    edges = [(i, (i + k) % 18, 1.0 + i) for i in range(18) for k in (1, 5)] + [(0, 18, 4.0)]
    result = train_line(make_graph(make_cells(20), edges), config())
    assert result.vertex.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(result.vertex[:18], axis=1), 1, rtol=1e-5)
    assert not result.vertex[18:].any()


def test_same_destinations_make_similar_vectors(config):
    """Second order: two groups of sources with destinations of their own."""
    edges = [(i, 20 + 10 * (i % 2) + j, 1.0) for i in range(20) for j in range(10)]
    result = train_line(make_graph(make_cells(40), edges), config(samples_per_edge=500.0, learning_rate=0.1))
    similarity = result.vertex[:20] @ result.vertex[:20].T
    same = (np.arange(20)[:, None] + np.arange(20)) % 2 == 0
    assert similarity[same & ~np.eye(20, dtype=bool)].mean() > 0.8
    assert similarity[~same].mean() < 0.2
    assert result.loss[-1] < 0.7 * result.loss[0]


def test_first_loss_is_that_of_zero_context(config):
    graph = make_graph(make_cells(20), random_edges(20, 80))
    result = train_line(graph, config(samples_per_edge=1.0))
    assert result.loss[0] == pytest.approx(4 * np.log(2), rel=1e-3)
    assert result.samples == len(graph.indices)


def communities(seed=0, groups=4, size=30, edges=9):
    """Edges within groups, and one in ten of them held out."""
    random = np.random.default_rng(seed)
    found = set()
    for group in range(groups):
        for i in range(size):
            for j in random.choice(size, edges, replace=False).tolist():
                if i != j:
                    found.add((group * size + i, group * size + j))
    found = sorted(found)
    held = set(random.choice(len(found), len(found) // 10, replace=False).tolist())
    kept = [(i, j, 1.0) for k, (i, j) in enumerate(found) if k not in held]
    return make_graph(make_cells(groups * size), kept), [found[k] for k in held], set(found)


def area_under_curve(scores, truth):
    positive, negative = scores[truth], scores[~truth]
    return (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()


@pytest.mark.parametrize("order", ["first", "second", "both"])
@pytest.mark.parametrize("way", ["blocks", "batches"])
def test_held_out_edges_are_told_from_pairs_without_one(config, order, way, monkeypatch):
    if way == "batches":
        monkeypatch.setattr(line, "_in_blocks", line._in_batches)
    graph, held, every = communities()
    options = config(dimensions=32, samples_per_edge=200.0, max_samples=10**6, order=order, learning_rate=0.05)
    result = train_line(graph, options)
    assert result.vertex.shape == (120, 32)
    random = np.random.default_rng(1)
    others = [tuple(pair) for pair in random.integers(0, 120, (400, 2)).tolist() if tuple(pair) not in every]
    pairs = np.array(held + others)
    # alike are the ends of an edge (first order), or nodes with the same destinations, which share a group here
    scores = (result.vertex[pairs[:, 0]] * result.vertex[pairs[:, 1]]).sum(1)
    # pairs of one group without an edge, a fifth of the others, cannot be told
    assert area_under_curve(scores, np.arange(len(pairs)) < len(held)) > 0.8
    assert result.loss[-1] < result.loss[0]


def test_both_orders_side_by_side(config):
    graph = make_graph(make_cells(20), random_edges(20, 80))
    both = train_line(graph, config(order="both")).vertex
    for part, order in ((both[:, :4], "first"), (both[:, 4:], "second")):
        alone = train_line(graph, config(order=order, dimensions=4)).vertex
        np.testing.assert_allclose(part * np.sqrt(2), alone, rtol=1e-6)


@pytest.mark.parametrize("n", [0, 3])
def test_graph_without_edges(config, n):
    result = train_line(make_graph(make_cells(n), []), config())
    assert result.vertex.shape == (n, 8)
    assert not result.vertex.any()
    assert result.samples == 0
