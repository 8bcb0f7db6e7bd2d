"""Rasters: opening them with checks, and their mean over H3 cells.

Belongs here: anything that reads a raster by area. Does not belong here: image patches (see `patches`), encoders (see
`features`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import rasterio
import shapely
from exactextract import exact_extract
from exactextract.feature import GeoPandasFeatureSource
from exactextract.raster import RasterioRasterSource
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from mobclip_core.errors import SourceError
from mobclip_core.grid import cell_polygons
from mobclip_core.sources.remote import gdal_environment, gdal_path, is_remote
from mobclip_core.sources.tables import require_file

_CELLS_AT_A_TIME = 16_384


@contextlib.contextmanager
def reading(file: str) -> Iterator[None]:
    """Turn what rasterio raises inside the block into a `SourceError` that names the file."""
    try:
        yield
    except (RasterioError, OSError) as error:
        cause = error.__cause__ or error
        raise SourceError(
            file,
            f"the raster cannot be read: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}",
            hint="check the path in the profile; a file that was there before may be truncated: fetch it again",
        ) from error


@contextlib.contextmanager
def open_raster(file: str, **options: Any) -> Iterator[rasterio.DatasetReader]:
    """Open a georeferenced raster; whatever fails inside the block names the file.

    Args:
        file: Path or URL that GDAL reads.
        options: Open options of the GDAL driver, e.g. `overview_level`.

    Raises:
        SourceError: Missing, unreadable or truncated file, or one without a coordinate reference system.
    """
    if is_remote(file):
        # says why it cannot be reached, which GDAL does not
        require_file(file)
    with reading(file), contextlib.ExitStack() as stack:
        with gdal_environment(file):
            source = stack.enter_context(rasterio.open(gdal_path(file), **options))
        if source.crs is None:
            raise SourceError(
                file, "the raster has no coordinate reference system", hint="set one, e.g. with gdal_edit.py -a_srs"
            )
        yield source


def chosen_bands(source: rasterio.DatasetReader, bands: Sequence[int] | None) -> tuple[int, ...]:
    """Check band numbers against the file.

    Args:
        source: An open raster.
        bands: 1-based band numbers, or None for all bands but an alpha band.

    Raises:
        SourceError: If the file has no such band.
    """
    if bands is None:
        return tuple(band for band, kind in enumerate(source.colorinterp, 1) if kind != ColorInterp.alpha)
    missing = [band for band in bands if band not in source.indexes]
    if missing or not bands:
        raise SourceError(
            source.name,
            f"no band {', '.join(map(str, missing)) or 'asked for'}: the file has bands 1 to {source.count}",
            hint="name its bands, counted from 1, in the profile",
        )
    return tuple(bands)


def crs_of(source: rasterio.DatasetReader) -> pyproj.CRS:
    """The raster's coordinate reference system for pyproj."""
    return pyproj.CRS.from_user_input(source.crs.to_wkt())


def raster_cell_means(file: str, band: int, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a raster over each H3 cell, each pixel weighted by its part that lies in the cell (exactextract).

    Cells keep straight edges in the raster's coordinate system. Pixels of a geographic raster are weighted by their
    area on the sphere; those of a projected one by their area in the projection, whose scale hardly varies in a cell.

    Args:
        file: Raster in any CRS, of pixels smaller or larger than a cell; axis-parallel.
        band: 1-based band number.
        cells: uint64 H3 indices, shape (n,).

    Returns:
        float64 means, shape (n,), NaN for a cell without data; and float64 fractions of each cell's area that the
        raster covers with data, shape (n,).

    Raises:
        SourceError: Missing, unreadable or rotated raster, no CRS, no such band.
    """
    means, valid = np.full(len(cells), np.nan), np.zeros(len(cells))
    with open_raster(file) as source:
        chosen_bands(source, [band])
        if not source.transform.is_rectilinear or source.transform.e > 0:
            raise SourceError(file, "the raster is not north-up", hint="warp it to a north-up grid with gdalwarp")
        for start in range(0, len(cells), _CELLS_AT_A_TIME):
            part = slice(start, start + _CELLS_AT_A_TIME)
            means[part], valid[part] = _means_of(source, band, cell_polygons(cells[part]))
    return means, valid


def _means_of(source: rasterio.DatasetReader, band: int, polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    crs = crs_of(source)
    to_raster = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    projected = shapely.transform(polygons, lambda xy: np.column_stack(to_raster.transform(xy[:, 0], xy[:, 1])))
    area = shapely.area(projected)
    # a cell beyond the projection's domain has infinite vertices, and no data either
    usable = np.flatnonzero(np.isfinite(area) & (area > 0))
    means, valid = np.full(len(polygons), np.nan), np.zeros(len(polygons))
    if len(usable):
        weight = "coverage_weight=area_spherical_m2" if crs.is_geographic else "coverage_weight=fraction"
        features = GeoPandasFeatureSource(gpd.GeoDataFrame(geometry=projected[usable], crs=source.crs))
        raster = RasterioRasterSource(source, band)
        # each pixel is read once, whatever the order of the cells
        found = exact_extract(
            raster, features, [f"mean({weight})", "count"], output="pandas", strategy="raster-sequential"
        )
        pixel_area = abs(source.transform.determinant)
        means[usable] = found["mean"].to_numpy(dtype=float)
        valid[usable] = np.clip(found["count"].to_numpy(dtype=float) * pixel_area / area[usable], 0.0, 1.0)
    return means, valid
