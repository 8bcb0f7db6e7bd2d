import numpy as np

from mobclip_core.encoder.lightgcn import train_lightgcn

from .conftest import encoder_options, make_cells, make_graph, random_edges


def communities():
    """Two groups of cells; people move within theirs. The last cell is isolated."""
    rng = np.random.default_rng(0)
    ends = [(i, j) for group in (range(15), range(15, 30)) for i, j in rng.choice(list(group), (120, 2)) if i != j]
    return make_graph(make_cells(31), [(i, j, 1.0) for i, j in sorted(set(ends))])


def test_cells_that_people_go_between_are_alike():
    vectors = train_lightgcn(communities(), encoder_options(), directed=True)
    assert vectors.shape == (31, 8)
    assert vectors.dtype == np.float32
    unit = vectors[:30] / np.linalg.norm(vectors[:30], axis=1, keepdims=True)
    alike = unit @ unit.T
    within = np.mean([alike[:15, :15].mean(), alike[15:, 15:].mean()])
    assert within > alike[:15, 15:].mean() + 0.5
    assert not vectors[30].any()


def test_it_repeats_and_follows_its_seed():
    graph = make_graph(make_cells(20), random_edges(20, 80))
    first, again, other = (train_lightgcn(graph, encoder_options(seed=seed), directed=False) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_edges_it_knows_nothing():
    assert not train_lightgcn(make_graph(make_cells(5), []), encoder_options(), directed=True).any()
