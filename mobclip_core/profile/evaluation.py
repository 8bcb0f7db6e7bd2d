"""How vectors are judged: tasks and their labels, embeddings made elsewhere, probes and splits.

Belongs here: the schema of `tasks` and `evaluation`. Does not belong here: reading labels or scoring.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from mobclip_core.profile.base import Settings

InputName = Literal["poi", "imagery", "census", "mobility"]
MethodName = Literal[
    "embeddings",
    "coordinates",
    "spherical_harmonics",
    "raw_features",
    "pca_128",
    "poi",
    "imagery",
    "census",
    "mobility",
]
VariantName = Literal[
    "published",
    "without_poi",
    "without_imagery",
    "without_census",
    "without_mobility",
    "without_contrast",
    "without_factors",
    "without_position",
    "adjacency",
    "lightgcn",
]


class RasterLabel(Settings):
    """Label: mean of a raster over each cell."""

    kind: Literal["raster"]
    file: str
    band: Annotated[int, Field(ge=1)] = 1


class PointLabel(Settings):
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


class ZoneLabel(Settings):
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


class CityLabel(Settings):
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


class PopulationLabel(Settings):
    """Label: the people of each cell, as the census features spread them; the task has to list `census` in `overlaps`.

    A country whose census is its only source of population is scored with it, and every such score says `leak` where
    the census is among the inputs.
    """

    kind: Literal["population"]


Label = Annotated[RasterLabel | PointLabel | ZoneLabel | CityLabel | PopulationLabel, Field(discriminator="kind")]


class TaskConfig(Settings):
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
    label: Label
    transform: Literal["identity", "log1p"] = "identity"
    overlaps: list[InputName] = []

    @model_validator(mode="after")
    def _population_overlaps_with_census(self) -> Self:
        if isinstance(self.label, PopulationLabel) and "census" not in self.overlaps:
            raise ValueError("a label of kind population comes from the census: list census in overlaps")
        return self


class ExternalEmbedding(Settings):
    """An embedding made elsewhere, scored beside this project's: a table, or a function of coordinates.

    Args:
        source: Where it comes from, in words.
        file: Table with a row for each H3 cell or point.
        cell: Column with H3 cells (numbers or hexadecimal text), of the grid's resolution or finer.
        lon: Column with longitudes, in place of `cell`.
        lat: Column with latitudes.
        vector: Column with the vectors as lists; several columns with a number each; or `name*`, all columns that begin
            so.
        function: `package.module:name`, in place of a table: called with the longitudes and latitudes of all cells'
            centres in degrees, (n,) each, it gives an array (n, dimensions).
        overlaps: Tasks whose labels its training saw; their scores say `leak`.
    """

    source: str = ""
    file: str | None = None
    cell: str | None = None
    lon: str | None = None
    lat: str | None = None
    vector: str | Annotated[list[str], Field(min_length=1)] = "vector"
    function: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    overlaps: list[str] = []

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        by_point = self.lon is not None and self.lat is not None
        if (self.file is None) == (self.function is None):
            raise ValueError("give either file or function")
        if self.file is not None and (self.cell is not None) == by_point:
            raise ValueError("a file needs either cell, or lon and lat")
        return self


class ScalingConfig(Settings):
    """What the asset `scaling_law` trains, beside the whole: see `evaluation.scaling`.

    Args:
        cells: Shares of the cells to learn from; the test is on the smallest.
        edges: Shares of the mobility edges.
        widths: Dimensions.
        repeats: How often, each with sets and seeds of its own.
    """

    cells: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = [0.125, 0.25, 0.5]
    edges: list[Annotated[float, Field(gt=0, lt=1)]] = [0.01, 0.1, 0.33]
    widths: list[Annotated[int, Field(ge=2, multiple_of=2)]] = [16, 32, 64]
    repeats: Annotated[int, Field(ge=1)] = 3


class EvaluationConfig(Settings):
    """How tasks are scored.

    Args:
        seeds: Seeds; each is a split and a probe of its own.
        probes: `ridge`, `lightgbm` (quick settings), and `lightgbm_published` (the paper's settings and split: for
            cells and counties, under the random split alone).
        splits: `random` (80/20, the paper's), `spatial` (k folds of whole H3 parents), and `region` (each region left
            out in turn).
        block_resolution: H3 resolution of the spatial blocks.
        buffer_km: Under the spatial split no unit is learnt from that is nearer than this to one held out.
        few_shot: Fractions of the labels to learn from beside all of them, under the random split; ridge only.
        folds: Folds of the spatial split, and of random splits with fewer units than `small_sample`.
        small_sample: Below this many units a random split is k-fold and the probe is ridge only.
        bootstrap: Resamples for the intervals.
        lightgbm_methods: Representations that boosted trees are fitted to as well; ridge scores all of them.
        external: Embeddings made elsewhere, by name.
        variants: Encoders trained beside, with one part of the method changed (see `encoder.variants`), each as long as
            the encoder. Where a modality is left out that a task overlaps with, the raw features without it are scored
            too: scores without the leak.
        scaling: The trainings of `scaling_law`.
    """

    seeds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2, 3, 4]
    probes: list[Literal["ridge", "lightgbm", "lightgbm_published"]] = ["ridge"]
    splits: list[Literal["random", "spatial", "region"]] = ["random", "spatial"]
    block_resolution: Annotated[int, Field(ge=0, le=15)] = 3
    buffer_km: Annotated[float, Field(ge=0)] = 0.0
    few_shot: list[Annotated[float, Field(gt=0, lt=1)]] = []
    folds: Annotated[int, Field(ge=2)] = 5
    small_sample: Annotated[int, Field(ge=2)] = 200
    bootstrap: Annotated[int, Field(ge=10)] = 200
    lightgbm_methods: list[MethodName] = ["embeddings", "coordinates", "raw_features"]
    external: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ExternalEmbedding] = {}
    variants: list[VariantName] = []
    scaling: ScalingConfig = ScalingConfig()

    @field_validator("external")
    @classmethod
    def _external_names_are_free(cls, external: dict[str, ExternalEmbedding]) -> dict[str, ExternalEmbedding]:
        own = {*get_args(MethodName), *get_args(VariantName), "spatial_neighbours"}
        taken = sorted(name for name in external if name in own or name.startswith("raw_features_"))
        if taken:
            raise ValueError(f"{', '.join(taken)}: the name of a method of this project; choose another")
        return external
