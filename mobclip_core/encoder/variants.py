"""Variants: encoders trained beside the published one with one part of the method changed, for the scores.

Belongs here: what each variant changes, and the step that trains them. Does not belong here: the training (see
`training`), scoring their vectors (see `evaluation`).

Source: arXiv 2506.01297, the ablations of section 5.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse

from mobclip_core.encoder.device import resolve_device
from mobclip_core.encoder.embedding import embed
from mobclip_core.encoder.features import ModalityFeatures, assemble_features, input_versions
from mobclip_core.encoder.lightgcn import train_lightgcn
from mobclip_core.encoder.line import Graph, train_line
from mobclip_core.encoder.propagation import neighbour_edges
from mobclip_core.encoder.training import NOT_OF_THE_MODEL, train
from mobclip_core.errors import ContractError, MissingTableError
from mobclip_core.profile import EncoderConfig, Profile, VariantName
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import matrix_of

if TYPE_CHECKING:
    from mobclip_core.deployment import Count, Deployment, StepResult

logger = logging.getLogger(__name__)

BUNDLE = "encoder_variants"
"""A file of safetensors for each variant: `vectors`, float32 (N, d), in the order of the file `cells`."""

_CELLS = "cells"
_OF_THE_PAPER = (
    "layers",
    "feature_fusion",
    "fusion_hidden",
    "spatial_edges_weight",
    "contrastive_weight",
    "reconstruction_weight",
    "modality_dropout",
    "factors",
    "position_factors",
    "normalise_output",
    "temperatures",
    "learned_temperatures",
    "contrast",
    "modality_weights",
    "negatives_apart",
)
"""Options of the method, whose defaults are the paper's; the others say how long and how fast to train."""


@dataclass(frozen=True)
class Variant:
    """What a variant changes.

    Args:
        options: Of the encoder.
        without: A modality that is left out.
        adjacency: The edges between adjacent cells are the graph, in place of mobility; of LINE too.
        line: Whether node vectors come from LINE; zeros if not.
        lightgcn: No encoder but LightGCN trained on the mobility graph alone.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    without: str | None = None
    adjacency: bool = False
    line: bool = True
    lightgcn: bool = False


VARIANTS: Mapping[VariantName, Variant] = {
    "published": Variant({name: EncoderConfig.model_fields[name].get_default() for name in _OF_THE_PAPER}),
    "without_poi": Variant(without="poi"),
    "without_imagery": Variant(without="imagery"),
    "without_census": Variant(without="census"),
    "without_mobility": Variant({"layers": 0}, line=False),
    "without_contrast": Variant({"contrastive_weight": 0.0}),
    "without_factors": Variant({"factors": 0, "position_factors": 0}),
    "without_position": Variant({"position_factors": 0}),
    "adjacency": Variant(adjacency=True),
    "lightgcn": Variant(lightgcn=True),
}
"""`published` is the paper's algorithm with the profile's learning rate and budget; `without_contrast` has no CLIP
alignment; `adjacency` has the edges between adjacent cells in place of mobility; `lightgcn` is no variant of the
encoder but the other way beside LINE to learn from mobility alone."""


@dataclass(frozen=True)
class AdjacentCells:
    """The graph of adjacent cells, in the form that LINE and the encoder read; every edge has the weight 1."""

    cells: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weight: np.ndarray
    keep: np.ndarray

    @classmethod
    def of(cls, features: ModalityFeatures) -> "AdjacentCells":
        """That of the cells of some features."""
        one, other = neighbour_edges(features.lon, features.lat).numpy()
        matrix = sparse.csr_array((np.ones(len(one), np.float32), (one, other)), shape=(len(features), len(features)))
        indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
        return cls(features.cells, indptr, indices, matrix.data, np.ones(matrix.nnz, dtype=bool))


def trained_vectors(
    features: ModalityFeatures, graph: Graph, nodes: np.ndarray, config: EncoderConfig, directed: bool
) -> np.ndarray:
    """Vectors of all cells by an encoder trained on them, without a student.

    Args:
        features: Of the cells.
        graph: Over the cells.
        nodes: Where the node table begins, (N, d).
        config: Options.
        directed: Whether the graph's edges have a direction.

    Returns:
        float32 (N, d).
    """
    beside = neighbour_edges(features.lon, features.lat)
    trained = train(features, graph, nodes, config, beside=beside, directed=directed)
    every = np.arange(len(features))
    return embed(trained, graph, beside.numpy(), every, lambda _: features, resolve_device(config.device))


def variant_vectors(
    variant: Variant, profile: Profile, features: ModalityFeatures, graph: Graph, nodes: np.ndarray
) -> np.ndarray:
    """Train a variant and embed all cells with it: float32 (N, d).

    Args:
        variant: What is changed.
        profile: Options of encoder and LINE.
        features: Of all cells.
        graph: The mobility graph.
        nodes: LINE's vectors of it, (N, d).
    """
    if variant.lightgcn:
        return train_lightgcn(graph, profile.encoder, profile.mobility.directed)
    modalities = {name: found for name, found in features.modalities.items() if name != variant.without}
    kept, seen, directed = replace(features, modalities=modalities), graph, profile.mobility.directed
    if variant.adjacency:
        seen, directed = AdjacentCells.of(features), False
        nodes = train_line(seen, profile.line).vertex
    if not variant.line:
        nodes = np.zeros_like(nodes)
    options = EncoderConfig.model_validate({**dict(profile.encoder), **variant.options, "tensorboard": None})
    return trained_vectors(kept, seen, nodes, options, directed)


def build_encoder_variants(deployment: "Deployment") -> "StepResult":
    """Train the variants that the profile asks for and write the bundle `encoder_variants`.

    A variant that the bundle has already, of the same inputs and options, is kept; the bundle is written after each, so
    that an interrupted step goes on with the next.

    Raises:
        MissingTableError: If a feature table, the graph or the node vectors are not there yet.
        ContractError: If they are not about the same cells.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.mobility.graph import open_graph

    store, profile = deployment.store, deployment.profile
    wanted = profile.evaluation.variants
    features = assemble_features(deployment)
    keys = _keys(deployment, features)
    done = _kept(store, keys)
    todo = [name for name in wanted if name not in done]
    counts: dict[str, Count] = {"variants": len(wanted), "variants_kept": len(wanted) - len(todo)}
    if not todo:
        _write(store, features, done)
    else:
        graph = open_graph(store.bundle("mobility_graph"))
        table = store.read(TableRef("node_embeddings"))
        if not np.array_equal(table["cell"].to_numpy(), features.cells):
            raise ContractError("node_embeddings has other cells than grid_cells; materialise it again")
        nodes = matrix_of(table["vector"])
    for name in todo:
        started = time.perf_counter()
        vectors = variant_vectors(VARIANTS[name], profile, features, graph, nodes)
        done[name] = (keys[name], vectors)
        _write(store, features, done)
        counts[f"{name}_seconds"] = round(time.perf_counter() - started, 1)
        logger.info("encoder variant %s: %.0f s", name, time.perf_counter() - started)
    return StepResult(store.written(BUNDLE), counts)


def read_variants(deployment: "Deployment", cells: np.ndarray) -> dict[VariantName, np.ndarray]:
    """The vectors of the profile's variants, float32 (N, d), in the order of some cells.

    Raises:
        MissingTableError: If the variants are not materialised, or not all that the profile asks for.
        ContractError: If they are of other cells.
    """
    wanted = deployment.profile.evaluation.variants
    if not wanted:
        return {}
    folder = deployment.store.bundle(BUNDLE)
    missing = [name for name in wanted if not (folder / f"{name}.safetensors").exists()]
    if missing:
        raise MissingTableError(f"{BUNDLE} lacks {', '.join(missing)}; materialise it again")
    if not np.array_equal(load_file(folder / f"{_CELLS}.safetensors")[_CELLS], cells):
        raise ContractError(f"{BUNDLE} has other cells than grid_cells; materialise it again")
    return {name: load_file(folder / f"{name}.safetensors")["vectors"] for name in wanted}


def _keys(deployment: "Deployment", features: ModalityFeatures) -> dict[str, str]:
    """What each variant is of: inputs, options, the change."""
    store, profile = deployment.store, deployment.profile
    inputs = input_versions(store, features.regions, "mobility_graph", "node_embeddings")
    options = profile.encoder.model_dump(mode="json", exclude={*NOT_OF_THE_MODEL, "student", "align_to_previous"})
    base = [inputs, options, profile.line.model_dump(mode="json"), profile.mobility.directed]
    return {
        name: hashlib.sha256(
            json.dumps([*base, vars(variant) | {"options": dict(variant.options)}]).encode()
        ).hexdigest()
        for name, variant in VARIANTS.items()
    }


def _kept(store: Store, keys: Mapping[str, str]) -> dict[str, tuple[str, np.ndarray]]:
    """The variants of the last bundle whose keys are the same."""
    try:
        folder = store.bundle(BUNDLE)
    except MissingTableError:
        return {}
    found = json.loads((folder / "keys.json").read_text())
    return {
        name: (key, load_file(folder / f"{name}.safetensors")["vectors"])
        for name, key in found.items()
        if keys.get(name) == key
    }


def _write(store: Store, features: ModalityFeatures, done: Mapping[str, tuple[str, np.ndarray]]) -> None:
    with store.write_bundle(BUNDLE, [], keep=1) as folder:
        save_file({_CELLS: features.cells}, folder / f"{_CELLS}.safetensors")
        for name, (_, vectors) in done.items():
            save_file({"vectors": np.ascontiguousarray(vectors)}, folder / f"{name}.safetensors")
        (folder / "keys.json").write_text(json.dumps({name: key for name, (key, _) in sorted(done.items())}))
