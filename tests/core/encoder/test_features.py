import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.encoder.features import Statistics, census_matrix, poi_matrix, standardise, statistics_of


def test_statistics_see_only_known_values_of_present_cells():
    values = np.array([[1.0, 5.0], [3.0, np.nan], [100.0, 100.0], [5.0, 5.0]])
    mask = np.array([True, True, False, True])
    found = statistics_of(values, mask)
    assert found.mean.tolist() == [3, 5]
    np.testing.assert_allclose(found.scale, [np.sqrt(8 / 3), 0], rtol=1e-6)
    standard = standardise(values, mask, found)
    half = np.sqrt(3 / 2)
    np.testing.assert_allclose(standard, [[-half, 0], [0, 0], [0, 0], [half, 0]], atol=1e-6)
    assert standard.dtype == np.float32


def test_constant_column_is_zero_despite_rounding():
    values = np.full((7, 1), 0.1, dtype=np.float32) * np.float32(3)
    mask = np.ones(7, dtype=bool)
    assert not standardise(values, mask, statistics_of(values, mask)).any()


def test_nobody_has_the_modality():
    values, mask = np.ones((3, 2)), np.zeros(3, dtype=bool)
    found = statistics_of(values, mask)
    assert found.scale.tolist() == [0, 0]
    assert not standardise(values, mask, found).any()


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_standardised_columns_have_zero_mean_and_unit_deviation(rows, width, seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, width)) * random.uniform(0.1, 100) + random.normal() * 10
    mask = random.random(rows) < 0.7
    mask[:2] = True
    found = standardise(values, mask, statistics_of(values, mask))[mask]
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-4)


def test_given_statistics_are_used():
    used = Statistics(np.array([1.0], np.float32), np.array([2.0], np.float32))
    assert standardise(np.array([[5.0]]), np.array([True]), used).tolist() == [[2.0]]


def test_poi_matrix():
    found = poi_matrix(np.array([[0.0, np.e - 1]]), np.array([[7.0]]))
    np.testing.assert_allclose(found, [[0, 1, 7]])


def test_census_matrix():
    found = census_matrix(np.array([10.0, 0.0]), np.array([[4.0, 6.0], [0.0, 0.0]]), np.array([5.0, 2.0]))
    np.testing.assert_allclose(found, [[0.4, 0.6, np.log(3)], [np.nan, np.nan, 0]])
    assert np.isnan(census_matrix(np.array([1.0]), np.array([[1.0]]), np.array([0.0]))[0, 1])
    with pytest.raises(ValueError, match="shapes"):
        census_matrix(np.zeros(2), np.zeros((3, 1)), np.ones(2))
