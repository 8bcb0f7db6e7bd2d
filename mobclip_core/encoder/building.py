"""The step that makes the encoder: training, the student, the alignment to the encoder before, the files.

Belongs here: the order of these, what the bundle `encoder` says of its inputs, what is reported. Does not belong here:
how they are done (see `training`, `student`, `alignment`, `checkpoint`).
"""

import hashlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mobclip_core.encoder import card
from mobclip_core.encoder.alignment import align_to_previous
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import resolve_device
from mobclip_core.encoder.embedding import embed
from mobclip_core.encoder.features import ModalityFeatures, assemble_features, input_versions
from mobclip_core.encoder.launch import train_together
from mobclip_core.encoder.line import Graph, summed_degree
from mobclip_core.encoder.progress import Checkpoints
from mobclip_core.encoder.propagation import neighbour_edges
from mobclip_core.encoder.ranks import first_rank
from mobclip_core.encoder.student import train_student, with_student
from mobclip_core.encoder.training import NOT_OF_THE_MODEL, train
from mobclip_core.encoder.validation import training_graph, validation_mask
from mobclip_core.errors import ContractError
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of

if TYPE_CHECKING:
    from mobclip_core.deployment import Count, Deployment, StepResult

_AFTER_THE_TRAINING = ("student", "align_to_previous", "factors", "position_factors")
"""Options that an interrupted training may go on without regard to."""

_REPORT = "encoder_report"
"""Bundle of what depends on the encoder before, and so is no part of this one."""


def train_encoder(deployment: "Deployment") -> None:
    """Train the encoder on all regions and write the bundle `encoder`.

    Several processes of one `torch.distributed` group call it together; the first one teaches the student and writes.

    Raises:
        MissingTableError: If a feature table, the graph or the node vectors are not there yet.
        ContractError: If they are not about the same cells.
    """
    from mobclip_core.mobility.graph import open_graph

    store, profile = deployment.store, deployment.profile
    features = assemble_features(deployment)
    graph = open_graph(store.bundle("mobility_graph"))
    nodes = store.read(TableRef("node_embeddings"))
    if not np.array_equal(nodes["cell"].to_numpy(), graph.cells):
        raise ContractError("node_embeddings is not about the cells of mobility_graph; materialise it again")
    inputs = input_versions(store, features.regions, "mobility_graph", "node_embeddings")
    directed = profile.mobility.directed
    options = profile.encoder.model_dump(mode="json", exclude={*NOT_OF_THE_MODEL, *_AFTER_THE_TRAINING})
    key = hashlib.sha256(json.dumps([inputs, options, directed], sort_keys=True).encode()).hexdigest()
    checkpoints = Checkpoints(store, key)
    vectors = matrix_of(nodes["vector"])
    seen = training_graph(graph, profile.encoder)
    beside = neighbour_edges(features.lon, features.lat)
    trained = train(features, seen, vectors, profile.encoder, beside=beside, directed=directed, checkpoints=checkpoints)
    if not first_rank():
        return
    counts = {
        "cells": len(features),
        **{f"cells_with_{name}": int(m.mask.sum()) for name, m in features.modalities.items()},
        "edges_kept": int(np.sum(seen.keep)),
    }
    trained = replace(trained, config={**trained.config, "inputs": inputs, "counts": counts})
    trained, alignment = _finished(deployment, trained, features, graph, beside.numpy())
    with store.write_bundle(_REPORT, [], keep=1) as directory:
        (directory / "alignment.json").write_text(json.dumps(alignment))
    with store.write_bundle("encoder", []) as directory:
        trained.save(directory)
        (directory / card.FILE).write_text(card.model_card(trained, profile))
    checkpoints.clear()


def _finished(
    deployment: "Deployment",
    trained: TrainedEncoder,
    features: ModalityFeatures,
    graph: Graph,
    beside: np.ndarray,
) -> tuple[TrainedEncoder, dict[str, "Count"]]:
    """The encoder with its student, turned towards the encoder before where that is wanted, and how close they are."""
    config, regions = deployment.profile.encoder, features.regions
    device = resolve_device(config.device)
    every = np.arange(len(features))
    vectors = embed(trained, graph, beside, every, lambda _: features, device)
    if config.student is not None:
        has_mobility, held_out = summed_degree(graph) > 0, validation_mask(trained.cells, config)
        # where a cell lies the student need not guess
        position = 0 if trained.position is None else trained.position.of(features.lon, features.lat)
        taught = (vectors - position, has_mobility, held_out)
        student = train_student(features, beside, *taught, config.student, seed=config.seed, device=device)
        trained = with_student(trained, student, config.student)
    return align_to_previous(deployment.store, trained, vectors, regions, apply=config.align_to_previous)


def build_encoder(deployment: "Deployment") -> "StepResult":
    """Train the encoder, in as many processes as the profile says, and tell of it.

    Raises:
        MissingTableError: If a feature table, the graph or the node vectors are not there yet.
        ContractError: If they are not about the same cells.
        TrainingError: If one of several processes ends before its work is done.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.plots import loss_curves

    started = time.perf_counter()
    if deployment.profile.encoder.processes > 1:
        train_together(train_encoder, deployment)
    else:
        train_encoder(deployment)
    seconds = time.perf_counter() - started
    trained = TrainedEncoder.load(deployment.store.bundle("encoder"))
    alignment = json.loads((deployment.store.bundle(_REPORT) / "alignment.json").read_text())
    counts: dict[str, Count] = {
        **trained.config["counts"],
        "parameters": sum(value.size for value in trained.parameters.values()),
        "epochs": len(trained.history["train"]),
        "best_epoch": trained.best_epoch,
        "validation_loss": round(trained.history["validation"][trained.best_epoch], 6),
        "seconds": round(seconds, 1),
        **alignment,
        "fingerprint": trained.fingerprint,
    }
    pictures = {"Loss": loss_curves(trained.history, "Encoder: loss by epoch")}
    if curves := trained.student_history:
        lowest = min(curves["validation"])
        counts["student_best_epoch"] = curves["validation"].index(lowest)
        counts["student_validation_loss"] = round(lowest, 6)
        pictures["Loss of the student"] = loss_curves(curves, "Student: loss by epoch")
    return StepResult(deployment.store.written("encoder"), counts, pictures)
