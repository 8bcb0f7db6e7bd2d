import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn import LGConv

from mobclip_core.encoder.propagation import (
    LightGCN,
    _rows_on_device,
    adjacency_of,
    graph_adjacency,
    neighbour_edges,
    normalised_adjacency,
)

from .conftest import make_cells, make_graph, random_edges


def dense(adjacency):
    return adjacency.matrix.to_dense()


def test_normalisation_of_directed_flows_by_hand():
    graph = make_graph(make_cells(3), [(0, 1, 4.0), (0, 2, 5.0), (1, 2, 1.0), (2, 1, 12.0)])
    # D_out = 9, 1, 12; D_in = -, 16, 6
    expected = [[0, 4 / 12, 5 / 54**0.5], [0, 0, 1 / 6**0.5], [0, 12 / 192**0.5, 0]]
    found = graph_adjacency(graph, dtype=torch.float64)
    np.testing.assert_allclose(dense(found), expected, rtol=1e-12)
    np.testing.assert_allclose(found.transpose.to_dense(), np.transpose(expected), rtol=1e-12)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_sum_of_layers_matches_dense(layers):
    graph = make_graph(make_cells(12), random_edges(12, 50))
    adjacency = graph_adjacency(graph, dtype=torch.float64)
    x = torch.randn(12, 5, dtype=torch.float64)
    matrix = dense(adjacency)
    expected = sum(torch.linalg.matrix_power(matrix, layer) @ x for layer in range(layers + 1))
    torch.testing.assert_close(LightGCN(layers)(x, adjacency), expected, rtol=1e-12, atol=1e-14)


def test_agrees_with_pyg_on_an_undirected_graph():
    one_way = [e for e in random_edges(15, 60) if e[0] < e[1]]
    graph = make_graph(make_cells(15), one_way + [(j, i, w) for i, j, w in one_way])
    x = torch.randn(15, 4, dtype=torch.float64)
    source = np.repeat(np.arange(15), np.diff(graph.indptr))
    edge_index = torch.from_numpy(np.stack([source, graph.indices.astype(np.int64)]))
    expected = LGConv()(x, edge_index, torch.from_numpy(graph.weight.astype(np.float64)))
    found = LightGCN(1)(x, graph_adjacency(graph, dtype=torch.float64)) - x
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_gradient():
    graph = make_graph(make_cells(6), random_edges(6, 20))
    adjacency = graph_adjacency(graph, dtype=torch.float64)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: LightGCN(2)(x, adjacency), (x,))


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 3), st.integers(0, 10_000), st.booleans())
def test_some_rows_and_their_gradient_are_those_of_the_whole(n, edges, layers, seed, on_device):
    random = np.random.default_rng(seed)
    adjacency = adjacency_of([(torch.from_numpy(random.integers(0, n, (2, edges))), torch.rand(edges).double())], n)
    x = torch.from_numpy(random.normal(size=(n, 3))).requires_grad_()
    index = torch.from_numpy(random.permutation(n)[: random.integers(1, n + 1)])
    weight = torch.from_numpy(random.normal(size=(len(index), 3)))
    whole = sum(torch.linalg.matrix_power(dense(adjacency), layer) @ x for layer in range(layers + 1))[index]
    rows = _rows_on_device(adjacency.matrix, index) if on_device else adjacency.rows(index)
    found = LightGCN(layers)(x, adjacency, rows)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-13)
    expected, gradient = (torch.autograd.grad((z * weight).sum(), x)[0] for z in (whole, found))
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13)


def test_stretches_of_rows_make_the_whole():
    adjacency = graph_adjacency(make_graph(make_cells(9), random_edges(9, 40)), dtype=torch.float64)
    parts = [adjacency.stretch(slice(*bounds)) for bounds in ((0, 4), (4, 4), (4, 9))]
    assert torch.equal(torch.cat([part.matrix.to_dense() for part in parts]), dense(adjacency))
    assert torch.equal(torch.cat([part.transpose.to_dense() for part in parts]), adjacency.transpose.to_dense())


def test_only_kept_edges_take_part():
    edges = [(0, 1, 4.0), (0, 2, 5.0), (1, 2, 1.0)]
    graph = make_graph(make_cells(3), edges, keep=[True, False, True])
    matrix = dense(graph_adjacency(graph))
    assert matrix[0, 2] == 0
    assert matrix[0, 1] == 1


def test_undirected_counts_both_directions():
    graph = make_graph(make_cells(3), [(0, 1, 4.0), (1, 2, 2.0)])
    matrix = dense(graph_adjacency(graph, directed=False, dtype=torch.float64))
    torch.testing.assert_close(matrix, matrix.T)
    assert matrix[1, 0].item() == pytest.approx(4 / np.sqrt(4 * 6))


def test_undirected_does_not_double_a_graph_with_both_directions():
    edges = [(0, 1, 4.0), (1, 0, 4.0), (1, 2, 2.0), (2, 1, 2.0)]
    whole = graph_adjacency(make_graph(make_cells(3), edges), directed=False)
    half = graph_adjacency(make_graph(make_cells(3), edges, keep=[True, False, True, True]), directed=False)
    torch.testing.assert_close(dense(whole), dense(half))


def test_isolated_node_keeps_its_own_vector():
    graph = make_graph(make_cells(4), [(0, 1, 1.0), (1, 0, 2.0)])
    x = torch.randn(4, 3)
    out = LightGCN(2)(x, graph_adjacency(graph))
    assert torch.equal(out[2:], x[2:])
    assert not torch.equal(out[:2], x[:2])


def test_edges_of_no_weight_do_no_harm():
    matrix = dense(graph_adjacency(make_graph(make_cells(3), [(0, 1, 0.0), (1, 2, 3.0)])))
    assert torch.isfinite(matrix).all()
    assert matrix[1, 2] == 1


def test_no_edges():
    x = torch.randn(3, 2)
    assert torch.equal(LightGCN(2)(x, graph_adjacency(make_graph(make_cells(3), []))), x)


def test_renumbering_permutes_the_output():
    edges = random_edges(20, 80)
    order = np.random.default_rng(0).permutation(20)
    new = np.argsort(order)
    x = torch.randn(20, 4, dtype=torch.float64)
    cells = make_cells(20)
    plain = LightGCN(2)(x, graph_adjacency(make_graph(cells, edges), dtype=torch.float64))
    moved = make_graph(cells[order], [(int(new[i]), int(new[j]), w) for i, j, w in edges])
    found = LightGCN(2)(x[order], graph_adjacency(moved, dtype=torch.float64))
    torch.testing.assert_close(found, plain[order], rtol=1e-12, atol=1e-14)


def test_repeated_edges_add_up():
    index = torch.tensor([[0, 0, 1], [1, 1, 0]])
    edge_index, weight = normalised_adjacency(index, torch.tensor([1.0, 2.0, 5.0]), 2)
    assert edge_index.tolist() == [[0, 1], [1, 0]]
    assert weight.tolist() == [1, 1]


def test_adjacency_is_a_sum_of_parts():
    first = (torch.tensor([[0], [1]]), torch.tensor([2.0]))
    second = (torch.tensor([[0, 1], [1, 0]]), torch.tensor([3.0, 4.0]))
    found = adjacency_of([first, second], 2)
    assert dense(found).tolist() == [[0, 5], [4, 0]]
    assert found.num_edges == 2


def hexagons(rows, columns, spacing=0.1):
    y, x = np.divmod(np.arange(rows * columns), columns)
    return (x + 0.5 * (y % 2)) * spacing, y * spacing * np.sqrt(3) / 2


def test_neighbours_of_hexagons():
    lon, lat = hexagons(5, 5)
    edges = neighbour_edges(lon, lat)
    degree = torch.bincount(edges[0], minlength=25)
    assert degree[12] == 6
    assert degree.min() >= 2
    assert sorted(edges[1][edges[0] == 12].tolist()) == [6, 7, 11, 13, 16, 17]


def test_neighbours_across_the_antimeridian():
    lon, lat = hexagons(5, 5)
    shifted = (lon + 179.8 + 180) % 360 - 180
    assert (shifted < 0).any()
    assert (shifted > 0).any()
    assert torch.equal(neighbour_edges(shifted, lat), neighbour_edges(lon, lat))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_cells_have_no_neighbours(n):
    assert neighbour_edges(np.zeros(n), np.zeros(n)).shape == (2, 0)


def test_spatial_edges_reach_isolated_cells():
    lon, lat = hexagons(4, 4)
    graph = make_graph(make_cells(16), [(0, 1, 1000.0)])
    spatial = neighbour_edges(lon, lat)
    matrix = dense(graph_adjacency(graph, spatial=spatial, spatial_weight=0.5, dtype=torch.float64))
    plain = dense(graph_adjacency(graph, dtype=torch.float64))
    index, value = normalised_adjacency(spatial, torch.ones(spatial.shape[1]), 16, torch.float64)
    expected = plain.clone()
    expected[index[0], index[1]] += 0.5 * value
    torch.testing.assert_close(matrix, expected)
    assert matrix[15].sum() > 0


def test_name():
    assert str(LightGCN(2)) == "LightGCN(num_layers=2)"


@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 3), st.integers(0, 10_000))
def test_a_part_of_the_graph_gives_what_the_whole_gives(n, edges, steps, seed):
    random = np.random.default_rng(seed)
    index = torch.from_numpy(random.integers(0, n, (2, edges)))
    adjacency = adjacency_of([(index, torch.from_numpy(random.random(edges)))], n)
    nodes = np.unique(random.integers(0, n, 2))
    x = torch.from_numpy(random.normal(size=(n, 3)))
    whole, field = x, adjacency.reached(nodes, steps)
    part, among = x[field], adjacency.among(field)
    for _ in range(steps):
        whole, part = adjacency.matrix @ whole, among.matrix @ part
    torch.testing.assert_close(part[np.searchsorted(field, nodes)], whole[nodes], rtol=0, atol=1e-12)
    dense = adjacency.matrix.to_dense().numpy() != 0
    reached = np.zeros(n, dtype=bool)
    reached[nodes] = True
    for _ in range(steps):
        reached |= dense[reached].any(axis=0)
    assert np.array_equal(np.flatnonzero(reached), field)
