"""Embedding: a trained encoder applied to the cells.

Belongs here: the forward pass over all nodes, and the step that writes one region of `embeddings`. Does not belong
here: training (see `training`).
"""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import normalize

from mobclip_core.contracts import vector_column
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import resolve_device
from mobclip_core.encoder.features import ModalityFeatures, assemble_features
from mobclip_core.encoder.line import Graph, summed_degree
from mobclip_core.encoder.training import encoder_adjacency, feature_tensors
from mobclip_core.errors import FingerprintError, MissingTableError
from mobclip_core.store import TableRef

if TYPE_CHECKING:
    from mobclip_core.deployment import CheckOutcome, Deployment, StepResult


@torch.no_grad()
def embed(
    encoder: TrainedEncoder, graph: Graph, features: ModalityFeatures | None, device: torch.device | None = None
) -> np.ndarray:
    """Embeddings of all nodes.

    Args:
        encoder: Trained encoder.
        graph: Mobility graph over the encoder's cells.
        features: Features of all cells, standardised with the encoder's statistics; may be None where
            `encoder.reads_features` is false.
        device: Where to compute; the CPU if None.

    Returns:
        float32 (N, d), in node order.

    Raises:
        MissingTableError: If the graph is about other cells than the encoder.
        FingerprintError: If the encoder reads features of another image encoder than it was trained on.
    """
    _require_same_cells(encoder, graph.cells)
    if encoder.reads_features:
        if features is None:
            raise ValueError("this encoder reads features: give them")
        _require_image_encoder(encoder, features)
    device = device or torch.device("cpu")
    options = encoder.options
    model = encoder.model().to(device)
    values, masks = ({}, {}) if features is None else feature_tensors(features)
    adjacency = encoder_adjacency(graph, features, options, bool(encoder.config["directed"])).to(device)
    z = model({k: v.to(device) for k, v in values.items()}, {k: v.to(device) for k, v in masks.items()}, adjacency)
    vectors: np.ndarray = (normalize(z) if options.normalise_output else z).cpu().numpy()
    return vectors


def _require_same_cells(encoder: TrainedEncoder, cells: np.ndarray) -> None:
    unknown, gone = np.setdiff1d(cells, encoder.cells), np.setdiff1d(encoder.cells, cells)
    if len(unknown) or len(gone):
        raise MissingTableError(
            f"the encoder was trained on other cells than mobility_graph holds: {len(unknown)} are new "
            f"{unknown[:5].tolist()}, {len(gone)} are gone {gone[:5].tolist()}; materialise node_embeddings and "
            "encoder again (retrain)"
        )


def _require_image_encoder(encoder: TrainedEncoder, features: ModalityFeatures) -> None:
    trained, found = encoder.config["image_encoder"], features.image_encoder
    if trained is not None and found is not None and trained != found:
        raise FingerprintError(
            f"imagery_features come from image encoder {found}, the encoder was trained on {trained}; materialise the "
            "encoder again (retrain)"
        )


def build_embeddings(deployment: "Deployment", region: str) -> "StepResult":
    """Embed one region with the trained encoder and write its partition of `embeddings`.

    The propagation runs over the whole graph, since a cell's vector depends on cells of other regions; where the
    encoder fuses features, those of all regions are read.

    Raises:
        MissingTableError: If an input is not there yet, or the region has cells that the encoder was not trained on.
        FingerprintError: If the imagery features come from another image encoder than the trained one.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.mobility.graph import open_graph
    from mobclip_core.plots import embedding_map

    store = deployment.store
    encoder = TrainedEncoder.load(store.bundle("encoder"))
    graph = open_graph(store.bundle("mobility_graph"))
    regions = None if encoder.reads_features else [region]
    features = assemble_features(deployment, regions, encoder.statistics)
    here = features.region == features.regions.index(region)
    cells = features.cells[here]
    unknown = np.setdiff1d(cells, encoder.cells)
    if len(unknown):
        raise MissingTableError(
            f"region {region} has {len(unknown)} cells that the encoder was not trained on {unknown[:5].tolist()}; "
            "materialise mobility_graph, node_embeddings and encoder again (retrain)"
        )
    device = resolve_device(deployment.profile.encoder.device)
    everywhere = embed(encoder, graph, features if encoder.reads_features else None, device)
    rows = np.searchsorted(graph.cells, cells)
    vectors = everywhere[rows]
    has = {"mobility": summed_degree(graph)[rows] > 0}
    has |= {name: modality.mask[here] for name, modality in features.modalities.items()}
    flags = {f"has_{name}": has[name] for name in ("mobility", "poi", "imagery", "census")}
    fingerprint = pa.array([encoder.fingerprint] * len(cells), pa.string())
    table = pa.table({"cell": cells, "vector": vector_column(vectors), "encoder": fingerprint, **flags})
    written = store.write(TableRef("embeddings", region), table)
    counts: dict[str, int | float | str] = {
        "cells": len(cells),
        **{f"cells_{name}": int(flag.sum()) for name, flag in flags.items()},
        "dimensions": vectors.shape[1],
        "mean_norm": round(float(np.linalg.norm(vectors, axis=1).mean()), 6) if len(cells) else 0.0,
        "encoder": encoder.fingerprint,
    }
    title = f"Embeddings of {region}"
    pictures = {title: embedding_map(cells, vectors, title)} if len(cells) else {}
    return StepResult(written, counts, pictures)


def check_one_encoder(deployment: "Deployment", region: str) -> "CheckOutcome":
    """Whether every vector of a region carries the fingerprint of the current encoder."""
    from mobclip_core.deployment import CheckOutcome

    store = deployment.store
    current = TrainedEncoder.load(store.bundle("encoder")).fingerprint
    found = store.read(TableRef("embeddings", region), ["encoder"]).column("encoder").unique().to_pylist()
    passed = found in ([current], [])
    message = f"all vectors are of encoder {current[:12]}" if passed else f"vectors of {found}, encoder is {current}"
    return CheckOutcome(passed, message, {"encoder": current, "fingerprints": len(found)})
