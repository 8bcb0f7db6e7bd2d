"""The probes that read a label out of a representation: ridge regression, boosted trees, and nearest neighbours.

Belongs here: fitting and out-of-sample predictions, made fast for many targets and folds. Does not belong here:
scoring, splits, representations.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import lightgbm
import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import KDTree

from mobclip_core.evaluation.splits import Split

ALPHAS: tuple[float, ...] = tuple(10.0**power for power in range(-1, 6))
"""Ridge penalties to choose from, for standardised features."""

NEIGHBOURS: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
"""Numbers of neighbours to choose from."""

_CHOOSING_UNITS = 5000
"""Of a part: so many decide the number of neighbours well enough."""
_CLOSE = 1e-6
"""Added to distances: on the unit sphere 6 m."""

_CONSTANT_VARIANCE = 1e-9

_Coefficients = Callable[[frozenset[int]], np.ndarray]


def ridge_predictions(
    X: np.ndarray, Y: np.ndarray, split: Split, *, common_scale: bool = False, alphas: tuple[float, ...] = ALPHAS
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-sample predictions of a ridge regression on features standardised within each training set.

    Equal to scikit-learn's `StandardScaler` followed by `Ridge(alpha)`, with alpha chosen for each target and each fit
    by cross-validation over the parts left for training (smallest summed squared error; the larger alpha on a tie).
    All targets share the factorisations. With n units and d features, n >= d, the d x d moments are summed once a part
    and every training set's are sums of them; with n < d the n x n kernel is factorised instead.

    Args:
        X: Features, shape (n, d).
        Y: Targets, shape (n, targets).
        split: The split.
        common_scale: Divide all features by one number (the root of their mean variance) in place of their own
            deviations. For principal components, whose deviations carry meaning: standardising each would make the
            noise of the last as loud as the signal of the first.
        alphas: Penalties to choose from, ascending.

    Returns:
        Predictions, float64, shape (n, targets), NaN for units that are never tested; and the alphas chosen, shape
        (fits, targets).
    """
    Y = np.asarray(Y, dtype=np.float64)
    X = _scaled(np.asarray(X, dtype=np.float64), common_scale)
    fits: list[tuple[dict[int, np.ndarray], _Coefficients]] = []
    if split.left_out is None:
        # what one fit solved for its inner folds another may need: all share the moments
        fits = [_solver(X, Y, _parts(split, None), common_scale, alphas)] * len(split.held_out)
    predictions = np.full(Y.shape, np.nan)
    chosen = np.empty((len(split.held_out), Y.shape[1]))
    for fit, held_out in enumerate(split.held_out):
        rows, coefficients = fits[fit] if fits else _solver(X, Y, _parts(split, fit), common_scale, alphas)
        rest = frozenset(rows) - frozenset(held_out)
        errors = np.zeros((len(alphas), Y.shape[1]))
        for fold in split.inner_folds(rest):
            index = np.concatenate([rows[part] for part in sorted(fold)])
            wrong = _predict(X[index], coefficients(rest - fold)) - Y[index]
            errors += (wrong**2).sum(axis=1)
        best = len(alphas) - 1 - np.argmin(errors[::-1], axis=0)
        chosen[fit] = np.asarray(alphas)[best]
        tested = np.flatnonzero(np.isin(split.part, held_out))
        path = coefficients(rest)[best, :, np.arange(Y.shape[1])].T
        predictions[tested] = X[tested] @ path[:-1] + path[-1]
    return predictions, chosen


def _parts(split: Split, fit: int | None) -> dict[int, np.ndarray]:
    """The units of each part; of those a fit learns from, if one is given."""
    known = np.ones(len(split.part), dtype=bool) if fit is None else split.known(fit)
    return {int(part): np.flatnonzero((split.part == part) & known) for part in np.unique(split.part[known])}


def _solver(
    X: np.ndarray, Y: np.ndarray, rows: dict[int, np.ndarray], common: bool, alphas: tuple[float, ...]
) -> tuple[dict[int, np.ndarray], _Coefficients]:
    """The parts, and a function that solves for each set of them once."""
    units = sum(len(index) for index in rows.values())
    return rows, cache((_primal if units >= X.shape[1] else _dual)(X, Y, rows, common, alphas))


def _scaled(X: np.ndarray, common: bool) -> np.ndarray:
    """Shift and scale all units together. No result depends on it (each fit scales again); rounding does."""
    return np.asarray((X - X.mean(axis=0)) / _scales(X.var(axis=0), common, 0.0))


def _predict(X: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Predictions of every penalty: shape (alphas, rows, targets)."""
    return np.asarray(X @ coefficients[:, :-1] + coefficients[:, -1:])


def _scales(variance: np.ndarray, common: bool, constant: float = _CONSTANT_VARIANCE) -> np.ndarray:
    """What to divide the columns by: 1 for constant ones (as scikit-learn's StandardScaler)."""
    variance = np.full_like(variance, variance.mean()) if common else variance
    return np.sqrt(np.where(variance > constant, variance, 1.0))


def _with_intercept(weights: list[np.ndarray], scale: np.ndarray, mean: np.ndarray, y_mean: np.ndarray) -> np.ndarray:
    """Coefficients for unstandardised columns, the intercept as the last row: shape (alphas, d + 1, targets)."""
    slopes = np.stack(weights) / scale[:, None]
    return np.concatenate([slopes, (y_mean - mean @ slopes)[:, None, :]], axis=1)


@dataclass(frozen=True)
class _Moments:
    """Sums over units: their number, x, y, xx' and xy'."""

    n: int
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, Y: np.ndarray) -> "_Moments":
        return cls(len(X), X.sum(axis=0), Y.sum(axis=0), X.T @ X, X.T @ Y)

    @classmethod
    def sum(cls, moments: Iterable["_Moments"]) -> "_Moments":
        n, x, y, xx, xy = zip(*(vars(found).values() for found in moments), strict=True)
        return cls(sum(n), sum(x), sum(y), sum(xx), sum(xy))

    def __sub__(self, other: "_Moments") -> "_Moments":
        return _Moments(self.n - other.n, self.x - other.x, self.y - other.y, self.xx - other.xx, self.xy - other.xy)


def _primal(
    X: np.ndarray, Y: np.ndarray, rows: dict[int, np.ndarray], common: bool, alphas: tuple[float, ...]
) -> _Coefficients:
    """(Z'Z + alpha I) w = Z'y from the moments of the parts, Z being X standardised on the training parts."""
    moments = {part: _Moments.of(X[index], Y[index]) for part, index in rows.items()}
    total = _Moments.sum(moments.values())

    def solve(train: frozenset[int]) -> np.ndarray:
        left = moments.keys() - train
        # of many parts few are left out: what they hold is taken away from the total
        few = len(left) < len(train)
        found = total
        if left:
            found = _Moments.sum(moments[p] for p in sorted(left if few else train))
            found = total - found if few else found
        mean, y_mean = found.x / found.n, found.y / found.n
        covariance = found.xx - found.n * np.outer(mean, mean)
        scale = _scales(np.diag(covariance) / found.n, common)
        covariance /= scale[:, None] * scale
        right = (found.xy - found.n * np.outer(mean, y_mean)) / scale[:, None]
        weights = [cho_solve(_factor(covariance, alpha), right, check_finite=False) for alpha in alphas]
        return _with_intercept(weights, scale, mean, y_mean)

    return solve


def _dual(
    X: np.ndarray, Y: np.ndarray, rows: dict[int, np.ndarray], common: bool, alphas: tuple[float, ...]
) -> _Coefficients:
    """The same weights as Z' (ZZ' + alpha I)^-1 y, by way of the kernel of the training units."""

    def solve(train: frozenset[int]) -> np.ndarray:
        index = np.concatenate([rows[p] for p in sorted(train)])
        mean, y_mean = X[index].mean(axis=0), Y[index].mean(axis=0)
        scale = _scales(X[index].var(axis=0), common)
        Z = (X[index] - mean) / scale
        kernel = Z @ Z.T
        weights = [Z.T @ cho_solve(_factor(kernel, alpha), Y[index] - y_mean, check_finite=False) for alpha in alphas]
        return _with_intercept(weights, scale, mean, y_mean)

    return solve


def _factor(matrix: np.ndarray, alpha: float) -> Any:
    shifted = matrix.copy()
    shifted.flat[:: len(matrix) + 1] += alpha
    return cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)


def neighbour_predictions(X: np.ndarray, Y: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-sample means of the nearest training units, weighted by the inverse of their distance.

    What a place's surroundings alone tell: the baseline that a random split flatters (Shepard 1968). The number of
    neighbours is chosen for each target and each fit by cross-validation over the parts left for training.

    Args:
        X: Places, shape (n, dimensions).
        Y: Targets, shape (n, targets).
        split: The split.

    Returns:
        Predictions, float64, shape (n, targets), NaN for units that are never tested; and the numbers chosen, shape
        (fits, targets).
    """
    Y = np.asarray(Y, dtype=np.float64)
    predictions = np.full(Y.shape, np.nan)
    chosen = np.empty((len(split.held_out), Y.shape[1]), dtype=np.int64)
    for fit, held_out in enumerate(split.held_out):
        known = split.known(fit)
        errors = np.zeros((len(NEIGHBOURS), Y.shape[1]))
        for fold in split.inner_folds(np.unique(split.part[known]).tolist()):
            inside = np.isin(split.part, list(fold))
            units = np.flatnonzero(known & inside)
            units = units[:: -(-len(units) // _CHOOSING_UNITS)]
            others = known & ~inside
            errors += ((_neighbour_means(X[others], Y[others], X[units]) - Y[units]) ** 2).sum(axis=1)
        # the smoother one on a tie
        best = len(NEIGHBOURS) - 1 - np.argmin(errors[::-1], axis=0)
        chosen[fit] = np.asarray(NEIGHBOURS)[best]
        tested = np.isin(split.part, held_out)
        predictions[tested] = _neighbour_means(X[known], Y[known], X[tested])[best, :, np.arange(Y.shape[1])].T
    return predictions, chosen


def _neighbour_means(known: np.ndarray, Y: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Means by every number of neighbours: shape (numbers, wanted, targets)."""
    most = min(NEIGHBOURS[-1], len(known))
    distance, index = KDTree(known).query(wanted, k=np.arange(1, most + 1))
    weight = 1 / (distance + _CLOSE)
    total, mass = np.cumsum(weight[..., None] * Y[index], axis=1), np.cumsum(weight, axis=1)
    return np.stack([total[:, min(k, most) - 1] / mass[:, min(k, most) - 1, None] for k in NEIGHBOURS])


TREES = 100
"""Boosting rounds."""

PUBLISHED_TREES = 1000
"""Boosting rounds of the paper."""

PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "cell": {"num_leaves": 63, "min_data_in_leaf": 30},
    "county": {"num_leaves": 31, "min_data_in_leaf": 50},
}
"""The paper's settings by the scale of the units (the authors' notebook); it has ridge regression for cities."""

_PUBLISHED = {"learning_rate": 0.05, "max_depth": 7}
_FEATURES_A_TREE = 32
_LIGHTGBM = {
    "objective": "regression",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "max_bin": 63,
    "bin_construct_sample_cnt": 20_000,
    "feature_pre_filter": False,
    "deterministic": True,
    "force_col_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


class LightGBMProbe:
    """Boosted trees over one feature matrix, for many targets and splits.

    The features are binned once for all fits: the bin edges (quantiles of the features, no labels) come from all units,
    everything else from the training units. Each tree of a wide matrix sees a random sample of 32 features.

    Args:
        X: Features, shape (n, d).
        scale: `cell` or `county`: the paper's settings for units of this scale, all features in each tree, LightGBM's
            default bins. None: settings that take a twentieth of the time.
    """

    def __init__(self, X: np.ndarray, scale: str | None = None) -> None:
        self._X = np.ascontiguousarray(X, dtype=np.float32)
        if scale is None:
            self._rounds, changes = TREES, {"feature_fraction": min(1.0, _FEATURES_A_TREE / X.shape[1])}
        else:
            self._rounds, changes = PUBLISHED_TREES, {**_PUBLISHED, **PUBLISHED[scale], "max_bin": 255}
        self._parameters: dict[str, Any] = {**_LIGHTGBM, **changes}
        no_label = np.zeros(len(X), dtype=np.float32)
        self._binned = lightgbm.Dataset(self._X, no_label, params=self._parameters, free_raw_data=False).construct()

    def predictions(self, Y: np.ndarray, split: Split) -> np.ndarray:
        """Out-of-sample predictions.

        Args:
            Y: Targets, shape (n, targets).
            split: The split; its seed is the seed of the trees.

        Returns:
            float64, shape (n, targets), NaN for units that are never tested.
        """
        predictions = np.full(Y.shape, np.nan)
        parameters = self._parameters | {"seed": split.seed}
        for fit, held_out in enumerate(split.held_out):
            tested, known = np.isin(split.part, held_out), split.known(fit)
            training = self._binned.subset(np.flatnonzero(known).tolist(), params=parameters).construct()
            for target in range(Y.shape[1]):
                training.set_label(Y[known, target])
                booster = lightgbm.train(parameters, training, num_boost_round=self._rounds)
                predictions[tested, target] = booster.predict(self._X[tested], num_threads=1)
        return predictions
