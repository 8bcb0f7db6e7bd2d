"""Settings of POIs.

Belongs here: options of POI sources and counts. Does not belong here: reading them, text encoders (see `text`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mobclip_core.profile.base import Files, Fraction, Settings
from mobclip_core.profile.text import HashedNgramsConfig, TextEncoderConfig


class PoiPoints(Settings):
    """A file of POIs as points: `lon` and `lat` columns, or one `wkt` column, or GeoParquet geometry.

    Args:
        kind: Discriminator; may be left out.
        file: CSV (may be compressed), Parquet or GeoParquet.
        lon: Longitude column.
        lat: Latitude column.
        wkt: Column with WKT points.
        geometry: Column with WKB points (GeoParquet).
        id_column: Identifier; of the rows that repeat one, the first by longitude, latitude, category and name stays,
            and the others are dropped and counted.
        name_column: Name, for the text feature.
        category_column: Category, for counts and the text feature.
        category: One category for all rows, in place of a column.
        aliases: Source value of the category column -> category of the profile.
    """

    kind: Literal["table"] = "table"
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


class OverturePlaces(Settings):
    """The places of the Overture Maps Foundation, as GeoParquet in the published schema.

    Places that are closed for good, or less sure than `min_confidence`, are dropped and counted.

    Args:
        kind: Discriminator.
        file: Parquet files of `theme=places/type=place`.
        category: Where the category comes from: `primary` is `taxonomy.primary`, or `categories.primary` in the
            releases before the taxonomy; `basic` is `basic_category`; `top` is the most general of
            `taxonomy.hierarchy`.
        min_confidence: Smallest confidence of a place that is kept; a place without one counts as 0.
        aliases: Overture category -> category of the profile.
    """

    kind: Literal["overture"]
    file: Files
    category: Literal["primary", "basic", "top"] = "primary"
    min_confidence: Fraction = 0.0
    aliases: dict[str, str] = {}


class FoursquarePlaces(Settings):
    """The places of Foursquare OS Places, as Parquet in the published schema.

    A place with a `date_closed` is dropped and counted.

    Args:
        kind: Discriminator.
        file: Parquet files of `places`.
        level: Which part of a label `A > B > C` is the category: 1 is the most general; a label that ends before
            gives its last part. The last part, the most specific, if None. The first label of a place counts.
        aliases: Foursquare category -> category of the profile.
    """

    kind: Literal["foursquare"]
    file: Files
    level: Annotated[int, Field(ge=1)] | None = None
    aliases: dict[str, str] = {}


class OpenStreetMap(Settings):
    """An extract of OpenStreetMap: nodes, and ways by the centre of their bounding box.

    Relations are left out: their members are ways, which most often carry no tag of their own.

    Args:
        kind: Discriminator.
        file: `.osm.pbf` files (or `.osm`, `.osm.bz2`, `.osm.gz`).
        keys: Keys that make an object a POI; the first one that it has says its category.
        category: The category is the tag's `value`, or `key=value`.
        aliases: OpenStreetMap category, in that form -> category of the profile.
    """

    kind: Literal["openstreetmap"]
    file: Files
    keys: Annotated[list[str], Field(min_length=1)] = ["amenity", "shop", "tourism", "leisure", "office", "healthcare"]
    category: Literal["value", "key=value"] = "value"
    aliases: dict[str, str] = {}


def _kind(value: Any) -> str:
    return str(value.get("kind", "table") if isinstance(value, Mapping) else value.kind)


PoiSource = Annotated[
    Annotated[PoiPoints, Tag("table")]
    | Annotated[OverturePlaces, Tag("overture")]
    | Annotated[FoursquarePlaces, Tag("foursquare")]
    | Annotated[OpenStreetMap, Tag("openstreetmap")],
    Discriminator(_kind),
]
"""A source of POIs as points; without a `kind` it is a `table`."""


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
        minimum_count: A smaller number of POIs of one category in one cell is suppressed: it becomes 0, its texts
            leave the text vector, and the report says how many there were. 0 suppresses nothing.
    """

    categories: Annotated[list[str], Field(min_length=1)]
    points: dict[str, PoiSource] = {}
    zone_counts: dict[str, PoiZoneCounts] = {}
    text: TextEncoderConfig = HashedNgramsConfig()
    minimum_count: Annotated[int, Field(ge=0)] = 0

    @property
    def all_categories(self) -> list[str]:
        """Categories in vector order, `other` last."""
        return [c for c in self.categories if c != "other"] + ["other"]
