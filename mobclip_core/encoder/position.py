"""Position factors: what part of the published vector says where a cell lies.

Belongs here: fitting them, and applying them to any cell. Does not belong here: the harmonics (see `sphere`), the other
parts of the vector (see `readout`).

Climate, relief and prices change over hundreds of kilometres, and a neighbour's features do not say all of it. The
factors are the leading principal components, over the cells of the training, of the spherical harmonics of degree below
20: smooth functions of the place, the smoothest first. A linear probe needs them beside features, not in place of them:
by themselves they are the baseline that fails between blocks. They depend on the cell's place alone, so that a student
gives them exactly. A place counts as the nearest cell of the training: what a regression learnt of a factor says
nothing of regions that the training never saw, where the harmonics swing freely.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from mobclip_core.sphere import spherical_harmonics, unit_vectors
from mobclip_core.vectors import signed

DEGREES = 20
_SCALE = 0.3
"""Deviation of a factor, that of the features' middling ones: on few labels a ridge regression trusts the first of the
features more than the place."""
_SMALLEST_SHARE = 1e-11
"""Components with less than this share of the first one's variance are rounding, even in float64."""


@dataclass(frozen=True)
class PositionFactors:
    """From places to a part of the published vectors.

    Args:
        mean: Of the harmonics over the training's cells, float64 (400,).
        axes: Maps the rest to factors of one small variance, float64 (400, K).
        lon: Of the training's cells, degrees, float64 (N,).
        lat: Likewise.
        rotation: Maps factors into the space of the vectors, (K, d).
    """

    mean: np.ndarray
    axes: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    rotation: np.ndarray

    def of(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """What places, in degrees, (n,) each, give to the published vectors: float32 (n, d)."""
        _, nearest = KDTree(unit_vectors(self.lon, self.lat)).query(unit_vectors(lon, lat))
        harmonics = spherical_harmonics(self.lon[nearest], self.lat[nearest], DEGREES, np.float64)
        return np.asarray((harmonics - self.mean) @ self.axes @ self.rotation, dtype=np.float32)


def fit_position(lon: np.ndarray, lat: np.ndarray, rotation: np.ndarray) -> PositionFactors:
    """Find the factors of the cells of a training.

    Args:
        lon: Of their centres, degrees, (N,).
        lat: Likewise.
        rotation: A direction in the space of the vectors for each factor wanted, (K, d); the first ones are used where
            the cells allow fewer factors.
    """
    harmonics = spherical_harmonics(lon, lat, DEGREES, np.float64)
    mean = harmonics.mean(axis=0)
    centred = harmonics - mean
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(variance)[::-1][: len(rotation)]
    order = order[variance[order] > _SMALLEST_SHARE * max(float(variance[-1]), np.finfo(float).tiny)]
    axes = signed(axes[:, order]) * (_SCALE / np.sqrt(variance[order]))
    known_lon, known_lat = (np.asarray(degrees, dtype=np.float64) for degrees in (lon, lat))
    return PositionFactors(mean, axes, known_lon, known_lat, np.asarray(rotation[: len(order)], dtype=np.float64))
