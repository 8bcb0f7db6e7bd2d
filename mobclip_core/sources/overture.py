"""Places of the Overture Maps Foundation.

Belongs here: the published schema and its versions. Does not belong here: what becomes of a place (see `poi_points`).
"""

import duckdb

from mobclip_core.profile import OverturePlaces
from mobclip_core.sources.point_batches import PointSource, query_batches
from mobclip_core.sources.published import PublishedColumn, PublishedSchema, create_published_view
from mobclip_core.sources.tables import source_files
from mobclip_core.sql import sql_text

SCHEMA = PublishedSchema(
    "the places schema of Overture Maps (releases of 2023 to 2026)",
    "https://docs.overturemaps.org/schema/reference/places/place/",
)
_PRIMARY = (PublishedColumn("taxonomy.primary", ["VARCHAR"]), PublishedColumn("categories.primary", ["VARCHAR"]))
_HIERARCHY = (PublishedColumn("taxonomy.hierarchy", ["VARCHAR[]"]),)
_BASIC = (PublishedColumn("basic_category", ["VARCHAR"]),)
_NOTHING = (PublishedColumn("", ["VARCHAR"], optional=True),)
_NO_LIST = (PublishedColumn("", ["VARCHAR[]"], optional=True),)


def open_overture(connection: duckdb.DuckDBPyConnection, places: OverturePlaces, batch_rows: int) -> PointSource:
    """Open Overture's places as batches of points.

    Source: https://docs.overturemaps.org/schema/reference/places/place/. `taxonomy` and `basic_category` came beside
    `categories`, which the releases from September 2026 on no longer have; `operating_status` is missing in old ones.

    Raises:
        SourceError: Missing or unreadable files, or a column that is not as published.
    """
    files = source_files(places.file)
    columns = {
        "id": (PublishedColumn("id", ["VARCHAR"]),),
        "name": (PublishedColumn("names.primary", ["VARCHAR"]),),
        "category": {"primary": _PRIMARY, "basic": _BASIC, "top": _NOTHING}[places.category],
        "hierarchy": _HIERARCHY if places.category == "top" else _NO_LIST,
        "confidence": (PublishedColumn("confidence", ["DOUBLE", "FLOAT"]),),
        "operating_status": (PublishedColumn("operating_status", ["VARCHAR"], optional=True),),
        "wkb": (PublishedColumn("geometry", ["BLOB", "GEOMETRY"]),),
    }
    create_published_view(connection, "poi_places", files, SCHEMA, columns)
    parameters = {"min_confidence": places.min_confidence}
    batches = query_batches(connection, sql_text("poi_overture_rows"), parameters, files, batch_rows)
    return PointSource(files, ("geometry",), batches, {}, has_id=True, has_name=True)
