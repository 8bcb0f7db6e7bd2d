"""GeoBench scores: how well each task is predicted from each representation, out of sample.

Belongs here: the step that scores, R2 with its bootstrap interval, the leak flag, the summaries that people read. Does
not belong here: labels, representations, splits, probes.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from joblib import cpu_count
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from mobclip_core.cells import parents
from mobclip_core.contracts import GEOBENCH_SCORES
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.encoder import card
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.errors import ContractError
from mobclip_core.evaluation.comparison import (
    NEIGHBOURS,
    few_shot_markdown,
    few_shot_scores,
    methods_of,
    of_probe,
    rank,
    ranks_markdown,
)
from mobclip_core.evaluation.probes import LightGBMProbe, neighbour_predictions, ridge_predictions
from mobclip_core.evaluation.representations import METHOD_INPUTS, Representations, load_representations
from mobclip_core.evaluation.score_plots import few_label_curves, rank_diagram, score_bars
from mobclip_core.evaluation.splits import Split, buffered, few_labels, random_split, spatial_split
from mobclip_core.grid import cell_centres
from mobclip_core.profile import EvaluationConfig, Profile
from mobclip_core.sphere import EARTH_RADIUS_KM, unit_vectors
from mobclip_core.store import TableRef

log = logging.getLogger(__name__)

MIN_UNITS = 10
"""A task with fewer labelled units is not scored."""

_INTERVAL_PERCENT = (2.5, 97.5)


@dataclass(frozen=True)
class UnitSet:
    """Tasks that share their units, and so their splits and factorisations.

    Args:
        tasks: Task codes.
        weights: Weight of each cell in each unit's mean, sparse, shape (units, cells).
        centres: The cell with the largest weight in each unit, uint64, shape (units,).
        targets: What the probes predict, shape (units, tasks).
    """

    tasks: tuple[str, ...]
    weights: csr_array
    centres: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class _Scored:
    """A split, its tested units, and how often each bootstrap resample draws each group of them."""

    split: Split
    tested: np.ndarray
    group: np.ndarray
    draws: np.ndarray


def build_geobench_scores(deployment: Deployment) -> StepResult:
    """Score every task from every representation with every probe, split and seed of the profile.

    Raises:
        MissingTableError: If labels, features or embeddings are not materialised.
        FingerprintError: If embeddings come from another encoder than the current one.
        ContractError: If labels refer to cells that the grid does not have.
    """
    labels = deployment.store.read(TableRef("geobench_labels"))
    representations = load_representations(deployment)
    rows, counts = score(labels, representations, deployment.profile)
    table = pa.Table.from_pylist(rows, GEOBENCH_SCORES.schema())
    written = deployment.store.write(TableRef("geobench_scores"), table)
    pictures, tables = shown(rows, deployment.profile)
    encoder = TrainedEncoder.load(deployment.store.bundle("encoder"))
    deployment.store.publish(card.FILE, card.model_card(encoder, deployment.profile, tables).encode())
    return StepResult(written, counts, pictures, tables)


def shown(rows: list[dict[str, Any]], profile: Profile) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pictures and tables of some scores, by title: by task, ranks over tasks, and few labels."""
    splits = [name for name in sorted(profile.evaluation.splits) if of_probe(rows, name)]
    pictures, tables = {}, {f"R2, {name} split, ridge": scores_markdown(rows, name) for name in splits}
    bars = [row for name in splits for row in of_probe(rows, name)]
    order = methods_of(bars)
    if bars:
        bars.sort(key=lambda row: order.index(row["method"]))
        pictures["Scores"] = score_bars(bars, f"{profile.name}: out-of-sample R2, ridge")
    for name in splits:
        if (ranks := rank(of_probe(rows, name))) is not None:
            tables[f"Ranks, {name} split"] = ranks_markdown(ranks)
            title = f"{profile.name}: mean ranks over {ranks.tasks} tasks, {name} split"
            pictures[f"Ranks, {name} split"] = rank_diagram(ranks.methods, ranks.rank, ranks.critical_difference, title)
    percentages, methods, means = few_shot_scores(rows)
    if percentages:
        tables["R2 from few labels, random split, ridge"] = few_shot_markdown(rows)
        title = f"{profile.name}: R2 from few labels, mean over tasks"
        pictures["Few labels"] = few_label_curves(percentages, methods, means, title)
    return pictures, tables


def score(
    labels: pa.Table, representations: Representations, profile: Profile
) -> tuple[list[dict[str, Any]], dict[str, Count]]:
    """Rows of `geobench_scores` of some representations, sorted, and what was scored and what was not.

    Args:
        labels: Rows of `geobench_labels`.
        representations: The matrices; their names are among `METHOD_INPUTS`, or external embeddings of the profile.
        profile: Tasks, probes, splits and seeds.

    Raises:
        ContractError: If labels refer to cells that are not among those of the representations.
    """
    counts: dict[str, Count] = dict(representations.counts)
    sets = unit_sets(_enough_units(labels, profile, counts), representations.cells)
    rows: list[dict[str, Any]] = []
    for units in sets:
        rows += _score_unit_set(units, representations, profile, counts)
        log.info("scored %s: %d units", ", ".join(units.tasks), len(units.targets))
    rows.sort(key=lambda row: tuple(row[key] for key in GEOBENCH_SCORES.keys))
    # numbers, which Dagster plots over materialisations
    for name in sorted(profile.evaluation.splits):
        chosen = [row["r2"] for row in of_probe(rows, name) if row["method"] == "embeddings"]
        counts |= {f"mean_r2_{name}": float(np.mean(chosen))} if chosen else {}
    counts |= {"tasks_scored": sum(len(units.tasks) for units in sets), "encoder": representations.encoder}
    return rows, counts


def _enough_units(labels: pa.Table, profile: Profile, counts: dict[str, Count]) -> pa.Table:
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
    grouped: dict[tuple[bytes, bytes, bytes], list[tuple[str, np.ndarray]]] = {}
    for task in pc.unique(labels["task"]).to_pylist():
        rows = labels.filter(pc.equal(labels["task"], task)).combine_chunks()
        members = rows["cells"].combine_chunks()
        starts = np.concatenate([[0], np.cumsum(pc.list_value_length(members).to_numpy())]).astype(np.int64)
        weights = rows["weights"].combine_chunks().flatten().to_numpy()
        key = (starts.tobytes(), members.flatten().to_numpy().tobytes(), weights.tobytes())
        grouped.setdefault(key, []).append((task, rows["target"].to_numpy()))
    return [_unit_set(key, tasks, cells) for key, tasks in grouped.items()]


def _unit_set(key: tuple[bytes, bytes, bytes], tasks: list[tuple[str, np.ndarray]], cells: np.ndarray) -> UnitSet:
    starts, members, weights = (np.frombuffer(b, t) for b, t in zip(key, (np.int64, np.uint64, float), strict=True))
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
    return UnitSet(names, matrix, centres, np.column_stack([target for _, target in tasks]))


def _score_unit_set(
    units: UnitSet, representations: Representations, profile: Profile, counts: dict[str, Count]
) -> list[dict[str, Any]]:
    evaluation = profile.evaluation
    splits = list(_splits(units, evaluation))
    found = {scored.split.name for scored in splits}
    if "spatial" in evaluation.splits and "spatial" not in found:
        for task in units.tasks:
            counts[f"{task}_spatial_skipped_one_block"] = len(units.targets)
        log.warning("no spatial split for %s: all units lie in one block", ", ".join(units.tasks))

    def rows_of(method: str) -> list[dict[str, Any]]:
        X = units.weights @ representations.matrices[method]
        return list(_method_scores(method, np.asarray(X), units, splits, profile, representations.encoder))

    # a thread a method, each on one core: the wide matrices first, so that they do not end alone
    methods = sorted(representations.matrices, key=lambda name: -representations.matrices[name].shape[1])
    with threadpool_limits(1), ThreadPoolExecutor(cpu_count()) as pool:
        return [row for rows in pool.map(rows_of, methods) for row in rows]


def _splits(units: UnitSet, evaluation: EvaluationConfig) -> Iterator[_Scored]:
    for name in evaluation.splits:
        for seed in evaluation.seeds:
            for split in splits_of(name, seed, units, evaluation):
                tested = np.flatnonzero(split.tested)
                _, group = np.unique(split.group[tested], return_inverse=True)
                yield _Scored(split, tested, group, bootstrap_draws(int(group.max()) + 1, evaluation.bootstrap, seed))


def splits_of(name: str, seed: int, units: UnitSet, evaluation: EvaluationConfig) -> Iterator[Split]:
    """The splits of some units by a name and a seed: one and, if random, those of few labels; none in one block."""
    if name == "random":
        n, folds = len(units.targets), evaluation.folds
        split = random_split(n, seed, folds=folds, small_sample=evaluation.small_sample)
        thinned = (few_labels(split, fraction, MIN_UNITS) for fraction in evaluation.few_shot)
        yield from (split, *(few for few in thinned if few is not None))
        return
    blocks = parents(units.centres, evaluation.block_resolution)
    found = spatial_split(blocks, seed, folds=evaluation.folds)
    if found is not None and evaluation.buffer_km:
        found = buffered(found, unit_vectors(*cell_centres(units.centres)), evaluation.buffer_km / EARTH_RADIUS_KM)
    if found is not None:
        yield found


def _method_scores(
    method: str, X: np.ndarray, units: UnitSet, splits: list[_Scored], profile: Profile, encoder: str
) -> Iterator[dict[str, Any]]:
    evaluation = profile.evaluation
    probes: set[str] = {NEIGHBOURS} if method == "spatial_neighbours" else set(evaluation.probes)
    if len(X) < evaluation.small_sample or method not in evaluation.lightgbm_methods:
        probes -= {"lightgbm"}
    trees = LightGBMProbe(X) if "lightgbm" in probes else None
    for scored in splits:
        for probe in sorted(probes - {"lightgbm"} if scored.split.few_shot else probes):
            if probe == "lightgbm" and trees is not None:
                predictions = trees.predictions(units.targets, scored.split)
            elif probe == NEIGHBOURS:
                predictions, _ = neighbour_predictions(X, units.targets, scored.split)
            else:
                predictions, _ = ridge_predictions(X, units.targets, scored.split, common_scale=method == "pca_128")
            truth, predicted = units.targets[scored.tested], predictions[scored.tested]
            r2, low, high = r2_interval(truth, predicted, scored.group, scored.draws)
            for i, task in enumerate(units.tasks):
                yield {
                    "profile": profile.name,
                    "task": task,
                    "method": method,
                    "probe": probe,
                    "split": scored.split.name,
                    "seed": scored.split.seed,
                    "n": len(X),
                    "n_test": len(scored.tested),
                    "r2": float(r2[i]),
                    "r2_low": float(low[i]),
                    "r2_high": float(high[i]),
                    "leak": _leaks(method, task, profile),
                    "encoder": encoder,
                }


def _leaks(method: str, task: str, profile: Profile) -> bool:
    """Whether an input of the method overlaps with the task's label, or an external embedding's training saw it."""
    if method in METHOD_INPUTS:
        return bool(METHOD_INPUTS[method] & set(profile.tasks[task].overlaps))
    return task in profile.evaluation.external[method].overlaps


def bootstrap_draws(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each group: float32, shape (resamples, groups); a row sums to `groups`."""
    drawn = np.random.default_rng([seed, groups]).integers(0, groups, (resamples, groups))
    cells = (drawn + np.arange(resamples)[:, None] * groups).ravel()
    return np.bincount(cells, minlength=resamples * groups).reshape(resamples, groups).astype(np.float32)


def r2_interval(
    truth: np.ndarray, predicted: np.ndarray, group: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R2 over all units tested, and its percentile bootstrap interval (95%) over groups of units.

    R2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2, as `sklearn.metrics.r2_score` on the pooled predictions.
    A resample in which all labels are equal has no R2 and is left out.

    Args:
        truth: Shape (n, targets).
        predicted: Shape (n, targets).
        group: Group of each unit, from 0, shape (n,).
        draws: How often each resample draws each group, shape (resamples, groups).

    Returns:
        R2 and the bounds of its interval, each of shape (targets,); -inf is never returned: where the tested labels
        are all equal, R2 is 0.
    """
    centred = truth - truth.mean(axis=0)
    sums = np.stack([(truth - predicted) ** 2, centred**2, centred, np.ones_like(centred)])
    by_group = np.zeros((4, draws.shape[1], truth.shape[1]))
    for statistic, target in zip(sums, by_group, strict=True):
        np.add.at(target, group, statistic)
    resampled = np.concatenate([by_group.sum(axis=1)[:, None], draws.astype(np.float64) @ by_group], axis=1)
    residual, square, total, n = resampled
    spread = square - total**2 / n
    scale = np.maximum(square, np.finfo(float).tiny)
    valid = spread > 1e-12 * scale
    r2 = np.where(valid, 1 - residual / np.where(valid, spread, 1.0), np.nan)
    low, high = np.full((2, truth.shape[1]), np.nan)
    for i, column in enumerate(r2[1:].T):
        if np.isfinite(column).any():
            low[i], high[i] = np.nanpercentile(column, _INTERVAL_PERCENT)
    return np.nan_to_num(r2[0]), np.nan_to_num(low), np.nan_to_num(high)


def read_scores(deployment: Deployment) -> list[dict[str, Any]]:
    """Rows of `geobench_scores`: profile, task, method, probe, split, seed, n, r2, r2_low, r2_high, leak and more.

    Raises:
        MissingTableError: If the scores are not materialised.
    """
    rows: list[dict[str, Any]] = deployment.store.read(TableRef("geobench_scores")).to_pylist()
    return rows


def scores_markdown(rows: Iterable[dict[str, Any]], split: str, probe: str = "ridge") -> str:
    """Task x method table of the mean R2 over seeds; `*` marks scores whose inputs overlap with the label."""
    chosen = of_probe(rows, split, probe)
    methods = methods_of(chosen)
    lines = ["| task | n | " + " | ".join(methods) + " |", "| --- | ---: |" + " ---: |" * len(methods)]
    for task in sorted({row["task"] for row in chosen}):
        of_task = [row for row in chosen if row["task"] == task]
        shown = []
        for method in methods:
            found = [row for row in of_task if row["method"] == method]
            star = "*" if found[0]["leak"] else ""
            shown.append(f"{np.mean([row['r2'] for row in found]):.3f}{star}")
        lines.append(f"| {task} | {of_task[0]['n']} | " + " | ".join(shown) + " |")
    means = [f"**{np.mean([row['r2'] for row in chosen if row['method'] == method]):.3f}**" for method in methods]
    lines.append("| **mean** | | " + " | ".join(means) + " |")
    return "\n".join(lines)
