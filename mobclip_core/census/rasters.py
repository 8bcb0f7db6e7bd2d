"""People from WorldPop's rasters: sums over cells.

Belongs here: sums of rasters over H3 cells, each pixel split by area among the cells that share it. Does not belong
here: which raster holds whom (see `sources.worldpop`), means over cells (see `imagery.raster`).

All rasters of a country lie on one grid, so that the parts of pixels in cells are worked out once for all of them.
exactextract finds the pixels of each cell; the parts of those on a cell's edge, which it gives in single precision, are
measured again in double precision, so that the parts of a pixel add up to the pixel (to 3e-8: what rounds to the whole
pixel counts as the whole). Memory holds one band of the rasters at a time.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pyproj
import rasterio
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource, RasterioRasterSource
from rasterio.windows import Window

from mobclip_core.census.people import People
from mobclip_core.deployment import Count, Deployment
from mobclip_core.errors import SourceError
from mobclip_core.grid import cell_polygons
from mobclip_core.imagery.raster import crs_of, open_raster, reading
from mobclip_core.profile import WorldPopCensus
from mobclip_core.sources.polygons import polygonal
from mobclip_core.sources.worldpop import age_sex_rasters
from mobclip_core.store import TableRef

logger = logging.getLogger(__name__)

PIXELS_AT_A_TIME = 1 << 21
"""Pixels of the band of rows and columns in memory; a single cell may have more."""

_EDGES_AT_A_TIME = 1 << 16


def people_of_rasters(deployment: Deployment, config: WorldPopCensus, region: str) -> tuple[People, dict[str, Count]]:
    """Sum the people of every age and sex over the cells of a region; the population is the sum of the bins.

    Pixels without data and NaN count as nobody. `share` is the part of the cell where any of the rasters has data.

    Returns:
        The people; and the counts `rasters`, `rasters_left_alone`, `countries`, `pixels_nan` (in pixels; those of all
        rasters together), `cells_beyond_rasters` (no raster reaches them) and `population`.

    Raises:
        SourceError: As `age_sex_rasters`; a raster that cannot be read, has no CRS, is not north-up, lies on another
            grid than its country's others, or holds negative or infinite people.
        MissingTableError: `grid_cells[region]` is not materialised.
    """
    rasters = age_sex_rasters(config)
    cells = deployment.store.read(TableRef("grid_cells", region), ["cell"]).column("cell").to_numpy()
    polygons = cell_polygons(cells)
    histogram, share = np.zeros((len(cells), len(rasters.bins))), np.zeros(len(cells))
    reached = np.zeros(len(cells), dtype=bool)
    pixels_nan = 0.0
    for place, files in rasters.files.items():
        logger.info("%d rasters of %s onto %d cells of region %s", len(files), place, len(cells), region)
        sums = raster_sums(files, polygons)
        histogram += sums.people
        share += sums.share
        reached |= sums.reached
        pixels_nan += sums.pixels_nan
    population = histogram.sum(axis=1)
    counts: dict[str, Count] = {
        "rasters": len(rasters.bins) * len(rasters.files),
        "rasters_left_alone": rasters.left_alone,
        "countries": len(rasters.files),
        "pixels_nan": pixels_nan,
        "cells_beyond_rasters": int((~reached).sum()),
        "population": float(population.sum()),
    }
    return People(cells, population, histogram, np.minimum(share, 1.0)), counts


def totals_of_rasters(deployment: Deployment, config: WorldPopCensus, region: str) -> np.ndarray:
    """What the rasters hold over the one polygon that the region's cells make together, by exactextract alone.

    Its single-precision parts of pixels matter only along the outer edge: far below 1e-6 of the total wherever a region
    has more than a few pixels.

    Returns:
        Population, then people by bin; float64, shape (1 + bins,).

    Raises:
        SourceError, MissingTableError: As `people_of_rasters`.
    """
    rasters = age_sex_rasters(config)
    cells = deployment.store.read(TableRef("grid_cells", region), ["cell"]).column("cell").to_numpy()
    whole = shapely.union_all(cell_polygons(cells))
    totals = np.zeros(1 + len(rasters.bins))
    for files in rasters.files.values():
        for i, file in enumerate(files):
            with open_raster(file) as source:
                (outline,) = _projected(np.array([whole], dtype=object), source)
                if shapely.is_empty(outline):
                    continue
                frame = gpd.GeoDataFrame(geometry=[polygonal(outline)], crs=source.crs)
                found = exact_extract(RasterioRasterSource(source, 1), frame, ["sum"], output="pandas")
                totals[1 + i] += np.nan_to_num(float(found["sum"].iloc[0]))
    totals[0] = totals[1:].sum()
    return totals


@dataclass(frozen=True)
class RasterSums:
    """Sums of rasters over polygons.

    Args:
        people: float64, shape (n, rasters).
        share: Part of the polygon's area where any raster has data; float64, shape (n,).
        reached: Whether the polygon has a pixel of the rasters, with data or without; bool, shape (n,).
        pixels_nan: Pixels (and parts of pixels) of all rasters that hold NaN.
    """

    people: np.ndarray
    share: np.ndarray
    reached: np.ndarray
    pixels_nan: float


def raster_sums(files: Sequence[str], polygons: np.ndarray) -> RasterSums:
    """Sum rasters of one grid over polygons, each pixel by the part of its area inside.

    Args:
        files: Rasters of amounts a pixel, in any CRS; first band.
        polygons: Polygons in EPSG:4326 that may share edges, shape (n,).

    Raises:
        SourceError: As `people_of_rasters`.
    """
    people, area_with_data = np.zeros((len(polygons), len(files))), np.zeros(len(polygons))
    reached = np.zeros(len(polygons), dtype=bool)
    pixels_nan = 0.0
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_raster(file)) for file in files]
        _require_one_grid(files, sources)
        projected = _projected(polygons, sources[0])
        # a cell over the antimeridian has a part at either end of the raster
        parts, owner = shapely.get_parts(projected, return_index=True)
        pixel_area = abs(sources[0].transform.determinant)
        for window, members in _bands(sources[0], parts):
            part, pixel, weight = _pixel_parts(sources[0], window, parts[members])
            of = owner[members[part]]
            reached[of] = True
            any_data = np.zeros(len(pixel), dtype=bool)
            for i, (file, source) in enumerate(zip(files, sources, strict=True)):
                values = _values(file, source, window)[pixel]
                missing = np.isnan(values.data) & ~values.mask
                pixels_nan += float(weight[missing].sum())
                known = ~values.mask & ~missing
                amounts = np.where(known, values.data, 0.0)
                _require_people(file, amounts)
                people[:, i] += np.bincount(of, weight * amounts, minlength=len(polygons))
                any_data |= known
            area_with_data += pixel_area * np.bincount(of, weight * any_data, minlength=len(polygons))
        area = shapely.area(projected)
    share = np.divide(area_with_data, area, out=np.zeros_like(area), where=area > 0)
    return RasterSums(people, share, reached, pixels_nan)


def _require_one_grid(files: Sequence[str], sources: Sequence[rasterio.DatasetReader]) -> None:
    first = sources[0]
    if not first.transform.is_rectilinear or first.transform.e > 0 or first.transform.a < 0:
        raise SourceError(files[0], "the raster is not north-up", hint="warp it to a north-up grid with gdalwarp")
    for file, source in zip(files, sources, strict=True):
        if (source.shape, source.crs) != (first.shape, first.crs) or not source.transform.almost_equals(
            first.transform, 1e-9
        ):
            raise SourceError(
                file,
                f"lies on another grid than {files[0]}: {source.width} x {source.height} pixels from "
                f"{source.bounds.left:g}, {source.bounds.top:g} against {first.width} x {first.height} from "
                f"{first.bounds.left:g}, {first.bounds.top:g}",
                hint="WorldPop publishes all ages and sexes of a country on one grid; fetch the files again",
            )


def _require_people(file: str, amounts: np.ndarray) -> None:
    wrong = (amounts < 0) | np.isinf(amounts)
    if wrong.any():
        raise SourceError(
            file,
            f"{int(wrong.sum())} pixels hold no number of people, such as {amounts[wrong][0]:g}",
            hint="declare the value that stands for no data in the raster; WorldPop's is -99999",
        )


def _projected(polygons: np.ndarray, source: rasterio.DatasetReader) -> np.ndarray:
    """Polygons in the raster's CRS; empty where they leave its domain."""
    crs = crs_of(source)
    if crs.to_epsg() == 4326:
        return polygons
    to_raster = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    projected: np.ndarray = shapely.transform(
        polygons, lambda xy: np.column_stack(to_raster.transform(xy[:, 0], xy[:, 1]))
    )
    projected[~np.isfinite(shapely.bounds(projected)).all(axis=1)] = shapely.Polygon()
    return projected


def _bands(source: rasterio.DatasetReader, parts: np.ndarray) -> Iterator[tuple[Window, np.ndarray]]:
    """Windows from north to south, each with the numbers of the polygons whose pixels it holds."""
    left, top = source.transform.c, source.transform.f
    width, height = source.transform.a, -source.transform.e
    bounds = shapely.bounds(parts).reshape(-1, 4)
    columns = np.clip(np.floor((bounds[:, [0, 2]] - left) / width) + np.array([0, 1]), 0, source.width)
    rows = np.clip(np.floor((top - bounds[:, [3, 1]]) / height) + np.array([0, 1]), 0, source.height)
    # NaN bounds of empty polygons compare as false
    inside = np.flatnonzero((columns[:, 1] > columns[:, 0]) & (rows[:, 1] > rows[:, 0]))
    waiting = inside[np.lexsort((columns[inside, 0], rows[inside, 0]))]
    while len(waiting):
        west, east = (f.accumulate(columns[waiting, i]) for f, i in ((np.minimum, 0), (np.maximum, 1)))
        south = np.maximum.accumulate(rows[waiting, 1])
        north = rows[waiting[0], 0]
        fits = (east - west) * (south - north) <= PIXELS_AT_A_TIME
        count = max(int(fits.argmin()) if not fits.all() else len(fits), 1)
        last = count - 1
        window = Window(int(west[last]), int(north), int(east[last] - west[last]), int(south[last] - north))
        yield window, waiting[:count]
        waiting = waiting[count:]


def _pixel_parts(
    source: rasterio.DatasetReader, window: Window, parts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels of each polygon: its number, the pixel's number in the window (by rows), the part of it inside."""
    west, south, east, north = rasterio.windows.bounds(window, source.transform)
    shape = (window.height, window.width)
    crs = source.crs.to_wkt()
    blank = NumPyRasterSource(np.zeros(shape, dtype=np.int8), west, south, east, north, srs_wkt=crs)
    frame = gpd.GeoDataFrame(geometry=parts, crs=source.crs)
    found = exact_extract(blank, frame, ["cell_id", "coverage"], output="pandas", max_cells_in_memory=1 << 30)
    lengths = [len(ids) for ids in found["cell_id"]]
    part = np.repeat(np.arange(len(parts)), lengths)
    pixel = np.concatenate([np.zeros(0), *found["cell_id"]]).astype(np.int64)
    weight = np.concatenate([np.zeros(0), *found["coverage"]]).astype(np.float64)
    left, top, width, height = source.transform.c, source.transform.f, source.transform.a, -source.transform.e
    edge = np.flatnonzero(weight < 1)
    for start in range(0, len(edge), _EDGES_AT_A_TIME):
        some = edge[start : start + _EDGES_AT_A_TIME]
        row, column = np.divmod(pixel[some], window.width)
        # counted from the corner of the raster, so that the window changes no bit
        column, row = column + window.col_off, row + window.row_off
        pixels = shapely.box(
            left + column * width, top - (row + 1) * height, left + (column + 1) * width, top - row * height
        )
        inside = shapely.intersection(pixels, parts[part[some]])
        weight[some] = shapely.area(inside) / (width * height)
    return part, pixel, weight


def _values(file: str, source: rasterio.DatasetReader, window: Window) -> np.ma.MaskedArray:
    with reading(file):
        values = source.read(1, window=window, masked=True)
    return np.ma.MaskedArray(values.data.astype(np.float64).ravel(), np.ma.getmaskarray(values).ravel())
