"""Opening a source of POIs, of whatever kind.

Belongs here: the tables that a profile describes column by column, and which reader a kind has. Does not belong here:
the readers of published schemas (see `overture`, `foursquare`, `openstreetmap`).
"""

from pathlib import Path

import duckdb

from mobclip_core.profile import FoursquarePlaces, OpenStreetMap, OverturePlaces, PoiPoints, PoiSource
from mobclip_core.sources.foursquare import open_foursquare
from mobclip_core.sources.openstreetmap import open_openstreetmap
from mobclip_core.sources.overture import open_overture
from mobclip_core.sources.parquet_points import is_plain, parquet_batches, prepare
from mobclip_core.sources.point_batches import PointSource, query_batches
from mobclip_core.sources.tables import SourceColumn, create_source_view, source_files
from mobclip_core.sql import sql_text


def open_points(connection: duckdb.DuckDBPyConnection, points: PoiSource, folder: Path, batch_rows: int) -> PointSource:
    """Open a source of points.

    Args:
        connection: A session of the source's own.
        points: The source.
        folder: An empty folder for temporary files.
        batch_rows: Rows of a batch.

    Raises:
        SourceError: A file or column is missing, unreadable or of the wrong type; also while the batches are read.
    """
    if isinstance(points, OverturePlaces):
        return open_overture(connection, points, batch_rows)
    if isinstance(points, FoursquarePlaces):
        return open_foursquare(connection, points, batch_rows)
    if isinstance(points, OpenStreetMap):
        return open_openstreetmap(connection, points, folder, batch_rows)
    return _open_table(connection, points, batch_rows)


def _open_table(connection: duckdb.DuckDBPyConnection, points: PoiPoints, batch_rows: int) -> PointSource:
    wanted = {
        "id": (points.id_column, "VARCHAR"),
        "name": (points.name_column, "VARCHAR"),
        "category": (points.category_column, "VARCHAR"),
        "lon": (points.lon, "DOUBLE"),
        "lat": (points.lat, "DOUBLE"),
        "wkt": (points.wkt, "VARCHAR"),
        "wkb": (points.geometry, "BLOB"),
    }
    columns = {name: SourceColumn(source, kind) for name, (source, kind) in wanted.items() if source is not None}
    files = source_files(points.file)
    counts = create_source_view(connection, "poi_source", points.file, columns, verify=False)
    unreadable = {name: number for name, number in counts.items() if name != "rows"}
    position = [name for name in (points.lon, points.lat, points.wkt, points.geometry) if name is not None]
    with_id, with_name = points.id_column is not None, points.name_column is not None
    raw = connection.table("poi_source_raw")
    if is_plain(files, columns, {name: str(kind) for name, kind in zip(raw.columns, raw.types, strict=True)}):
        batches = parquet_batches(files, columns, batch_rows)
        return PointSource(files, position, batches, {}, has_id=with_id, has_name=with_name, prepare=prepare)
    batches = query_batches(connection, sql_text("poi_point_rows"), {}, files, batch_rows)
    return PointSource(files, position, batches, unreadable, has_id=with_id, has_name=with_name)
