"""Which of several methods are better over many tasks, and whether the tasks are enough to say so.

Belongs here: ranks, tests, and the tables of them, from rows of scores. Does not belong here: scoring (see `scores`),
drawing (see `plots`).

Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006, sections 3.1.3 and 3.2.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mobclip_core.evaluation.representations import METHOD_INPUTS, VARIANT_INPUTS

NEIGHBOURS = "neighbours"
"""The probe of the method `spatial_neighbours`; tables and plots of the ridge probe show it too."""

SPLITS = ("random", "spatial", "region")

_LEVEL = 0.05
_FEWEST_TASKS = 5
"""A signed-rank test of four tasks cannot reach 5%."""

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Ranks:
    """Methods by their mean rank over tasks, best first.

    Args:
        methods: Names.
        rank: Mean rank, 1 for the best of a task, shape (methods,).
        r2: Mean R2, shape (methods,).
        tasks: How many tasks.
        critical_difference: Of two mean ranks at 5% (Nemenyi).
        friedman: p of the hypothesis that all methods are alike.
        first: The method that the others are compared with.
        ahead: In how many tasks `first` is above each method.
        p: Of `first` and each method being alike (Wilcoxon's signed ranks over tasks, Holm's correction), NaN for
            itself.
    """

    methods: tuple[str, ...]
    rank: np.ndarray
    r2: np.ndarray
    tasks: int
    critical_difference: float
    friedman: float
    first: str
    ahead: np.ndarray
    p: np.ndarray


def methods_of(rows: Rows) -> list[str]:
    """The methods of some scores: this project's in their order, then external embeddings by name."""
    found = {row["method"] for row in rows}
    return [*(method for method in METHOD_INPUTS if method in found), *sorted(found - set(METHOD_INPUTS))]


def of_probe(rows: Rows, split: str, probe: str = "ridge") -> list[Mapping[str, Any]]:
    """The rows of a split and a probe, and those of the spatial neighbours."""
    return [row for row in rows if row["split"] == split and row["probe"] in (probe, NEIGHBOURS)]


def scored_splits(rows: Rows) -> list[str]:
    """The splits of all labels that ridge scores are there of, the least strict first."""
    rows = list(rows)
    return [name for name in SPLITS if of_probe(rows, name)]


def without_variants(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows of this project's methods and of external embeddings, not of variants of the encoder."""
    return [row for row in rows if row["method"] not in VARIANT_INPUTS]


def mean_scores(rows: Rows) -> tuple[list[str], list[str], np.ndarray]:
    """Tasks, methods, and R2 over seeds by task and method, NaN where there is none: shape (tasks, methods)."""
    rows = list(rows)
    tasks, methods = sorted({row["task"] for row in rows}), methods_of(rows)
    total, number = np.zeros((2, len(tasks), len(methods)))
    for row in rows:
        at = tasks.index(row["task"]), methods.index(row["method"])
        total[at] += row["r2"]
        number[at] += 1
    return tasks, methods, np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def rank(rows: Rows, first: str = "embeddings") -> Ranks | None:
    """Rank the methods of some rows over their tasks.

    Args:
        rows: Rows of one split and probe, see `of_probe`; a task that not every method has is left out.
        first: The method that the others are compared with.

    Returns:
        The ranks, or None for fewer than five tasks or two methods.
    """
    _, methods, scores = mean_scores(rows)
    scores = scores[np.isfinite(scores).all(axis=1)]
    tasks, number = scores.shape
    if tasks < _FEWEST_TASKS or number < 2 or first not in methods:
        return None
    mean_rank = stats.rankdata(-scores, axis=1).mean(axis=0)
    spread = np.sqrt(number * (number + 1) / (6 * tasks))
    critical = float(stats.studentized_range.ppf(1 - _LEVEL, number, np.inf) / np.sqrt(2) * spread)
    friedman = float(stats.friedmanchisquare(*scores.T).pvalue) if number > 2 else float("nan")
    own = scores[:, methods.index(first)]
    ahead = (own[:, None] > scores).sum(axis=0)
    p = np.full(number, np.nan)
    others = [i for i, method in enumerate(methods) if method != first]
    p[others] = holm(np.array([_signed_rank(own - scores[:, i]) for i in others]))
    order = np.argsort(mean_rank, kind="stable")
    names = tuple(methods[i] for i in order)
    mean = scores.mean(axis=0)
    return Ranks(names, mean_rank[order], mean[order], tasks, critical, friedman, first, ahead[order], p[order])


def _signed_rank(difference: np.ndarray) -> float:
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """The p values corrected for their number (Holm 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def ranks_markdown(ranks: Ranks) -> str:
    """The ranks as a table."""
    head = f"| method | mean rank | mean R2 | {ranks.first} ahead | p |\n| --- | ---: | ---: | ---: | ---: |"
    lines = [
        f"| {method} | {ranks.rank[i]:.2f} | {ranks.r2[i]:.3f} | "
        + (" | |" if method == ranks.first else f"{ranks.ahead[i]} of {ranks.tasks} | {ranks.p[i]:.3f} |")
        for i, method in enumerate(ranks.methods)
    ]
    foot = (
        f"\nMean ranks over {ranks.tasks} tasks that differ by less than {ranks.critical_difference:.2f} do not differ "
        f"at 5% (Nemenyi); all alike: p = {ranks.friedman:.2g} (Friedman). The last column is the signed-rank test of "
        f"{ranks.first} against each method over tasks, corrected for their number."
    )
    return "\n".join([head, *lines, foot])


def few_shot_scores(rows: Rows) -> tuple[list[float], list[str], np.ndarray]:
    """Mean R2 over tasks by the percentage of labels learnt from, for tasks that have them all.

    Returns:
        Percentages, ascending; methods; R2 (percentages, methods). Empty where no row is of few labels.
    """
    rows = list(rows)
    names = sorted({row["split"] for row in rows if row["split"].startswith("random_")}, key=_percent)
    tables = [mean_scores(of_probe(rows, name)) for name in names]
    common = sorted(set.intersection(*(set(tasks) for tasks, _, _ in tables))) if tables else []
    if not common:
        return [], [], np.zeros((0, 0))
    means = [scores[[tasks.index(task) for task in common]].mean(axis=0) for tasks, _, scores in tables]
    return [_percent(name) for name in names], tables[0][1], np.stack(means)


def _percent(split: str) -> float:
    return float(split.removeprefix("random_").removesuffix("%"))


def few_shot_markdown(rows: Rows) -> str:
    """Mean R2 over tasks by the labels learnt from, as a table; empty where there is none."""
    percentages, methods, scores = few_shot_scores(rows)
    if not percentages:
        return ""
    lines = ["| labels | " + " | ".join(methods) + " |", "| ---: |" + " ---: |" * len(methods)]
    for percentage, row in zip(percentages, scores, strict=True):
        lines.append(f"| {percentage:g}% | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    return "\n".join(lines)
