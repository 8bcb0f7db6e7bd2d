"""Which cells describe a labelled unit, and with what weights.

Belongs here: the cells of zones and of cities, weighted by people or by area. Does not belong here: the labels' values,
or the vectors that are averaged with these weights.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from sklearn.neighbors import BallTree

from mobclip_core.bulk_cells import cells_of_points
from mobclip_core.sphere import EARTH_RADIUS_KM

_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class GridFrame:
    """The cells of a deployment with what weighting needs, sorted by cell.

    Args:
        cells: H3 indices, uint64, shape (n,).
        lon: Longitude of the centres in degrees, shape (n,).
        lat: Latitude of the centres in degrees, shape (n,).
        area_km2: Area of the cells, shape (n,).
        population: People in the cells, shape (n,).
        resolution: H3 resolution.
    """

    cells: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    area_km2: np.ndarray
    population: np.ndarray
    resolution: int


@dataclass(frozen=True)
class Members:
    """The cells of units, as one row a pair, sorted by unit and then by cell.

    Args:
        unit: Position of the unit, int64, shape (pairs,).
        cell: Position of the cell in the grid, int64, shape (pairs,).
        weight: Weight of the cell in the unit's mean, shape (pairs,); sums to 1 for each unit that has cells.
    """

    unit: np.ndarray
    cell: np.ndarray
    weight: np.ndarray


def weigh(unit: np.ndarray, cell: np.ndarray, fraction: np.ndarray, grid: GridFrame, weighting: str) -> Members:
    """Normalised weights: people (or area) of a cell times the fraction of the cell inside the unit.

    A unit in which nobody lives is weighted by area.

    Args:
        unit: Position of the unit, shape (pairs,).
        cell: Position of the cell, shape (pairs,).
        fraction: Fraction of the cell inside the unit, > 0, shape (pairs,).
        grid: The cells.
        weighting: `population` or `area`.
    """
    order = np.lexsort((cell, unit))
    unit, cell, fraction = unit[order], cell[order], fraction[order]
    weight = area = fraction * grid.area_km2[cell]
    if weighting == "population" and len(unit):
        people = fraction * grid.population[cell]
        weight = np.where(np.bincount(unit, people)[unit] > 0, people, area)
    total = np.bincount(unit, weight) if len(unit) else np.zeros(0)
    return Members(unit, cell, weight / total[unit])


def zone_members(polygons: np.ndarray, cell_polygons: np.ndarray, grid: GridFrame, weighting: str) -> Members:
    """The cells that zones overlap.

    Args:
        polygons: Zone polygons in lon/lat, shape (zones,).
        cell_polygons: Polygon of each grid cell in lon/lat, shape (n,).
        grid: The cells.
        weighting: `population` or `area`.
    """
    shapely.prepare(polygons)
    unit, cell = shapely.STRtree(cell_polygons).query(polygons, predicate="intersects")
    fraction = np.ones(len(unit))
    # most cells lie inside their zone: only those on its border need the slow intersection
    border = ~shapely.contains_properly(polygons[unit], cell_polygons[cell])
    overlap = shapely.intersection(polygons[unit[border]], cell_polygons[cell[border]])
    # degrees cancel out in the ratio: within one cell the scale of a degree is constant
    fraction[border] = shapely.area(overlap) / shapely.area(cell_polygons[cell[border]])
    kept = fraction > _NEGLIGIBLE
    return weigh(unit[kept], cell[kept], np.minimum(fraction[kept], 1.0), grid, weighting)


def city_members(lon: np.ndarray, lat: np.ndarray, radius_km: np.ndarray, grid: GridFrame, weighting: str) -> Members:
    """The cells whose centres lie within a radius of city centres, and the cell that holds the city centre itself.

    Args:
        lon: Longitude of the city centres in degrees, shape (cities,).
        lat: Latitude of the city centres in degrees, shape (cities,).
        radius_km: Radius, shape (cities,).
        grid: The cells.
        weighting: `population` or `area`.
    """
    nobody = np.zeros(0, dtype=np.int64)
    if not len(lon) or not len(grid.cells):
        return weigh(nobody, nobody, np.zeros(0), grid, weighting)
    tree = BallTree(np.radians(np.column_stack([grid.lat, grid.lon])), metric="haversine")
    found = tree.query_radius(np.radians(np.column_stack([lat, lon])), radius_km / EARTH_RADIUS_KM)
    home = cell_positions(lon, lat, grid)
    pairs = {(city, int(cell)) for city, cells in enumerate(found) for cell in cells}
    pairs |= {(city, int(cell)) for city, cell in enumerate(home) if cell >= 0}
    unit, cell = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    return weigh(unit, cell, np.ones(len(unit)), grid, weighting)


def cell_positions(lon: np.ndarray, lat: np.ndarray, grid: GridFrame) -> np.ndarray:
    """Position in the grid of the cell that holds each point.

    Args:
        lon: Longitudes in degrees, shape (n,).
        lat: Latitudes in degrees, shape (n,).
        grid: The cells.

    Returns:
        int64, shape (n,); -1 where the grid has no such cell, or the point is none.
    """
    cells = cells_of_points(lon, lat, grid.resolution)
    if not len(grid.cells):
        return np.full(len(cells), -1)
    position = np.minimum(np.searchsorted(grid.cells, cells), len(grid.cells) - 1)
    return np.where(grid.cells[position] == cells, position, -1)
