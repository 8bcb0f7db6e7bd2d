import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mobclip_core.evaluation.probes import (
    ALPHAS,
    NEIGHBOURS,
    LightGBMProbe,
    neighbour_predictions,
    ridge_predictions,
)
from mobclip_core.evaluation.splits import few_labels, random_split, spatial_split


def sample(n, d, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * rng.uniform(0.1, 10, d) + rng.normal(size=d) * 100
    y = (X - X.mean(0)) / X.std(0) @ rng.normal(size=d) / np.sqrt(d)
    return X, np.column_stack([y + noise * rng.normal(size=n), 1e3 * (y + 3 * rng.normal(size=n)) + 5e4])


def reference(X, y, split):
    """The same nested cross-validation, one scikit-learn pipeline after the other."""
    predictions, alphas = np.full(len(y), np.nan), []
    for held_out in split.held_out:
        test = np.isin(split.part, held_out)
        errors = []
        for alpha in ALPHAS:
            error = 0.0
            for part in set(split.part[~test]):
                inner = ~test & (split.part != part)
                validation = split.part == part
                model = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(X[inner], y[inner])
                error += ((model.predict(X[validation]) - y[validation]) ** 2).sum()
            errors.append(error)
        alphas.append(ALPHAS[int(np.argmin(errors))])
        predictions[test] = (
            make_pipeline(StandardScaler(), Ridge(alpha=alphas[-1])).fit(X[~test], y[~test]).predict(X[test])
        )
    return predictions, alphas


@pytest.mark.parametrize(("n", "d"), [(90, 12), (40, 60)])
@pytest.mark.parametrize("kind", ["random", "80/20", "spatial", "two blocks"])
def test_ridge_equals_scikit_learn(n, d, kind):
    X, Y = sample(n, d)
    blocks = np.arange(n) // 7
    split = {
        "random": random_split(n, 1, folds=4, small_sample=1000),
        "80/20": random_split(n, 1, folds=4, small_sample=2),
        "spatial": spatial_split(blocks, 1, folds=5),
        "two blocks": spatial_split(np.arange(n) // (n // 2 + 3), 1, folds=5),
    }[kind]
    predictions, chosen = ridge_predictions(X, Y, split)
    for target in range(2):
        expected, alphas = reference(X, Y[:, target], split)
        assert chosen[:, target].tolist() == alphas
        np.testing.assert_allclose(predictions[:, target], expected, rtol=1e-7)
        np.testing.assert_array_equal(np.isnan(predictions[:, target]), ~split.tested)


def test_ridge_takes_constant_columns_and_columns_constant_in_a_training_set():
    X, Y = sample(60, 5)
    split = random_split(60, 0, folds=5, small_sample=100)
    flag = (np.arange(60) == np.flatnonzero(split.part == 2)[0]).astype(float)
    wide = np.column_stack([X, np.full(60, 3.0), flag])
    predictions, _ = ridge_predictions(wide, Y, split)
    expected, _ = reference(wide, Y[:, 0], split)
    np.testing.assert_allclose(predictions[:, 0], expected, rtol=1e-6)


def test_ridge_ties_take_the_stronger_penalty():
    X = np.zeros((20, 3))
    Y = np.random.default_rng(0).normal(size=(20, 1))
    _, chosen = ridge_predictions(X, Y, random_split(20, 0, folds=4, small_sample=100))
    assert (chosen == ALPHAS[-1]).all()


def test_ridge_recovers_a_linear_label_and_finds_nothing_in_noise():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(1500, 16))
    Y = np.column_stack([X @ rng.normal(size=16), rng.normal(size=1500)])
    predictions, _ = ridge_predictions(X, Y, spatial_split(np.arange(1500) // 50, 0, folds=5))
    assert r2_score(Y[:, 0], predictions[:, 0]) > 0.999
    assert r2_score(Y[:, 1], predictions[:, 1]) < 0.02


def test_lightgbm_learns_a_nonlinear_label_out_of_sample_and_repeats():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 3))
    Y = np.column_stack([np.sign(X[:, 0]) * np.abs(X[:, 1]), rng.normal(size=800)])
    split = spatial_split(np.arange(800) // 40, 0, folds=5)
    predictions = LightGBMProbe(X).predictions(Y, split)
    assert r2_score(Y[:, 0], predictions[:, 0]) > 0.85
    assert r2_score(Y[:, 1], predictions[:, 1]) < 0.02
    np.testing.assert_array_equal(predictions, LightGBMProbe(X).predictions(Y, split))


def test_lightgbm_predicts_only_what_is_held_out_and_never_sees_its_labels():
    X = np.random.default_rng(0).normal(size=(300, 2))
    split = random_split(300, 0, folds=5, small_sample=10)
    Y = X[:, :1].copy()
    probe = LightGBMProbe(X)
    predictions = probe.predictions(Y, split)
    np.testing.assert_array_equal(np.isnan(predictions[:, 0]), ~split.tested)
    Y[split.tested] = 1e6
    np.testing.assert_array_equal(predictions, probe.predictions(Y, split))


def neighbour_reference(X, y, split):
    """The same nested cross-validation with scikit-learn's regressor."""

    def regressor(k, known):
        weights = lambda distance: 1 / (distance + 1e-6)  # noqa: E731
        return KNeighborsRegressor(min(k, known.sum()), weights=weights).fit(X[known], y[known])

    predictions, numbers = np.full(len(y), np.nan), []
    for held_out in split.held_out:
        test = np.isin(split.part, held_out)
        errors = []
        for k in NEIGHBOURS:
            error = 0.0
            for part in set(split.part[~test]):
                validation = split.part == part
                found = regressor(k, ~test & ~validation).predict(X[validation])
                error += ((found - y[validation]) ** 2).sum()
            errors.append(error)
        numbers.append(NEIGHBOURS[len(errors) - 1 - int(np.argmin(errors[::-1]))])
        predictions[test] = regressor(numbers[-1], ~test).predict(X[test])
    return predictions, numbers


@pytest.mark.parametrize("n", [90, 25])
@pytest.mark.parametrize("kind", ["random", "80/20", "spatial"])
def test_neighbours_equal_scikit_learn(n, kind):
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 3))
    Y = np.column_stack([np.sin(2 * X[:, 0]), X[:, 1] + rng.normal(size=n)])
    split = {
        "random": random_split(n, 1, folds=4, small_sample=1000),
        "80/20": random_split(n, 1, folds=4, small_sample=2),
        "spatial": spatial_split(np.arange(n) // 7, 1, folds=5),
    }[kind]
    predictions, chosen = neighbour_predictions(X, Y, split)
    for target in range(2):
        expected, numbers = neighbour_reference(X, Y[:, target], split)
        assert chosen[:, target].tolist() == numbers
        np.testing.assert_allclose(predictions[:, target], expected, rtol=1e-9)
        np.testing.assert_array_equal(np.isnan(predictions[:, target]), ~split.tested)


def test_neighbours_in_one_place_are_averaged_and_never_see_the_labels_held_out():
    X, Y = np.zeros((40, 3)), np.arange(40.0)[:, None]
    split = random_split(40, 0, folds=5, small_sample=10)
    predictions, _ = neighbour_predictions(X, Y, split)
    assert np.isfinite(predictions[split.tested]).all()
    Y[split.tested] = 1e6
    np.testing.assert_array_equal(predictions, neighbour_predictions(X, Y, split)[0])


@pytest.mark.parametrize("probe", ["ridge", "trees", "neighbours"])
def test_units_left_out_are_not_learnt_from(probe):
    X = np.random.default_rng(2).normal(size=(200, 3))
    Y = X[:, :1] + X[:, 1:2]
    split = few_labels(random_split(200, 3, folds=4, small_sample=1000), 0.4, fewest=10)

    def predict(labels):
        if probe == "trees":
            return LightGBMProbe(X).predictions(labels, split)
        return (ridge_predictions if probe == "ridge" else neighbour_predictions)(X, labels, split)[0]

    predictions = predict(Y)
    for fit, held_out in enumerate(split.held_out):
        changed = Y.copy()
        changed[~split.known(fit)] = 1e6
        tested = np.isin(split.part, held_out)
        np.testing.assert_array_equal(predict(changed)[tested], predictions[tested])


def test_ridge_on_few_labels_equals_a_ridge_fitted_to_them_alone():
    X, Y = sample(150, 8)
    split = few_labels(random_split(150, 3, folds=5, small_sample=1000), 0.3, fewest=10)
    predictions, chosen = ridge_predictions(X, Y, split)
    for fit, held_out in enumerate(split.held_out):
        known, tested = split.known(fit), np.isin(split.part, held_out)
        for target in range(2):
            model = make_pipeline(StandardScaler(), Ridge(alpha=chosen[fit, target])).fit(X[known], Y[known, target])
            np.testing.assert_allclose(predictions[tested, target], model.predict(X[tested]), rtol=1e-7)
