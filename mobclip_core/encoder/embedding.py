"""Embedding: a trained encoder applied to the cells.

Belongs here: the forward pass over the graph, which cells get its vector and which the student's, and the step that
writes one region of `embeddings`. Does not belong here: training (see `training`), the student (see `student`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import resolve_device
from mobclip_core.encoder.features import ModalityFeatures, assemble_features
from mobclip_core.encoder.line import Graph, summed_degree
from mobclip_core.encoder.modules import Tensors
from mobclip_core.encoder.propagation import neighbour_edges
from mobclip_core.encoder.readout import mean_beside, stacked
from mobclip_core.encoder.student import student_vectors
from mobclip_core.encoder.subgraphs import edges_among, graph_among, positions
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
    beside: np.ndarray,
    nodes: np.ndarray,
    features_of: Callable[[np.ndarray], ModalityFeatures],
    device: torch.device | None = None,
) -> np.ndarray:
    """Embeddings of some nodes by way of the graph.

    The propagation is over the whole graph, but only the nodes within as many steps as it has layers are computed,
    and only their features are read.

    Args:
        encoder: Trained encoder.
        graph: Mobility graph over cells that the encoder knows (see `graph_among`).
        beside: Edges between adjacent cells of the graph, both ways, (2, E), see `neighbour_edges`.
        nodes: Numbers of the nodes wanted, (n,).
        features_of: Gives features standardised with the encoder's statistics, of at least the cells that it is called
            with; not called where `encoder.reads_features` is false.
        device: Where to compute; the CPU if None.

    Returns:
        float32 (n, d).

    Raises:
        MissingTableError: If the graph has cells that the encoder was not trained on.
        FingerprintError: If the encoder reads features of another image encoder than it was trained on.
    """
    row = positions(encoder.cells, np.asarray(graph.cells))
    if (row < 0).any():
        raise _unknown("mobility_graph", np.asarray(graph.cells)[row < 0])
    device = device or torch.device("cpu")
    options, readout = encoder.options, encoder.readout
    adjacency = encoder_adjacency(graph, torch.from_numpy(beside), options, bool(encoder.config["directed"]))
    field = adjacency.reached(nodes, options.layers)
    around = beside[:, np.isin(beside[0], nodes)]
    if readout is not None:
        field = np.union1d(field, around[1])
    values: Tensors = {}
    masks: Tensors = {}
    if encoder.reads_features:
        features = features_of(graph.cells[field])
        _require_image_encoder(encoder, features)
        rows = positions(features.cells, graph.cells[field])
        of_rows = torch.from_numpy(rows)
        values, masks = ({k: v[of_rows].to(device) for k, v in part.items()} for part in feature_tensors(features))
    model = encoder.model().to(device)
    x = model.node_input(values, masks, torch.from_numpy(row[field]).to(device))
    at = np.searchsorted(field, nodes)
    vectors: np.ndarray = model.backbone(x, adjacency.among(field).to(device))[at].cpu().numpy()
    if readout is not None:
        own = stacked(features)[rows]
        averaged = mean_beside(np.searchsorted(field, around), len(field)) @ own
        vectors = readout.of_features(own[at], averaged[at]) + readout.of_trained(vectors)
    if encoder.position is not None:
        place = rows[at]
        vectors = vectors + encoder.position.of(features.lon[place], features.lat[place])
    return encoder.published(vectors)


def _unknown(place: str, cells: np.ndarray) -> MissingTableError:
    return MissingTableError(
        f"{place} has {len(cells)} cells that the encoder was not trained on {cells[:5].tolist()}, and it has no "
        "student (encoder.student); materialise mobility_graph, node_embeddings and encoder again (retrain)"
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

    The graph gives the vectors of the cells that the encoder knows (of those with mobility, if `encoder.student`
    replaces the others), the student those of the others; the column `source` says which. The propagation is among the
    cells that the encoder knows, so that cells it does not know change no vector of the graph. A cell's vector depends
    on cells of other regions, as many steps away in the graph as the encoder has layers, or around it within the
    student's rings; their features are read too.

    Raises:
        MissingTableError: If an input is not there yet, or cells need a student and the encoder has none.
        FingerprintError: If the imagery features come from another image encoder than the trained one.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.mobility.graph import open_graph
    from mobclip_core.plots import embedding_map

    store = deployment.store
    encoder = TrainedEncoder.load(store.bundle("encoder"))
    device = resolve_device(deployment.profile.encoder.device)
    grid = store.read_all("grid_cells", ["cell", "region", "lon", "lat"], deployment.profile.regions.region_keys)
    grid = grid.sort_by("cell")
    every = grid["cell"].to_numpy()
    own = assemble_features(deployment, [region], encoder.statistics)
    cells = own.cells

    def features_of(wanted: np.ndarray) -> ModalityFeatures:
        reached = {region, *grid["region"].take(pa.array(np.searchsorted(every, wanted))).unique().to_pylist()}
        regions = [name for name in deployment.profile.regions.region_keys if name in reached]
        return own if regions == [region] else assemble_features(deployment, regions, encoder.statistics)

    everywhere = graph_among(open_graph(store.bundle("mobility_graph")), every)
    degree = summed_degree(everywhere)
    has_mobility = degree[np.searchsorted(every, cells)] > 0
    beside = neighbour_edges(grid["lon"].to_numpy(), grid["lat"].to_numpy()).numpy()
    known = every[np.isin(every, encoder.cells)]
    graph, beside_known = graph_among(everywhere, known), edges_among(beside, positions(known, every))
    node = positions(graph.cells, cells)
    by_graph = node >= 0
    options = encoder.student_options
    if options is not None and options.replaces == "without_mobility":
        among_known = degree if graph is everywhere else summed_degree(graph)
        by_graph[by_graph] = among_known[node[by_graph]] > 0
    if options is None and not by_graph.all():
        raise _unknown(f"region {region}", cells[~by_graph])
    vectors = np.zeros((len(cells), encoder.options.dimensions), dtype=np.float32)
    if by_graph.any():
        vectors[by_graph] = embed(encoder, graph, beside_known, node[by_graph], features_of, device)
    if options is not None and not by_graph.all():
        around = _within_rings(beside, np.searchsorted(every, cells[~by_graph]), options.rings, len(every))
        features = features_of(every[around])
        _require_image_encoder(encoder, features)
        rows = positions(features.cells, cells[~by_graph])
        beside = edges_among(beside, positions(features.cells, every))
        vectors[~by_graph] = student_vectors(encoder, features, beside, rows, device)
    has = {"mobility": has_mobility} | {name: modality.mask for name, modality in own.modalities.items()}
    flags = {f"has_{name}": has[name] for name in ("mobility", "poi", "imagery", "census")}
    fingerprint = pa.array([encoder.fingerprint] * len(cells), pa.string())
    source = pa.array(np.where(by_graph, "graph", "student"), pa.string())
    columns = {"cell": cells, "vector": vector_column(vectors), "encoder": fingerprint, "source": source}
    written = store.write(TableRef("embeddings", region), pa.table({**columns, **flags}))
    counts: dict[str, int | float | str] = {
        "cells": len(cells),
        "cells_by_graph": int(by_graph.sum()),
        "cells_by_student": int((~by_graph).sum()),
        **{f"cells_{name}": int(flag.sum()) for name, flag in flags.items()},
        "dimensions": vectors.shape[1],
        "mean_norm": round(float(np.linalg.norm(vectors, axis=1).mean()), 6) if len(cells) else 0.0,
        "encoder": encoder.fingerprint,
    }
    title = f"Embeddings of {region}"
    pictures = {title: embedding_map(cells, vectors, title)} if len(cells) else {}
    return StepResult(written, counts, pictures)


def _within_rings(beside: np.ndarray, nodes: np.ndarray, rings: int, count: int) -> np.ndarray:
    """Nodes, of so many, within some steps over adjacent ones: ascending, these included."""
    found = np.zeros(count, dtype=bool)
    found[nodes] = True
    source, target = beside
    for _ in range(rings):
        found[target[found[source]]] = True
    return np.flatnonzero(found)


def check_one_encoder(deployment: "Deployment", region: str) -> "CheckOutcome":
    """Whether every vector of a region carries the fingerprint of the current encoder."""
    from mobclip_core.deployment import CheckOutcome

    store = deployment.store
    current = TrainedEncoder.load(store.bundle("encoder")).fingerprint
    found = store.read(TableRef("embeddings", region), ["encoder"]).column("encoder").unique().to_pylist()
    passed = found in ([current], [])
    message = f"all vectors are of encoder {current[:12]}" if passed else f"vectors of {found}, encoder is {current}"
    return CheckOutcome(passed, message, {"encoder": current, "fingerprints": len(found)})
