"""Places on the unit sphere, where distances know no date line.

Belongs here: what cells, zones and labels need of spherical coordinates. Does not belong here: geometries (see `grid`).
"""

import numpy as np


def unit_vectors(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Points on the unit sphere: shape (n, 3), from degrees."""
    lon, lat = np.radians(lon), np.radians(lat)
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
