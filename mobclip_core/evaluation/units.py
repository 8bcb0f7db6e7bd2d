"""The units of the tasks: cells, counties or cities that share their splits and factorisations.

Belongs here: labels as matrices. Does not belong here: making labels (see `labels`), scoring them (see `scores`).
"""

import hashlib
import itertools
import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from mobclip_core.deployment import Count
from mobclip_core.errors import ContractError
from mobclip_core.profile import Profile

log = logging.getLogger(__name__)

MIN_UNITS = 10
"""A task with fewer labelled units is not scored."""


@dataclass(frozen=True)
class UnitSet:
    """Tasks that share their units, and so their splits and factorisations.

    Args:
        tasks: Task codes.
        weights: Weight of each cell in each unit's mean, sparse, shape (units, cells).
        centres: The cell with the largest weight in each unit, uint64, shape (units,).
        targets: What the probes predict, shape (units, tasks).
        scale: `cell`, `county` or `city`.
        versions: A hash of each task's labels and their cells, (tasks,).
    """

    tasks: tuple[str, ...]
    weights: csr_array
    centres: np.ndarray
    targets: np.ndarray
    scale: str
    versions: tuple[str, ...]


def enough_units(labels: pa.Table, profile: Profile, counts: dict[str, Count]) -> pa.Table:
    """The labels of the tasks that can be scored; the others are counted."""
    kept = []
    for task in sorted(profile.tasks):
        rows = labels.filter(pc.equal(labels["task"], task))
        if len(rows) < MIN_UNITS:
            reason = "too_few_units"
        elif len(pc.unique(rows["target"])) == 1:
            reason = "constant_label"
        else:
            kept.append(rows)
            continue
        counts[f"{task}_skipped_{reason}"] = len(rows)
        log.warning("%s is not scored: %s (%d units)", task, reason.replace("_", " "), len(rows))
    return pa.concat_tables([labels.schema.empty_table(), *kept])


def unit_sets(labels: pa.Table, cells: np.ndarray) -> list[UnitSet]:
    """Group tasks whose units have the same cells with the same weights.

    Args:
        labels: Rows of `geobench_labels`, sorted by task and unit.
        cells: Sorted cells of the representations, uint64, shape (cells,).

    Raises:
        ContractError: If a unit has a cell that is not among `cells`.
    """
    grouped: dict[tuple[str, bytes, bytes, bytes], list[tuple[str, np.ndarray]]] = {}
    for task in pc.unique(labels["task"]).to_pylist():
        rows = labels.filter(pc.equal(labels["task"], task)).combine_chunks()
        members = rows["cells"].combine_chunks()
        starts = np.concatenate([[0], np.cumsum(pc.list_value_length(members).to_numpy())]).astype(np.int64)
        weights = rows["weights"].combine_chunks().flatten().to_numpy()
        scale = str(rows["scale"][0].as_py())
        key = (scale, starts.tobytes(), members.flatten().to_numpy().tobytes(), weights.tobytes())
        grouped.setdefault(key, []).append((task, rows["target"].to_numpy()))
    return [_unit_set(key, tasks, cells) for key, tasks in grouped.items()]


def _unit_set(key: tuple[str, bytes, bytes, bytes], tasks: list[tuple[str, np.ndarray]], cells: np.ndarray) -> UnitSet:
    scale, *described = key
    starts, members, weights = (
        np.frombuffer(b, t) for b, t in zip(described, (np.int64, np.uint64, float), strict=True)
    )
    position = np.searchsorted(cells, members)
    unknown = (position == len(cells)) | (cells[np.minimum(position, len(cells) - 1)] != members)
    names = tuple(task for task, _ in tasks)
    if unknown.any():
        raise ContractError(
            f"labels of {', '.join(names)} refer to {int(unknown.sum())} cells that are not in the grid; "
            "materialise geobench_labels again"
        )
    matrix = csr_array((weights, position, starts), shape=(len(starts) - 1, len(cells)))
    centres = np.array([members[a + weights[a:b].argmax()] for a, b in itertools.pairwise(starts)])
    whose = hashlib.sha256(b"".join(described)).digest()
    versions = tuple(hashlib.sha256(whose + target.tobytes()).hexdigest()[:16] for _, target in tasks)
    return UnitSet(names, matrix, centres, np.column_stack([target for _, target in tasks]), scale, versions)
