"""What the ridge probe predicts from the embeddings, out of sample, for pictures and maps.

Belongs here: predictions of one seed as people look at them. Does not belong here: scoring (see `scores`), drawing.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.deployment import Deployment
from mobclip_core.evaluation.probes import ridge_predictions
from mobclip_core.evaluation.scores import read_scores, splits_of
from mobclip_core.evaluation.units import UnitSet, unit_sets
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of


@dataclass(frozen=True)
class TaskPredictions:
    """One task.

    Args:
        task: Code.
        scale: `cell`, `county` or `city`.
        cells: Cells that describe a unit, each once, with the unit it weighs most in; uint64, shape (m,).
        unit: That unit of each, int64, shape (m,).
        label: Label of each unit, after the task's transform, shape (units,).
        prediction: Prediction of each unit, NaN where it was never tested, shape (units,).
    """

    task: str
    scale: str
    cells: np.ndarray
    unit: np.ndarray
    label: np.ndarray
    prediction: np.ndarray

    @property
    def residual(self) -> np.ndarray:
        """Label less prediction in standard deviations of the label, shape (units,)."""
        return np.asarray((self.label - self.prediction) / self.label.std())


def out_of_sample(deployment: Deployment) -> list[TaskPredictions]:
    """Predictions of every task that was scored, sorted by task.

    Of the first seed, spatial blocks where the profile scores them.

    Raises:
        MissingTableError: If labels, scores or embeddings are not materialised.
    """
    profile, store = deployment.profile, deployment.store
    scored = sorted({row["task"] for row in read_scores(deployment)})
    labels = store.read(TableRef("geobench_labels"))
    labels = labels.filter(pc.is_in(labels["task"], pa.array(scored, pa.string())))
    table = store.read_all("embeddings", ["cell", "vector"], profile.regions.region_keys).sort_by("cell")
    cells, vectors = table["cell"].to_numpy(), matrix_of(table["vector"])
    found = []
    for units in unit_sets(labels, cells):
        name = "spatial" if "spatial" in profile.evaluation.splits else "random"
        split = next(splits_of(name, profile.evaluation.seeds[0], units, profile.evaluation), None)
        if split is None:
            continue
        predictions, _ = ridge_predictions(np.asarray(units.weights @ vectors), units.targets, split)
        member, unit = _units_of_cells(units)
        found += [
            TaskPredictions(task, units.scale, cells[member], unit, units.targets[:, i], predictions[:, i])
            for i, task in enumerate(units.tasks)
        ]
    return sorted(found, key=lambda one: one.task)


def _units_of_cells(units: UnitSet) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the cells of units, sorted, and the unit in which each weighs most."""
    pairs = units.weights.tocoo()
    unit, cell = pairs.coords
    # of equal weights, the first unit
    order = np.lexsort((-unit, pairs.data, cell))
    cell, unit = cell[order], unit[order]
    last = np.append(cell[1:] != cell[:-1], True) if len(cell) else np.zeros(0, dtype=bool)
    return cell[last], unit[last]
