"""Which cells a polygon covers, and how much of each.

Belongs here: polygons against cells. Does not belong here: reading polygon files (see `sources.polygons`), averaging
with the fractions (see `places`).

Edges are straight in longitude and latitude (RFC 7946, 3.1.1). Cells on the border are intersected there, and areas are
measured after mapping latitude to its sine, which keeps areas of the sphere (Lambert's cylindrical equal-area map).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from mobclip_core.errors import MobclipError
from mobclip_core.sources.polygons import wrap_longitudes

_POLYGONS = (3, 6)
_NEGLIGIBLE = 1e-12
_HALF_TURN = 180.0
_LONG_EDGE = 0.2
"""Degrees: over this length a straight edge and its image differ by about a millionth of the area beside it."""


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a polygon and a cell that it covers at least in part, sorted by polygon and then by cell.

    Args:
        polygon: Position of the polygon, int64, shape (pairs,).
        cell: Position of the cell, int64, shape (pairs,).
        fraction: Fraction of the cell's area inside the polygon, in (0, 1], shape (pairs,).
        covered: Fraction of each polygon's area that lies in cells, shape (polygons,).
    """

    polygon: np.ndarray
    cell: np.ndarray
    fraction: np.ndarray
    covered: np.ndarray


def sphere_areas(polygons: np.ndarray) -> np.ndarray:
    """Areas of polygons on the unit sphere, whose edges are straight in longitude and latitude.

    Args:
        polygons: Shapely geometries in degrees, shape (n,).

    Returns:
        Steradians, shape (n,).
    """
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    large = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) > _LONG_EDGE
    if large.any():
        # an edge that is straight in degrees is curved on the map: long ones are cut
        polygons = polygons.copy()
        polygons[large] = shapely.segmentize(polygons[large], _LONG_EDGE)
    mapped = shapely.transform(
        polygons, lambda points: np.column_stack([np.radians(points[:, 0]), np.sin(np.radians(points[:, 1]))])
    )
    areas: np.ndarray = shapely.area(mapped)
    return areas


def clean_polygons(polygons: Sequence[shapely.Geometry] | np.ndarray) -> np.ndarray:
    """Polygons that can be answered for, with longitudes in [-180, 180].

    A polygon over the antimeridian has longitudes beyond 180 or below -180, or is cut there already.

    Args:
        polygons: Shapely polygons and multipolygons in degrees, longitude first.

    Returns:
        Object array, shape (n,).

    Raises:
        MobclipError: Naming the first geometry that is none, is empty or invalid, or leaves the globe, and why.
    """
    found = np.array(list(polygons), dtype=object)
    for number, polygon in enumerate(found):
        if problem := _problem(polygon):
            raise MobclipError(f"polygon {number}: {problem}")
    bounds = shapely.bounds(found).reshape(-1, 4)
    for beyond in np.flatnonzero((bounds[:, 0] < -_HALF_TURN) | (bounds[:, 2] > _HALF_TURN)):
        found[beyond] = wrap_longitudes(found[beyond])
    return found


def _problem(polygon: object) -> str | None:
    if not isinstance(polygon, shapely.Geometry) or shapely.get_type_id(polygon) not in _POLYGONS:
        return "is no polygon or multipolygon"
    if shapely.is_empty(polygon):
        return "is empty"
    if not np.isfinite(shapely.get_coordinates(polygon)).all():
        return "has coordinates that are not finite"
    if not shapely.is_valid(polygon):
        return f"is invalid: {shapely.is_valid_reason(polygon)}; shapely.make_valid repairs most"
    west, south, east, north = shapely.bounds(polygon)
    if south < -90 or north > 90 or west < -2 * _HALF_TURN or east > 2 * _HALF_TURN:
        return f"has coordinates beyond the globe ({west:g}, {south:g}, {east:g}, {north:g}): longitude comes first"
    rings = shapely.get_rings(shapely.get_parts(polygon))
    steps = max(np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])).max() for ring in rings)
    if steps > _HALF_TURN:
        return "has an edge over more than 180 degrees of longitude: cut it at the antimeridian (RFC 7946, 3.1.9)"
    return None


def overlaps(polygons: np.ndarray, cells: np.ndarray, tree: shapely.STRtree, cell_areas: np.ndarray) -> Overlaps:
    """The cells that polygons cover.

    Args:
        polygons: From `clean_polygons`, shape (n,).
        cells: Polygons of the cells, as `grid.cell_polygons` makes them, shape (m,).
        tree: Index of the cells.
        cell_areas: Their `sphere_areas`, shape (m,).
    """
    shapely.prepare(polygons)
    polygon, cell = tree.query(polygons, predicate="intersects")
    order = np.lexsort((cell, polygon))
    polygon, cell = polygon[order], cell[order]
    inside = cell_areas[cell].copy()
    border = ~shapely.contains_properly(polygons[polygon], cells[cell])
    inside[border] = sphere_areas(shapely.intersection(polygons[polygon[border]], cells[cell[border]]))
    fraction = np.minimum(inside / cell_areas[cell], 1.0)
    kept = fraction > _NEGLIGIBLE
    total = np.bincount(polygon, inside, minlength=len(polygons))
    return Overlaps(polygon[kept], cell[kept], fraction[kept], np.minimum(total / sphere_areas(polygons), 1.0))
