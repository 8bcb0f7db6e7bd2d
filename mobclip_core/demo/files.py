"""Writing the demo country's files.

Belongs here: formats: Parquet, GeoParquet, GeoPackage, CSV, GeoTIFF; the same content gives the same bytes. Does not
belong here: deciding what is in them.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import rasterio
import rasterio.shutil
import shapely
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from mobclip_core.demo.census import EMPTY_ZONE
from mobclip_core.demo.imagery import NODATA, PIXEL_M, Picture
from mobclip_core.demo.labels import NODATA as LABEL_NODATA
from mobclip_core.demo.labels import PIXEL_DEGREES, LabelRaster
from mobclip_core.demo.land import CRS
from mobclip_core.demo.zoning import Zoning, to_degrees

_FIXED_DATE = "2024-01-01T00:00:00.000Z"


def write_parquet(path: Path, table: pa.Table) -> None:
    """A plain Parquet file."""
    pq.write_table(table, path, compression="zstd")


def write_geoparquet_points(path: Path, table: pa.Table) -> None:
    """A GeoParquet 1.1 file of points; the column `geometry` holds WKB in longitude and latitude."""
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
    }
    write_parquet(path, table.replace_schema_metadata({"geo": json.dumps(geo)}))


def write_csv(path: Path, columns: Mapping[str, np.ndarray], byte_order_mark: bool = False) -> None:
    """A CSV file, with a byte-order mark as some office programs put it."""
    with path.open("w", newline="", encoding="utf-8-sig" if byte_order_mark else "utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


def _write_polygons(path: Path, polygons: np.ndarray, columns: Mapping[str, object]) -> None:
    frame = geopandas.GeoDataFrame(dict(columns), geometry=polygons, crs="EPSG:4326")
    if path.suffix == ".gpkg":
        # GeoPackages carry the date of their last change
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _FIXED_DATE})
        try:
            pyogrio.write_dataframe(frame, path, layer=path.stem, geometry_type="MultiPolygon", promote_to_multi=True)
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    else:
        frame.to_parquet(path)


def _bow_tie(polygon: shapely.Polygon) -> shapely.Polygon:
    """The polygon with two neighbouring corners swapped, so that its border crosses itself."""
    ring = shapely.get_coordinates(polygon.exterior)[:-1]
    for i in range(len(ring) - 1):
        swapped = ring.copy()
        swapped[[i, i + 1]] = ring[[i + 1, i]]
        candidate = shapely.Polygon(swapped)
        if not candidate.is_valid:
            return candidate
    raise ValueError("no swap of corners makes the border cross itself")


def write_zones(path: Path, zoning: Zoning) -> dict[str, int]:
    """Zone polygons: one of them invalid, and one more that is empty."""
    polygons = to_degrees(zoning.zones)
    simple = [
        i for i, polygon in enumerate(polygons) if polygon.geom_type == "Polygon" and len(polygon.exterior.coords) < 15
    ]
    polygons[simple[0]] = _bow_tie(polygons[simple[0]])
    names = [*zoning.names, EMPTY_ZONE]
    _write_polygons(path, np.append(polygons, shapely.Polygon()), {"zone": names})
    return {"zones": len(names), "zones_invalid_polygon": 1, "zones_empty_polygon": 1}


def write_counties(path: Path, zoning: Zoning, ids: np.ndarray) -> dict[str, int]:
    """County polygons."""
    _write_polygons(path, to_degrees(zoning.counties()), {"county": ids})
    return {"counties": len(ids)}


def write_regions(path: Path, zoning: Zoning, keys: tuple[str, ...]) -> dict[str, int]:
    """Region polygons."""
    names = [key.capitalize() for key in keys]
    _write_polygons(path, to_degrees(zoning.regions()), {"region": list(keys), "name": names})
    return {"regions": len(keys)}


def _write_cog(path: Path, pixels: np.ndarray, options: Mapping[str, object]) -> None:
    """A Cloud-Optimised GeoTIFF: tiled, with overviews."""
    bands, rows, columns = pixels.shape
    shape = {"driver": "GTiff", "count": bands, "height": rows, "width": columns, "dtype": pixels.dtype}
    with MemoryFile() as memory:
        with memory.open(**shape, **options) as raster:
            raster.write(pixels)
        with rasterio.Env(GDAL_NUM_THREADS="1"):
            rasterio.shutil.copy(memory.name, path, driver="COG", compress="DEFLATE", predictor="YES", blocksize=256)


def write_picture(path: Path, picture: Picture) -> None:
    """The RGB image."""
    transform = from_origin(picture.left, picture.top, PIXEL_M, PIXEL_M)
    _write_cog(path, picture.pixels, {"crs": CRS, "transform": transform, "nodata": NODATA, "photometric": "RGB"})


def write_label_raster(path: Path, raster: LabelRaster) -> None:
    """A one-band label raster, values to four digits."""
    transform = from_origin(raster.west, raster.north, PIXEL_DEGREES, PIXEL_DEGREES)
    values = np.round(raster.values, 2)[None]
    _write_cog(path, values, {"crs": "EPSG:4326", "transform": transform, "nodata": LABEL_NODATA})
