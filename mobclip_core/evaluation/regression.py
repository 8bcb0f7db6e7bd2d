"""Has a new encoder become worse than the last one that was good?

Belongs here: the summary of scores that is kept, and the comparison of two. Does not belong here: where the summary of
the last good scores lies (the orchestration keeps it), ranks of methods (see `comparison`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mobclip_core.deployment import CheckOutcome, Count, Deployment
from mobclip_core.evaluation.comparison import of_probe
from mobclip_core.evaluation.scores import read_scores
from mobclip_core.store import TableRef

_LEVEL = 0.05
_FEWEST_TASKS = 5
"""A one-sided signed-rank test of four tasks cannot reach 5%."""


@dataclass(frozen=True)
class Comparison:
    """The outcome, a table of it, and the summary to keep should it be good."""

    outcome: CheckOutcome
    table: str
    statistics: dict[str, Any]


def summary(deployment: Deployment) -> dict[str, Any]:
    """Of the embeddings' scores by the ridge probe: R2 and interval by task, of the strictest split; what they are of.

    Raises:
        MissingTableError: If the scores are not materialised.
    """
    rows = [row for row in read_scores(deployment) if row["method"] == "embeddings"]
    split = "spatial" if of_probe(rows, "spatial") else "random"
    chosen = of_probe(rows, split)
    tasks = {
        task: {
            name: float(np.mean([row[name] for row in chosen if row["task"] == task]))
            for name in ("r2", "r2_low", "r2_high")
        }
        for task in sorted({row["task"] for row in chosen})
    }
    labels = deployment.store.data_version(TableRef("geobench_labels"))
    return {"split": split, "labels": labels, "encoder": rows[0]["encoder"] if rows else "", "tasks": tasks}


def compare(
    now: dict[str, Any], before: Mapping[str, Any] | None, when: str = "", *, accept: bool = False
) -> Comparison:
    """Compare scores with those of the last encoder that passed.

    Worse means: the mean over tasks is lower, and so are the tasks by a one-sided signed-rank test at 5%; of fewer than
    five tasks, that every one is lower and the old score above the interval of the new one. Scores of other labels, or
    of another split, are not compared.

    Args:
        now: A `summary`.
        before: The one that passed last, if there is one.
        when: When that was.
        accept: The change is meant.
    """
    if before is None:
        return _passed("the first scores: nothing to compare with", now)
    if (before["labels"], before["split"]) != (now["labels"], now["split"]):
        return _passed(f"the labels or the split are not those of {when}: not compared", now)
    tasks = sorted(set(now["tasks"]) & set(before["tasks"]))
    if not tasks:
        return _passed("no task in common: not compared", now)
    new, old = (np.array([found["tasks"][task]["r2"] for task in tasks]) for found in (now, before))
    high = np.array([now["tasks"][task]["r2_high"] for task in tasks])
    change = float((new - old).mean())
    if len(tasks) >= _FEWEST_TASKS:
        alike = float(stats.wilcoxon(new - old, alternative="less").pvalue) if (new != old).any() else 1.0
        worse = change < 0 and alike < _LEVEL
    else:
        worse = bool((old > high).all())
    lines = [
        f"| {task} | {old[i]:.3f} | {new[i]:.3f} | {new[i] - old[i]:+.3f} |{' below' if old[i] > high[i] else ''} |"
        for i, task in enumerate(tasks)
    ]
    table = "\n".join(
        ["| task | before | now | change | old score and new interval |", "| --- | ---: | ---: | ---: | --- |", *lines]
    )
    message = (
        f"mean R2 {new.mean():.3f}, {old.mean():.3f} at {when} ({change:+.3f}; lower in {int((new < old).sum())} of "
        f"{len(tasks)} tasks, {now['split']} split)"
    )
    numbers: dict[str, Count] = {"mean_r2": float(new.mean()), "change": change, "tasks": len(tasks)}
    if worse and not accept:
        return Comparison(
            CheckOutcome(False, f"worse than the last encoder that passed: {message}", numbers), table, now
        )
    return Comparison(CheckOutcome(True, f"accepted: {message}" if worse else message, numbers), table, now)


def _passed(message: str, now: dict[str, Any]) -> Comparison:
    return Comparison(CheckOutcome(True, message), "", now)
