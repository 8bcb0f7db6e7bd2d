"""Embedding: a trained encoder applied to the cells.

Belongs here: the forward pass over all nodes, and the step that writes one region of `embeddings`. Does not belong
here: training (see `training`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import normalize

from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import resolve_device
from mobclip_core.encoder.features import ModalityFeatures, assemble_features
from mobclip_core.encoder.line import Graph, summed_degree
from mobclip_core.encoder.modules import Tensors
from mobclip_core.encoder.propagation import neighbour_edges
from mobclip_core.encoder.readout import mean_beside, stacked
from mobclip_core.encoder.training import encoder_adjacency, feature_tensors
from mobclip_core.errors import FingerprintError, MissingTableError
from mobclip_core.store import TableRef
from mobclip_core.vectors import vector_column

if TYPE_CHECKING:
    from mobclip_core.deployment import CheckOutcome, Deployment, StepResult


@torch.no_grad()
def embed(
    encoder: TrainedEncoder,
    graph: Graph,
    centres: tuple[np.ndarray, np.ndarray],
    nodes: np.ndarray,
    features_of: Callable[[np.ndarray], ModalityFeatures],
    device: torch.device | None = None,
) -> np.ndarray:
    """Embeddings of some nodes.

    The propagation is over the whole graph, but only the nodes within as many steps as it has layers are computed,
    and only their features are read.

    Args:
        encoder: Trained encoder.
        graph: Mobility graph over the encoder's cells.
        centres: Longitudes and latitudes of all cells, each (N,).
        nodes: Numbers of the nodes wanted, (n,).
        features_of: Gives features standardised with the encoder's statistics, of at least the cells that it is called
            with; not called where `encoder.reads_features` is false.
        device: Where to compute; the CPU if None.

    Returns:
        float32 (n, d).

    Raises:
        MissingTableError: If the graph is about other cells than the encoder.
        FingerprintError: If the encoder reads features of another image encoder than it was trained on.
    """
    _require_same_cells(encoder, graph.cells)
    device = device or torch.device("cpu")
    options = encoder.options
    beside = neighbour_edges(*centres)
    adjacency = encoder_adjacency(graph, beside, options, bool(encoder.config["directed"]))
    field = adjacency.reached(nodes, options.layers)
    readout = encoder.readout
    of_nodes = beside.numpy()[:, np.isin(beside[0].numpy(), nodes)]
    if readout is not None:
        field = np.union1d(field, of_nodes[1])
    model = encoder.model().to(device)
    values: Tensors = {}
    masks: Tensors = {}
    if encoder.reads_features:
        features = features_of(graph.cells[field])
        _require_image_encoder(encoder, features)
        order = np.argsort(features.cells, kind="stable")
        rows = order[np.searchsorted(features.cells, graph.cells[field], sorter=order)]
        row = torch.from_numpy(rows)
        values, masks = ({k: v[row].to(device) for k, v in part.items()} for part in feature_tensors(features))
    x = model.node_input(values, masks, torch.from_numpy(field).to(device))
    at = np.searchsorted(field, nodes)
    z = model.backbone(x, adjacency.among(field).to(device))[at]
    if readout is not None:
        own = stacked(features)[rows]
        averaged = mean_beside(np.searchsorted(field, of_nodes), len(field)) @ own
        z = torch.from_numpy(readout.vectors(own[at], averaged[at], z.cpu().numpy()))
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

    A cell's vector depends on cells of other regions, as many steps away in the graph as the encoder has layers; where
    the encoder fuses features, those of the regions reached are read too.

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
    grid = store.read_all("grid_cells", ["cell", "region", "lon", "lat"], deployment.profile.regions.region_keys)
    grid = grid.sort_by("cell")
    own = assemble_features(deployment, [region], encoder.statistics)
    cells = own.cells
    unknown = np.setdiff1d(cells, encoder.cells)
    if len(unknown):
        raise MissingTableError(
            f"region {region} has {len(unknown)} cells that the encoder was not trained on {unknown[:5].tolist()}; "
            "materialise mobility_graph, node_embeddings and encoder again (retrain)"
        )
    _require_same_cells(encoder, grid["cell"].to_numpy())

    def features_of(wanted: np.ndarray) -> ModalityFeatures:
        at = np.searchsorted(grid["cell"].to_numpy(), wanted)
        reached = {region, *grid["region"].take(pa.array(at)).unique().to_pylist()}
        regions = [name for name in deployment.profile.regions.region_keys if name in reached]
        return own if regions == [region] else assemble_features(deployment, regions, encoder.statistics)

    rows = np.searchsorted(graph.cells, cells)
    centres = (grid["lon"].to_numpy(), grid["lat"].to_numpy())
    vectors = embed(encoder, graph, centres, rows, features_of, resolve_device(deployment.profile.encoder.device))
    has = {"mobility": summed_degree(graph)[rows] > 0}
    has |= {name: modality.mask for name, modality in own.modalities.items()}
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
