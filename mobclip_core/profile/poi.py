"""Settings of POIs.

Belongs here: options of POI sources and counts. Does not belong here: reading them, text encoders (see `text`).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mobclip_core.profile.base import Files, Settings
from mobclip_core.profile.text import HashedNgramsConfig, TextEncoderConfig


class PoiPoints(Settings):
    """A file of POIs as points: `lon` and `lat` columns, or one `wkt` column, or GeoParquet geometry.

    Args:
        file: CSV (may be compressed), Parquet or GeoParquet.
        lon: Longitude column.
        lat: Latitude column.
        wkt: Column with WKT points.
        geometry: Column with WKB points (GeoParquet).
        id_column: Identifier; rows that repeat one are dropped and counted.
        name_column: Name, for the text feature.
        category_column: Category, for counts and the text feature.
        category: One category for all rows, in place of a column.
        aliases: Source value of the category column -> category of the profile.
    """

    file: Files
    lon: str | None = None
    lat: str | None = None
    wkt: str | None = None
    geometry: str | None = None
    id_column: str | None = None
    name_column: str | None = None
    category_column: str | None = None
    category: str | None = None
    aliases: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_position(self) -> Self:
        given = [self.lon is not None and self.lat is not None, self.wkt is not None, self.geometry is not None]
        if sum(given) != 1:
            raise ValueError("give lon and lat, or wkt, or geometry: exactly one of the three")
        if (self.category_column is None) == (self.category is None):
            raise ValueError("give category_column or category: exactly one of the two")
        return self


class PoiZoneCounts(Settings):
    """A table of POI counts by zone and category, spread over each zone's cells.

    Args:
        file: Table.
        zones: Zone layer.
        id_column: Zone identifier.
        category_column: Category.
        count_column: Number of POIs.
        spread: Share counts out by `population` or by `area`.
        aliases: Source category -> category of the profile.
    """

    file: Files
    zones: str
    id_column: str
    category_column: str
    count_column: str
    spread: Literal["population", "area"] = "population"
    aliases: dict[str, str] = {}


class PoiConfig(Settings):
    """POI sources; a category outside `categories` counts as `other` and is reported.

    Args:
        categories: The categories, in the order of the count vector. `other` is added at the end.
        points: Point sources.
        zone_counts: Sources of counts by zone.
        text: Text encoder.
    """

    categories: Annotated[list[str], Field(min_length=1)]
    points: dict[str, PoiPoints] = {}
    zone_counts: dict[str, PoiZoneCounts] = {}
    text: TextEncoderConfig = HashedNgramsConfig()

    @property
    def all_categories(self) -> list[str]:
        """Categories in vector order, `other` last."""
        return [c for c in self.categories if c != "other"] + ["other"]
