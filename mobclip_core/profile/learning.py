"""Settings of what is learnt and judged: LINE, the encoder, GeoBench tasks, scoring.

Belongs here: every option of training and evaluation. Does not belong here: what they do.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from mobclip_core.profile.base import Settings


class LineConfig(Settings):
    """LINE (Tang et al. 2015).

    Args:
        dimensions: Length of a vector (the paper: 128).
        order: `second` (the paper: alike are cells from which people go to the same places), `first` (cells between
            which people go), or `both`, each with half of the dimensions.
        samples_per_edge: Positive samples drawn, as a multiple of the number of edges.
        max_samples: Upper bound of the samples.
        negatives: Negative samples for each positive one.
        learning_rate: Initial rate of SGD, decayed linearly to zero.
        batch_size: Positive samples a step, on a GPU; the CPU takes one after the other.
        seed: Seed.
    """

    dimensions: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    order: Literal["first", "second", "both"] = "second"
    samples_per_edge: Annotated[float, Field(gt=0)] = 20.0
    max_samples: Annotated[int, Field(ge=1)] = 20_000_000
    negatives: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] = 0.025
    batch_size: Annotated[int, Field(ge=1)] = 65_536
    seed: int = 0


class StudentConfig(Settings):
    """The student: from a cell's features to the encoder's vector, for cells without a place in the graph.

    Args:
        replaces: Which cells get the student's vector: those `unknown` to the encoder, or all `without_mobility`.
        rings: Steps over adjacent cells whose mean features the student sees beside the cell's own; 0: its own alone.
        coordinates: Whether the student sees where the cell lies.
        hidden: Width.
        layers: Residual blocks.
        dropout: Dropout of the hidden layers.
        modality_dropout: Probability that an input (a modality of the cell, or of a ring) is hidden in a step.
        coordinates_dropout: The same for the coordinates.
        cosine_weight: Weight of the cosine distance beside the squared error.
        batch_size: Cells a step.
        learning_rate: AdamW, falling to zero along a cosine.
        weight_decay: AdamW, on matrices only.
        epochs: Epochs; the parameters kept are those of the lowest loss on the encoder's validation blocks.
    """

    replaces: Literal["unknown", "without_mobility"] = "unknown"
    rings: Annotated[int, Field(ge=0)] = 2
    coordinates: bool = False
    hidden: Annotated[int, Field(ge=1)] = 256
    layers: Annotated[int, Field(ge=0)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    coordinates_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    cosine_weight: Annotated[float, Field(ge=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 512
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    epochs: Annotated[int, Field(ge=1)] = 40


class EncoderConfig(Settings):
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
        factors: Dimensions of the published vector that are spatial factors of the features (see `encoder.readout`);
            the others are the leading components of the trained vectors. 0: the trained vectors as they are.
        position_factors: Dimensions of the published vector that say where the cell lies (see `encoder.position`); with
            `factors` only.
        normalise_output: Scale each embedding to unit length.
        demographics_hidden: Width of the demographic head's hidden layer.
        temperatures: Temperature of the loss, by modality.
        learned_temperatures: Train the temperatures, from these on; the paper's are fixed.
        contrast: `info_nce`, or `sigmoid` (SigLIP).
        modality_weights: Weight of each modality in the contrastive loss; 1 where it is not named.
        negatives_apart: H3 resolution: cells of one parent are no negatives of each other. None: all cells are.
        precision: `float32`, or `bf16` for the products of the contrastive loss.
        batch_size: Cells a step.
        learning_rate: AdamW.
        weight_decay: AdamW, on matrices only.
        max_epochs: Upper bound.
        patience: Epochs without a better validation loss before training stops.
        validation: What the cells that the end of the training is chosen by are held out of: `spatial`, of the loss;
            `inductive`, of mobility and LINE too, so that it is chosen by how well cells do that mobility never saw.
            Their table rows then stay as they began, and the graph reaches them through their neighbours when they are
            embedded.
        validation_fraction: Fraction of spatial blocks held out for early stopping.
        validation_block_resolution: H3 resolution of those blocks.
        student: The student trained beside the encoder; without one, cells that the encoder does not know are an error.
        align_to_previous: Rotate the vectors towards those of the encoder that this one replaces. They then depend on
            it: the same inputs in an empty lake give other axes.
        checkpoint_minutes: Time between two checkpoints that an interrupted training goes on from; 0: after every step.
        seed: Seed.
        device: `auto`, `cpu` or `cuda`.
        processes: Processes that train together, each with a part of the nodes; on GPUs one for each.
        launcher: Where they run: `local` (this machine) or `ray` (workers of the cluster).
        tensorboard: Folder for TensorBoard's event files; none are written if None.
    """

    dimensions: Annotated[int, Field(ge=2)] = 128
    layers: Annotated[int, Field(ge=0)] = 2
    feature_fusion: bool = False
    fusion_hidden: Annotated[int, Field(ge=1)] | None = None
    spatial_edges_weight: Annotated[float, Field(ge=0)] = 0.0
    contrastive_weight: Annotated[float, Field(ge=0)] = 1.0
    reconstruction_weight: Annotated[float, Field(ge=0)] = 0.0
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    factors: Annotated[int, Field(ge=0)] = 0
    position_factors: Annotated[int, Field(ge=0)] = 0
    normalise_output: bool = False
    demographics_hidden: Annotated[int, Field(ge=1)] = 64
    temperatures: dict[Literal["poi", "imagery", "census"], Annotated[float, Field(gt=0)]] = {
        "poi": 0.5,
        "census": 0.7,
        "imagery": 0.2,
    }
    learned_temperatures: bool = False
    contrast: Literal["info_nce", "sigmoid"] = "info_nce"
    modality_weights: dict[Literal["poi", "imagery", "census"], Annotated[float, Field(ge=0)]] = {}
    negatives_apart: Annotated[int, Field(ge=0, le=15)] | None = None
    precision: Literal["float32", "bf16"] = "float32"
    batch_size: Annotated[int, Field(ge=2)] = 20_480
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    max_epochs: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 10
    validation: Literal["spatial", "inductive"] = "spatial"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_block_resolution: Annotated[int, Field(ge=0, le=15)] = 3
    student: StudentConfig | None = StudentConfig()
    align_to_previous: bool = False
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Annotated[int, Field(ge=1)] = 1
    launcher: Literal["local", "ray"] = "local"
    tensorboard: str | None = None

    @model_validator(mode="after")
    def _factors_leave_room(self) -> Self:
        if self.position_factors and not self.factors:
            raise ValueError("position_factors need factors: the trained vectors by themselves fill all dimensions")
        if self.factors + self.position_factors >= self.dimensions:
            raise ValueError(
                f"factors ({self.factors}) and position_factors ({self.position_factors}) must leave some of the "
                f"{self.dimensions} dimensions to training"
            )
        return self


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


class EvaluationConfig(Settings):
    """How tasks are scored.

    Args:
        seeds: Seeds; each is a split and a probe of its own.
        probes: Probes.
        splits: `random` (80/20, the paper's) and `spatial` (k folds of whole H3 parents).
        block_resolution: H3 resolution of the spatial blocks.
        buffer_km: Under the spatial split no unit is learnt from that is nearer than this to one held out.
        few_shot: Fractions of the labels to learn from beside all of them, under the random split; ridge only.
        folds: Folds of the spatial split, and of random splits with fewer units than `small_sample`.
        small_sample: Below this many units a random split is k-fold and the probe is ridge only.
        bootstrap: Resamples for the intervals.
        lightgbm_methods: Representations that boosted trees are fitted to as well; ridge scores all of them.
        external: Embeddings made elsewhere, by name.
    """

    seeds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2]
    probes: list[Literal["ridge", "lightgbm"]] = ["ridge", "lightgbm"]
    splits: list[Literal["random", "spatial"]] = ["random", "spatial"]
    block_resolution: Annotated[int, Field(ge=0, le=15)] = 3
    buffer_km: Annotated[float, Field(ge=0)] = 0.0
    few_shot: list[Annotated[float, Field(gt=0, lt=1)]] = []
    folds: Annotated[int, Field(ge=2)] = 5
    small_sample: Annotated[int, Field(ge=2)] = 200
    bootstrap: Annotated[int, Field(ge=10)] = 200
    lightgbm_methods: list[MethodName] = ["embeddings", "coordinates", "raw_features"]
    external: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ExternalEmbedding] = {}

    @field_validator("external")
    @classmethod
    def _external_names_are_free(cls, external: dict[str, ExternalEmbedding]) -> dict[str, ExternalEmbedding]:
        taken = sorted({*get_args(MethodName), "spatial_neighbours"} & set(external))
        if taken:
            raise ValueError(f"{', '.join(taken)}: the name of a method of this project; choose another")
        return external
