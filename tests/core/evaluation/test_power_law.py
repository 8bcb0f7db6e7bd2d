import numpy as np
import pytest

from mobclip_core.evaluation.power_law import fit_power_law

SIZES = np.array([100, 200, 400, 800, 1600])


def measured(law, repeats=4, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    repeat = np.repeat(np.arange(repeats), len(SIZES))
    size = np.tile(SIZES, repeats)
    level = np.exp(rng.normal(0, 0.3, repeats))[repeat]
    return size, level * law(size) * np.exp(rng.normal(0, noise, len(size))), repeat


def test_a_power_law_is_found_with_its_exponent_whatever_the_levels_of_the_repeats():
    found = fit_power_law(*measured(lambda size: 3 * size**-0.25))
    assert found.fits
    assert found.low < 0.25 < found.high
    assert found.high - found.low < 0.03
    assert (found.sizes, found.repeats) == (5, 4)
    assert "a power law with exponent 0.2" in found.statement("cells")
    assert "twice the cells leave 84" in found.statement("cells")


def test_golden_exponent_without_noise():
    # 1/2, 1/4, 1/8: exponent 1; its interval has no width
    found = fit_power_law(np.array([1.0, 2, 4, 8]), np.array([1.0, 0.5, 0.25, 0.125]), np.zeros(4, int))
    assert found.exponent == pytest.approx(1)
    assert found.scale == pytest.approx(1)
    assert (found.low, found.high) == (pytest.approx(1), pytest.approx(1))
    assert found.fits


def test_an_error_that_does_not_change_has_no_law():
    found = fit_power_law(*measured(lambda size: np.full(len(size), 0.4)))
    assert not found.fits
    assert found.low < 0 < found.high
    assert "no law" in found.statement("edges")


def test_an_error_that_falls_and_then_stays_is_no_power_law():
    found = fit_power_law(*measured(lambda size: np.where(size < 300, 1.0, 0.3)))
    assert not found.fits
    assert found.lack_of_fit < 1e-6
    assert "but not by a power law" in found.statement("width")


def test_intervals_hold_the_truth_as_often_as_they_say():
    laws = [fit_power_law(*measured(lambda size: size**-0.1, noise=0.05, seed=seed)) for seed in range(300)]
    inside = np.mean([law.low <= 0.1 <= law.high for law in laws])
    assert 0.91 < inside < 0.98
    assert 0.02 < np.mean([law.lack_of_fit < 0.05 for law in laws]) < 0.09


def test_two_sizes_tell_nothing():
    found = fit_power_law(np.array([1.0, 2, 1, 2]), np.array([0.5, 0.4, 0.5, 0.4]), np.array([0, 0, 1, 1]))
    assert not found.fits
    assert "too few" in found.statement("cells")
