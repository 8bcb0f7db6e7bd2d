"""Extracts of OpenStreetMap.

Belongs here: turning tagged nodes and ways into points, with bounded memory. Does not belong here: what becomes of a
point (see `poi_points`).
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mobclip_core.errors import SourceError
from mobclip_core.profile import OpenStreetMap
from mobclip_core.sources.point_batches import PointSource, query_batches
from mobclip_core.sources.remote import reaching
from mobclip_core.sources.tables import first_line, open_files, source_files
from mobclip_core.sql import sql_text

_LOG = logging.getLogger(__name__)
_SUFFIXES = (".osm.pbf", ".osm", ".osm.bz2", ".osm.gz", ".pbf")
_ROWS_AT_ONCE = 65_536
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("category", pa.string()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
    ]
)


def open_openstreetmap(
    connection: duckdb.DuckDBPyConnection, extract: OpenStreetMap, folder: Path, batch_rows: int
) -> PointSource:
    """Open the POIs of OpenStreetMap files as batches of points.

    The files are read with pyosmium first, to Parquet files in `folder`: tagged nodes where they are, tagged ways in
    the middle of the bounding box of their nodes. Only the locations of these ways' nodes are kept, in a file.

    Source: https://wiki.openstreetmap.org/wiki/Elements.

    Args:
        connection: The session that streams the points.
        extract: The source.
        folder: An empty folder for temporary files, on a disk.
        batch_rows: Rows of a batch.

    Raises:
        SourceError: Missing or unreadable files, or none of a kind that OpenStreetMap publishes.
    """
    files = source_files(extract.file)
    counts = {"osm_nodes": 0, "osm_ways": 0}
    points = []
    for i, file in enumerate(files):
        if not file.lower().endswith(_SUFFIXES):
            raise SourceError(file, "is no OpenStreetMap file", hint=f"expected one of {', '.join(_SUFFIXES)}")
        points.append(str(folder / f"{i:05d}.parquet"))
        with _PointWriter(points[-1], extract) as writer:
            _read(file, extract, folder, writer)
        counts = {"osm_nodes": counts["osm_nodes"] + writer.nodes, "osm_ways": counts["osm_ways"] + writer.ways}
    open_files(connection, "poi_source", points)
    batches = query_batches(connection, sql_text("poi_point_rows"), {}, files, batch_rows)
    return PointSource(files, ("lon", "lat"), batches, counts, has_id=True, has_name=True)


class _PointWriter:
    """Writes points to a Parquet file, some at a time."""

    def __init__(self, path: str, extract: OpenStreetMap) -> None:
        self.nodes, self.ways = 0, 0
        self._keys, self._with_key = extract.keys, extract.category == "key=value"
        self._rows: list[tuple[str, str | None, str | None, float | None, float | None]] = []
        self._writer = pq.ParquetWriter(path, _SCHEMA)

    def add(self, ident: str, tags: Any, position: tuple[float, float] | None) -> None:
        """Add a point; one without a position keeps its place, to be counted."""
        key = next(key for key in self._keys if key in tags)
        category = f"{key}={tags[key]}" if self._with_key else tags[key]
        self._rows.append((ident, tags.get("name"), category, *(position or (None, None))))
        self.nodes += ident[0] == "n"
        self.ways += ident[0] == "w"
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) if self._rows else [()] * len(_SCHEMA)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=_SCHEMA))
        self._rows = []
        _LOG.info("%d nodes and %d ways are POIs so far", self.nodes, self.ways)

    def __enter__(self) -> "_PointWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()


def _read(file: str, extract: OpenStreetMap, folder: Path, writer: _PointWriter) -> None:
    import osmium

    class Ways(osmium.SimpleHandler):
        def way(self, way: Any) -> None:
            writer.add(f"w{way.id}", way.tags, _middle(node.location for node in way.nodes))

    try:
        with _local(file, folder) as path, tempfile.TemporaryDirectory(dir=folder) as scratch:
            nodes: Iterable[Any] = osmium.FileProcessor(path, osmium.osm.NODE).with_filter(
                osmium.filter.KeyFilter(*extract.keys)
            )
            for node in nodes:
                writer.add(f"n{node.id}", node.tags, _middle([node.location]))
            needed = osmium.IdTracker()
            for way in osmium.FileProcessor(path, osmium.osm.WAY).with_filter(osmium.filter.KeyFilter(*extract.keys)):
                needed.add_way(way.id)
                needed.add_references(way)
            # in a file: a country's ways have more nodes than fit in memory
            index = osmium.index.create_map(f"sparse_file_array,{scratch}/locations")
            locations = osmium.NodeLocationsForWays(index)
            locations.ignore_errors()
            reader = osmium.io.Reader(path, osmium.osm.NODE | osmium.osm.WAY)
            osmium.apply(reader, needed.id_filter(), locations, Ways())
            reader.close()
    except (RuntimeError, OSError, ValueError) as error:
        raise SourceError(
            file, f"cannot be read: {first_line(error)}", hint="the file may be truncated; fetch it again"
        ) from error


def _middle(locations: Iterable[Any]) -> tuple[float, float] | None:
    """Middle of the bounding box of the valid locations, or None where there is none."""
    found = [(location.lon_without_check(), location.lat_without_check()) for location in locations if location.valid()]
    if not found:
        return None
    lon, lat = zip(*found, strict=True)
    return (min(lon) + max(lon)) / 2, (min(lat) + max(lat)) / 2


@contextlib.contextmanager
def _local(file: str, folder: Path) -> Iterator[str]:
    """Path of a file on this machine: its own, or that of a copy that goes away again."""
    if "://" not in file:
        yield file
        return
    copy = folder / Path(file.split("?")[0]).name
    with reaching(file):
        fs, path = fsspec.core.url_to_fs(file)
        fs.get_file(path, str(copy))
    try:
        yield str(copy)
    finally:
        copy.unlink()
