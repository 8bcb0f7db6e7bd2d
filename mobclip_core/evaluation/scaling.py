"""How the scores grow with what the encoder is given: cells, edges, inputs and width.

Belongs here: the nested training sets, the step that trains and scores them. Does not belong here: the fit (see
`power_law`), the training, the scoring.

| axis | what grows | tested on |
| --- | --- | --- |
| `cells` | cells to learn from, by whole blocks; each set holds the smaller ones | the smallest set, tasks by cell |
| `edges` | mobility edges, likewise | all cells |
| `inputs` | POIs, imagery, census and mobility, in an order that each repeat draws | all cells |
| `width` | dimensions of the vectors, of LINE's too | all cells |

Source: arXiv 2506.01297, section 5 (three nested training sets, tested on the smallest).
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.cells import parents
from mobclip_core.contracts import SCALING_LAW
from mobclip_core.encoder.features import ModalityFeatures, assemble_features, input_versions
from mobclip_core.encoder.line import Graph, train_line
from mobclip_core.encoder.subgraphs import graph_among, graph_with
from mobclip_core.encoder.training import NOT_OF_THE_MODEL
from mobclip_core.encoder.variants import trained_vectors
from mobclip_core.errors import MissingTableError
from mobclip_core.evaluation.power_law import PowerLaw, common_sizes, fit_power_law
from mobclip_core.evaluation.representations import INPUTS, Representations
from mobclip_core.evaluation.score_plots import scaling_plot
from mobclip_core.evaluation.scores import score
from mobclip_core.mobility.graph import open_graph
from mobclip_core.profile import EncoderConfig, LineConfig, Profile
from mobclip_core.store import Store, TableRef

if TYPE_CHECKING:
    from mobclip_core.deployment import Count, Deployment, StepResult

log = logging.getLogger(__name__)

AXES = ("cells", "edges", "inputs", "width")
FEWEST_UNITS = 100
"""A task with fewer units swings more than any size."""

_PROGRESS = "scaling_progress"


@dataclass(frozen=True)
class _Run:
    """One training: its place in the table, and what it is given."""

    axis: str
    size: float
    seed: int
    share: float = 1.0
    inputs: frozenset[str] = frozenset(INPUTS)
    width: int | None = None

    @property
    def name(self) -> str:
        return f"{self.axis} {self.size:g} {self.seed}"


class _World:
    """The inputs of a profile, and the scores of trainings on parts of them."""

    def __init__(self, deployment: "Deployment") -> None:
        self.profile = deployment.profile
        self.features = assemble_features(deployment)
        self.graph: Graph = open_graph(deployment.store.bundle("mobility_graph"))
        labels = deployment.store.read(TableRef("geobench_labels"))
        counts = pc.value_counts(labels["task"]).to_pylist()
        many = [found["values"] for found in counts if found["counts"] >= FEWEST_UNITS]
        self.labels = labels.filter(pc.is_in(labels["task"], pa.array(many, pa.string())))
        self._with_everything: dict[int, np.ndarray] = {}

    def runs(self) -> Iterator[_Run]:
        """All trainings that the profile asks for; what is the same on several axes comes once for each."""
        options = self.profile.evaluation.scaling
        width = self.profile.encoder.dimensions
        by_cell = self.labels.filter(pc.equal(self.labels["scale"], "cell"))
        for seed in range(options.repeats):
            for share in sorted({*options.cells, 1.0}) if len(by_cell) else ():
                yield _Run("cells", len(self.cells_of(share, seed)), seed, share)
            for share in sorted({*options.edges, 1.0}):
                yield _Run("edges", round(share * len(self.graph.indices)), seed, share)
            order = self._order_of_inputs(seed)
            for number in range(1, len(order) + 1):
                yield _Run("inputs", number, seed, inputs=frozenset(order[:number]))
            for dimensions in sorted({*options.widths, width}):
                yield _Run("width", dimensions, seed, width=dimensions)

    def _order_of_inputs(self, seed: int) -> list[str]:
        order = np.random.default_rng([seed, len(INPUTS)]).permutation([*self.features.modalities, "mobility"]).tolist()
        if order[0] == "mobility":
            # the training aligns mobility to the others: it needs one
            order[:2] = order[1::-1]
        return [str(name) for name in order]

    def cells_of(self, share: float, seed: int) -> np.ndarray:
        """Numbers of the cells of a nested set: the first blocks, in shuffled order, that hold this share of them."""
        _, block, sizes = np.unique(
            parents(self.features.cells, self.profile.evaluation.block_resolution),
            return_inverse=True,
            return_counts=True,
        )
        order = np.random.default_rng([seed, len(sizes)]).permutation(len(sizes))
        enough = int(np.searchsorted(np.cumsum(sizes[order]), share * len(block) * (1 - 1e-9))) + 1
        return np.flatnonzero(np.isin(block, order[:enough]))

    def _edges_of(self, share: float, seed: int) -> Graph:
        edges = len(self.graph.indices)
        kept = np.zeros(edges, dtype=bool)
        kept[np.random.default_rng([seed, edges]).permutation(edges)[: round(share * edges)]] = True
        return graph_with(self.graph, kept)

    def r2(self, run: _Run) -> tuple[float, int, int]:
        """Mean R2 over tasks of one training, and how many cells and edges it learnt from."""
        features, graph, tested = self.features, self.graph, np.arange(len(self.features))
        labels = self.labels
        if run.axis == "cells":
            rows = self.cells_of(run.share, run.seed)
            smallest = self.cells_of(min(self.profile.evaluation.scaling.cells), run.seed)
            features, graph = features.among(rows), graph_among(graph, features.cells[rows])
            tested = np.searchsorted(rows, smallest)
            labels = _of_cells(labels, self.features.cells[smallest])
        elif run.axis == "edges":
            graph = self._edges_of(run.share, run.seed)
        vectors = self._vectors(features, graph, run)
        judged = {"splits": ["spatial"], "seeds": [run.seed], "probes": ["ridge"], "bootstrap": 10}
        evaluation = self.profile.evaluation.model_copy(update=judged)
        profile = self.profile.model_copy(update={"evaluation": evaluation})
        representations = Representations(features.cells[tested], {"embeddings": vectors[tested]}, "not kept")
        rows_of_scores, _ = score(labels, representations, profile)
        return float(np.mean([row["r2"] for row in rows_of_scores])), len(features), len(graph.indices)

    def _vectors(self, features: ModalityFeatures, graph: Graph, run: _Run) -> np.ndarray:
        """Those of a training; the one with everything ends every axis, and is done once a repeat."""
        everything = (
            len(features) == len(self.features)
            and len(graph.indices) == len(self.graph.indices)
            and run.inputs >= {*self.features.modalities, "mobility"}
            and run.width in (None, self.profile.encoder.dimensions)
        )
        if everything and run.seed in self._with_everything:
            return self._with_everything[run.seed]
        modalities = {name: found for name, found in features.modalities.items() if name in run.inputs}
        features = replace(features, modalities=modalities)
        line, options = _options(self.profile, run)
        nodes = np.zeros((len(features), line.dimensions), np.float32)
        if "mobility" in run.inputs:
            nodes = train_line(graph, line).vertex
        vectors = trained_vectors(features, graph, nodes, options, self.profile.mobility.directed)
        if everything:
            self._with_everything = {run.seed: vectors}
        return vectors


def _of_cells(labels: pa.Table, cells: np.ndarray) -> pa.Table:
    """The labels by cell of some cells."""
    labels = labels.filter(pc.equal(labels["scale"], "cell"))
    return labels.filter(pc.is_in(pc.list_element(labels["cells"], 0), pa.array(cells)))


def _options(profile: Profile, run: _Run) -> tuple[LineConfig, EncoderConfig]:
    line, changes = profile.line.model_copy(update={"seed": run.seed}), {"seed": run.seed, "tensorboard": None}
    if run.width is not None:
        ratio = run.width / profile.encoder.dimensions
        parts = {name: int(getattr(profile.encoder, name) * ratio) for name in ("factors", "position_factors")}
        changes |= {"dimensions": run.width, **parts}
        line = line.model_copy(update={"dimensions": run.width})
    if "mobility" not in run.inputs:
        changes["layers"] = 0
    return line, EncoderConfig.model_validate({**dict(profile.encoder), **changes})


def build_scaling_law(deployment: "Deployment") -> "StepResult":
    """Train and score every size, repeat by repeat, and fit a power law to each axis.

    An interrupted step goes on with the next training.

    Raises:
        MissingTableError: If labels, features or the graph are not there yet.
    """
    from mobclip_core.deployment import StepResult

    store, profile = deployment.store, deployment.profile
    world = _World(deployment)
    runs = list(world.runs())
    progress = _Progress(store, _key(deployment, world.features))
    for number, run in enumerate(runs):
        if run.name in progress.found:
            continue
        started = time.perf_counter()
        r2, cells, edges = world.r2(run)
        seconds = time.perf_counter() - started
        progress.add(run.name, {"r2": r2, "cells": cells, "edges": edges, "seconds": round(seconds, 1)})
        log.info("scaling %d/%d: %s: R2 %.3f in %.0f s", number + 1, len(runs), run.name, r2, seconds)
    rows = [{"axis": run.axis, "size": float(run.size), "seed": run.seed, **progress.found[run.name]} for run in runs]
    rows = [{**row, "error": 1 - row["r2"]} for row in rows]
    rows.sort(key=lambda row: tuple(row[key] for key in SCALING_LAW.keys))
    written = store.write(TableRef("scaling_law"), pa.Table.from_pylist(rows, SCALING_LAW.schema()))
    progress.clear()
    laws = laws_of(rows)
    counts: dict[str, Count] = {"trainings": len(rows)}
    for axis, law in laws.items():
        counts |= {f"{axis}_exponent": law.exponent, f"{axis}_is_a_power_law": int(law.fits)}
    title = f"{profile.name}: error (1 - mean R2 over tasks, spatial blocks)"
    pictures = {"Scaling": scaling_plot(rows, laws, title)} if rows else {}
    return StepResult(written, counts, pictures, {"Laws": laws_markdown(rows, laws)})


def laws_of(rows: list[dict[str, Any]]) -> dict[str, PowerLaw]:
    """The law of each axis of some rows of `scaling_law`."""
    found = {}
    for axis in AXES:
        chosen = [row for row in rows if row["axis"] == axis]
        if chosen:
            # whole blocks: the number of cells differs a little by repeat, the share does not
            sizes = common_sizes(chosen)
            columns = (np.array([row[name] for row in chosen]) for name in ("error", "seed"))
            found[axis] = fit_power_law(sizes, *columns)
    return found


def laws_markdown(rows: list[dict[str, Any]], laws: Mapping[str, PowerLaw]) -> str:
    """Mean R2 by size, and what each law says."""
    lines = ["| | size | mean R2 | lowest | highest |", "| --- | ---: | ---: | ---: | ---: |"]
    for axis in laws:
        chosen = [row for row in rows if row["axis"] == axis]
        sizes = common_sizes(chosen)
        for size in np.unique(sizes):
            r2 = [row["r2"] for row, own in zip(chosen, sizes, strict=True) if own == size]
            lines.append(f"| {axis} | {size:,.0f} | {np.mean(r2):.3f} | {min(r2):.3f} | {max(r2):.3f} |")
    statements = [f"- {law.statement(axis)}" for axis, law in laws.items()]
    return "\n".join([*lines, "", *statements])


def _key(deployment: "Deployment", features: ModalityFeatures) -> str:
    """What the trainings are of."""
    store, profile = deployment.store, deployment.profile
    inputs = input_versions(store, features.regions, "mobility_graph", "geobench_labels")
    options = [
        profile.encoder.model_dump(mode="json", exclude=set(NOT_OF_THE_MODEL)),
        profile.line.model_dump(mode="json"),
        profile.evaluation.model_dump(mode="json"),
    ]
    return hashlib.sha256(json.dumps([inputs, options], sort_keys=True).encode()).hexdigest()


class _Progress:
    """What was measured before an interruption, in the lake."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self.found: dict[str, dict[str, Any]] = {}
        try:
            kept = json.loads((store.bundle(_PROGRESS) / "progress.json").read_text())
        except MissingTableError:
            return
        if kept["key"] == key:
            self.found = kept["found"]
            log.info("scaling: going on after %d trainings", len(self.found))

    def add(self, name: str, measured: dict[str, Any]) -> None:
        self.found[name] = measured
        with self._store.write_bundle(_PROGRESS, [], keep=1) as folder:
            (folder / "progress.json").write_text(json.dumps({"key": self._key, "found": self.found}))

    def clear(self) -> None:
        self._store.remove_bundle(_PROGRESS)
