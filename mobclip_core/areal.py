"""Areal weighting: how zones spread over cells without gaining or losing anything.

Belongs here: the crosswalk from zones to cells, by area or by a raster (dasymetric). Does not belong here: what is
spread (see `census`, `poi`, `mobility`).

The rule is the plain one of areal interpolation (Goodchild and Lam 1980): a zone's mass is shared out in proportion to
the area of the zone in each cell. Areas are measured on EPSG:6933, a cylindrical equal-area projection of the globe.
A zone belongs to one region, the one that holds most of it, and spreads over the cells of that region only, so that
totals by region are exact.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import exactextract
import geopandas as gpd
import numpy as np
import pyarrow as pa
import rasterio
import shapely
from exactextract.raster import RasterioRasterSource
from scipy.spatial import cKDTree

from mobclip_core.contracts import ZONE_CELLS
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.errors import SourceError
from mobclip_core.grid import cell_centres, cell_polygons, region_geometries
from mobclip_core.profile import ZoneLayer
from mobclip_core.sources.polygons import Near, polygonal, read_polygons
from mobclip_core.sources.remote import gdal_environment, gdal_path
from mobclip_core.sources.tables import first_line, require_file
from mobclip_core.sphere import unit_vectors
from mobclip_core.store import TableRef
from mobclip_core.subdivide import overlap_areas

logger = logging.getLogger(__name__)

EQUAL_AREA_CRS = 6933
MIN_INSIDE = 0.01
"""A zone of which a smaller fraction lies in the regions is outside: it only shares a drawn border with them."""

_STRADDLING = 0.99
_MOSTLY = 0.5
_SMALLEST_FRAGMENT = 1e-9
"""Fragments below this fraction of what a zone has in all cells are rounding of the intersection."""

Amounts = Callable[[np.ndarray], np.ndarray]
"""Polygon fragments, shape (n,) -> how much each holds, shape (n,), not negative."""


def build_zone_cells(deployment: Deployment, region: str) -> StepResult:
    """Write `zone_cells[region]`: for every zone layer of the profile, the zones of one region and their cells.

    Counts, for each layer, each with the layer's name before it: `zones` (at home here), `zones_snapped` (no cell of
    the region: all goes to the nearest cell), `zones_straddling` (more than 1% of the zone lies outside its region),
    `zones_mostly_outside` (more than half of it lies outside every region: water, or zones of a neighbour that `where`
    should leave out), `zones_without_cells` (the region has no cells at all), `zones_by_area` (dasymetric layers: the
    raster holds nothing there), `zones_outside` (outside every region: whether near this one or far from all, but not
    those near another region only), and what reading dropped: whole layer for identifiers and empty polygons, zones
    near the region for the rest.

    Raises:
        SourceError: A layer or raster that cannot be read.
        MissingTableError: `regions` or `grid_cells[region]` is not materialised.
    """
    geometries = region_geometries(deployment)
    cells = deployment.store.read(TableRef("grid_cells", region), ["cell"]).column("cell").to_numpy()
    tables: list[pa.Table] = []
    counts: dict[str, Count] = {}
    for name, layer in sorted(deployment.profile.zones.items()):
        logger.info("zone layer %s onto %d cells of region %s", name, len(cells), region)
        table, found = _layer_cells(name, layer, geometries, region, cells)
        tables.append(table)
        counts |= {f"{name}_{key}": value for key, value in found.items()}
    table = pa.concat_tables([ZONE_CELLS.schema().empty_table(), *tables])
    return StepResult(deployment.store.write(TableRef("zone_cells", region), table), counts)


def _layer_cells(
    name: str, layer: ZoneLayer, geometries: Mapping[str, shapely.Geometry], region: str, cells: np.ndarray
) -> tuple[pa.Table, dict[str, Count]]:
    boxes = shapely.bounds(list(geometries.values())).reshape(-1, 4)
    own = list(geometries).index(region)
    zones, read = read_polygons(layer.file, layer.id_column, where=layer.where, near=Near(boxes[own], boxes))
    polygons, regions = zones.geometry.to_numpy(), np.array(list(geometries.values()), dtype=object)
    # only a zone that touches the region can be at home in it
    tree = shapely.STRtree(polygons)
    touching = np.sort(tree.query(regions[own], predicate="intersects"))
    nowhere = len(zones) - len(np.unique(tree.query(regions, predicate="intersects")[1]))
    homes = home_regions(polygons[touching], regions)
    mine = homes.region == own
    home_zones, home_polygons = zones["id"].to_numpy()[touching][mine], polygons[touching][mine]
    counts: dict[str, Count] = {key: value for key, value in read.items() if key not in ("rows", "elsewhere", "far")}
    counts |= {
        "zones": int(mine.sum()),
        "zones_outside": read["far"] + nowhere + int((homes.region < 0).sum()),
        "zones_straddling": int((homes.inside[mine] < _STRADDLING).sum()),
        "zones_mostly_outside": int((homes.inside_any[mine] < _MOSTLY).sum()),
        "zones_without_cells": int(mine.sum()) if not len(cells) else 0,
    }
    amounts = _RasterAmounts(layer.dasymetric) if layer.dasymetric is not None else None
    weights = zone_weights(_projected(home_polygons), _projected(cell_polygons(cells)), amounts)
    snapped = np.setdiff1d(np.arange(len(home_polygons)), weights.zone) if len(cells) else np.array([], dtype=np.int64)
    counts |= {"zones_snapped": len(snapped), "zones_by_area": weights.by_area}
    nearest = nearest_cells(home_polygons[snapped], cells) if len(snapped) else np.array([], dtype=np.int64)
    table = pa.table(
        {
            "layer": pa.array([name] * (len(weights.zone) + len(snapped)), pa.string()),
            "zone": pa.array(home_zones[np.concatenate([weights.zone, snapped])], pa.string()),
            "cell": pa.array(cells[np.concatenate([weights.cell, nearest])], pa.uint64()),
            "area_km2": np.concatenate([weights.area / 1e6, np.zeros(len(snapped))]),
            "weight": np.concatenate([weights.weight, np.ones(len(snapped))]),
        },
        schema=ZONE_CELLS.schema(),
    )
    return table.sort_by([("zone", "ascending"), ("cell", "ascending")]), counts


def _projected(polygons: np.ndarray) -> np.ndarray:
    projected: np.ndarray = np.array(gpd.GeoSeries(polygons, crs=4326).to_crs(EQUAL_AREA_CRS).to_numpy(), dtype=object)
    invalid = ~shapely.is_valid(projected)
    projected[invalid] = [polygonal(shapely.make_valid(polygon)) for polygon in projected[invalid]]
    return projected


# ---- which region ----


@dataclass(frozen=True)
class HomeRegions:
    """The home region of each zone.

    Args:
        region: Position of the home region, or -1 for a zone outside every region; int64, shape (n,).
        inside: Fraction of the zone inside its home region; float64, shape (n,).
        inside_any: Fraction of the zone inside the regions together; float64, shape (n,).
    """

    region: np.ndarray
    inside: np.ndarray
    inside_any: np.ndarray


def home_regions(zones: np.ndarray, regions: Sequence[shapely.Geometry] | np.ndarray) -> HomeRegions:
    """The region that holds most of each zone; the first one where shares tie.

    Args:
        zones: Polygons in EPSG:4326, shape (n,).
        regions: Polygons in EPSG:4326.
    """
    polygons = np.array(regions, dtype=object)
    tree = shapely.STRtree(zones)
    region, zone = tree.query(polygons, predicate="intersects")
    # a zone inside a region needs no geometry: nearly all of them
    covering, inner = tree.query(polygons, predicate="covers")
    covered = np.isin(region * len(zones) + zone, covering * len(zones) + inner)
    share = np.ones(len(zone))
    overlap = overlap_areas(zones, polygons, zone[~covered], region[~covered])
    share[~covered] = overlap / shapely.area(zones[zone[~covered]])
    order = np.lexsort((region, -share, zone))
    first, position = np.unique(zone[order], return_index=True)
    best = order[position]
    home, inside = np.full(len(zones), -1), np.zeros(len(zones))
    home[first] = np.where(share[best] >= MIN_INSIDE, region[best], -1)
    inside[first] = share[best]
    return HomeRegions(home, inside, np.bincount(zone, share, minlength=len(zones)))


# ---- how much to each cell ----


@dataclass(frozen=True)
class ZoneWeights:
    """Zone-cell pairs sorted by zone and cell, as positions in the arrays given.

    Args:
        zone: int64, shape (n,).
        cell: int64, shape (n,).
        area: Area of the zone in the cell, in the square of the coordinates' unit; float64, shape (n,).
        weight: Share of the zone that goes to the cell, summing to 1 for each zone; float64, shape (n,).
        by_area: Zones shared out by area because `amounts` found nothing in them.
    """

    zone: np.ndarray
    cell: np.ndarray
    area: np.ndarray
    weight: np.ndarray
    by_area: int = 0


def zone_weights(zones: np.ndarray, cells: np.ndarray, amounts: Amounts | None = None) -> ZoneWeights:
    """Share zones out among cells: weight = amount in the fragment / amount in all fragments of the zone.

    Args:
        zones: Polygons in an equal-area plane, shape (n_zones,).
        cells: Polygons in the same plane that do not overlap, shape (n_cells,).
        amounts: What each fragment holds; its area if None. A zone of which no fragment holds anything falls back to
            area.

    Returns:
        Pairs with a positive area. A zone that meets no cell has none.
    """
    zone, cell = shapely.STRtree(cells).query(zones, predicate="intersects")
    order = np.lexsort((cell, zone))
    zone, cell = zone[order], cell[order]
    fragments = shapely.intersection(zones[zone], cells[cell])
    area = shapely.area(fragments)
    real = area > _SMALLEST_FRAGMENT * np.bincount(zone, area, minlength=len(zones))[zone]
    zone, cell, area, fragments = zone[real], cell[real], area[real], fragments[real]
    by_area = 0
    amount = area
    if amounts is not None:
        amount = amounts(fragments)
        nothing = np.bincount(zone, amount, minlength=len(zones))[zone] == 0
        amount = np.where(nothing, area, amount)
        by_area = len(np.unique(zone[nothing]))
    weight = amount / np.bincount(zone, amount, minlength=len(zones))[zone]
    return ZoneWeights(zone, cell, area, weight, by_area)


def nearest_cells(zones: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The cell whose centre lies nearest to each zone, along the straight line through the sphere.

    Args:
        zones: Polygons in EPSG:4326, shape (n,).
        cells: uint64, shape (m,), m > 0.

    Returns:
        Positions in `cells`, int64, shape (n,).
    """
    points = shapely.get_coordinates(shapely.point_on_surface(zones))
    _, nearest = cKDTree(unit_vectors(*cell_centres(cells))).query(unit_vectors(points[:, 0], points[:, 1]))
    return np.asarray(nearest, dtype=np.int64)


@dataclass(frozen=True)
class _RasterAmounts:
    """Sum of a raster's first band over fragments in the equal-area plane; 0 where it has no data.

    Args:
        file: Raster in any CRS whose values are amounts a pixel, not negative.
    """

    file: str

    def __call__(self, fragments: np.ndarray) -> np.ndarray:
        if not len(fragments):
            return np.zeros(0)
        require_file(self.file)
        try:
            with gdal_environment(self.file), rasterio.open(gdal_path(self.file)) as raster:
                if raster.crs is None:
                    raise SourceError(self.file, "states no CRS", hint="give the raster its CRS")
                polygons = [polygonal(fragment) for fragment in fragments]
                frame = gpd.GeoDataFrame(geometry=polygons, crs=EQUAL_AREA_CRS).to_crs(raster.crs)
                band = RasterioRasterSource(raster, band_idx=1)
                found = exactextract.exact_extract(band, frame, ["sum", "min"], output="pandas")
        except (rasterio.errors.RasterioError, RuntimeError, ValueError) as error:
            raise SourceError(
                self.file,
                f"cannot be read: {first_line(error)}",
                hint="the file may be truncated; fetch it again",
            ) from error
        lowest = float(np.nanmin(found["min"].to_numpy(dtype=float), initial=0.0))
        if lowest < 0:
            raise SourceError(
                self.file,
                f"holds {lowest:g}: negative amounts cannot share zones out",
                hint="declare the value that stands for no data in the raster, or use another raster",
            )
        return np.asarray(np.nan_to_num(found["sum"].to_numpy(dtype=float), nan=0.0))
