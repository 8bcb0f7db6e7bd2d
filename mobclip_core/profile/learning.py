"""Settings of what is learnt: LINE, the encoder, the student.

Belongs here: every option of training. Does not belong here: what they do, how the result is judged (see `evaluation`).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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


class LocationEncoderConfig(Settings):
    """The function of longitude and latitude that the embeddings are distilled into.

    Args:
        spacing: Distance of the finest grid's nodes over that of the cells.
        features: Numbers a node of a grid.
        degrees: Degrees of the spherical harmonics.
        hidden: Width of the MLP.
        steps: Steps of the training.
        batch_size: Cells a step.
        learning_rate: AdamW, rising and falling along one cycle.
        grid_decay: AdamW, on the grids: what no cell speaks for falls back to the coarser grids.
        held_out: Share of cells that it does not learn from, to tell how well it does elsewhere.
        seed: Seed.
    """

    spacing: Annotated[float, Field(gt=0)] = 1.0
    features: Annotated[int, Field(ge=1)] = 16
    degrees: Annotated[int, Field(ge=1, le=40)] = 8
    hidden: Annotated[int, Field(ge=1)] = 512
    steps: Annotated[int, Field(ge=2)] = 1000
    batch_size: Annotated[int, Field(ge=1)] = 1024
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    grid_decay: Annotated[float, Field(ge=0)] = 0.1
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: int = 0
