"""Exports: the vectors as files for other programs.

Belongs here: one function a format, quantisation, the dataset card. Does not belong here: answering (see `places`).

| suffix | what | for |
| --- | --- | --- |
| `.parquet` | GeoParquet 1.1: cell, region, source, polygon, vector | GeoPandas, DuckDB, BigQuery |
| `.csv` | cell, region, longitude and latitude, source, one column a dimension | spreadsheets |
| `.arrow` | Arrow IPC: as GeoParquet, with points | Polars, pandas, memory mapping |
| `.safetensors` | `cells` (int64, H3) and `vectors`; `scale` where quantised | PyTorch, JAX |
| `.fgb` | FlatGeobuf: polygons with 16 principal components as columns | QGIS, web maps |
| `.tif` | Cloud-Optimised GeoTIFF in EPSG:4326, one band each of 16 principal components | GDAL, raster stacks |

Fewer dimensions are principal components: no number of a vector says more than another. On the demo country 16
components keep a mean R2 of 0.70 of 0.78, the first 16 numbers 0.43.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from mobclip_core.errors import MobclipError
from mobclip_core.serving.places import Places
from mobclip_core.vectors import principal_axes, vector_column

_INT8 = 127
_RASTER_DIMENSIONS = 16
"""Dimensions that pictures and maps get where nobody asks for more."""


@dataclass(frozen=True)
class Quantised:
    """Vectors in 8 bits: the value is `codes * scale`.

    Args:
        codes: int8, shape (n, d).
        scale: Of each dimension, float32, shape (d,).
        cosine: Mean cosine between a vector and its quantised form.
        error: Root mean square error over the root mean square of the values.
    """

    codes: np.ndarray
    scale: np.ndarray
    cosine: float
    error: float


def quantise(vectors: np.ndarray) -> Quantised:
    """Round each dimension to 255 steps between plus and minus its largest value.

    Args:
        vectors: float32, shape (n, d), finite.
    """
    largest = np.abs(vectors).max(axis=0) if len(vectors) else np.zeros(vectors.shape[1])
    scale = np.where(largest > 0, largest / _INT8, 1).astype(np.float32)
    codes = np.rint(vectors / scale).astype(np.int8)
    back = codes * scale
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(back, axis=1)
    cosine = (vectors * back).sum(axis=1)[norms > 0] / norms[norms > 0]
    size = float(np.sqrt(np.square(vectors, dtype=np.float64).mean()))
    error = float(np.sqrt(np.square(vectors - back, dtype=np.float64).mean()))
    return Quantised(codes, scale, float(cosine.mean()) if len(cosine) else 1.0, error / size if size else 0.0)


def principal(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first principal components of vectors.

    Args:
        vectors: float32, shape (n, d).
        count: How many, at most d.

    Returns:
        Components, float32 (n, count), the largest variance first; the mean that was taken off, (d,); and the axes,
        (d, count): `vectors` is about `components @ axes.T + mean`. An axis' largest entry is positive.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    axes = principal_axes(vectors, mean)[0][:, :count]
    return ((vectors - mean) @ axes).astype(np.float32), mean.astype(np.float32), axes.astype(np.float32)


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        path: The file.
        rows: Cells in it.
        dimensions: Numbers a cell.
        bytes: Size of the file.
        loss: Of quantisation: `cosine` and `error`, see `Quantised`; empty where there was none.
    """

    path: Path
    rows: int
    dimensions: int
    bytes: int
    loss: Mapping[str, float]


def export(places: Places, path: str | Path, *, dimensions: int | None = None, int8: bool = False) -> Exported:
    """Write the vectors in the format that the path's suffix names; the table is at the top of this module.

    Args:
        places: What to write.
        path: The file; replaced if it is there.
        dimensions: That many principal components in place of the vectors; safetensors have the axes beside them.
        int8: Quantise (GeoParquet, Arrow and safetensors).

    Raises:
        MobclipError: Unknown suffix, more dimensions than there are, or a format without int8.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        raise MobclipError(f"{path}: the suffix names the format; expected one of {', '.join(_WRITERS)}")
    if int8 and path.suffix not in _WITH_INT8:
        raise MobclipError(f"{path}: int8 is for {', '.join(_WITH_INT8)}")
    wanted = dimensions
    if wanted is None:
        wanted = min(_RASTER_DIMENSIONS, places.dimensions) if path.suffix in (".fgb", ".tif") else places.dimensions
    if not 1 <= wanted <= places.dimensions:
        raise MobclipError(f"{wanted} dimensions asked for; the vectors have {places.dimensions}")
    chosen, axes = places, None
    if wanted < places.dimensions:
        components, *axes = principal(places.vectors, wanted)
        chosen = replace(places, vectors=components)
    small = quantise(chosen.vectors) if int8 else None
    path.parent.mkdir(parents=True, exist_ok=True)
    # written beside and renamed, so that nobody reads half a file
    aside = path.with_name(f".aside-{path.name}")
    try:
        writer(chosen, small, aside)
        if path.suffix == ".safetensors" and axes is not None:
            _add_tensors(aside, {"mean": axes[0], "axes": axes[1]})
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    loss = {"cosine": small.cosine, "error": small.error} if small else {}
    return Exported(path, len(places), wanted, path.stat().st_size, loss)


def _columns(places: Places) -> dict[str, pa.Array]:
    regions = pa.array(places.regions)
    return {
        "cell": pa.array(places.cells, pa.uint64()),
        "region": pa.DictionaryArray.from_arrays(pa.array(places.region, pa.int32()), regions).cast(pa.string()),
        "source": pa.array(np.where(places.graph, "graph", "student")),
    }


def _metadata(places: Places, small: Quantised | None) -> dict[str, str]:
    found = {"encoder": places.encoder, "h3_resolution": str(places.resolution)}
    if small is not None:
        found |= {"scale": json.dumps(small.scale.tolist()), "quantisation": "value = int8 * scale by dimension"}
    return found


def _vectors(places: Places, small: Quantised | None) -> pa.Array:
    return vector_column(places.vectors if small is None else small.codes)


def _write_parquet(places: Places, small: Quantised | None, path: Path) -> None:
    polygons = places.polygons
    kinds = sorted({str(geometry.geom_type) for geometry in polygons})
    bounds = [float(number) for number in shapely.total_bounds(polygons)]
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": kinds, "bbox": bounds}},
    }
    table = pa.table(
        {**_columns(places), "geometry": pa.array(shapely.to_wkb(polygons)), "vector": _vectors(places, small)}
    )
    table = table.replace_schema_metadata({**_metadata(places, small), "geo": json.dumps(geo)})
    pq.write_table(table, path, compression="zstd")


def _write_arrow(places: Places, small: Quantised | None, path: Path) -> None:
    table = pa.table(
        {**_columns(places), "lon": places.lon, "lat": places.lat, "vector": _vectors(places, small)}
    ).replace_schema_metadata(_metadata(places, small))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _write_csv(places: Places, small: Quantised | None, path: Path) -> None:
    from pyarrow import csv

    names = {f"v{i:03}": column for i, column in enumerate(places.vectors.T)}
    columns = _columns(places)
    # spreadsheets have no 64-bit integers
    columns["cell"] = pa.array([f"{cell:x}" for cell in places.cells.tolist()])
    csv.write_csv(pa.table({**columns, "lon": places.lon, "lat": places.lat, **names}), path)


def _write_safetensors(places: Places, small: Quantised | None, path: Path) -> None:
    from safetensors.numpy import save_file

    tensors = {"cells": places.cells.astype(np.int64)}
    if small is None:
        tensors["vectors"] = places.vectors
    else:
        tensors |= {"vectors": small.codes, "scale": small.scale}
    save_file(tensors, str(path), metadata=_metadata(places, None))


def _add_tensors(path: Path, more: Mapping[str, np.ndarray]) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    save_file(
        {**load_file(path), **{name: np.ascontiguousarray(value) for name, value in more.items()}}, path, metadata
    )


def _write_flatgeobuf(places: Places, small: Quantised | None, path: Path) -> None:
    import geopandas as gpd

    columns = {name: column.to_pylist() for name, column in _columns(places).items()}
    columns["cell"] = [f"{cell:x}" for cell in places.cells.tolist()]
    columns |= {f"v{i:03}": column for i, column in enumerate(places.vectors.T)}
    frame = gpd.GeoDataFrame(columns, geometry=places.polygons, crs=4326)
    frame.to_file(path, driver="FlatGeobuf", engine="pyogrio")


def _write_raster(places: Places, small: Quantised | None, path: Path) -> None:
    """Pixels have the vector of the cell that their centre lies in; a pixel is half as wide as a cell."""
    import rasterio
    from rasterio.transform import from_origin

    west, south, east, north = shapely.total_bounds(places.polygons)
    side = float(np.sqrt(np.median(places.area_km2))) / 2 / 111.2
    width, height = int(np.ceil((east - west) / side)), int(np.ceil((north - south) / side))
    lon = west + side * (np.arange(width) + 0.5)
    lat = north - side * (np.arange(height) + 0.5)
    bands = np.full((places.dimensions, height, width), np.nan, dtype=np.float32)
    for row in range(height):
        bands[:, row] = places.lookup(lon=lon, lat=np.full(width, lat[row])).vectors.T
    profile = {
        "driver": "COG",
        "count": places.dimensions,
        "height": height,
        "width": width,
        "dtype": "float32",
        "crs": "EPSG:4326",
        "transform": from_origin(west, north, side, side),
        "nodata": np.nan,
        "compress": "deflate",
        "predictor": 3,
    }
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(bands)
        raster.update_tags(**_metadata(places, None))


Writer = Callable[[Places, Quantised | None, Path], None]
_WRITERS: dict[str, Writer] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".arrow": _write_arrow,
    ".safetensors": _write_safetensors,
    ".fgb": _write_flatgeobuf,
    ".tif": _write_raster,
}
_WITH_INT8 = (".parquet", ".arrow", ".safetensors")
