"""Polygons: GeoParquet, GeoPackage, shapefile and GeoJSON as clean lon/lat polygons with an identifier.

Belongs here: reading, reprojecting, repairing, and counting what was wrong. Does not belong here: what polygons are
for (see `grid` for regions, `areal` for zones) and attribute tables (see `tables`).
"""

import functools
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyogrio
import shapely
from shapely.affinity import translate

from mobclip_core.errors import SourceError
from mobclip_core.profile import Files
from mobclip_core.sources.tables import PARQUET_SUFFIXES, file_suffix, first_line, local_or_bytes, quote, source_files

logger = logging.getLogger(__name__)

_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
_WORLD = shapely.box(-180, -90, 180, 90)
_ROUNDING_DEGREES = 1e-6


@dataclass(frozen=True)
class Near:
    """The place whose polygons are wanted.

    Args:
        bounds: West, south, east, north of the place in degrees, shape (4,).
        everywhere: The same of all places of the deployment, shape (n, 4).
    """

    bounds: np.ndarray
    everywhere: np.ndarray


def read_polygons(
    file: Files,
    id_column: str,
    *,
    where: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    ids: Collection[str] | None = None,
    merge_duplicates: bool = False,
    near: Near | None = None,
) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """Read polygons, reproject them to EPSG:4326 and make every one valid.

    A file without a CRS is taken as EPSG:4326 (logged, counted). Longitudes beyond 180 degrees are wrapped, so that a
    polygon over the antimeridian comes back in two parts. The order of files and rows changes nothing.

    Args:
        file: Paths, URLs or glob patterns of GeoParquet, GeoPackage, shapefile or GeoJSON files, each in its own CRS.
        id_column: Column of the identifier; it is read as text.
        where: Keep only rows whose column, as text, starts with the prefix given.
        columns: Further columns to keep.
        ids: Keep only these identifiers.
        merge_duplicates: Merge the polygons that share an identifier; else one is kept, the first by `columns` and then
            by the bytes of its geometry.
        near: Leave out polygons whose bounds do not meet these, before they are checked and repaired; all of those that
            share an identifier stay.

    Returns:
        A frame with `id` (str), `columns` (of the first where merged), `features` (source polygons behind the row: 1
        unless merged) and `geometry` (Polygon or MultiPolygon, valid, not empty), sorted by `id`; and the counts
        `rows`, `crs_assumed` (files), `dropped_no_id`, `dropped_empty`, `dropped_not_finite`, `dropped_not_polygon`,
        `repaired_invalid`, `wrapped_longitude` and `dropped_duplicates` or `merged_duplicates`; with `near` also
        `elsewhere` (left out) and `far` (of these, the ones that meet none of `near.everywhere`).

    Raises:
        SourceError: Missing, truncated or unreadable file; missing column (the error lists those there are);
            coordinates that are no longitudes and latitudes.
    """
    where = dict(where or {})
    wanted = list(dict.fromkeys([id_column, *where, *columns]))
    counts = {"rows": 0, "crs_assumed": 0, "dropped_no_id": 0, "dropped_empty": 0}
    files = source_files(file)
    parts = [(name, _read_file(name, wanted, id_column, where, ids, columns, counts)) for name in files]
    if near is not None:
        repeated = pd.concat([part["id"] for _, part in parts]).duplicated(keep=False).to_numpy()
        starts = np.cumsum([0, *(len(part) for _, part in parts)])
        counts |= {"elsewhere": 0, "far": 0}
        parts = [
            (name, _near_only(part, near, repeated[start : start + len(part)], counts))
            for (name, part), start in zip(parts, starts[:-1], strict=True)
        ]
    found = pd.concat([_clean(name, part, counts) for name, part in parts], ignore_index=True)
    return _unique(gpd.GeoDataFrame(found, crs=4326), merge_duplicates, columns, counts), counts


def _read_file(
    file: str,
    wanted: list[str],
    id_column: str,
    where: Mapping[str, str],
    ids: Collection[str] | None,
    columns: Sequence[str],
    counts: dict[str, int],
) -> gpd.GeoDataFrame:
    """The wanted rows of one file that have an identifier and a geometry, in EPSG:4326."""
    try:
        if file_suffix(file) in PARQUET_SUFFIXES:
            frame = _read_parquet(file, wanted, id_column, where, ids)
        else:
            frame = _read_vector(file, wanted, where)
    except (OSError, ValueError, RuntimeError, shapely.errors.ShapelyError) as error:
        raise SourceError(
            file, f"cannot be read: {first_line(error)}", hint="the file may be truncated; fetch it again"
        ) from error
    identifier = identifiers(frame[id_column])
    keep = np.ones(len(frame), dtype=bool)
    for column, prefix in where.items():
        keep &= identifiers(frame[column]).str.startswith(prefix).fillna(False).to_numpy(dtype=bool)
    if ids is not None:
        keep &= identifier.isin(list(ids)).to_numpy(dtype=bool)
    frame, identifier = frame[keep], identifier[keep]
    counts["rows"] += len(frame)
    if frame.crs is None:
        logger.warning("%s states no CRS; taken as EPSG:4326", file)
        counts["crs_assumed"] += 1
        frame = frame.set_crs(4326)
    found = gpd.GeoDataFrame(
        {**{c: frame[c].to_numpy() for c in columns}, "id": identifier.to_numpy(dtype=object)},
        geometry=frame.geometry.to_numpy(),
        crs=frame.crs,
    )
    found = _drop(found, found["id"].isna().to_numpy(), counts, "no_id")
    found = _drop(found, shapely.is_missing(found.geometry) | shapely.is_empty(found.geometry), counts, "empty")
    raised = shapely.has_z(found.geometry.to_numpy())
    if raised.any():
        found = found.set_geometry(shapely.force_2d(found.geometry.to_numpy()), crs=found.crs)
    return found if found.crs.to_epsg() == 4326 else found.to_crs(4326)


def _near_only(frame: gpd.GeoDataFrame, near: Near, repeated: np.ndarray, counts: dict[str, int]) -> gpd.GeoDataFrame:
    bounds = shapely.bounds(frame.geometry.to_numpy()).reshape(-1, 4)
    # what is not finite or leaves the map is for the cleaning to judge
    unsure = ~(np.isfinite(bounds).all(axis=1) & (np.abs(bounds) <= [180, 90, 180, 90]).all(axis=1))
    here = bounds_meet(bounds, near.bounds) | unsure | repeated
    far = ~here
    for box in near.everywhere:
        far[far] = ~bounds_meet(bounds[far], box)
    counts["elsewhere"] += int((~here).sum())
    counts["far"] += int(far.sum())
    return frame[here]


def bounds_meet(bounds: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Whether boxes have a point in common with one box.

    Args:
        bounds: West, south, east, north; shape (n, 4).
        box: The same of one box, shape (4,).

    Returns:
        bool, shape (n,); False where a bound is NaN.
    """
    return np.asarray((bounds[:, :2] <= box[2:]).all(axis=1) & (bounds[:, 2:] >= box[:2]).all(axis=1))


def identifiers(values: pd.Series) -> pd.Series:
    """Identifiers as text without surrounding blanks; whole numbers without a decimal point; missing ones as null."""
    if pd.api.types.is_float_dtype(values):
        text = pd.Series([f"{v:.0f}" if v == np.floor(v) else repr(float(v)) for v in values], index=values.index)
    else:
        text = values.astype("str").str.strip()
    text = text.astype(object)
    return text.where(values.notna() & (text != ""), None)


def wrap_longitudes(geometry: Any) -> Any:
    """A polygon whose longitudes leave [-180, 180], cut at the antimeridian and put back inside."""
    parts = [shapely.intersection(translate(geometry, shift), _WORLD) for shift in (-360, 0, 360)]
    return polygonal(shapely.union_all(parts))


def polygonal(geometry: Any) -> Any:
    """The polygons of a geometry: what `make_valid` or an intersection leaves may hold lines and points too."""
    if shapely.get_type_id(geometry) != _COLLECTION:
        return geometry
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.union_all([part for part in parts if shapely.get_type_id(part) == _POLYGON])


# ---- reading ----


def _require_columns(file: str, wanted: Sequence[str], present: Sequence[str]) -> None:
    for column in wanted:
        if column not in present:
            raise SourceError(
                file,
                f"no column {column!r}",
                column=column,
                hint=f"the file has {sorted(present)[:40]}; name the right one in the profile",
            )


def _read_parquet(
    file: str, wanted: list[str], id_column: str, where: Mapping[str, str], ids: Collection[str] | None
) -> gpd.GeoDataFrame:
    fs, path = fsspec.core.url_to_fs(file)
    with fs.open(path, "rb") as source:
        schema = pq.read_schema(source)
    _require_columns(file, wanted, schema.names)
    if b"geo" not in (schema.metadata or {}):
        raise SourceError(file, "is Parquet without GeoParquet metadata", hint="write it with geopandas or GDAL")
    geometry = json.loads(schema.metadata[b"geo"])["primary_column"]
    filters = _pushdown(schema, id_column, where, ids)
    # named, since geopandas would try a file system that does not know the endpoints and certificates of ours
    return gpd.read_parquet(path, columns=[*wanted, geometry], filters=filters, filesystem=fs)


def _pushdown(
    schema: pa.Schema, id_column: str, where: Mapping[str, str], ids: Collection[str] | None
) -> pc.Expression | None:
    """A filter that keeps every row wanted; columns whose text is not plain are left to the exact filter afterwards."""

    def text(column: str) -> pc.Expression | None:
        plain = pa.types.is_integer(schema.field(column).type) or pa.types.is_string(schema.field(column).type)
        plain |= pa.types.is_large_string(schema.field(column).type)
        return pc.utf8_trim_whitespace(pc.field(column).cast(pa.string())) if plain else None

    terms = [pc.starts_with(text(c), pattern=prefix) for c, prefix in where.items() if text(c) is not None]
    if ids is not None and text(id_column) is not None:
        terms.append(pc.is_in(text(id_column), pa.array(list(ids), pa.string())))
    return functools.reduce(lambda a, b: a & b, terms) if terms else None


def _read_vector(file: str, wanted: list[str], where: Mapping[str, str]) -> gpd.GeoDataFrame:
    source = local_or_bytes(file)
    if file_suffix(file) == ".shp":
        _require_whole_shapefile(file)
    info = pyogrio.read_info(source)
    types = dict(zip(info["fields"], info["dtypes"], strict=True))
    _require_columns(file, wanted, list(types))
    # LIKE ignores case: a superset that the exact filter afterwards cuts down
    plain = [(c, p) for c, p in where.items() if types[c] == "object" and p.isalnum()]
    clause = " AND ".join(f"{quote(column)} LIKE '{prefix}%'" for column, prefix in plain) or None
    frame = pyogrio.read_dataframe(source, columns=wanted, where=clause)
    if not isinstance(frame, gpd.GeoDataFrame):
        raise SourceError(file, "has no geometry", hint="name the file that holds the polygons")
    return frame


def _require_whole_shapefile(file: str) -> None:
    """GDAL reads the missing end of a shapefile as empty polygons; its header says how long it has to be."""
    with fsspec.open(file, "rb") as source:
        content = source.read()
    stated = 2 * int.from_bytes(content[24:28], "big")
    if len(content) < max(stated, 100):
        raise ValueError(f"holds {len(content)} of {stated} bytes")


# ---- cleaning ----


def _drop(frame: gpd.GeoDataFrame, bad: np.ndarray, counts: dict[str, int], reason: str) -> gpd.GeoDataFrame:
    counts[f"dropped_{reason}"] = counts.get(f"dropped_{reason}", 0) + int(bad.sum())
    return frame[~bad]


def _clean(file: str, frame: gpd.GeoDataFrame, counts: dict[str, int]) -> gpd.GeoDataFrame:
    coordinates, row = shapely.get_coordinates(frame.geometry.to_numpy(), return_index=True)
    finite = np.isfinite(coordinates).all(axis=1)
    not_finite = np.zeros(len(frame), dtype=bool)
    not_finite[row[~finite]] = True
    beyond = finite & (np.abs(coordinates) > np.array([360.0, 90.0]) + _ROUNDING_DEGREES).any(axis=1)
    if beyond.any():
        first = frame["id"].iloc[np.unique(row[beyond])[:5]].tolist()
        raise SourceError(
            file,
            f"{len(np.unique(row[beyond]))} polygons have coordinates that are no longitude and latitude, e.g. {first}",
            hint="give the file its CRS, or swap x and y",
        )
    frame = _drop(frame, not_finite, counts, "not_finite")
    geometry = frame.geometry.to_numpy().copy()
    invalid = ~shapely.is_valid(geometry)
    counts["repaired_invalid"] = counts.get("repaired_invalid", 0) + int(invalid.sum())
    geometry[invalid] = [polygonal(shapely.make_valid(g)) for g in geometry[invalid]]
    bounds = shapely.bounds(geometry)
    outside = (bounds[:, 0] < -180 - _ROUNDING_DEGREES) | (bounds[:, 2] > 180 + _ROUNDING_DEGREES)
    counts["wrapped_longitude"] = counts.get("wrapped_longitude", 0) + int(outside.sum())
    geometry[outside] = [wrap_longitudes(g) for g in geometry[outside]]
    frame = frame.set_geometry(geometry, crs=4326)
    frame = _drop(frame, ~np.isin(shapely.get_type_id(geometry), (_POLYGON, _MULTIPOLYGON)), counts, "not_polygon")
    # a repaired polygon without any area is empty too
    return _drop(frame, shapely.area(frame.geometry.to_numpy()) == 0, counts, "empty")


def _unique(frame: gpd.GeoDataFrame, merge: bool, columns: Sequence[str], counts: dict[str, int]) -> gpd.GeoDataFrame:
    """One row an identifier, sorted; what is chosen or merged goes by content, never by the place in a file."""
    repeated = frame["id"].duplicated(keep=False).to_numpy()
    texts = {name: frame[name].astype(str) for name in columns}
    content = pd.DataFrame({**texts, "id": frame["id"], "geometry": ""}, index=frame.index)
    content.loc[repeated, "geometry"] = [wkb.hex() for wkb in shapely.to_wkb(frame.geometry.to_numpy()[repeated])]
    order = content.sort_values(list(dict.fromkeys(["id", *columns, "geometry"])), kind="stable").index
    frame = frame.loc[order].reset_index(drop=True).assign(features=1)
    again = frame["id"].duplicated().to_numpy()
    counts["merged_duplicates" if merge else "dropped_duplicates"] = int(again.sum())
    kept = frame[~again].reset_index(drop=True)
    if not merge or not again.any():
        return kept
    groups = frame.groupby("id", sort=True)
    kept["features"] = groups.size().to_numpy()
    return kept.set_geometry([shapely.union_all(group.to_numpy()) for _, group in groups["geometry"]], crs=frame.crs)
