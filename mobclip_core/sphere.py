"""Places on the unit sphere, where distances know no date line.

Belongs here: what cells, zones and labels need of spherical coordinates. Does not belong here: geometries (see `grid`).
"""

import numpy as np
from scipy.special import sph_harm_y

EARTH_RADIUS_KM = 6371.0088
"""Mean radius."""


def unit_vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Points on the unit sphere: shape (n, 3), from degrees."""
    lon, lat = np.radians(lon), np.radians(lat)
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def spherical_harmonics(
    lon: np.ndarray, lat: np.ndarray, degrees: int, dtype: type[np.floating] = np.float32
) -> np.ndarray:
    """The real spherical harmonics of degrees 0 to `degrees` - 1 at points.

    The location encoding of Russwurm et al. 2024 (https://arxiv.org/abs/2310.06743), which SatCLIP builds on.
    Orthonormal over the sphere, without the Condon-Shortley phase.

    Args:
        lon: Longitudes in degrees, shape (n,).
        lat: Latitudes in degrees, shape (n,).
        degrees: How many degrees.
        dtype: Of the result.

    Returns:
        Shape (n, degrees ** 2): by degree, and in it by order from -degree to degree; negative orders are
        sines of the longitude, positive ones cosines.
    """
    colatitude, longitude = np.radians(90 - lat), np.radians(lon)
    columns = np.empty((len(lon), degrees**2), dtype=dtype)
    for degree in range(degrees):
        middle = degree * (degree + 1)
        columns[:, middle] = sph_harm_y(degree, 0, colatitude, longitude).real
        for order in range(1, degree + 1):
            wave = sph_harm_y(degree, order, colatitude, longitude) * ((-1) ** order * np.sqrt(2))
            columns[:, middle + order], columns[:, middle - order] = wave.real, wave.imag
    return columns
