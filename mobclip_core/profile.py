"""The profile: one YAML file describes one deployment, and this module is its schema.

Belongs here: every option a data team can set, with its default and its range, and the errors that say what is wrong
with a file. Does not belong here: reading the sources that a profile names.

Paths in a profile may hold `${NAME}` or `${NAME:-default}`. A relative path starts at the folder of the YAML file; a
relative path inside an environment variable starts at the working directory, as on a command line.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mobclip_core.errors import ProfileError

PROFILES_DIR = Path(__file__).resolve().parents[1] / "dagster_home" / "profiles"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridConfig(_Model):
    """The tokens: H3 cells.

    Args:
        resolution: H3 resolution (the paper: 6, about 36 km2 a cell).
        min_coverage: A cell belongs to the deployment when at least this fraction of it lies in the regions. 0 keeps
            every cell that touches land; 0.5 is what centre containment gives on straight borders.
    """

    resolution: Annotated[int, Field(ge=0, le=15)] = 6
    min_coverage: Fraction = 0.5


class RegionMembers(_Model):
    """One region made of several polygons of the source.

    Args:
        name: Name for people.
        members: Values of the group column that make the region.
    """

    name: str
    members: Annotated[list[str], Field(min_length=1)]


class RegionsConfig(_Model):
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


class ZoneLayer(_Model):
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


class HistogramBin(_Model):
    """One bin of the census histogram.

    Args:
        column: Column of the table.
        percent_of: The column is a percentage of this other column (else it is a count of people).
    """

    column: str
    percent_of: str | None = None


class CensusConfig(_Model):
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


class PoiPoints(_Model):
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


class PoiZoneCounts(_Model):
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


class TextEncoderConfig(_Model):
    """How category and name strings become vectors.

    Args:
        kind: `hashed_ngrams`: character n-grams hashed and projected; needs no download.
        dimensions: Length of the vector.
        seed: Seed of the projection.
    """

    kind: Literal["hashed_ngrams"] = "hashed_ngrams"
    dimensions: Annotated[int, Field(ge=8, le=4096)] = 64
    seed: int = 0


class PoiConfig(_Model):
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


class RandomConvolutionalConfig(_Model):
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


class TimmConfig(_Model):
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


class ImageryConfig(_Model):
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


class Visits(_Model):
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


class Trips(_Model):
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


class Flows(_Model):
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


class MobilityConfig(_Model):
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


class LineConfig(_Model):
    """LINE, second order (Tang et al. 2015).

    Args:
        dimensions: Length of a vector (the paper: 128).
        samples_per_edge: Positive samples drawn, as a multiple of the number of edges.
        max_samples: Upper bound of the samples.
        negatives: Negative samples for each positive one.
        learning_rate: Initial rate of SGD, decayed linearly to zero.
        batch_size: Positive samples a step.
        seed: Seed.
    """

    dimensions: Annotated[int, Field(ge=2)] = 128
    samples_per_edge: Annotated[float, Field(gt=0)] = 20.0
    max_samples: Annotated[int, Field(ge=1)] = 20_000_000
    negatives: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] = 0.025
    batch_size: Annotated[int, Field(ge=1)] = 4096
    seed: int = 0


class EncoderConfig(_Model):
    """The encoder and its training. Defaults are the paper's (arXiv 2506.01297, section 4).

    Args:
        dimensions: Length of the embedding.
        layers: LightGCN layers.
        feature_fusion: Add a projection of the cell's own features to its node input; the paper's is the table alone.
        fusion_hidden: Width of the fusion's one hidden layer; linear if None.
        spatial_edges_weight: Weight of edges between adjacent cells beside the mobility edges in the propagation.
        contrastive_weight: Weight of the contrastive loss.
        reconstruction_weight: Weight of the error of decoding every modality's features from the embedding.
        modality_dropout: Probability that a modality of a cell is hidden from the fusion in a training step.
        normalise_output: Scale each embedding to unit length.
        demographics_hidden: Width of the demographic head's hidden layer.
        temperatures: Fixed temperature of the loss, by modality.
        batch_size: Cells a step.
        learning_rate: AdamW.
        weight_decay: AdamW, on matrices only.
        max_epochs: Upper bound.
        patience: Epochs without a better validation loss before training stops.
        validation_fraction: Fraction of spatial blocks held out of the loss for early stopping.
        validation_block_resolution: H3 resolution of those blocks.
        seed: Seed.
        device: `auto`, `cpu` or `cuda`.
    """

    dimensions: Annotated[int, Field(ge=2)] = 128
    layers: Annotated[int, Field(ge=0)] = 2
    feature_fusion: bool = False
    fusion_hidden: Annotated[int, Field(ge=1)] | None = None
    spatial_edges_weight: Annotated[float, Field(ge=0)] = 0.0
    contrastive_weight: Annotated[float, Field(ge=0)] = 1.0
    reconstruction_weight: Annotated[float, Field(ge=0)] = 0.0
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    normalise_output: bool = False
    demographics_hidden: Annotated[int, Field(ge=1)] = 64
    temperatures: dict[Literal["poi", "imagery", "census"], Annotated[float, Field(gt=0)]] = {
        "poi": 0.5,
        "census": 0.7,
        "imagery": 0.2,
    }
    batch_size: Annotated[int, Field(ge=2)] = 20_480
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    max_epochs: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 10
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_block_resolution: Annotated[int, Field(ge=0, le=15)] = 3
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


InputName = Literal["poi", "imagery", "census", "mobility"]
MethodName = Literal["embeddings", "coordinates", "raw_features", "pca_128", "poi", "imagery", "census", "mobility"]


class RasterLabel(_Model):
    """Label: mean of a raster over each cell."""

    kind: Literal["raster"]
    file: str
    band: Annotated[int, Field(ge=1)] = 1


class PointLabel(_Model):
    """Label: points with a value, gathered by cell.

    Args:
        kind: Discriminator.
        file: Table.
        lon: Longitude column (in `file` or in `positions`).
        lat: Latitude column.
        value: Value column.
        weight: Column that weights the mean.
        gather: How the points of a cell become its label; a cell without points has none.
        positions: Second table that holds the positions.
        id_column: Identifier in `file`; repeated ones are dropped and counted. Needed with `positions`.
        positions_id_column: Identifier in `positions`.
        missing_values: Numbers that stand for "missing".
    """

    kind: Literal["points"]
    file: str
    lon: str
    lat: str
    value: str
    weight: str | None = None
    gather: Literal["mean", "sum", "count"] = "mean"
    positions: str | None = None
    id_column: str | None = None
    positions_id_column: str | None = None
    missing_values: list[float] = [-999.0]

    @model_validator(mode="after")
    def _positions_are_joined(self) -> Self:
        if self.positions is not None and (self.id_column is None or self.positions_id_column is None):
            raise ValueError("positions needs id_column and positions_id_column to join the two tables")
        return self


class ZoneLabel(_Model):
    """Label: a table by zone (county), predicted from the weighted mean of the zone's cells.

    Args:
        kind: Discriminator.
        file: Table.
        id_column: Zone identifier in the table.
        value: Value column, or several that are summed.
        divide_by: Column to divide by (a rate from two counts).
        where: Keep rows whose column equals the value given.
        sum_rows: Sum the rows of a zone (e.g. one row an agency) before dividing.
        zones: File of the zone polygons.
        zone_id_column: Identifier in the polygon file; polygons that share one are merged.
        zone_where: As `where` of a zone layer.
        weighting: Weight of a cell in its zone's mean.
        missing_values: Numbers that stand for "missing".
        scale: County or city.
    """

    kind: Literal["zones"]
    file: str
    id_column: str
    value: str | Annotated[list[str], Field(min_length=1)]
    divide_by: str | None = None
    where: dict[str, str] = {}
    sum_rows: bool = False
    zones: str
    zone_id_column: str
    zone_where: dict[str, str] = {}
    weighting: Literal["population", "area"] = "population"
    missing_values: list[float] = [-999.0]
    scale: Literal["county", "city"] = "county"


class CityLabel(_Model):
    """Label: a table of cities with a centre and a radius, predicted from the weighted mean of the cells within.

    Args:
        kind: Discriminator.
        file: Table.
        id_column: City identifier.
        lon: Longitude of the centre.
        lat: Latitude of the centre.
        radius_km: Column with the radius.
        value: Value column.
        weighting: Weight of a cell in its city's mean.
        missing_values: Numbers that stand for "missing".
    """

    kind: Literal["cities"]
    file: str
    id_column: str
    lon: str
    lat: str
    radius_km: str
    value: str
    weighting: Literal["population", "area"] = "population"
    missing_values: list[float] = [-999.0]


class TaskConfig(_Model):
    """One GeoBench task.

    Args:
        title: Name for people.
        source: Where the label comes from, in words: dataset, year, and what it stands in for.
        unit: Unit of the label.
        label: The label.
        transform: What the probe predicts: the value itself or its log(1 + x).
        overlaps: Inputs that hold the label or a part of it; scores from these inputs say `leak`.
    """

    title: str
    source: str
    unit: str
    label: Annotated[RasterLabel | PointLabel | ZoneLabel | CityLabel, Field(discriminator="kind")]
    transform: Literal["identity", "log1p"] = "identity"
    overlaps: list[InputName] = []


class EvaluationConfig(_Model):
    """How tasks are scored.

    Args:
        seeds: Seeds; each is a split and a probe of its own.
        probes: Probes.
        splits: `random` (80/20, the paper's) and `spatial` (k folds of whole H3 parents).
        block_resolution: H3 resolution of the spatial blocks.
        folds: Folds of the spatial split, and of random splits with fewer units than `small_sample`.
        small_sample: Below this many units a random split is k-fold and the probe is ridge only.
        bootstrap: Resamples for the intervals.
        lightgbm_methods: Representations that boosted trees are fitted to as well; ridge scores all of them.
    """

    seeds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2]
    probes: list[Literal["ridge", "lightgbm"]] = ["ridge", "lightgbm"]
    splits: list[Literal["random", "spatial"]] = ["random", "spatial"]
    block_resolution: Annotated[int, Field(ge=0, le=15)] = 3
    folds: Annotated[int, Field(ge=2)] = 5
    small_sample: Annotated[int, Field(ge=2)] = 200
    bootstrap: Annotated[int, Field(ge=10)] = 200
    lightgbm_methods: list[MethodName] = ["embeddings", "coordinates", "raw_features"]


class DuckDBConfig(_Model):
    """Limits of each step's own in-memory DuckDB.

    Args:
        memory_limit: DuckDB size, e.g. `3GB`.
        threads: Threads.
    """

    memory_limit: str = "3GB"
    threads: Annotated[int, Field(ge=1)] = 2


class Profile(_Model):
    """One deployment.

    Args:
        name: Name; also the folder of the lake.
        description: One line for people.
        storage: Root of the lake, any fsspec URL; `dagster_home/lake/<name>` beside the profiles if None.
        owners: Owners shown in the UI: e-mail addresses or `team:name`.
        grid: Cells.
        regions: Regions.
        zones: Zone layers by name.
        census: Census.
        poi: POIs.
        imagery: Imagery.
        mobility: Mobility.
        line: LINE.
        encoder: Encoder.
        tasks: GeoBench tasks by code.
        evaluation: Scoring.
        duckdb: Limits of DuckDB.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]
    description: str = ""
    storage: str | None = None
    owners: list[str] = ["team:geospatial-data"]
    grid: GridConfig = GridConfig()
    regions: RegionsConfig
    zones: dict[str, ZoneLayer] = {}
    census: CensusConfig
    poi: PoiConfig
    imagery: ImageryConfig
    mobility: MobilityConfig = MobilityConfig()
    line: LineConfig = LineConfig()
    encoder: EncoderConfig = EncoderConfig()
    tasks: dict[str, TaskConfig] = {}
    evaluation: EvaluationConfig = EvaluationConfig()
    duckdb: DuckDBConfig = DuckDBConfig()

    @field_validator("regions")
    @classmethod
    def _region_keys_are_names(cls, regions: RegionsConfig) -> RegionsConfig:
        keys = regions.region_keys
        if not keys:
            raise ValueError("name at least one region")
        bad = [key for key in keys if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", key)]
        if bad:
            raise ValueError(f"region keys become directory names: use letters, digits, '_' and '-'; found {bad}")
        if len(set(keys)) != len(keys):
            raise ValueError("region keys repeat")
        return regions

    @model_validator(mode="after")
    def _zone_layers_exist(self) -> Self:
        wanted = {"census.zones": self.census.zones}
        wanted |= {f"poi.zone_counts.{name}.zones": s.zones for name, s in self.poi.zone_counts.items()}
        wanted |= {
            f"mobility.sources.{name}.zones": s.zones
            for name, s in self.mobility.sources.items()
            if isinstance(s, Flows)
        }
        missing = {key: layer for key, layer in wanted.items() if layer not in self.zones}
        if missing:
            raise ValueError(f"zone layers not declared under zones: {missing}; declared: {sorted(self.zones)}")
        return self


def profile_path(name_or_path: str) -> Path:
    """The YAML file of a profile given by name (under `dagster_home/profiles`) or by path.

    Raises:
        ProfileError: If there is no such file.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILES_DIR / f"{name_or_path}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PROFILES_DIR.glob("*.yaml"))
        raise ProfileError(f"no profile {name_or_path!r}: {path} is not a file; profiles here: {known}")
    return path.resolve()


def load_profile(name_or_path: str) -> Profile:
    """Read and check a profile.

    Args:
        name_or_path: Name of a profile under `dagster_home/profiles`, or path of a YAML file.

    Raises:
        ProfileError: Naming the file and, for every problem, the key, the value found and what was expected.
    """
    path = profile_path(name_or_path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ProfileError(f"{path}: found {type(raw).__name__}, expected a mapping of keys")
    try:
        return Profile.model_validate(_expand(raw, path))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
            found = problem["input"]
            shown = type(found).__name__ if isinstance(found, dict | list | BaseModel) else repr(found)
            lines.append(f"\n  - {key}: found {shown}, expected: {problem['msg']}")
        raise ProfileError(f"{path}: {len(lines)} problem(s){''.join(lines)}") from None


_PATH_KEYS = {"file", "storage", "positions", "dasymetric", "checkpoint"}


def _expand(value: Any, path: Path, key: str = "", where: str = "") -> Any:
    """Fill in variables and make paths absolute, all over a YAML tree."""
    if isinstance(value, dict):
        return {k: _expand(v, path, str(k), f"{where}.{k}" if where else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, path, "", f"{where}.{i}") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    is_path = key in _PATH_KEYS or (key == "zones" and Path(value).suffix != "")

    def fill(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name, "")
        if found:
            starts_path = is_path and match.start() == 0 and "://" not in found
            return str(Path(found).absolute()) if starts_path else found
        if default is None:
            raise ProfileError(
                f"{path}: {where}: environment variable {name} is not set; set it or write ${{{name}:-default}}"
            )
        return default

    value = _VARIABLE.sub(fill, value)
    if is_path and "://" not in value and not Path(value).is_absolute():
        return os.path.normpath(path.parent / value)
    return value
