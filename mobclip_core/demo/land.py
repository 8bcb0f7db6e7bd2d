"""The coast line and the lattice of points that the hidden world lives on.

Belongs here: where land is. Does not belong here: what the land is like (see `factors`).

Everything hidden is in UTM zone 24 north (metres), over the empty middle of the Atlantic near 43 N, 38 W.
"""

from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from scipy import ndimage

from mobclip_core.demo.config import WorldConfig

CRS = "EPSG:32624"
CENTRE_LON_LAT = (-38.0, 43.0)
STEP_M = 2_000.0
_MARGIN_M = 20_000.0
_COAST_POINTS = 1_600
_HARMONICS = 48


@dataclass(frozen=True)
class Lattice:
    """A regular lattice of points in UTM metres. Row 0 is the southernmost.

    Args:
        left: x of the first column's points.
        bottom: y of the first row's points.
        rows: Number of rows.
        columns: Number of columns.
    """

    left: float
    bottom: float
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """The x and y of all points, each of shape (rows, columns)."""
        x = self.left + STEP_M * np.arange(self.columns)
        y = self.bottom + STEP_M * np.arange(self.rows)
        columns, rows = np.meshgrid(x, y)
        return columns, rows

    def sample(self, field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Values of a field, interpolated bilinearly, at any points; the nearest edge value outside."""
        at = [(np.asarray(y) - self.bottom) / STEP_M, (np.asarray(x) - self.left) / STEP_M]
        return np.asarray(ndimage.map_coordinates(field, at, order=1, mode="nearest"))


@dataclass(frozen=True)
class Land:
    """The country's outline and its lattice.

    Args:
        main: The main island.
        islet: The offshore island.
        lattice: The lattice, with a margin of sea around.
        mask: Which lattice points are on land, shape (rows, columns).
        coast_km: Distance to the sea in km, 0 at sea, shape (rows, columns).
    """

    main: shapely.Polygon
    islet: shapely.Polygon
    lattice: Lattice
    mask: np.ndarray
    coast_km: np.ndarray


def _blob(
    rng: np.random.Generator, x: float, y: float, radius: float, roughness: float, points: int
) -> shapely.Polygon:
    """An island: a circle whose radius varies with the angle by harmonics of falling amplitude."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    order = np.arange(2, _HARMONICS)
    amplitude = roughness * rng.normal(size=len(order)) / order**1.35
    phase = rng.uniform(0, 2 * np.pi, len(order))
    scale = np.exp(amplitude @ np.cos(order[:, None] * angle + phase[:, None]))
    scale /= np.sqrt(np.mean(scale**2))
    return shapely.Polygon(np.column_stack([x + radius * scale * np.cos(angle), y + radius * scale * np.sin(angle)]))


def make_land(config: WorldConfig) -> Land:
    """Draw the coast and lay the lattice over it."""
    rng = config.rng("land")
    to_plane = pyproj.Transformer.from_crs("EPSG:4326", CRS, always_xy=True)
    x, y = to_plane.transform(*CENTRE_LON_LAT)
    radius = 1_000 * config.radius_km
    main = _blob(rng, x, y, radius, 0.34, _COAST_POINTS)
    # off the south-east coast, far enough not to touch
    islet_radius = max(0.09 * radius, 8_000.0)
    heading = np.deg2rad(-50)
    reach = 0.0
    while main.distance(shapely.Point(x + reach * np.cos(heading), y + reach * np.sin(heading))) < 1.6 * islet_radius:
        reach += 2_000.0
    islet = _blob(rng, x + reach * np.cos(heading), y + reach * np.sin(heading), islet_radius, 0.2, _COAST_POINTS // 4)
    left, bottom, right, top = (main | islet).bounds
    left, bottom = left - _MARGIN_M, bottom - _MARGIN_M
    lattice = Lattice(
        left, bottom, int((top + _MARGIN_M - bottom) // STEP_M) + 1, int((right + _MARGIN_M - left) // STEP_M) + 1
    )
    px, py = lattice.positions()
    both = shapely.union_all([main, islet])
    shapely.prepare(both)
    mask = shapely.contains_xy(both, px, py)
    coast_km = ndimage.distance_transform_edt(mask) * STEP_M / 1_000
    return Land(main, islet, lattice, mask, coast_km)


def to_lon_lat(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UTM metres to longitude and latitude in degrees, rounded to about a metre (5 decimals)."""
    lon, lat = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(x, y)
    return np.round(lon, 5), np.round(lat, 5)


def to_metres(lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude in degrees to UTM metres."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(lon, lat)
    return np.asarray(x), np.asarray(y)
