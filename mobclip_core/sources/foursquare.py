"""Foursquare OS Places.

Belongs here: the published schema. Does not belong here: what becomes of a place (see `poi_points`).
"""

import duckdb

from mobclip_core.profile import FoursquarePlaces
from mobclip_core.sources.point_batches import PointSource, query_batches
from mobclip_core.sources.published import PublishedColumn, PublishedSchema, create_published_view
from mobclip_core.sources.tables import source_files
from mobclip_core.sql import sql_text

SCHEMA = PublishedSchema(
    "the places schema of Foursquare OS Places (releases from November 2024)",
    "https://docs.foursquare.com/data-products/docs/places-os-data-schema",
)
_COLUMNS = {
    "id": (PublishedColumn("fsq_place_id", ["VARCHAR"]),),
    "name": (PublishedColumn("name", ["VARCHAR"]),),
    "lon": (PublishedColumn("longitude", ["DOUBLE", "FLOAT", "DECIMAL"]),),
    "lat": (PublishedColumn("latitude", ["DOUBLE", "FLOAT", "DECIMAL"]),),
    "date_closed": (PublishedColumn("date_closed", ["VARCHAR", "DATE", "TIMESTAMP"]),),
    "labels": (PublishedColumn("fsq_category_labels", ["VARCHAR[]"]),),
}


def open_foursquare(connection: duckdb.DuckDBPyConnection, places: FoursquarePlaces, batch_rows: int) -> PointSource:
    """Open Foursquare's places as batches of points.

    Source: https://docs.foursquare.com/data-products/docs/places-os-data-schema.

    Raises:
        SourceError: Missing or unreadable files, or a column that is not as published.
    """
    files = source_files(places.file)
    create_published_view(connection, "poi_places", files, SCHEMA, _COLUMNS)
    batches = query_batches(connection, sql_text("poi_foursquare_rows"), {"level": places.level}, files, batch_rows)
    return PointSource(files, ("longitude", "latitude"), batches, {}, has_id=True, has_name=True)
