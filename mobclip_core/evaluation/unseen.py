"""Scores of a function of coordinates on cells that it never saw, beside the table that it was distilled from.

Belongs here: the comparison. Does not belong here: the function (see `encoder.distil`), the scores of the table itself
(see `scores`).

A probe learns from the table's vectors of the cells that the function learnt from, and predicts from vectors of the
other cells: once from the table's, once from the function's. Counties are described by their cells of either kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mobclip_core.evaluation.units import MIN_UNITS, UnitSet

_FOLDS = 5
_ALPHAS = tuple(10.0**power for power in range(-2, 7))


@dataclass(frozen=True)
class UnseenScore:
    """R2 of one task on units described by cells that the function never saw.

    Args:
        task: Task code.
        units: Units predicted.
        table: From the table's vectors.
        function: From the function's.
    """

    task: str
    units: int
    table: float
    function: float


def unseen_scores(
    unit_sets: Sequence[UnitSet], table: np.ndarray, function: np.ndarray, unseen: np.ndarray, seed: int = 0
) -> list[UnseenScore]:
    """Compare the two, task by task.

    Args:
        unit_sets: Labelled units over the cells.
        table: Vectors of all cells, (n, d).
        function: The function's, (n, d).
        unseen: Cells that it did not learn from, bool, (n,).
        seed: Of the folds.

    Returns:
        Sorted by task; tasks with fewer than 10 units on either side are left out.
    """
    found: list[UnseenScore] = []
    for units in unit_sets:
        seen_weights, seen_rows = _restricted(units.weights, ~unseen)
        unseen_weights, unseen_rows = _restricted(units.weights, unseen)
        learn = np.asarray(seen_weights @ table)
        asked = [np.asarray(unseen_weights @ vectors) for vectors in (table, function)]
        if min(seen_rows.sum(), unseen_rows.sum()) < MIN_UNITS:
            continue
        if units.scale == "cell":
            folds = [(np.flatnonzero(seen_rows), np.flatnonzero(unseen_rows))]
        else:
            both = np.flatnonzero(seen_rows & unseen_rows)
            if len(both) < MIN_UNITS:
                continue
            folds = [(both[a], both[b]) for a, b in KFold(_FOLDS, shuffle=True, random_state=seed).split(both)]
        tested = np.concatenate([test for _, test in folds])
        predicted = [np.empty((len(tested), len(units.tasks))) for _ in asked]
        start = 0
        for train, test in folds:
            probe = make_pipeline(StandardScaler(), RidgeCV(_ALPHAS, alpha_per_target=True))
            probe.fit(learn[train], units.targets[train])
            for out, vectors in zip(predicted, asked, strict=True):
                out[start : start + len(test)] = probe.predict(vectors[test]).reshape(len(test), -1)
            start += len(test)
        for i, task in enumerate(units.tasks):
            truth = units.targets[tested, i]
            found.append(UnseenScore(task, len(tested), *(float(r2_score(truth, out[:, i])) for out in predicted)))
    return sorted(found, key=lambda score: score.task)


def unseen_markdown(scores: Sequence[UnseenScore]) -> str:
    """The scores as a Markdown table with their means."""
    rows = [f"| {s.task} | {s.units} | {s.table:.3f} | {s.function:.3f} |" for s in scores]
    means = [float(np.mean([getattr(score, name) for score in scores])) for name in ("table", "function")]
    return "\n".join(
        [
            "| task | units | cell table | location encoder |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            f"| **mean** |  | **{means[0]:.3f}** | **{means[1]:.3f}** |",
        ]
    )


def _restricted(weights: csr_array, kept: np.ndarray) -> tuple[csr_array, np.ndarray]:
    """Weights of some cells alone, summing to 1 again where there are any, and which units have any."""
    part = csr_array(weights.multiply(kept[None, :].astype(np.float64)))
    total = np.asarray(part.sum(axis=1)).ravel()
    scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    return csr_array(part.multiply(scale[:, None])), total > 0
