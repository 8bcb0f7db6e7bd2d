"""Settings of what comes in: cells, regions, zones, census, POIs, imagery, mobility.

Belongs here: every option about sources and features. Does not belong here: reading them.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mobclip_core.profile.base import Fraction, Settings


class GridConfig(Settings):
    """The tokens: H3 cells.

    Args:
        resolution: H3 resolution (the paper: 6, about 36 km2 a cell).
        min_coverage: A cell belongs to the deployment when at least this fraction of it lies in the regions. 0 keeps
            every cell that touches land; 0.5 is what centre containment gives on straight borders.
    """

    resolution: Annotated[int, Field(ge=0, le=15)] = 6
    min_coverage: Fraction = 0.5


class RegionMembers(Settings):
    """One region made of several polygons of the source.

    Args:
        name: Name for people.
        members: Values of the group column that make the region.
    """

    name: str
    members: Annotated[list[str], Field(min_length=1)]


class RegionsConfig(Settings):
    """Where the regions come from.

    Args:
        file: Polygons (GeoParquet, GeoPackage, shapefile, GeoJSON).
        key_column: Column whose values name a polygon's region, or its group's member.
        name_column: Column with the name for people; the key if None.
        keys: The regions wanted: a list of values of `key_column`, or a mapping from region key to a group of them.
        max_overlap: Two regions may overlap by this fraction of the smaller one (slivers); more is an error.
    """

    file: str
    key_column: str
    name_column: str | None = None
    keys: list[str] | dict[str, RegionMembers]
    max_overlap: Fraction = 0.05

    @property
    def region_keys(self) -> list[str]:
        """The partition keys, in the profile's order."""
        return list(self.keys)


class ZoneLayer(Settings):
    """A layer of zone polygons, such as census tracts.

    Args:
        file: Polygons.
        id_column: Zone identifier, unique.
        where: Keep only zones whose column value starts with the prefix given, e.g. `{county_fips: "36"}`.
        dasymetric: Raster whose values share a zone out among its cells in place of area (e.g. built-up area).
    """

    file: str
    id_column: str
    where: dict[str, str] = {}
    dasymetric: str | None = None


class HistogramBin(Settings):
    """One bin of the census histogram.

    Args:
        column: Column of the table.
        percent_of: The column is a percentage of this other column (else it is a count of people).
    """

    column: str
    percent_of: str | None = None


class CensusConfig(Settings):
    """Census table on a zone layer.

    Args:
        zones: Zone layer.
        file: Attribute table (Parquet, CSV, GeoPackage); may be the polygon file itself.
        id_column: Zone identifier in the table.
        population: Column with the people of a zone.
        histogram: Bins (the paper: 40).
        missing_values: Numbers that stand for "missing".
    """

    zones: str
    file: str
    id_column: str
    population: str
    histogram: Annotated[list[HistogramBin], Field(min_length=1)]
    missing_values: list[float] = [-999.0]


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

    file: str
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

    file: str
    zones: str
    id_column: str
    category_column: str
    count_column: str
    spread: Literal["population", "area"] = "population"
    aliases: dict[str, str] = {}


class TextEncoderConfig(Settings):
    """How category and name strings become vectors.

    Args:
        kind: `hashed_ngrams`: character n-grams hashed and projected; needs no download.
        dimensions: Length of the vector.
        seed: Seed of the projection.
    """

    kind: Literal["hashed_ngrams"] = "hashed_ngrams"
    dimensions: Annotated[int, Field(ge=8, le=4096)] = 64
    seed: int = 0


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
    text: TextEncoderConfig = TextEncoderConfig()

    @property
    def all_categories(self) -> list[str]:
        """Categories in vector order, `other` last."""
        return [c for c in self.categories if c != "other"] + ["other"]


class RandomConvolutionalConfig(Settings):
    """Random convolutional features, whitened on the data (MOSAIKS, Rolf et al. 2021).

    Args:
        kind: Discriminator.
        features: Length of the feature vector; two values (positive and negative part) a filter.
        filter_pixels: Side of a filter.
        sample_patches: Image patches sampled over the regions to draw and whiten filters from.
        bias: Bias inside the two rectifiers, in standard deviations of a filter's response (1 in the MOSAIKS code).
        seed: Seed of the sample.
    """

    kind: Literal["random_convolutional"] = "random_convolutional"
    features: Annotated[int, Field(ge=2, multiple_of=2)] = 512
    filter_pixels: Annotated[int, Field(ge=2)] = 3
    sample_patches: Annotated[int, Field(ge=10)] = 500
    bias: Annotated[float, Field(ge=0)] = 1.0
    seed: int = 0


class TimmConfig(Settings):
    """Any timm model.

    Args:
        kind: Discriminator.
        model: timm model name.
        checkpoint: Local checkpoint file (safetensors or state dict); hub weights if None and `pretrained`.
        pretrained: Load the hub's weights.
        batch_size: Images a batch.
    """

    kind: Literal["timm"]
    model: str
    checkpoint: str | None = None
    pretrained: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 64


class ImageryConfig(Settings):
    """Imagery source and encoder.

    Args:
        file: Raster (Cloud-Optimised GeoTIFF or any raster GDAL reads) in any CRS.
        bands: 1-based band numbers; all if None.
        ground_resolution_m: Size of a patch's pixel on the ground.
        patch_pixels: Side of the square patch.
        min_valid_fraction: Below this the cell has no imagery: its modality is masked.
        encoder: Image encoder.
    """

    file: str
    bands: list[int] | None = None
    ground_resolution_m: Annotated[float, Field(gt=0)] = 500.0
    patch_pixels: Annotated[int, Field(ge=4)] = 16
    min_valid_fraction: Fraction = 0.5
    encoder: Annotated[RandomConvolutionalConfig | TimmConfig, Field(discriminator="kind")] = (
        RandomConvolutionalConfig()
    )


class Visits(Settings):
    """Visits: person, time, position. Consecutive visits of a person within `window_hours` are a movement.

    Args:
        kind: Discriminator.
        file: Table.
        person: Person identifier (a pseudonym).
        time: Timestamp.
        lon: Longitude.
        lat: Latitude.
        window_hours: Longest time between two visits that still count as one movement.
    """

    kind: Literal["visits"]
    file: str
    person: str
    time: str
    lon: str
    lat: str
    window_hours: Annotated[float, Field(gt=0)] = 24.0


class Trips(Settings):
    """Trips: origin and destination positions, one row a trip.

    Args:
        kind: Discriminator.
        file: Table.
        origin_lon: Longitude of the origin.
        origin_lat: Latitude of the origin.
        destination_lon: Longitude of the destination.
        destination_lat: Latitude of the destination.
        person: Person identifier; without one every trip counts as a person.
    """

    kind: Literal["trips"]
    file: str
    origin_lon: str
    origin_lat: str
    destination_lon: str
    destination_lat: str
    person: str | None = None


class Flows(Settings):
    """Zone-to-zone flows, spread over the zones' cells by population.

    Args:
        kind: Discriminator.
        file: Table.
        zones: Zone layer.
        origin: Origin zone identifier.
        destination: Destination zone identifier.
        count: People or movements of the flow.
    """

    kind: Literal["flows"]
    file: str
    zones: str
    origin: str
    destination: str
    count: str


class MobilityConfig(Settings):
    """Mobility sources and rules.

    Args:
        sources: Named sources.
        minimum_people: k: an edge (for flows: a zone-to-zone flow) made by fewer people is dropped.
        self_loops: Keep edges from a cell to itself.
        directed: Keep the direction; else both directions get the sum.
        top_fraction: Fraction of each node's edges kept for propagation, heaviest first (the paper: 0.1).
        min_edges: Edges of a node kept whatever `top_fraction` says.
    """

    sources: dict[str, Annotated[Visits | Trips | Flows, Field(discriminator="kind")]] = {}
    minimum_people: Annotated[int, Field(ge=1)] = 5
    self_loops: bool = False
    directed: bool = True
    top_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_edges: Annotated[int, Field(ge=1)] = 8
