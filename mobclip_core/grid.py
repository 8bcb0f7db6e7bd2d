"""Regions and the H3 cells that tile them.

Belongs here: making regions from the polygons of a source, which cells exist, and which one region each belongs to.
Does not belong here: spreading zones over cells (see `areal`) and arithmetic on H3 indices (see `cells`).
"""

import difflib
import logging
from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyproj
import shapely
from h3ronpy import ContainmentMode, cells_area_km2
from h3ronpy.vector import cells_to_coordinates, cells_to_wkb_polygons, wkb_to_cells
from shapely.geometry.polygon import orient

from mobclip_core.contracts import GRID_CELLS, REGIONS
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.errors import SourceError
from mobclip_core.plots import cell_map, region_map
from mobclip_core.profile import RegionsConfig
from mobclip_core.sources.polygons import read_polygons, wrap_longitudes
from mobclip_core.sources.tables import SourceColumn, read_table
from mobclip_core.store import TableRef
from mobclip_core.subdivide import overlap_areas, pieces_of

logger = logging.getLogger(__name__)

_GEOD = pyproj.Geod(ellps="WGS84")


# ---- regions ----


def build_regions(deployment: Deployment) -> StepResult:
    """Write `regions`: the profile's groups of source polygons, each merged into one geometry.

    Raises:
        SourceError: A key or member that the source does not have, or two regions that overlap by more than
            `regions.max_overlap` of the smaller one.
    """
    config = deployment.profile.regions
    members = _members(config)
    wanted = [member for group in members.values() for member in group]
    columns = [config.name_column] if config.name_column else []
    polygons, counts = read_polygons(config.file, config.key_column, columns=columns, ids=wanted, merge_duplicates=True)
    missing = sorted(set(wanted) - set(polygons["id"]))
    if missing:
        raise SourceError(
            config.file,
            f"no polygon for {missing[:20]}" + (f" and {len(missing) - 20} more" if len(missing) > 20 else ""),
            column=config.key_column,
            hint=f"the profile's regions.keys ask for them; {_available(config, missing[0])}",
        )
    polygons = polygons.set_index("id")
    rows = [_region_row(config, key, polygons.loc[group]) for key, group in members.items()]
    overlap_km2, pairs = _check_overlaps(config, rows)
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["region"])), REGIONS.schema())
    written = deployment.store.write(TableRef("regions"), table)
    numbers: dict[str, Count] = {
        "regions": len(rows),
        "source_features": sum(row["source_features"] for row in rows),
        **{name: number for name, number in counts.items() if name != "merged_duplicates"},
        "overlap_km2": overlap_km2,
        "overlapping_pairs": pairs,
        "area_km2": sum(row["area_km2"] for row in rows),
    }
    shapes = [shapely.from_wkb(row["geometry"]) for row in rows]
    picture = region_map(shapes, [str(row["name"]) for row in rows], f"Regions of {deployment.profile.name}")
    return StepResult(written, numbers, {"Regions": picture})


def _members(config: RegionsConfig) -> dict[str, list[str]]:
    if isinstance(config.keys, Mapping):
        return {key: list(dict.fromkeys(group.members)) for key, group in config.keys.items()}
    return {key: [key] for key in config.keys}


def _available(config: RegionsConfig, missing: str) -> str:
    """What keys the source has, in words; read only when an error needs it."""
    table, _ = read_table(config.file, {"key": SourceColumn(config.key_column, "VARCHAR")})
    known = sorted({key for key in table.column("key").to_pylist() if key is not None})
    shown = known if len(known) <= 20 else difflib.get_close_matches(missing, known, 5, 0)
    return f"the file has {len(known)} keys, such as {shown} (one with an empty geometry cannot be used)"


def _region_row(config: RegionsConfig, key: str, polygons: gpd.GeoDataFrame) -> dict[str, Any]:
    logger.info("region %s: merging %d polygons", key, len(polygons))
    geometry = shapely.normalize(shapely.union_all(polygons.geometry.to_numpy()))
    name = key
    if isinstance(config.keys, Mapping):
        name = config.keys[key].name
    elif config.name_column is not None:
        name = str(polygons[config.name_column].iloc[0])
    return {
        "region": key,
        "name": name,
        "geometry": shapely.to_wkb(geometry),
        "area_km2": geodesic_area_km2(geometry),
        "source_features": int(polygons["features"].sum()),
    }


def geodesic_area_km2(geometry: shapely.Geometry) -> float:
    """Area of a lon/lat (multi)polygon on the WGS 84 ellipsoid (Karney 2013), in km2."""
    parts = [part for part in shapely.get_parts(geometry) if isinstance(part, shapely.Polygon)]
    return float(sum(_GEOD.geometry_area_perimeter(orient(part))[0] for part in parts)) / 1e6


def _check_overlaps(config: RegionsConfig, rows: list[dict[str, Any]]) -> tuple[float, int]:
    """Total overlap between regions in km2 and the number of pairs that overlap."""
    geometries = shapely.from_wkb([row["geometry"] for row in rows])
    first, second = shapely.STRtree(geometries).query(geometries, predicate="intersects")
    total, pairs = 0.0, 0
    for i, j in sorted((int(i), int(j)) for i, j in zip(first, second, strict=True) if i < j):
        overlap = geodesic_area_km2(shapely.intersection(geometries[i], geometries[j]))
        share = overlap / min(rows[i]["area_km2"], rows[j]["area_km2"])
        if share > config.max_overlap:
            raise SourceError(
                config.file,
                f"regions {rows[i]['region']!r} and {rows[j]['region']!r} overlap by {overlap:.1f} km2, "
                f"{share:.1%} of the smaller one; at most {config.max_overlap:.1%} is allowed",
                column=config.key_column,
                hint="put each polygon in one region only, mend the polygons, or raise regions.max_overlap",
            )
        total += overlap
        pairs += overlap > 0
    return total, pairs


# ---- cells ----


def build_grid_cells(deployment: Deployment, region: str) -> StepResult:
    """Write `grid_cells[region]`: the cells that belong to one region.

    Only `regions` is read, so that every partition can be computed on its own; together the partitions hold each cell
    once.
    """
    geometries = region_geometries(deployment)
    config = deployment.profile.grid
    cells, coverage, counts = region_cells(geometries, region, config.resolution, config.min_coverage)
    lon, lat = cell_centres(cells)
    area = pa.array(cells_area_km2(pa.array(cells, pa.uint64())))
    table = pa.Table.from_arrays(
        [pa.array(cells), pa.array([region] * len(cells), pa.string()), *map(pa.array, (lon, lat)), area, coverage],
        schema=GRID_CELLS.schema(),
    )
    written = deployment.store.write(TableRef("grid_cells", region), table)
    title = f"{region}: share of each cell inside the regions"
    pictures = {"Coverage": cell_map(cells, coverage, title, "coverage")} if len(cells) else {}
    return StepResult(written, {**counts, "area_km2": float(area.to_numpy().sum())}, pictures)


def region_geometries(deployment: Deployment) -> dict[str, shapely.Geometry]:
    """Region key -> geometry (EPSG:4326), in the profile's order.

    Raises:
        MissingTableError: If `regions` is not materialised.
    """
    table = deployment.store.read(TableRef("regions"), ["region", "geometry"])
    found = dict(
        zip(table.column("region").to_pylist(), shapely.from_wkb(table.column("geometry").to_pylist()), strict=True)
    )
    return {key: found[key] for key in deployment.profile.regions.region_keys}


def region_cells(
    geometries: Mapping[str, shapely.Geometry], region: str, resolution: int, min_coverage: float
) -> tuple[np.ndarray, np.ndarray, dict[str, Count]]:
    """The cells that belong to one region, and how much of each lies inside the regions.

    The share of a region in a cell is the area of their intersection over the area of the cell, both in plain lon/lat:
    within one cell the ratio is that of the true areas. A cell belongs to the region with the largest share (the first
    one where shares tie), and is kept when the shares of all regions together reach `min_coverage`.

    Args:
        geometries: Polygon of every region of the deployment, EPSG:4326, in the profile's order.
        region: The region wanted.
        resolution: H3 resolution.
        min_coverage: Smallest coverage of a cell that is kept; a cell without any is never kept.

    Returns:
        cells: uint64, shape (n,), sorted.
        coverage: float64, shape (n,), in (0, 1].
        counts: `cells`, `cells_on_borders`, `dropped_low_coverage`, `left_to_other_regions`.
    """
    cells = _touching_cells(pieces_of(geometries[region]), resolution)
    polygons = cell_polygons(cells)
    tree = shapely.STRtree(polygons)
    reached = [key for key, geometry in geometries.items() if key == region or len(tree.query(geometry))]
    regions, own = np.array([geometries[key] for key in reached], dtype=object), reached.index(region)
    touching_region, touching_cell = tree.query(regions, predicate="intersects")
    within = np.zeros(len(cells), dtype=bool)
    within[tree.query(regions[own], predicate="covers")] = True
    # a cell inside the region that no other region touches needs no geometry: nearly all of them
    plain = within & (np.bincount(touching_cell, minlength=len(cells)) == 1)
    pair = ~plain[touching_cell]
    pair_region, pair_cell = touching_region[pair], touching_cell[pair]
    shares = np.zeros((len(cells), len(regions)))
    shares[plain, own] = 1.0
    inside = overlap_areas(polygons, regions, pair_cell, pair_region)
    shares[pair_cell, pair_region] = inside / shapely.area(polygons[pair_cell])
    coverage = np.minimum(shares.sum(axis=1), 1.0)
    # argmax takes the first of equal shares
    owned = (shares.argmax(axis=1) == own) & (shares[:, own] > 0)
    kept = owned & (coverage >= min_coverage)
    counts: dict[str, Count] = {
        "cells": int(kept.sum()),
        "cells_on_borders": int((~plain & kept).sum()),
        "dropped_low_coverage": int((owned & ~kept).sum()),
        "left_to_other_regions": int((~owned).sum()),
    }
    return cells[kept], coverage[kept], counts


def _touching_cells(pieces: np.ndarray, resolution: int) -> np.ndarray:
    """Every cell that touches a polygon given in pieces: uint64, sorted, each once."""
    wkb = pa.array(shapely.to_wkb(pieces), pa.binary())
    found = wkb_to_cells(wkb, resolution, containment_mode=ContainmentMode.Covers, flatten=True)
    return np.unique(pa.array(found).to_numpy(zero_copy_only=False).astype(np.uint64))


def cell_centres(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of H3 cells.

    Args:
        cells: uint64, shape (n,).

    Returns:
        Longitudes and latitudes in degrees, float64, each of shape (n,).
    """
    centres = pa.record_batch(cells_to_coordinates(pa.array(cells, pa.uint64())))
    return centres.column("lng").to_numpy(), centres.column("lat").to_numpy()


def cell_polygons(cells: np.ndarray) -> np.ndarray:
    """Polygons of H3 cells in EPSG:4326.

    A cell over the antimeridian is a multipolygon of its parts on both sides; a cell with a pole inside reaches up to
    the pole.

    Args:
        cells: uint64, shape (n,).

    Returns:
        Shapely polygons and multipolygons with longitudes in [-180, 180], object array of shape (n,).
    """
    wkb = pa.array(cells_to_wkb_polygons(pa.array(cells, pa.uint64())))
    polygons = np.array(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)), dtype=object)
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    for i in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
        polygons[i] = _unwrapped(polygons[i])
    return polygons


def _unwrapped(polygon: shapely.Polygon) -> shapely.Geometry:
    ring = shapely.get_coordinates(polygon)
    ring[:, 0] = np.unwrap(ring[:, 0], period=360)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:
        # once around the globe: the cell holds a pole
        pole = np.copysign(90.0, ring[0, 1])
        ring = np.vstack([ring, [ring[-1, 0], pole], [ring[0, 0], pole]])
    return wrap_longitudes(shapely.Polygon(ring))
