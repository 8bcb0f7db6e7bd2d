"""Training of the encoder.

Belongs here: the inputs of the training, the step that writes the `encoder` bundle. Does not belong here: the loop (see
`trainer`), the modules and the losses, the files (see `checkpoint`), applying a trained encoder (see `embedding`).
"""

import hashlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobclip_core.encoder import card
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import deterministic, resolve_device
from mobclip_core.encoder.features import ModalityFeatures, assemble_features, input_versions
from mobclip_core.encoder.launch import train_together
from mobclip_core.encoder.line import Graph
from mobclip_core.encoder.modules import MobCLIP, Tensors
from mobclip_core.encoder.progress import Checkpoints
from mobclip_core.encoder.propagation import Adjacency, graph_adjacency, neighbour_edges
from mobclip_core.encoder.ranks import Ranks, first_rank
from mobclip_core.encoder.readout import fit_readout
from mobclip_core.encoder.tracking import Scalars
from mobclip_core.encoder.trainer import Trainer
from mobclip_core.errors import ContractError
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of

if TYPE_CHECKING:
    from mobclip_core.deployment import Deployment, StepResult
    from mobclip_core.profile import EncoderConfig

_ISOLATED_SCALE = 0.1
"""Length of the random start of a node that LINE knows nothing about: not zero (a cosine needs a direction), yet small
beside LINE's unit vectors."""

_EDGES_OF_A_NODE = 16

_NOT_OF_THE_MODEL = ("checkpoint_minutes", "launcher", "processes", "tensorboard")
"""Options that say where and how, not what is trained."""


def feature_tensors(features: ModalityFeatures, dtype: torch.dtype = torch.float32) -> tuple[Tensors, Tensors]:
    """Values (N, D_m) and masks (N,) of each modality as tensors."""
    # copied into memory that torch aligned: on the CPU a product's last bit depends on alignment
    values = {name: torch.tensor(m.values, dtype=dtype) for name, m in features.modalities.items()}
    return values, {name: torch.from_numpy(m.mask) for name, m in features.modalities.items()}


def encoder_adjacency(
    graph: Graph, beside: torch.Tensor, config: "EncoderConfig", directed: bool, dtype: torch.dtype = torch.float32
) -> Adjacency:
    """The propagation matrix that the options ask for; `beside` are the edges between adjacent cells, (2, E)."""
    weight = config.spatial_edges_weight
    return graph_adjacency(graph, directed=directed, spatial=beside, spatial_weight=weight, dtype=dtype)


def initial_table(cells: np.ndarray, node_vectors: np.ndarray, seed: int) -> np.ndarray:
    """LINE's vectors, and small random ones where LINE has none (zero rows), which depend on the cell's rank alone.

    Args:
        cells: uint64 (N,).
        node_vectors: (N, d).
        seed: Seed of the random ones.

    Returns:
        float32 (N, d).
    """
    table = np.array(node_vectors, dtype=np.float32)
    n, d = table.shape
    random = np.random.default_rng(seed).normal(size=(n, d)) * _ISOLATED_SCALE / np.sqrt(d)
    rank = np.argsort(np.argsort(cells, kind="stable"), kind="stable")
    empty = ~table.any(axis=1)
    table[empty] = random[rank[empty]]
    return table


def _load(adjacency: Adjacency) -> np.ndarray:
    """About the work that a node means: its edges, and its vector, which costs as much as some edges."""
    return np.asarray(adjacency.matrix.crow_indices().diff().numpy() + _EDGES_OF_A_NODE)


def train(
    features: ModalityFeatures,
    graph: Graph,
    node_vectors: np.ndarray,
    config: "EncoderConfig",
    *,
    directed: bool = True,
    dtype: torch.dtype = torch.float32,
    checkpoints: Checkpoints | None = None,
) -> TrainedEncoder:
    """Train the encoder, together with the other processes of `torch.distributed`'s default group if there is one.

    Args:
        features: Standardised features, in node order.
        graph: Mobility graph over the same cells.
        node_vectors: LINE vectors, (N, d); zero rows for nodes that LINE knows nothing about.
        config: Options.
        directed: Keep the direction of flows in the propagation.
        dtype: Type of the computation.
        checkpoints: Where the training goes on from, and what it leaves for another one to go on from.

    Returns:
        The parameters of the epoch with the lowest validation loss; the same for the same arguments, and for nodes
        renumbered the same rows renumbered.

    Raises:
        ContractError: If features, graph and vectors are not about the same cells.
    """
    cells = np.asarray(graph.cells)
    if not np.array_equal(cells, features.cells):
        raise ContractError("mobility_graph and grid_cells have different cells; materialise mobility_graph again")
    if node_vectors.shape != (len(cells), config.dimensions):
        raise ContractError(
            f"node_embeddings is {node_vectors.shape}, expected {(len(cells), config.dimensions)}; line.dimensions "
            "must equal encoder.dimensions, and node_embeddings must be newer than mobility_graph"
        )
    device = resolve_device(config.device)
    widths = {name: m.values.shape[1] for name, m in features.modalities.items()}
    beside = neighbour_edges(features.lon, features.lat)
    adjacency = encoder_adjacency(graph, beside, config, directed, dtype)
    ranks = Ranks.of(_load(adjacency))
    own = ranks.nodes
    with torch.random.fork_rng(devices=[]), deterministic(device):
        torch.manual_seed(config.seed)
        model = MobCLIP(own.stop - own.start, widths, config, ranks).to(dtype)
        model.reset_parameters()
        with torch.no_grad():
            model.node_table.copy_(torch.from_numpy(ranks.own(initial_table(cells, node_vectors, config.seed))))
        model = model.to(device)
        values, masks = feature_tensors(features, dtype)
        values = {name: ranks.own(value).to(device) for name, value in values.items()}
        masks = {name: mask.to(device) for name, mask in masks.items()}
        if ranks.size > 1:
            adjacency = adjacency.stretch(own)
        trainer = Trainer(model, (values, masks), adjacency.to(device), cells, config, ranks)
        before = None if checkpoints is None else checkpoints.load()
        if before is not None:
            trainer.resume(before)
        with Scalars(config.tensorboard) as scalars:
            trainer.fit(None if checkpoints is None else checkpoints.save, scalars)
        state, history, best = trainer.best(), trainer.state.history, trainer.state.best
        if config.factors:
            readout = fit_readout(features, beside.numpy(), trainer.vectors(), config.factors, config.seed)
            state |= {f"readout.{name}": value for name, value in vars(readout).items()}
    for name, modality in features.modalities.items():
        state[f"statistics.{name}.mean"] = modality.statistics.mean
        state[f"statistics.{name}.scale"] = modality.statistics.scale
    described = {
        "encoder": {name: value for name, value in vars(config).items() if name not in _NOT_OF_THE_MODEL},
        "widths": widths,
        "directed": directed,
        "image_encoder": features.image_encoder,
        "inputs": {},
    }
    return TrainedEncoder(state, cells, described, history, best)


def train_encoder(deployment: "Deployment") -> None:
    """Train the encoder on all regions and write the bundle `encoder`.

    Several processes of one `torch.distributed` group call it together; the first one writes.

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
    inputs = input_versions(store, features.regions)
    inputs |= {name: store.data_version(TableRef(name)) for name in ("mobility_graph", "node_embeddings")}
    directed = profile.mobility.directed
    options = profile.encoder.model_dump(mode="json", exclude=set(_NOT_OF_THE_MODEL))
    key = hashlib.sha256(json.dumps([inputs, options, directed], sort_keys=True).encode()).hexdigest()
    checkpoints = Checkpoints(store, key)
    vectors = matrix_of(nodes["vector"])
    trained = train(features, graph, vectors, profile.encoder, directed=directed, checkpoints=checkpoints)
    counts = {
        "cells": len(features),
        **{f"cells_with_{name}": int(m.mask.sum()) for name, m in features.modalities.items()},
        "edges_kept": int(np.sum(graph.keep)),
    }
    trained = replace(trained, config={**trained.config, "inputs": inputs, "counts": counts})
    if first_rank():
        with store.write_bundle("encoder", []) as directory:
            trained.save(directory)
            (directory / card.FILE).write_text(card.model_card(trained, profile))
        checkpoints.clear()


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
    counts: dict[str, int | float | str] = {
        **trained.config["counts"],
        "parameters": sum(value.size for value in trained.parameters.values()),
        "epochs": len(trained.history["train"]),
        "best_epoch": trained.best_epoch,
        "validation_loss": round(trained.history["validation"][trained.best_epoch], 6),
        "training_seconds": round(seconds, 1),
        "fingerprint": trained.fingerprint,
    }
    pictures = {"Loss": loss_curves(trained.history, "Encoder: loss by epoch")}
    return StepResult(deployment.store.written("encoder"), counts, pictures)
