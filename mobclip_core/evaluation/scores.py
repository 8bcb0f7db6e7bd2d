"""GeoBench scores: how well each task is predicted from each representation, out of sample.

Belongs here: the step that scores, the leak flag, the summaries that people read. Does not belong here: labels and
their units, representations, splits, probes, intervals.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from mobclip_core.cells import parents
from mobclip_core.contracts import GEOBENCH_SCORES
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.encoder import card
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.evaluation.comparison import (
    NEIGHBOURS,
    few_shot_markdown,
    few_shot_scores,
    methods_of,
    of_probe,
    rank,
    ranks_markdown,
    scored_splits,
    without_variants,
)
from mobclip_core.evaluation.intervals import bootstrap_draws, interval, mean_intervals, means_markdown, resampled_r2
from mobclip_core.evaluation.probes import PUBLISHED, LightGBMProbe, neighbour_predictions, ridge_predictions
from mobclip_core.evaluation.representations import (
    METHOD_INPUTS,
    VARIANT_INPUTS,
    Representations,
    load_representations,
)
from mobclip_core.evaluation.score_plots import difference_plot, few_label_curves, rank_diagram, score_bars
from mobclip_core.evaluation.splits import (
    Split,
    buffered,
    few_labels,
    random_split,
    region_split,
    spatial_split,
)
from mobclip_core.evaluation.units import MIN_UNITS, UnitSet, enough_units, unit_sets
from mobclip_core.grid import cell_centres
from mobclip_core.profile import EvaluationConfig, Profile
from mobclip_core.sphere import EARTH_RADIUS_KM, unit_vectors
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of, vector_column

log = logging.getLogger(__name__)

PUBLISHED_PROBE = "lightgbm_published"
RESAMPLED = "resampled"


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
    written = deployment.store.write(TableRef("geobench_scores"), scores_table(rows, deployment.profile))
    pictures, tables = shown(rows, deployment.profile)
    encoder = TrainedEncoder.load(deployment.store.bundle("encoder"))
    deployment.store.publish(card.FILE, card.model_card(encoder, deployment.profile, tables).encode())
    return StepResult(written, counts, pictures, tables)


def scores_table(rows: list[dict[str, Any]], profile: Profile) -> pa.Table:
    """Rows of scores as the table `geobench_scores`."""
    names = [name for name in GEOBENCH_SCORES.schema().names if name != RESAMPLED]
    schema = pa.schema([GEOBENCH_SCORES.schema().field(name) for name in names])
    table = pa.Table.from_pylist([{name: row[name] for name in names} for row in rows], schema)
    resampled = [row[RESAMPLED] for row in rows] or np.zeros((0, profile.evaluation.bootstrap))
    return table.append_column(RESAMPLED, vector_column(np.asarray(resampled, dtype=np.float32)))


def shown(rows: list[dict[str, Any]], profile: Profile) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pictures and tables of some scores, by title: by task, means, ranks over tasks, few labels, and variants."""
    splits, plain = scored_splits(rows), without_variants(rows)
    pictures, tables = {}, {f"R2, {name} split, ridge": scores_markdown(plain, name) for name in splits}
    bars = [row for name in splits for row in of_probe(plain, name)]
    order = methods_of(bars)
    if bars:
        bars.sort(key=lambda row: order.index(row["method"]))
        pictures["Scores"] = score_bars(bars, f"{profile.name}: out-of-sample R2, ridge")
    for name in splits:
        means = mean_intervals(of_probe(rows, name))
        title = f"Means, {name} split"
        tables[title] = means_markdown(means)
        if len(means) > 1:
            pictures[title] = difference_plot(
                means, f"{profile.name}: mean R2 less that of the embeddings, {name} split"
            )
        if (ranks := rank(of_probe(plain, name))) is not None:
            tables[f"Ranks, {name} split"] = ranks_markdown(ranks)
            title = f"{profile.name}: mean ranks over {ranks.tasks} tasks, {name} split"
            pictures[f"Ranks, {name} split"] = rank_diagram(ranks.methods, ranks.rank, ranks.critical_difference, title)
    percentages, methods, means_of_few = few_shot_scores(plain)
    if percentages:
        tables["R2 from few labels, random split, ridge"] = few_shot_markdown(plain)
        title = f"{profile.name}: R2 from few labels, mean over tasks"
        pictures["Few labels"] = few_label_curves(percentages, methods, means_of_few, title)
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
    sets = unit_sets(enough_units(labels, profile, counts), representations.cells)
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


def _score_unit_set(
    units: UnitSet, representations: Representations, profile: Profile, counts: dict[str, Count]
) -> list[dict[str, Any]]:
    evaluation = profile.evaluation
    splits = list(_splits(units, representations, evaluation))
    found = {scored.split.name for scored in splits}
    for name, what in (("spatial", "block"), ("region", "region")):
        if name in evaluation.splits and name not in found:
            for task in units.tasks:
                counts[f"{task}_{name}_skipped_one_{what}"] = len(units.targets)
            log.warning("no %s split for %s: all units lie in one %s", name, ", ".join(units.tasks), what)

    def rows_of(method: str) -> list[dict[str, Any]]:
        X = units.weights @ representations.matrices[method]
        return list(_method_scores(method, np.asarray(X), units, splits, profile, representations))

    # a thread a method, each on one core: the wide matrices first, so that they do not end alone
    methods = sorted(representations.matrices, key=lambda name: -representations.matrices[name].shape[1])
    with threadpool_limits(1), ThreadPoolExecutor(cpu_count()) as pool:
        return [row for rows in pool.map(rows_of, methods) for row in rows]


def _splits(units: UnitSet, representations: Representations, evaluation: EvaluationConfig) -> Iterator[_Scored]:
    regions = representations.regions_of(units.centres) if "region" in evaluation.splits else None
    # the same for every seed
    draws = cache(lambda groups: bootstrap_draws(groups, evaluation.bootstrap))
    for name in evaluation.splits:
        # leaving out each region in turn leaves nothing to chance
        for seed in evaluation.seeds[: 1 if name == "region" else None]:
            for split in splits_of(name, seed, units, evaluation, regions):
                tested = np.flatnonzero(split.tested)
                groups, group = np.unique(split.group[tested], return_inverse=True)
                yield _Scored(split, tested, group, draws(int(split.group.max()) + 1)[:, groups])


def splits_of(
    name: str, seed: int, units: UnitSet, evaluation: EvaluationConfig, regions: np.ndarray | None = None
) -> Iterator[Split]:
    """The splits of some units by a name and a seed: one and, if random, those of few labels; none in one block.

    Args:
        name: `random`, `spatial` or `region`.
        seed: Seed.
        units: The units, (n,).
        evaluation: Options.
        regions: Region of each unit, (n,), for the split of this name.
    """
    if name == "random":
        n, folds = len(units.targets), evaluation.folds
        split = random_split(n, seed, folds=folds, small_sample=evaluation.small_sample)
        thinned = (few_labels(split, fraction, MIN_UNITS) for fraction in evaluation.few_shot)
        yield from (split, *(few for few in thinned if few is not None))
        return
    if name == "region":
        assert regions is not None
        found = region_split(regions, seed)
    else:
        blocks = parents(units.centres, evaluation.block_resolution)
        found = spatial_split(blocks, seed, folds=evaluation.folds)
        if found is not None and evaluation.buffer_km:
            found = buffered(found, unit_vectors(*cell_centres(units.centres)), evaluation.buffer_km / EARTH_RADIUS_KM)
    if found is not None:
        yield found


def _probes(method: str, units: UnitSet, split: Split, evaluation: EvaluationConfig) -> list[str]:
    """The probes of a method under a split."""
    if split.few_shot and method in VARIANT_INPUTS:
        return []
    if method == "spatial_neighbours":
        return [NEIGHBOURS]
    probes: set[str] = set(evaluation.probes)
    if len(units.targets) < evaluation.small_sample or method not in evaluation.lightgbm_methods or split.few_shot:
        probes -= {"lightgbm", PUBLISHED_PROBE}
    if split.name != "random" or units.scale not in PUBLISHED:
        probes -= {PUBLISHED_PROBE}
    return sorted(probes)


def _method_scores(
    method: str,
    X: np.ndarray,
    units: UnitSet,
    splits: list[_Scored],
    profile: Profile,
    representations: Representations,
) -> Iterator[dict[str, Any]]:
    trees = cache(lambda probe: LightGBMProbe(X, units.scale if probe == PUBLISHED_PROBE else None))
    for scored in splits:
        for probe in _probes(method, units, scored.split, profile.evaluation):
            if probe in ("lightgbm", PUBLISHED_PROBE):
                predictions = trees(probe).predictions(units.targets, scored.split)
            elif probe == NEIGHBOURS:
                predictions, _ = neighbour_predictions(X, units.targets, scored.split)
            else:
                predictions, _ = ridge_predictions(X, units.targets, scored.split, common_scale=method == "pca_128")
            truth, predicted = units.targets[scored.tested], predictions[scored.tested]
            r2, resampled = resampled_r2(truth, predicted, scored.group, scored.draws)
            low, high = interval(resampled)
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
                    "encoder": representations.encoder,
                    "label_version": units.versions[i],
                    "input_version": representations.version(method),
                    RESAMPLED: resampled[:, i],
                }


def _leaks(method: str, task: str, profile: Profile) -> bool:
    """Whether an input of the method overlaps with the task's label, or an external embedding's training saw it."""
    if method in METHOD_INPUTS:
        return bool(METHOD_INPUTS[method] & set(profile.tasks[task].overlaps))
    return task in profile.evaluation.external[method].overlaps


def read_scores(deployment: Deployment) -> list[dict[str, Any]]:
    """Rows of `geobench_scores`: profile, task, method, probe, split, seed, n, r2, r2_low, r2_high, leak and more.

    Raises:
        MissingTableError: If the scores are not materialised.
    """
    table = deployment.store.read(TableRef("geobench_scores"))
    resampled = matrix_of(table[RESAMPLED])
    rows: list[dict[str, Any]] = table.drop_columns([RESAMPLED]).to_pylist()
    return [row | {RESAMPLED: values} for row, values in zip(rows, resampled, strict=True)]


def scores_markdown(
    rows: Iterable[Mapping[str, Any]], split: str, probe: str = "ridge", *, tasks_across: bool = False
) -> str:
    """Table of the mean R2 over seeds by task and method; `*` marks scores whose inputs overlap with the label.

    A method that lacks a task has a gap there and no mean.

    Args:
        rows: Rows of scores.
        split: Split.
        probe: Probe.
        tasks_across: A line for each method, for places that are narrow.
    """
    chosen = of_probe(rows, split, probe)
    methods, tasks = methods_of(chosen), sorted({row["task"] for row in chosen})
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in chosen:
        found.setdefault((row["task"], row["method"]), []).append(row)
    r2 = {key: float(np.mean([row["r2"] for row in of_key])) for key, of_key in found.items()}
    digits = 2 if tasks_across else 3

    def shown(task: str, method: str) -> str:
        if (task, method) not in r2:
            return ""
        return f"{r2[task, method]:.{digits}f}" + ("*" if found[task, method][0]["leak"] else "")

    def mean(method: str) -> str:
        values = [r2[task, method] for task in tasks if (task, method) in r2]
        return f"**{np.mean(values):.{digits}f}**" if len(values) == len(tasks) else ""

    if tasks_across:
        head = ["method", "**mean**", *tasks]
        body = [[method, mean(method), *(shown(task, method) for task in tasks)] for method in methods]
    else:
        head = ["task", "n", *methods]
        units = {row["task"]: str(row["n"]) for row in chosen}
        body = [[task, units[task], *(shown(task, method) for method in methods)] for task in tasks]
        body.append(["**mean**", "", *map(mean, methods)])
    lines = ["| " + " | ".join(line) + " |" for line in [head, *body]]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(head) - 1), *lines[1:]])
