"""How sure a score is: bootstrap resamples of R2, by unit or by block, and what follows for means over tasks.

Belongs here: resampling and intervals. Does not belong here: predictions (see `probes`), ranks and tests over tasks
(see `comparison`).

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobclip_core.evaluation.comparison import methods_of

INTERVAL_PERCENT = (2.5, 97.5)


def bootstrap_draws(groups: int, resamples: int) -> np.ndarray:
    """How often each resample draws each group: float32, shape (resamples, groups); a row sums to `groups`.

    The same for the same numbers, so that what is scored on the same groups is resampled alike: methods, tasks, seeds.
    """
    drawn = np.random.default_rng(groups).integers(0, groups, (resamples, groups))
    cells = (drawn + np.arange(resamples)[:, None] * groups).ravel()
    return np.bincount(cells, minlength=resamples * groups).reshape(resamples, groups).astype(np.float32)


def resampled_r2(
    truth: np.ndarray, predicted: np.ndarray, group: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """R2 over all units tested, and on each resample of their groups.

    R2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2, as `sklearn.metrics.r2_score` on the pooled predictions.

    Args:
        truth: Shape (n, targets).
        predicted: Shape (n, targets).
        group: Group of each unit, from 0, shape (n,).
        draws: How often each resample draws each group, shape (resamples, groups).

    Returns:
        R2, shape (targets,), 0 where the tested labels are all equal; and that of each resample, shape (resamples,
        targets), NaN where they are.
    """
    centred = truth - truth.mean(axis=0)
    sums = np.stack([(truth - predicted) ** 2, centred**2, centred, np.ones_like(centred)])
    by_group = np.zeros((4, draws.shape[1], truth.shape[1]))
    for statistic, target in zip(sums, by_group, strict=True):
        np.add.at(target, group, statistic)
    resampled = np.concatenate([by_group.sum(axis=1)[:, None], draws.astype(np.float64) @ by_group], axis=1)
    residual, square, total, n = resampled
    spread = square - total**2 / np.maximum(n, 1)
    scale = np.maximum(square, np.finfo(float).tiny)
    valid = spread > 1e-12 * scale
    r2 = np.where(valid, 1 - residual / np.where(valid, spread, 1.0), np.nan)
    return np.nan_to_num(r2[0]), r2[1:]


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of the percentile interval (95%) over the first axis; 0 where every resample is NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(resampled, INTERVAL_PERCENT, axis=0)
    return np.nan_to_num(low), np.nan_to_num(high)


@dataclass(frozen=True)
class MeanScore:
    """A method's mean R2 over tasks and seeds, and how far the first method is ahead of it.

    Args:
        method: Its name.
        r2: Mean R2 over tasks.
        low: Bounds of its interval (95%).
        high: Likewise.
        ahead: The first method's mean less this one's; 0 for itself.
        ahead_low: Bounds of the interval of that difference: both methods on the same resamples.
        ahead_high: Likewise.
        tasks: How many.
        leaks: In how many of them an input of the method overlaps with the label.
    """

    method: str
    r2: float
    low: float
    high: float
    ahead: float
    ahead_low: float
    ahead_high: float
    tasks: int
    leaks: int


def mean_intervals(rows: Iterable[Mapping[str, Any]], first: str = "embeddings") -> list[MeanScore]:
    """Means over tasks with their intervals, in the order of `methods_of`.

    Tasks on the same units are resampled together, others independently. The interval is of the units: for these tasks,
    not for tasks at large.

    Args:
        rows: Rows of one split and probe with `resampled`; a task that not every method has is left out.
        first: The method that the others are compared with; if it is not there, the differences are NaN.
    """
    rows = list(rows)
    by_method: dict[str, dict[str, list[Mapping[str, Any]]]] = {method: {} for method in methods_of(rows)}
    for row in rows:
        by_method[row["method"]].setdefault(row["task"], []).append(row)
    tasks = sorted(set.intersection(*(set(found) for found in by_method.values()))) if by_method else []
    if not tasks:
        return []
    means: dict[str, float] = {}
    resampled: dict[str, np.ndarray] = {}
    with warnings.catch_warnings():
        # a resample that is NaN in every task
        warnings.simplefilter("ignore", RuntimeWarning)
        for method, found in by_method.items():
            means[method] = float(np.mean([np.mean([row["r2"] for row in found[task]]) for task in tasks]))
            of_tasks = [np.nanmean([row["resampled"] for row in found[task]], axis=0) for task in tasks]
            resampled[method] = np.nanmean(of_tasks, axis=0)
    result = []
    for method, found in by_method.items():
        low, high = interval(resampled[method])
        ahead = ahead_low = ahead_high = float("nan")
        if first in means:
            ahead = means[first] - means[method]
            ahead_low, ahead_high = map(float, interval(resampled[first] - resampled[method]))
        leaks = sum(bool(found[task][0]["leak"]) for task in tasks)
        numbers = (means[method], float(low), float(high), ahead, ahead_low, ahead_high)
        result.append(MeanScore(method, *numbers, len(tasks), leaks))
    return result


def means_markdown(means: Iterable[MeanScore], first: str = "embeddings") -> str:
    """The means as a table; `*` marks those to which scores contribute whose inputs overlap with the label."""
    lines = [f"| method | mean R2 | 95% | {first} ahead by | 95% |", "| --- | ---: | :---: | ---: | :---: |"]
    for mean in means:
        star = "*" if mean.leaks else ""
        lines.append(
            f"| {mean.method} | {mean.r2:.3f}{star} | {mean.low:.3f} to {mean.high:.3f} | "
            + (
                " | |"
                if mean.method == first
                else f"{mean.ahead:+.3f} | {mean.ahead_low:+.3f} to {mean.ahead_high:+.3f} |"
            )
        )
    return "\n".join(lines)
