"""Alignment: the rotation that carries a retrained encoder's vectors closest to those of the encoder before it.

Belongs here: orthogonal Procrustes and its residual, and reading what the encoder before gave. Does not belong here:
training (see `training`), applying the rotation (see `embedding`).

Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 1966. A rotation
changes no distance and no angle, so that the vectors say the same; models that users fitted to the old axes live on.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from scipy.linalg import orthogonal_procrustes

from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.errors import ContractError
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import matrix_of

if TYPE_CHECKING:
    from mobclip_core.deployment import Count

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alignment:
    r"""The orthogonal matrix R that minimises :math:`\|Z R - P\|_F`, and how close it comes.

    Args:
        rotation: R, float32 (d, d): reflections included.
        cells: Number of cells compared.
        residual_before: |Z - P| / |P|, Frobenius norms.
        residual: |Z R - P| / |P|.
        cosine_before: Mean cosine of the two vectors of a cell.
        cosine: The same after the rotation.
    """

    rotation: np.ndarray
    cells: int
    residual_before: float
    residual: float
    cosine_before: float
    cosine: float


def align(vectors: np.ndarray, previous: np.ndarray) -> Alignment:
    """Align the vectors of some cells to earlier ones of the same cells.

    Args:
        vectors: Z, (n, d).
        previous: P, (n, d).

    Raises:
        ValueError: If the shapes differ.
    """
    if vectors.shape != previous.shape:
        raise ValueError(f"vectors of shape {vectors.shape} cannot be aligned to {previous.shape}")
    Z, P = vectors.astype(np.float64), previous.astype(np.float64)
    rotation, _ = orthogonal_procrustes(Z, P)
    turned = Z @ rotation
    return Alignment(
        rotation.astype(np.float32), len(Z), _residual(Z, P), _residual(turned, P), _cosine(Z, P), _cosine(turned, P)
    )


def _residual(Z: np.ndarray, P: np.ndarray) -> float:
    return float(np.linalg.norm(Z - P) / max(np.linalg.norm(P), np.finfo(float).tiny))


def _cosine(Z: np.ndarray, P: np.ndarray) -> float:
    lengths = np.linalg.norm(Z, axis=1) * np.linalg.norm(P, axis=1)
    return float(np.mean((Z * P).sum(axis=1) / np.maximum(lengths, np.finfo(float).tiny))) if len(Z) else 0.0


def previous_vectors(store: Store, encoder: TrainedEncoder, regions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """What an encoder's graph gave, as far as the lake's `embeddings` are still its own.

    A region whose file is damaged or breaks its contract is left out, with a warning that names it.

    Returns:
        Cells (n,), ascending, and their vectors (n, d).
    """
    cells, vectors = [np.zeros(0, np.uint64)], [np.zeros((0, encoder.options.dimensions), np.float32)]
    for ref in (TableRef("embeddings", region) for region in regions):
        if not store.exists(ref):
            continue
        try:
            table = store.read(ref, ["cell", "vector", "encoder", "source"])
        except ContractError as error:
            # a retraining is how such a region gets vectors again: it must not wait for them
            logger.warning("not compared with the encoder before: %s", error)
            continue
        of_graph = pc.and_(pc.equal(table["encoder"], encoder.fingerprint), pc.equal(table["source"], "graph"))
        table = table.filter(of_graph)
        if len(table):
            cells.append(table["cell"].to_numpy())
            vectors.append(matrix_of(table["vector"]))
    joined = np.concatenate(cells)
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(vectors)[order]


def align_to_previous(
    store: Store, encoder: TrainedEncoder, vectors: np.ndarray, regions: Sequence[str], *, apply: bool
) -> tuple[TrainedEncoder, dict[str, "Count"]]:
    """Compare a new encoder with the one that the lake holds, and turn it towards that one.

    Args:
        store: The lake.
        encoder: The new encoder, not in the lake yet.
        vectors: What it gives its cells, (N, d).
        regions: Regions whose `embeddings` are compared.
        apply: Keep the rotation in the encoder.

    Returns:
        The encoder, and what to report: `alignment` (what was done), and where there was something to compare, cells
        and residuals as of `Alignment`. An encoder that was trained again on the same inputs keeps the rotation that it
        had, to the bit.
    """
    if not store.exists(TableRef("encoder")):
        return encoder, {"alignment": "none: there is no encoder to align to"}
    previous = TrainedEncoder.load(store.bundle("encoder"))
    cells, before = previous_vectors(store, previous, regions)
    common, old, new = np.intersect1d(cells, encoder.cells, assume_unique=True, return_indices=True)
    if len(common) == 0 or before.shape[1] != vectors.shape[1]:
        return encoder, {"alignment": "none: no vectors of the encoder before to align to"}
    found = align(vectors[new], before[old])
    if apply:
        unturned = {name: value for name, value in previous.tensors.items() if name != "alignment"}
        if replace(previous, tensors=unturned).fingerprint == encoder.fingerprint:
            encoder = replace(encoder, tensors=previous.tensors)
        else:
            encoder = replace(encoder, tensors={**encoder.tensors, "alignment": found.rotation})
    numbers = {f"alignment_{name}": round(value, 6) for name, value in vars(found).items() if name != "rotation"}
    return encoder, {"alignment": "applied" if apply else "measured, not applied", **numbers}
