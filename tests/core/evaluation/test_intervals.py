import numpy as np
import pytest
from sklearn.metrics import r2_score

from mobclip_core.evaluation.intervals import bootstrap_draws, interval, mean_intervals, means_markdown, resampled_r2


def plain_draws(n):
    return np.ones((1, n), dtype=np.float32)


def test_r2_golden_values():
    truth = np.array([[1.0], [2.0], [3.0], [4.0]])
    predicted = np.array([[1.5], [2.0], [2.0], [4.0]])
    r2, resampled = resampled_r2(truth, predicted, np.arange(4), plain_draws(4))
    # residuals 0.25 + 0 + 1 + 0 over a spread of 5
    assert r2[0] == pytest.approx(0.75)
    assert resampled.tolist() == [[pytest.approx(0.75)]]


def test_r2_equals_scikit_learn_on_every_resample():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 2)) + 1e4
    predicted = truth + rng.normal(size=(40, 2))
    group = rng.integers(0, 7, 40)
    _, group = np.unique(group, return_inverse=True)
    draws = bootstrap_draws(int(group.max()) + 1, 30)
    r2, found = resampled_r2(truth, predicted, group, draws)
    low, high = interval(found)
    for target in range(2):
        assert r2[target] == pytest.approx(r2_score(truth[:, target], predicted[:, target]))
        resampled = []
        for draw in draws.astype(int):
            rows = np.repeat(np.arange(40), draw[group])
            resampled.append(r2_score(truth[rows, target], predicted[rows, target]))
        np.testing.assert_allclose([low[target], high[target]], np.percentile(resampled, [2.5, 97.5]))


def test_r2_of_labels_that_are_all_equal_is_zero():
    r2, resampled = resampled_r2(np.full((3, 1), 5.0), np.zeros((3, 1)), np.arange(3), plain_draws(3))
    low, high = interval(resampled)
    assert r2[0] == low[0] == high[0] == 0
    assert np.isnan(resampled).all()


def test_bootstrap_draws_repeat_and_add_up():
    draws = bootstrap_draws(12, 25)
    assert draws.shape == (25, 12)
    assert (draws.sum(axis=1) == 12).all()
    np.testing.assert_array_equal(draws, bootstrap_draws(12, 25))
    assert len(np.unique(draws, axis=0)) == 25


def row(task, method, r2, resampled, seed=0, leak=False):
    return {"task": task, "method": method, "r2": r2, "resampled": np.array(resampled), "seed": seed, "leak": leak}


def test_means_and_differences_by_hand():
    rows = [
        row("A", "embeddings", 0.5, [0.4, 0.5, 0.6]),
        row("B", "embeddings", 0.7, [0.7, 0.7, 0.7], leak=True),
        row("A", "poi", 0.3, [0.2, 0.3, 0.4], seed=0),
        row("A", "poi", 0.5, [0.4, 0.5, 0.6], seed=1),
        row("B", "poi", 0.7, [0.7, 0.7, np.nan]),
        # not every method has it
        row("C", "poi", 0.9, [0.9, 0.9, 0.9]),
    ]
    own, other = mean_intervals(rows)
    assert (own.method, own.tasks, own.leaks) == ("embeddings", 2, 1)
    assert own.r2 == pytest.approx(0.6)
    np.testing.assert_allclose([own.low, own.high], np.percentile([0.55, 0.6, 0.65], [2.5, 97.5]))
    assert (own.ahead, own.ahead_low, own.ahead_high) == (0, 0, 0)
    # A: 0.3, 0.4, 0.5 on the resamples; B has none on the third
    assert other.r2 == pytest.approx((0.4 + 0.7) / 2)
    np.testing.assert_allclose([other.low, other.high], np.percentile([0.5, 0.55, 0.5], [2.5, 97.5]))
    assert other.ahead == pytest.approx(0.05)
    np.testing.assert_allclose([other.ahead_low, other.ahead_high], np.percentile([0.05, 0.05, 0.15], [2.5, 97.5]))
    assert mean_intervals([]) == []
    assert np.isnan(mean_intervals(rows[2:])[0].ahead)


def test_methods_that_are_alike_on_every_resample_differ_for_sure():
    """Resampling both alike tells a small difference that the intervals of either hide."""
    noise = np.random.default_rng(0).normal(0, 0.2, 400)
    rows = [row("A", "embeddings", 0.5, 0.5 + noise), row("A", "poi", 0.49, 0.49 + noise)]
    own, other = mean_intervals(rows)
    assert own.low < other.high
    assert other.ahead_low == pytest.approx(0.01)


def test_the_table_of_means():
    rows = [row("A", "embeddings", 0.5, [0.5, 0.5], leak=True), row("A", "poi", 0.25, [0.25, 0.25])]
    assert means_markdown(mean_intervals(rows)).splitlines()[2:] == [
        "| embeddings | 0.500* | 0.500 to 0.500 |  | |",
        "| poi | 0.250 | 0.250 to 0.250 | +0.250 | +0.250 to +0.250 |",
    ]
