"""What makes the vectors good: one option of the encoder at a time changed, on spatial blocks, over seeds and profiles.

    python -m tests.benchmarks.ablations [--profiles demo new_york] [--only NAME ...] [--seeds 0 1 2]

Reads the lakes of the profiles, which have to be materialised. For every seed the encoder is trained anew, with that
seed, and scored on the spatial blocks of that seed by the ridge probe; tasks of fewer than 100 units are left out, for
they swing more than any option. `by_option` gives, for each change, the mean R2 over tasks and seeds less that of the
profile's own options, by profile, and in how many seeds it was higher. `value` is the mean R2 of the profile's own
options over the profiles, `baseline` that of the paper's.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.deployment import Deployment
from mobclip_core.encoder.features import assemble_features
from mobclip_core.encoder.line import train_line
from mobclip_core.encoder.variants import VARIANTS, AdjacentCells, trained_vectors
from mobclip_core.errors import MobclipError
from mobclip_core.evaluation.representations import Representations
from mobclip_core.evaluation.scores import score
from mobclip_core.mobility.graph import open_graph
from mobclip_core.profile import EncoderConfig
from mobclip_core.store import TableRef
from tests.benchmarks._report import report

FEWEST_UNITS = 100
OWN, PAPER = "as in the profile", "as in the paper"
OPTIONS: dict[str, dict[str, Any]] = {
    OWN: {},
    PAPER: dict(VARIANTS["published"].options),
    "no spatial factors": {"factors": 0, "position_factors": 0},
    "no position factors": {"position_factors": 0},
    "half the position factors": {"position_factors": 8},
    "twice the position factors, fewer spatial ones": {"position_factors": 32, "factors": 80},
    "as many position factors, fewer spatial ones": {"factors": 80},
    "no fusion of features": {"feature_fusion": False, "modality_dropout": 0},
    "no reconstruction": {"reconstruction_weight": 0},
    "no contrast": {"contrastive_weight": 0},
    "no modality dropout": {"modality_dropout": 0},
    "no edges between adjacent cells": {"spatial_edges_weight": 0},
    "edges between adjacent cells twice as heavy": {"spatial_edges_weight": 1},
    "one layer": {"layers": 1},
    "three layers": {"layers": 3},
    "fusion with a hidden layer of 128": {"fusion_hidden": 128},
    "learned temperatures": {"learned_temperatures": True},
    "sigmoid loss": {"contrast": "sigmoid"},
    "cells of one parent no negatives": {"negatives_apart": 4},
    "products in bf16": {"precision": "bf16"},
    "batches four times as large": {"batch_size": 4},
    "LINE of both orders": {"line": "both"},
    "no LINE": {"line": None},
    "without POIs": {"without": "poi"},
    "without imagery": {"without": "imagery"},
    "without census": {"without": "census"},
    "adjacency in place of mobility": {"adjacency": True},
    "without mobility and adjacency": {"line": None, "layers": 0},
}
"""Changes of the profile's options. `line` is the order of the node vectors, `batch_size` a factor, `without` a
modality that is left out; `adjacency`: the edges between adjacent cells are the graph, of LINE too."""


class World:
    """The inputs of one profile."""

    def __init__(self, name: str) -> None:
        deployment = Deployment.open(name)
        self.profile = deployment.profile
        self.features = assemble_features(deployment)
        self.graph = open_graph(deployment.store.bundle("mobility_graph"))
        labels = deployment.store.read(TableRef("geobench_labels"))
        counts = pc.value_counts(labels["task"]).to_pylist()
        many = [found["values"] for found in counts if found["counts"] >= FEWEST_UNITS]
        self.labels = labels.filter(pc.is_in(labels["task"], pa.array(many)))
        self.adjacent = AdjacentCells.of(self.features)
        self._nodes: dict[tuple[str | None, bool, int], np.ndarray] = {}

    def nodes(self, order: str | None, adjacency: bool, seed: int) -> np.ndarray:
        """LINE vectors of an order, zeros for None: (N, d)."""
        key = (order, adjacency, seed)
        if key not in self._nodes:
            options = self.profile.line.model_copy(update={"order": order, "seed": seed})
            self._nodes[key] = (
                train_line(self.adjacent if adjacency else self.graph, options).vertex
                if order
                else np.zeros((len(self.features), options.dimensions), np.float32)
            )
        return self._nodes[key]

    def r2(self, changes: dict[str, Any], seed: int) -> float:
        """Mean R2 over tasks on the spatial blocks of a seed, of an encoder trained with that seed."""
        changes = dict(changes)
        adjacency, without = changes.pop("adjacency", False), changes.pop("without", None)
        nodes = self.nodes(changes.pop("line", self.profile.line.order), adjacency, seed)
        modalities = {name: found for name, found in self.features.modalities.items() if name != without}
        features, graph = replace(self.features, modalities=modalities), self.adjacent if adjacency else self.graph
        if "batch_size" in changes:
            changes["batch_size"] *= self.profile.encoder.batch_size
        options = EncoderConfig.model_validate({**dict(self.profile.encoder), **changes, "seed": seed})
        vectors = trained_vectors(features, graph, nodes, options, self.profile.mobility.directed)
        judged = {"splits": ["spatial"], "seeds": [seed], "probes": ["ridge"], "bootstrap": 10}
        evaluation = self.profile.evaluation.model_copy(update=judged)
        profile = self.profile.model_copy(update={"evaluation": evaluation})
        representations = Representations(self.features.cells, {"embeddings": vectors}, "not kept")
        rows, _ = score(self.labels, representations, profile)
        return float(np.mean([row["r2"] for row in rows]))


def compare(profiles: list[str], names: list[str], seeds: list[int]) -> None:
    """Train and score them all, and print the line."""
    worlds = {name: World(name) for name in profiles}
    found: dict[str, dict[str, list[float]]] = {}
    for name in names:
        found[name] = {key: [world.r2(OPTIONS[name], seed) for seed in seeds] for key, world in worlds.items()}
        told = {key: round(float(np.mean(values)), 4) for key, values in found[name].items()}
        print(name, told, file=sys.stderr, flush=True)
    own = found[OWN]
    by_option = {
        name: {
            key: {
                "difference": round(float(np.mean(values) - np.mean(own[key])), 4),
                "seeds_higher": int(np.sum(np.array(values) > np.array(own[key]))),
            }
            for key, values in by_profile.items()
        }
        for name, by_profile in found.items()
        if name != OWN
    }
    means = {name: float(np.mean([*by_profile.values()])) for name, by_profile in found.items()}
    report(
        "ablations",
        means[OWN],
        "mean R2 on spatial blocks",
        n=sum(len(world.features) for world in worlds.values()),
        baseline=means.get(PAPER),
        seeds=seeds,
        own={key: round(float(np.mean(values)), 4) for key, values in own.items()},
        by_option=by_option,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="+", default=["demo", "new_york"])
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="one seed, the paper's options alone")
    arguments = parser.parse_args()
    names = [OWN, PAPER] if arguments.quick else list(dict.fromkeys([OWN, *arguments.only]))
    try:
        compare(arguments.profiles, names, [0] if arguments.quick else arguments.seeds)
    except MobclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
