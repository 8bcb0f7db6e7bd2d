from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mobclip_core.encoder.line import _Sampler, line_gradients, line_objective, out_degree, summed_degree, train_line

from .conftest import make_cells, make_graph, random_edges


@pytest.fixture
def config():
    defaults = {"dimensions": 8, "samples_per_edge": 20.0, "max_samples": 100_000, "negatives": 3}
    more = {"learning_rate": 0.025, "batch_size": 64, "seed": 0}
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


def test_sampler_draws_edges_by_weight_and_noise_by_degree():
    graph = make_graph(make_cells(5), [(0, 1, 1.0), (3, 1, 6.0), (3, 4, 3.0)])
    source, targets = _Sampler(graph, 0).batch(20_000, 2)
    pairs, counts = np.unique(np.stack([source, targets[:, 0]]), axis=1, return_counts=True)
    assert pairs.T.tolist() == [[0, 1], [3, 1], [3, 4]]
    np.testing.assert_allclose(counts / 20_000, [0.1, 0.6, 0.3], atol=0.015)
    expected = np.array([1, 7, 0, 9, 3]) ** 0.75
    noise = np.bincount(targets[:, 1:].reshape(-1), minlength=5) / 40_000
    np.testing.assert_allclose(noise, expected / expected.sum(), atol=0.015)
    assert noise[2] == 0


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
    result = train_line(graph, config(samples_per_edge=1.0, batch_size=20))
    assert result.loss[0] == pytest.approx(4 * np.log(2), rel=1e-4)
    assert result.samples == len(graph.indices)


@pytest.mark.parametrize("n", [0, 3])
def test_graph_without_edges(config, n):
    result = train_line(make_graph(make_cells(n), []), config())
    assert result.vertex.shape == (n, 8)
    assert not result.vertex.any()
    assert result.samples == 0
