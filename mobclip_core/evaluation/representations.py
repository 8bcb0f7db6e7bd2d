"""What the probes read: one matrix for each method, all over the same cells.

Belongs here: embeddings and the baselines beside them. Does not belong here: making features (see `encoder.features`),
averaging over units, probes.

| method | columns | inputs |
| --- | --- | --- |
| `embeddings` | the cell's embedding | all |
| `coordinates` | longitude, latitude and the three coordinates on the unit sphere | none |
| `spherical_harmonics` | the real spherical harmonics of degree below 20 at the cell's centre | none |
| `spatial_neighbours` | the three coordinates on the unit sphere, for the probe of this name alone | none |
| `raw_features` | the four modalities below, side by side | all |
| `pca_128` | the first 128 principal components of `raw_features`, fitted on all cells | all |
| `poi`, `imagery`, `census` | the encoder's input: standardised, 0 where absent; 0/1 for presence | itself |
| `mobility` | the LINE vector of the cell's node, likewise | itself |
| those of `evaluation.variants` | the cell's vector of an encoder with one part changed | all or fewer |
| `raw_features_without_x` | `raw_features` less a modality that a task overlaps with | the others |
| those of `evaluation.external` | the vector, standardised, 0 where there is none; 0/1 for presence | unknown |
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pyarrow.compute as pc

from mobclip_core.deployment import Count, Deployment
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.features import ModalityFeatures, assemble_features, standardise, statistics_of
from mobclip_core.encoder.variants import read_variants
from mobclip_core.errors import ContractError, FingerprintError
from mobclip_core.evaluation.external import external_vectors
from mobclip_core.profile import InputName, VariantName
from mobclip_core.sphere import spherical_harmonics, unit_vectors
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of, principal_axes

PCA_COMPONENTS = 128
HARMONIC_DEGREES = 20
"""400 columns, waves down to some 2,000 km."""
INPUTS: tuple[InputName, ...] = ("poi", "imagery", "census", "mobility")
_WITHOUT: Mapping[str, InputName] = {f"without_{name}": name for name in INPUTS}
VARIANT_INPUTS: Mapping[str, frozenset[InputName]] = {
    **{name: frozenset(INPUTS) - {_WITHOUT.get(name)} for name in get_args(VariantName)},
    "adjacency": frozenset(INPUTS) - {"mobility"},
    "lightgcn": frozenset(["mobility"]),
    **{f"raw_features_{name}": frozenset(INPUTS) - {left_out} for name, left_out in _WITHOUT.items()},
}
"""The inputs behind variants of the encoder, and behind raw features less one modality."""
METHOD_INPUTS: Mapping[str, frozenset[InputName]] = {
    "embeddings": frozenset(INPUTS),
    "coordinates": frozenset(),
    "spherical_harmonics": frozenset(),
    "spatial_neighbours": frozenset(),
    "raw_features": frozenset(INPUTS),
    "pca_128": frozenset(INPUTS),
    **{name: frozenset([name]) for name in INPUTS},
    **VARIANT_INPUTS,
}
"""The inputs behind each method: where one overlaps with a task's label, the score says `leak`."""


@dataclass(frozen=True)
class Representations:
    """The matrices of all methods.

    Args:
        cells: H3 indices, sorted, uint64, shape (n,).
        matrices: Method -> matrix of shape (n, d).
        encoder: Fingerprint of the encoder behind `embeddings`.
        counts: Of what external embeddings have and lack.
        region: Number of each cell's region, for the split that leaves regions out, (n,).
    """

    cells: np.ndarray
    matrices: Mapping[str, np.ndarray]
    encoder: str
    counts: Mapping[str, Count] = field(default_factory=dict)
    region: np.ndarray | None = None
    _versions: dict[str, str] = field(default_factory=dict)

    def regions_of(self, cells: np.ndarray) -> np.ndarray:
        """Region of some of the cells, (n,)."""
        if self.region is None:
            raise ValueError("these representations do not know the regions of their cells")
        return np.asarray(self.region[np.searchsorted(self.cells, cells)])

    def version(self, method: str) -> str:
        """A hash of the matrix of a method."""
        if method not in self._versions:
            content: Any = np.ascontiguousarray(self.matrices[method])
            self._versions[method] = hashlib.sha256(content).hexdigest()[:16]
        return self._versions[method]


def load_representations(deployment: Deployment) -> Representations:
    """Read and assemble the matrices of all methods.

    Raises:
        SourceError: If an external embedding cannot be read.
        ProfileError: If an external embedding names a function that is not there.
        MissingTableError: If a table or partition is not materialised.
        FingerprintError: If embeddings come from several encoders, or from another one than the current.
        ContractError: If the rows of a table are not the cells of the grid.
    """
    features = assemble_features(deployment)
    vectors, fingerprint = _embeddings(deployment, features.cells)
    modalities = {name: _with_presence(m.values, m.mask) for name, m in features.modalities.items()}
    modalities["mobility"] = _mobility(deployment, features.cells)
    raw = np.concatenate([modalities[name] for name in INPUTS], axis=1)
    matrices = {
        "embeddings": vectors,
        "coordinates": _coordinates(features),
        "spherical_harmonics": spherical_harmonics(features.lon, features.lat, HARMONIC_DEGREES),
        "spatial_neighbours": unit_vectors(features.lon, features.lat),
        "raw_features": raw,
        "pca_128": principal_components(raw, PCA_COMPONENTS),
    }
    overlapping = {name for task in deployment.profile.tasks.values() for name in task.overlaps}
    for variant, vectors in read_variants(deployment, features.cells).items():
        matrices[variant] = vectors
        if _WITHOUT.get(variant) in overlapping:
            kept = [modalities[name] for name in INPUTS if name != _WITHOUT[variant]]
            matrices[f"raw_features_{variant}"] = np.concatenate(kept, axis=1)
    counts: dict[str, Count] = {}
    for name, config in deployment.profile.evaluation.external.items():
        found = external_vectors(name, config, features.cells, features.lon, features.lat)
        standard = standardise(found.values, found.known, statistics_of(found.values, found.known))
        matrices[name] = _with_presence(standard, found.known)
        counts |= {f"{name}_{key}": count for key, count in found.counts.items()}
    return Representations(features.cells, matrices | modalities, fingerprint, counts, features.region)


def _embeddings(deployment: Deployment, cells: np.ndarray) -> tuple[np.ndarray, str]:
    regions = deployment.profile.regions.region_keys
    table = deployment.store.read_all("embeddings", ["cell", "vector", "encoder"], regions).sort_by("cell")
    current = TrainedEncoder.load(deployment.store.bundle("encoder")).fingerprint
    found = pc.unique(table["encoder"]).to_pylist()
    if found not in ([current], []):
        stale = [r for r in regions if _encoders(deployment, r) not in ([current], [])]
        raise FingerprintError(
            f"embeddings of the regions {stale} come from other encoders than the current one ({current[:12]}); "
            "materialise embeddings for these regions again"
        )
    _require_cells("embeddings", table["cell"].to_numpy(), cells)
    return matrix_of(table["vector"]), current


def _encoders(deployment: Deployment, region: str) -> list[str]:
    return list(pc.unique(deployment.store.read(TableRef("embeddings", region), ["encoder"])["encoder"]).to_pylist())


def _mobility(deployment: Deployment, cells: np.ndarray) -> np.ndarray:
    table = deployment.store.read(TableRef("node_embeddings"))
    _require_cells("node_embeddings", table["cell"].to_numpy(), cells)
    values, mask = matrix_of(table["vector"]), table["degree"].to_numpy() > 0
    return _with_presence(standardise(values, mask, statistics_of(values, mask)), mask)


def _with_presence(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.column_stack([values, mask.astype(np.float32)])


def _coordinates(features: ModalityFeatures) -> np.ndarray:
    return np.column_stack([features.lon, features.lat, unit_vectors(features.lon, features.lat)])


def _require_cells(table: str, found: np.ndarray, cells: np.ndarray) -> None:
    if not np.array_equal(found, cells):
        raise ContractError(f"{table} has other cells than grid_cells; materialise {table} again")


def principal_components(matrix: np.ndarray, components: int) -> np.ndarray:
    """Projection on the first principal components.

    Args:
        matrix: Shape (n, d).
        components: Number of components; min(n, d) where that is less.

    Returns:
        float32, shape (n, components); the largest loading of a component is positive, so that signs repeat.
    """
    mean = matrix.mean(axis=0, dtype=np.float64)
    axes = principal_axes(matrix, mean)[0][:, : min(components, *matrix.shape)]
    return np.asarray((matrix - mean) @ axes, dtype=np.float32)
