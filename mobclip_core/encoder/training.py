"""Training of the encoder.

Belongs here: the loop, early stopping on held-out blocks, the step that writes the `encoder` bundle. Does not belong
here: the modules and the losses, the files (see `checkpoint`), applying a trained encoder (see `embedding`).
"""

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobclip_core.cells import parents, resolution_of
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import deterministic, resolve_device
from mobclip_core.encoder.features import ModalityFeatures, assemble_features, input_versions
from mobclip_core.encoder.line import Graph, summed_degree
from mobclip_core.encoder.modules import MobCLIP, Tensors
from mobclip_core.encoder.propagation import Adjacency, graph_adjacency, neighbour_edges
from mobclip_core.errors import ContractError
from mobclip_core.store import TableRef, Written
from mobclip_core.vectors import matrix_of

if TYPE_CHECKING:
    from mobclip_core.deployment import Deployment, StepResult
    from mobclip_core.profile import EncoderConfig

_ISOLATED_SCALE = 0.1
"""Length of the random start of a node that LINE knows nothing about: not zero (a cosine needs a direction), yet small
beside LINE's unit vectors."""


def feature_tensors(features: ModalityFeatures, dtype: torch.dtype = torch.float32) -> tuple[Tensors, Tensors]:
    """Values (N, D_m) and masks (N,) of each modality as tensors."""
    # copied into memory that torch aligned: on the CPU a product's last bit depends on alignment
    values = {name: torch.tensor(m.values, dtype=dtype) for name, m in features.modalities.items()}
    return values, {name: torch.from_numpy(m.mask) for name, m in features.modalities.items()}


def encoder_adjacency(
    graph: Graph,
    lon: np.ndarray,
    lat: np.ndarray,
    config: "EncoderConfig",
    directed: bool,
    dtype: torch.dtype = torch.float32,
) -> Adjacency:
    """The propagation matrix that the options ask for; `lon` and `lat` (N,) are the centres of the cells."""
    weight = config.spatial_edges_weight
    spatial = neighbour_edges(lon, lat) if weight > 0 else None
    return graph_adjacency(graph, directed=directed, spatial=spatial, spatial_weight=weight, dtype=dtype)


def validation_mask(cells: np.ndarray, config: "EncoderConfig") -> np.ndarray:
    """Cells of the spatial blocks held out for early stopping; which ones depends on the cells and the seed alone.

    Blocks are H3 parents at `validation_block_resolution`, or finer where that leaves fewer than two blocks. A single
    cell has no block to spare: nothing is held out.

    Returns:
        bool (N,).
    """
    finest = int(resolution_of(cells).min()) if len(cells) else 0
    for resolution in range(min(config.validation_block_resolution, finest), finest + 1):
        blocks, block_of = np.unique(parents(cells, resolution), return_inverse=True)
        if len(blocks) > 1:
            held = max(1, min(len(blocks) - 1, round(config.validation_fraction * len(blocks))))
            chosen = np.random.default_rng(config.seed).permutation(len(blocks))[:held]
            return np.isin(block_of, chosen)
    return np.zeros(len(cells), dtype=bool)


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


def _optimiser(model: MobCLIP, config: "EncoderConfig") -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _rows(tensors: Tensors, index: torch.Tensor) -> Tensors:
    return {name: value[index] for name, value in tensors.items()}


class _Trainer:
    """The state of one training run."""

    def __init__(
        self,
        model: MobCLIP,
        features: tuple[Tensors, Tensors],
        adjacency: Adjacency,
        cells: np.ndarray,
        config: "EncoderConfig",
    ) -> None:
        self.model, self.adjacency, self.config = model, adjacency, config
        self.values, self.masks = features
        self.optimiser = _optimiser(model, config)
        self.random = np.random.default_rng(config.seed)
        # batches and hidden modalities are drawn in cell order: node order plays no part
        self.order = np.argsort(cells, kind="stable")
        self.rank = torch.from_numpy(np.argsort(self.order, kind="stable"))
        held = validation_mask(cells, config)
        self.train_cells = self.order[~held[self.order]]
        self.validation_cells = self.order[held[self.order]] if held.any() else self.train_cells

    def _visible(self) -> Tensors:
        """Masks of what the fusion sees in this step."""
        if self.config.modality_dropout == 0 or not self.model.fusion:
            return self.masks
        shown = {}
        for name, mask in self.masks.items():
            kept = torch.from_numpy(self.random.random(len(self.order)) >= self.config.modality_dropout)
            shown[name] = mask & kept[self.rank].to(mask.device)
        return shown

    def _loss(self, visible: Tensors, index: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = torch.from_numpy(index).to(self.model.node_table.device)
        z = self.model(self.values, visible, self.adjacency)
        return self.model.loss(z[rows], _rows(self.values, rows), _rows(self.masks, rows))

    def epoch(self) -> float:
        """One pass over the training cells; mean loss a cell."""
        self.model.train()
        n = len(self.train_cells)
        shuffled = self.train_cells if n <= self.config.batch_size else self.random.permutation(self.train_cells)
        batches = -(-n // self.config.batch_size)
        total = 0.0
        for batch in np.array_split(shuffled, batches):
            self.optimiser.zero_grad()
            loss, _ = self._loss(self._visible(), batch)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += float(loss.detach()) * len(batch)
        return total / n

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the held-out cells and its terms."""
        self.model.eval()
        loss, terms = self._loss(self.masks, self.validation_cells)
        return {"validation": float(loss), **{name: float(term) for name, term in terms.items()}}


def train(
    features: ModalityFeatures,
    graph: Graph,
    node_vectors: np.ndarray,
    config: "EncoderConfig",
    *,
    directed: bool = True,
    dtype: torch.dtype = torch.float32,
) -> TrainedEncoder:
    """Train the encoder.

    Args:
        features: Standardised features, in node order.
        graph: Mobility graph over the same cells.
        node_vectors: LINE vectors, (N, d); zero rows for nodes that LINE knows nothing about.
        config: Options.
        directed: Keep the direction of flows in the propagation.
        dtype: Type of the computation.

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
    with torch.random.fork_rng(devices=[]), deterministic(device):
        torch.manual_seed(config.seed)
        model = MobCLIP(len(cells), widths, config).to(dtype)
        model.reset_parameters()
        with torch.no_grad():
            model.node_table.copy_(torch.from_numpy(initial_table(cells, node_vectors, config.seed)))
        model = model.to(device)
        values, masks = feature_tensors(features, dtype)
        on_device = tuple({k: v.to(device) for k, v in part.items()} for part in (values, masks))
        adjacency = encoder_adjacency(graph, features.lon, features.lat, config, directed, dtype).to(device)
        trainer = _Trainer(model, (on_device[0], on_device[1]), adjacency, cells, config)
        state, history, best = _fit(trainer, config)
    for name, modality in features.modalities.items():
        state[f"statistics.{name}.mean"] = modality.statistics.mean
        state[f"statistics.{name}.scale"] = modality.statistics.scale
    described = {
        "encoder": {name: value for name, value in vars(config).items() if name != "student"},
        "widths": widths,
        "directed": directed,
        "image_encoder": features.image_encoder,
        "inputs": {},
    }
    return TrainedEncoder(state, cells, described, history, best)


def _fit(trainer: _Trainer, config: "EncoderConfig") -> tuple[dict[str, np.ndarray], dict[str, list[float]], int]:
    """Epochs until the validation loss has not fallen for `patience` of them."""
    history: dict[str, list[float]] = {}
    best, lowest, state = 0, float("inf"), _state(trainer.model)
    for epoch in range(config.max_epochs):
        values = {"train": trainer.epoch(), **trainer.validate()}
        for name, value in values.items():
            history.setdefault(name, []).append(value)
        if values["validation"] < lowest:
            best, lowest, state = epoch, values["validation"], _state(trainer.model)
        if epoch % 10 == 0:
            logging.getLogger(__name__).info(
                "encoder: epoch %d, train %.4f, validation %.4f", epoch, values["train"], values["validation"]
            )
        if epoch - best >= config.patience:
            break
    return state, history, best


def _state(model: MobCLIP) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}


def build_encoder(deployment: "Deployment") -> "StepResult":
    """Train the encoder on all regions and write the bundle `encoder`.

    Raises:
        MissingTableError: If a feature table, the graph or the node vectors are not there yet.
        ContractError: If they are not about the same cells.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.mobility.graph import open_graph
    from mobclip_core.plots import loss_curves

    store, profile = deployment.store, deployment.profile
    features = assemble_features(deployment)
    graph = open_graph(store.bundle("mobility_graph"))
    nodes = store.read(TableRef("node_embeddings"))
    if not np.array_equal(nodes["cell"].to_numpy(), graph.cells):
        raise ContractError("node_embeddings is not about the cells of mobility_graph; materialise it again")
    started = time.perf_counter()
    directed = profile.mobility.directed
    trained = train(features, graph, matrix_of(nodes["vector"]), profile.encoder, directed=directed)
    seconds = time.perf_counter() - started
    inputs = input_versions(store, features.regions)
    inputs |= {name: store.data_version(TableRef(name)) for name in ("mobility_graph", "node_embeddings")}
    trained = replace(trained, config={**trained.config, "inputs": inputs})
    trained, more, more_pictures = _finish(deployment, trained, features, graph)
    written: list[Written] = []
    with store.write_bundle("encoder", written) as directory:
        trained.save(directory)
    counts: dict[str, int | float | str] = {
        "cells": len(features),
        **{f"cells_with_{name}": int(m.mask.sum()) for name, m in features.modalities.items()},
        "edges_kept": int(np.sum(graph.keep)),
        "parameters": sum(value.size for value in trained.parameters.values()),
        "epochs": len(trained.history["train"]),
        "best_epoch": trained.best_epoch,
        "validation_loss": round(trained.history["validation"][trained.best_epoch], 6),
        "training_seconds": round(seconds, 1),
        **more,
        "fingerprint": trained.fingerprint,
    }
    pictures = {"Loss": loss_curves(trained.history, "Encoder: loss by epoch")}
    return StepResult(written[0], counts, pictures | more_pictures)


def _finish(
    deployment: "Deployment", trained: TrainedEncoder, features: ModalityFeatures, graph: Graph
) -> tuple[TrainedEncoder, dict[str, int | float | str], dict[str, bytes]]:
    """Teach the student and compare with the encoder before; with what to report of both."""
    from mobclip_core.encoder.alignment import align_to_previous
    from mobclip_core.encoder.embedding import embed
    from mobclip_core.encoder.student import with_student
    from mobclip_core.plots import loss_curves

    config, regions = deployment.profile.encoder, features.regions
    device = resolve_device(config.device)
    vectors = embed(trained, graph, (features.lon, features.lat), np.arange(len(features)), lambda _: features, device)
    counts: dict[str, int | float | str] = {}
    pictures: dict[str, bytes] = {}
    if config.student is not None:
        has_mobility, held_out = summed_degree(graph) > 0, validation_mask(trained.cells, config)
        trained, student = with_student(trained, features, vectors, has_mobility, held_out, config.student, device)
        counts = {
            "student_parameters": sum(value.size for value in student.tensors.values()),
            "student_best_epoch": student.best_epoch,
            "student_validation_loss": round(student.history["validation"][student.best_epoch], 6),
        }
        pictures = {"Loss of the student": loss_curves(student.history, "Student: loss by epoch")}
    trained, alignment = align_to_previous(deployment.store, trained, vectors, regions, apply=config.align_to_previous)
    return trained, counts | alignment, pictures
