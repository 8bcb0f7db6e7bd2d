"""Places on the unit sphere, where distances know no date line.

Belongs here: what cells, zones and labels need of spherical coordinates. Does not belong here: geometries (see `grid`).
"""

import numpy as np

EARTH_RADIUS_KM = 6371.0088
"""Mean radius."""

_POINTS_AT_ONCE = 256
"""So that what the recurrence needs of these points stays in the processor's cache."""


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
    columns = np.empty((len(lon), degrees**2), dtype=dtype)
    scale, back = _recurrence(degrees)
    for start in range(0, len(lon), _POINTS_AT_ONCE):
        part = slice(start, start + _POINTS_AT_ONCE)
        _harmonics(np.radians(lon[part]), np.radians(lat[part]), scale, back, columns[part])
    return columns


def _recurrence(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors a and b of P(l, m) = a (x P(l-1, m) - b P(l-2, m)) by degree l and order m; 0 from m = l on."""
    degree, order = np.arange(degrees)[:, None], np.arange(degrees)[None, :]
    below = order < degree
    scale, back = np.zeros((degrees, degrees)), np.zeros((degrees, degrees))
    np.divide(4 * degree**2 - 1, degree**2 - order**2, out=scale, where=below)
    np.divide((degree - 1) ** 2 - order**2, 4 * (degree - 1) ** 2 - 1, out=back, where=order < degree - 1)
    return np.sqrt(scale), np.sqrt(back)


def _harmonics(
    longitude: np.ndarray, latitude: np.ndarray, scale: np.ndarray, back: np.ndarray, out: np.ndarray
) -> None:
    """The harmonics of a few points into `out`, shape (n, degrees ** 2).

    Fully normalised Legendre functions by the forward column recurrence of Holmes and Featherstone 2002
    (https://doi.org/10.1007/s00190-002-0216-2), equations 11 to 13, of all orders at once: stable, without factorials.
    """
    degrees, x, y = len(scale), np.sin(latitude), np.cos(latitude)
    orders = np.arange(degrees)[:, None]
    # row m is the wave of order m: cosine, and sine
    cosine, sine = np.cos(orders * longitude), np.sin(orders * longitude)
    cosine[1:] *= np.sqrt(2)
    sine *= np.sqrt(2)
    before, now = np.zeros((degrees, len(x))), np.zeros((degrees, len(x)))
    sectoral = np.full(len(x), np.sqrt(1 / (4 * np.pi)))
    for degree in range(degrees):
        if degree:
            sectoral = sectoral * y * np.sqrt((2 * degree + 1) / (2 * degree))
            below = slice(0, degree)
            later = scale[degree, below, None] * (x * now[below] - back[degree, below, None] * before[below])
            before[below], now[below] = now[below], later
        now[degree] = sectoral
        middle = degree * (degree + 1)
        out[:, middle : middle + degree + 1] = (now[: degree + 1] * cosine[: degree + 1]).T
        out[:, middle - degree : middle] = (now[degree:0:-1] * sine[degree:0:-1]).T
