"""Large polygons in small pieces, so that an overlap costs only the vertices near it.

Belongs here: cutting polygons, and the areas of their overlaps with small ones. Does not belong here: what the overlaps
decide (see `grid` for cells, `areal` for zones).

How a polygon is cut depends on the polygon alone: two steps that measure the same overlap get the same number to the
last bit, whatever other polygons they look at.
"""

from collections.abc import Sequence

import numpy as np
import shapely

from mobclip_core.sources.polygons import bounds_meet, polygonal

MAX_VERTICES = 128
"""Pieces have at most this many vertices: below, finding the pieces costs more than intersecting them."""

_MAX_CUTS = 24
"""Halvings after which a piece stays as it is: its vertices lie within a few metres."""


def pieces_of(geometry: shapely.Geometry, near: np.ndarray | None = None) -> np.ndarray:
    """Cut a polygon in halves, across the longer side, until each piece is small.

    Args:
        geometry: Valid polygon or multipolygon.
        near: Bounds (west, south, east, north), shape (n, 4): leave out what meets none of them. The pieces that stay
            are the same with and without.

    Returns:
        Polygons and multipolygons that do not overlap and together are `geometry`, object array.
    """
    pieces: list[shapely.Geometry] = []
    waiting = [(geometry, near, 0)]
    while waiting:
        piece, boxes, cuts = waiting.pop()
        west, south, east, north = bounds = shapely.bounds(piece)
        if boxes is not None:
            boxes = boxes[bounds_meet(boxes, bounds)]
            if not len(boxes):
                continue
        if shapely.get_num_coordinates(piece) <= MAX_VERTICES or cuts == _MAX_CUTS:
            pieces.append(piece)
            continue
        if east - west >= north - south:
            middle = (west + east) / 2
            halves = [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
        else:
            middle = (south + north) / 2
            halves = [shapely.box(west, south, east, middle), shapely.box(west, middle, east, north)]
        for part in shapely.intersection(piece, halves):
            # a half that only touches the piece is a line
            part = polygonal(part)
            if shapely.area(part) > 0:
                waiting.append((part, boxes, cuts + 1))
    return np.array(pieces, dtype=object)


def overlap_areas(
    polygons: np.ndarray, geometries: Sequence[shapely.Geometry] | np.ndarray, polygon: np.ndarray, geometry: np.ndarray
) -> np.ndarray:
    """Area that each pair of a small polygon and a large one has in common.

    Args:
        polygons: Small polygons, shape (n,).
        geometries: Large polygons; those that no pair asks for are never cut.
        polygon: Position in `polygons` of each pair, shape (m,).
        geometry: Position in `geometries` of each pair, shape (m,). No pair occurs twice.

    Returns:
        float64, shape (m,), in the square of the coordinates' unit.
    """
    wanted, owner = np.unique(geometry, return_inverse=True)
    bounds = shapely.bounds(polygons[polygon])
    parts = [pieces_of(geometries[number], bounds[owner == i]) for i, number in enumerate(wanted)]
    owner_of_piece = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    pieces = np.concatenate([np.zeros(0, dtype=object), *parts])
    used, position = np.unique(polygon, return_inverse=True)
    near, piece = shapely.STRtree(pieces).query(polygons[used], predicate="intersects")
    # of all meetings, those of the wanted pairs
    key, found = position * len(parts) + owner, near * len(parts) + owner_of_piece[piece]
    sorter = np.argsort(key)
    place = np.searchsorted(key, found, sorter=sorter)
    place[place == len(key)] = 0
    asked = key[sorter[place]] == found if len(key) else np.zeros(0, dtype=bool)
    pair, near, piece = sorter[place[asked]], near[asked], piece[asked]
    # sums run in the order of the pieces
    order = np.lexsort((piece, pair))
    areas = shapely.area(shapely.intersection(polygons[used[near[order]]], pieces[piece[order]]))
    return np.bincount(pair[order], areas, minlength=len(polygon))
