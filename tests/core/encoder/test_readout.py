import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.encoder.features import Modality, ModalityFeatures, standardise, statistics_of
from mobclip_core.encoder.propagation import neighbour_edges
from mobclip_core.encoder.readout import fit_readout, mean_beside, stacked

from .conftest import make_cells


def world(rows=12, columns=15, seed=0):
    """A grid of hexagons: one smooth value and one of noise in each of two modalities, mixed."""
    random = np.random.default_rng(seed)
    y, x = np.divmod(np.arange(rows * columns), columns)
    lon, lat = (x + 0.5 * (y % 2)) * 0.1, y * 0.0866
    smooth = np.column_stack([np.sin(lon * 3) + lat, np.cos(lat * 5)])
    noise = random.normal(size=(len(lon), 2))
    modalities = {}
    for name, turn in (("poi", 0.4), ("census", 1.1)):
        mixed = np.column_stack(
            [np.cos(turn) * smooth - np.sin(turn) * noise, np.sin(turn) * smooth + np.cos(turn) * noise]
        )
        mask = random.random(len(lon)) > 0.05
        used = statistics_of(mixed, mask)
        values = standardise(mixed.astype(np.float32), mask, used)
        modalities[name] = Modality(values, mask, ("a", "b", "c", "d"), used)
    cells = make_cells(len(lon))
    features = ModalityFeatures(cells, np.zeros(len(lon), np.int32), ("a",), lon, lat, modalities)
    return features, neighbour_edges(lon, lat).numpy(), smooth


def published(readout, features, edges, trained):
    values = stacked(features)
    return readout.of_features(values, mean_beside(edges, len(values)) @ values) + readout.of_trained(trained)


def explained(vectors, target):
    design = np.column_stack([vectors, np.ones(len(vectors))])
    left = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return 1 - left.var(0) / target.var(0)


def test_the_mean_beside_by_hand():
    edges = np.array([[0, 0, 1, 2], [1, 2, 0, 0]])
    found = mean_beside(edges, 4) @ np.array([[1.0], [3.0], [5.0], [7.0]])
    assert found.ravel().tolist() == [4, 1, 1, 7]


def test_what_is_smooth_comes_first_and_noise_last():
    features, edges, smooth = world()
    trained = np.zeros((len(features), 6), dtype=np.float32)
    readout = fit_readout(features, edges, trained, 2, 0)
    assert (readout.autocorrelation > 0.7).all()
    assert (explained(published(readout, features, edges, trained), smooth) > 0.85).all()
    every = fit_readout(features, edges, trained, 5, 0).autocorrelation
    assert (np.diff(every) <= 0).all()
    np.testing.assert_allclose(every[:2], readout.autocorrelation, rtol=1e-5)
    assert abs(every[-1]) < 0.3


def test_dimensions_are_centred_and_share_the_variance():
    features, edges, _ = world()
    trained = np.random.default_rng(0).normal(size=(len(features), 16)).astype(np.float32)
    vectors = published(fit_readout(features, edges, trained, 6, 0), features, edges, trained)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-5)
    assert vectors.var(0).max() < 10 * vectors.var(0).min()


def test_factors_beyond_those_of_the_training_count_as_the_last_of_them():
    features, edges, _ = world()
    readout = fit_readout(features, edges, np.zeros((len(features), 6), dtype=np.float32), 3, 0)
    values = stacked(features)
    inside = readout.of_features(values, values) @ readout.rotation.T
    np.testing.assert_allclose(inside, np.clip(values @ readout.factors, readout.lowest, readout.highest), atol=1e-5)
    for far in (1e3, 1e6):
        beyond = readout.of_features(far * values, far * values) @ readout.rotation.T
        at_an_end = np.isclose(beyond, readout.lowest, atol=1e-4) | np.isclose(beyond, readout.highest, atol=1e-4)
        assert at_an_end.mean() > 0.95
        assert (np.abs(beyond) <= np.maximum(-readout.lowest, readout.highest) + 1e-4).all()


def test_what_the_training_found_is_there_too():
    features, edges, _ = world()
    random = np.random.default_rng(0)
    found = random.normal(size=(len(features), 2))
    trained = (found @ random.normal(size=(2, 8))).astype(np.float32)
    readout = fit_readout(features, edges, trained, 4, 0)
    assert (explained(published(readout, features, edges, trained), found) > 0.99).all()


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(0, 20))
def test_renumbering_permutes_the_vectors(seed, rotation):
    features, edges, _ = world(6, 7)
    trained = np.random.default_rng(1).normal(size=(42, 5)).astype(np.float32)
    order = np.random.default_rng(seed).permutation(42)
    new = np.argsort(order)
    modalities = {
        n: Modality(m.values[order], m.mask[order], m.columns, m.statistics) for n, m in features.modalities.items()
    }
    f = features
    moved = ModalityFeatures(f.cells[order], f.region[order], f.regions, f.lon[order], f.lat[order], modalities)
    plain = published(fit_readout(f, edges, trained, 3, rotation), f, edges, trained)
    again = published(fit_readout(moved, new[edges], trained[order], 3, rotation), moved, new[edges], trained[order])
    np.testing.assert_allclose(again, plain[order], atol=2e-3)


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_few_cells_give_finite_vectors(nodes):
    features, _, _ = world(1, nodes)
    edges = neighbour_edges(features.lon, features.lat).numpy()
    trained = np.zeros((nodes, 4), dtype=np.float32)
    readout = fit_readout(features, edges, trained, 3, 0)
    vectors = published(readout, features, edges, trained)
    assert vectors.shape == (nodes, 4)
    assert np.isfinite(vectors).all()


def test_modalities_that_nobody_has():
    features, edges, _ = world(3, 4)
    nothing = {
        n: Modality(m.values * 0, m.mask & False, m.columns, m.statistics) for n, m in features.modalities.items()
    }
    empty = ModalityFeatures(features.cells, features.region, features.regions, features.lon, features.lat, nothing)
    trained = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    readout = fit_readout(empty, edges, trained, 3, 0)
    assert len(readout.autocorrelation) == 0
    assert np.isfinite(published(readout, empty, edges, trained)).all()
