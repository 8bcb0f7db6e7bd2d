"""Does the error follow a power law of a size, and which?

Belongs here: fitting one and testing whether it fits. Does not belong here: measuring the errors (see `scaling`).

Source: Kaplan et al., "Scaling Laws for Neural Language Models", arXiv 2001.08361, section 1.2 (the form); Draper and
Smith, "Applied Regression Analysis", 1998, section 2.1 (the test for lack of fit).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

_LEVEL = 0.05
_FEWEST_SIZES = 3
_SMALLEST_ERROR = 1e-9


@dataclass(frozen=True)
class PowerLaw:
    """error = a size^-b, with its own a for each repeat: every repeat is tested on its own sample.

    Args:
        exponent: b.
        low: Bounds of its interval (95%), of t.
        high: Likewise.
        scale: a, geometric mean over repeats.
        lack_of_fit: p of the hypothesis that a straight line in logarithms tells all that the sizes do.
        sizes: Number of sizes.
        repeats: Number of repeats.
    """

    exponent: float
    low: float
    high: float
    scale: float
    lack_of_fit: float
    sizes: int
    repeats: int

    @property
    def fits(self) -> bool:
        """Whether there is a law: the error changes with the size, and as a power of it."""
        return (self.low > 0 or self.high < 0) and not self.lack_of_fit < _LEVEL

    def statement(self, what: str) -> str:
        """What the numbers say about the error and a size of this name, as a sentence."""
        doubled = [100 * 2.0**-value for value in (self.exponent, self.high, self.low)]
        change = f"twice the {what} leave {doubled[0]:.1f}% of the error ({doubled[1]:.1f} to {doubled[2]:.1f}%)"
        if not np.isfinite(self.low):
            return f"{what}: too few measurements to tell"
        if self.low <= 0 <= self.high:
            return f"{what}: no law, the error does not change beyond chance; {change}"
        if self.lack_of_fit < _LEVEL:
            return f"{what}: the error changes, but not by a power law (lack of fit: p = {self.lack_of_fit:.2g})"
        return f"{what}: a power law with exponent {self.exponent:.3f} ({self.low:.3f} to {self.high:.3f}); {change}"


def fit_power_law(size: np.ndarray, error: np.ndarray, repeat: np.ndarray) -> PowerLaw:
    """Fit by least squares of logarithms, and test the fit against sizes that each have a level of their own.

    Args:
        size: Positive, (n,); every repeat has the same sizes.
        error: At each, (n,).
        repeat: Number of each one's repeat, (n,).

    Returns:
        The law; its interval is NaN for fewer than three sizes or too few measurements.
    """
    x, y = np.log(size.astype(float)), np.log(np.maximum(error, _SMALLEST_ERROR))
    sizes, repeats = np.unique(x), np.unique(repeat)
    n, s, r = len(x), len(sizes), len(repeats)
    blocks = (repeat[:, None] == repeats).astype(float)
    line, rest = _least_squares(np.column_stack([blocks, x]), y)
    scale = float(np.exp(line[:-1].mean()))
    free = n - r - 1
    if s < _FEWEST_SIZES or free < 1:
        return PowerLaw(float(-line[-1]), np.nan, np.nan, scale, np.nan, s, r)
    spread = ((x - blocks @ (blocks.T @ x / blocks.sum(axis=0))) ** 2).sum()
    half = float(stats.t.ppf(1 - _LEVEL / 2, free) * np.sqrt(rest / free / spread))
    levels = (x[:, None] == sizes[1:]).astype(float)
    _, pure = _least_squares(np.column_stack([blocks, levels]), y)
    free_pure = n - r - s + 1
    p = np.nan
    if free_pure > 0:
        tiny = 1e-20 * n
        ratio = ((rest - pure + tiny) / (s - 2)) / ((pure + tiny) / free_pure)
        p = float(stats.f.sf(ratio, s - 2, free_pure))
    exponent = float(-line[-1])
    return PowerLaw(exponent, exponent - half, exponent + half, scale, p, s, r)


def _least_squares(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients, and the sum of squared residuals."""
    found, *_ = np.linalg.lstsq(design, y, rcond=None)
    return found, float(((y - design @ found) ** 2).sum())


def common_sizes(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The size of each row, averaged over repeats: the n-th smallest of each repeat is one size.

    Args:
        rows: Mappings with `size` and `seed`.
    """
    sizes, seeds = (np.array([row[name] for row in rows]) for name in ("size", "seed"))
    rank = np.array([int((sizes[seeds == seed] < size).sum()) for size, seed in zip(sizes, seeds, strict=True)])
    mean = np.bincount(rank, sizes) / np.maximum(np.bincount(rank), 1)
    return np.asarray(mean[rank])
