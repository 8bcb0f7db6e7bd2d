"""The student: from the features of a cell to the vector that the encoder would give it, without the graph.

Belongs here: its inputs, its module, its training by regression on the encoder's vectors, applying it. Does not belong
here: the encoder (see `training`), which cells get whose vector (see `embedding`). The student learns the whole vector,
spatial factors too: taken from the features exactly, they run away in a region unlike those of the training.

Source: Zhang et al., "Graph-less Neural Networks", ICLR 2022 (https://arxiv.org/abs/2110.08727): an MLP that learns a
graph network's output from features alone, and so holds for nodes that the graph has never seen.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_array
from torch.nn.functional import cosine_similarity, gelu

from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import deterministic
from mobclip_core.encoder.features import ModalityFeatures
from mobclip_core.encoder.modules import ModalityHead, Tensors, parameter_groups
from mobclip_core.sphere import unit_vectors

if TYPE_CHECKING:
    from mobclip_core.profile import StudentConfig

_COORDINATES = "coordinates"
_PREFIX = "student."
_ROWS = 65_536


class _Block(torch.nn.Module):
    """x + W2 GELU(W1 norm(x)): (B, h) to (B, h)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.first = torch.nn.Linear(width, width)
        self.dropout = torch.nn.Dropout(dropout)
        self.second = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.second(self.dropout(gelu(self.first(self.norm(x)))))
        return out


class Student(torch.nn.Module):
    r"""One linear head for each input, summed over those that the cell has, and a residual MLP on the sum.

    .. math:: \mathbf h^{(0)} = \mathbf b + \sum_m \mathbb 1[m \in i]\, (W_m \mathbf x_i^m + \mathbf b_m), \quad
        \mathbf h^{(l+1)} = \mathbf h^{(l)} + f_l(\mathbf h^{(l)}), \quad
        \mathbf y = s\, (W\, \mathrm{norm}(\mathbf h^{(L)}) + \mathbf c) + \bar{\mathbf z}

    The heads' biases are the flags of presence: a cell without any input gets a vector too. Buffers hold the mean and
    the scale s of the encoder's vectors, and the centre and extent of the places of their cells.

    Args:
        widths: Width of each modality.
        dimensions: Length of the vector, d.
        options: Options.

    Shapes:
        - **input:** values (B, D_m) and masks (B,) by input
        - **output:** (B, d)
    """

    mean: torch.Tensor
    scale: torch.Tensor
    centre: torch.Tensor
    extent: torch.Tensor

    def __init__(self, widths: Mapping[str, int], dimensions: int, options: "StudentConfig") -> None:
        super().__init__()
        inputs = {_ring(m, r): width for m, width in widths.items() for r in range(options.rings + 1)}
        if options.coordinates:
            inputs[_COORDINATES] = 3
        # the sum over inputs runs in this order: it decides the last bit
        self.heads = torch.nn.ModuleDict({m: ModalityHead(w, options.hidden) for m, w in sorted(inputs.items())})
        self.start = torch.nn.Parameter(torch.zeros(options.hidden))
        self.dropout = torch.nn.Dropout(options.dropout)
        self.blocks = torch.nn.ModuleList([_Block(options.hidden, options.dropout) for _ in range(options.layers)])
        # without a norm at the end, features beyond those of the training blow a vector up
        self.norm = torch.nn.LayerNorm(options.hidden)
        self.out = torch.nn.Linear(options.hidden, dimensions)
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("extent", torch.ones(1))

    def standardised(self, values: Tensors, masks: Tensors) -> torch.Tensor:
        """Vectors of cells, less the mean and over the scale."""
        x: torch.Tensor = self.start
        for name, head in self.heads.items():
            value = (values[name] - self.centre) / self.extent if name == _COORDINATES else values[name]
            x = x + head(value) * masks[name].unsqueeze(1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.out(self.norm(x))
        return out

    def forward(self, values: Tensors, masks: Tensors) -> torch.Tensor:
        """Vectors of cells."""
        return self.standardised(values, masks) * self.scale + self.mean


def _ring(modality: str, ring: int) -> str:
    return f"{modality}_{ring}" if ring else modality


def student_inputs(features: ModalityFeatures, beside: np.ndarray, options: "StudentConfig") -> tuple[Tensors, Tensors]:
    """What the student sees of cells: their own features, the mean of those around them, where they lie.

    The mean of a modality over ring r is over all walks of r steps between adjacent cells to a cell that has it; it is
    absent where there is none. A cell's inputs are right where all cells within `rings` steps of it are among those
    given. Memory: 1 + `rings` times that of the features.

    Args:
        features: Standardised features.
        beside: Edges between adjacent cells, both ways, (2, E).
        options: Options.

    Returns:
        Values (N, D) and masks (N,) by input: `<modality>`, `<modality>_<ring>`, `coordinates` on the unit sphere.
    """
    n = len(features)
    # numbers of walks are exact in float32 up to 2^24
    step = csr_array((np.ones(beside.shape[1], dtype=np.float32), tuple(beside)), shape=(n, n))
    values, masks = {}, {}
    for name, modality in features.modalities.items():
        # copied into memory that torch aligned: on the CPU a product's last bit depends on alignment
        values[name], masks[name] = torch.tensor(modality.values), torch.tensor(modality.mask)
        walks, total = modality.mask.astype(np.float32), modality.values
        for ring in range(1, options.rings + 1):
            walks, total = step @ walks, step @ total
            values[_ring(name, ring)] = torch.tensor(total / np.maximum(walks, 1)[:, None])
            masks[_ring(name, ring)] = torch.tensor(walks > 0)
    if options.coordinates:
        values[_COORDINATES] = torch.tensor(unit_vectors(features.lon, features.lat), dtype=torch.float32)
        masks[_COORDINATES] = torch.ones(n, dtype=torch.bool)
    return values, masks


class _Trainer:
    """The state of one training run.

    Args:
        student: The student.
        inputs: Of all cells.
        vectors: The encoder's, (N, d).
        taught: Cells to learn from, in the order in which batches are drawn.
        options: Options.
        seed: Seed of batches and hidden inputs.
    """

    def __init__(
        self,
        student: Student,
        inputs: tuple[Tensors, Tensors],
        vectors: np.ndarray,
        taught: np.ndarray,
        options: "StudentConfig",
        seed: int,
    ) -> None:
        self.student, self.taught, self.options = student, taught, options
        self.values, self.masks = inputs
        device = student.start.device
        known = torch.from_numpy(vectors[taught])
        student.mean.copy_(known.mean(0))
        student.scale.copy_(_spread(known))
        if options.coordinates:
            places = self.values[_COORDINATES][torch.from_numpy(taught).to(device)]
            student.centre.copy_(places.mean(0))
            student.extent.copy_(_spread(places))
        self.goal = torch.tensor(vectors, device=device)
        self.optimiser = torch.optim.AdamW(parameter_groups(student, options.weight_decay), lr=options.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, options.epochs)
        self.random = np.random.default_rng(seed)

    def _loss(self, rows: torch.Tensor, masks: Tensors) -> torch.Tensor:
        """Squared error in units of the vectors' spread, and the cosine distance."""
        found = self.student.standardised({name: value[rows] for name, value in self.values.items()}, masks)
        mean = self.student.mean / self.student.scale
        goal = self.goal[rows] / self.student.scale
        distance = 1 - cosine_similarity(found + mean, goal).mean()
        return (found + mean - goal).square().mean() + self.options.cosine_weight * distance

    def _rows(self, cells: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(cells).to(self.goal.device)

    def epoch(self) -> float:
        """One pass over the cells to learn from, a random part of whose inputs is hidden; mean loss a cell."""
        self.student.train()
        batches = -(-len(self.taught) // self.options.batch_size)
        total = 0.0
        for batch in np.array_split(self.random.permutation(self.taught), batches):
            rows, shown = self._rows(batch), {}
            for name in sorted(self.masks):
                hidden = self.options.coordinates_dropout if name == _COORDINATES else self.options.modality_dropout
                kept = torch.from_numpy(self.random.random(len(batch)) >= hidden)
                shown[name] = self.masks[name][rows] & kept.to(rows.device)
            self.optimiser.zero_grad()
            loss = self._loss(rows, shown)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += float(loss.detach()) * len(batch)
        self.schedule.step()
        return total / len(self.taught)

    @torch.no_grad()
    def validate(self, cells: np.ndarray) -> float:
        """Loss of cells all of whose inputs show but the coordinates: these say nothing about an unknown place."""
        self.student.eval()
        rows = self._rows(cells)
        shown = {name: mask[rows] & (name != _COORDINATES) for name, mask in self.masks.items()}
        return float(self._loss(rows, shown))


def _spread(rows: torch.Tensor) -> torch.Tensor:
    """Root mean square distance from the mean by dimension, one number; 1 where all rows are equal."""
    spread = (rows - rows.mean(0)).square().mean().sqrt()
    return torch.where(spread > 0, spread, 1.0)


@dataclass(frozen=True)
class StudentResult:
    """A trained student.

    Args:
        tensors: Its parameters and buffers; the names begin with `student.`.
        history: Loss by epoch: `train` and `validation`.
        best_epoch: Epoch (0-based) whose parameters these are.
    """

    tensors: dict[str, np.ndarray]
    history: dict[str, list[float]]
    best_epoch: int


def train_student(
    features: ModalityFeatures,
    beside: np.ndarray,
    vectors: np.ndarray,
    has_mobility: np.ndarray,
    held_out: np.ndarray,
    options: "StudentConfig",
    *,
    seed: int = 0,
    device: torch.device | None = None,
) -> StudentResult:
    """Teach a student the vectors of the cells that have mobility (of all, where none has).

    Args:
        features: Standardised features of all cells.
        beside: Edges between adjacent cells, both ways, (2, E).
        vectors: What the encoder gives these cells, but for their position factors, float32 (N, d).
        has_mobility: bool (N,).
        held_out: Cells of the blocks held out for early stopping, bool (N,).
        options: Options.
        seed: Seed.
        device: Where to compute; the CPU if None.

    Returns:
        The parameters of the epoch with the lowest validation loss; the same for the same arguments.
    """
    device = device or torch.device("cpu")
    # batches are drawn in cell order: node order plays no part
    order = np.argsort(features.cells, kind="stable")
    order = order[has_mobility[order]] if has_mobility.any() else order
    taught, tested = order[~held_out[order]], order[held_out[order]]
    taught, tested = (taught if len(taught) else order), (tested if len(tested) else taught)
    widths = {name: m.values.shape[1] for name, m in features.modalities.items()}
    history: dict[str, list[float]] = {"train": [], "validation": []}
    with torch.random.fork_rng(devices=[]), deterministic(device):
        torch.manual_seed(seed)
        student = Student(widths, vectors.shape[1], options).to(device)
        values, masks = student_inputs(features, beside, options)
        inputs = ({k: v.to(device) for k, v in values.items()}, {k: v.to(device) for k, v in masks.items()})
        trainer = _Trainer(student, inputs, vectors, taught, options, seed)
        best, lowest, state = 0, float("inf"), _state(student)
        for epoch in range(options.epochs):
            history["train"].append(trainer.epoch())
            history["validation"].append(trainer.validate(tested))
            if history["validation"][-1] < lowest:
                best, lowest, state = epoch, history["validation"][-1], _state(student)
    logging.getLogger(__name__).info("student: epoch %d, validation %.4f", best, lowest)
    return StudentResult(state, history, best)


def _state(student: Student) -> dict[str, np.ndarray]:
    return {_PREFIX + name: value.detach().cpu().numpy().copy() for name, value in student.state_dict().items()}


def with_student(encoder: TrainedEncoder, result: StudentResult, options: "StudentConfig") -> TrainedEncoder:
    """The encoder with a trained student beside it, and the options of that one."""
    config = {**encoder.config["encoder"], "student": options.model_dump(mode="json")}
    return replace(
        encoder,
        tensors={**encoder.tensors, **result.tensors},
        config={**encoder.config, "encoder": config},
        student_history=result.history,
    )


@torch.no_grad()
def student_vectors(
    encoder: TrainedEncoder,
    features: ModalityFeatures,
    beside: np.ndarray,
    rows: np.ndarray,
    device: torch.device | None = None,
) -> np.ndarray:
    """Vectors of cells from their features alone, in the encoder's space and rotation.

    Args:
        encoder: Trained encoder with a student.
        features: Features standardised with the encoder's statistics, of the cells and those around them.
        beside: Edges between adjacent cells of these, both ways, (2, E).
        rows: Which of these cells, (n,).
        device: Where to compute; the CPU if None.

    Returns:
        float32 (n, d).
    """
    options = encoder.student_options
    if options is None:
        raise ValueError("the encoder was trained without a student")
    device = device or torch.device("cpu")
    student = Student(encoder.config["widths"], encoder.options.dimensions, options)
    found = {name: value for name, value in encoder.tensors.items() if name.startswith(_PREFIX)}
    student.load_state_dict({name.removeprefix(_PREFIX): torch.from_numpy(value) for name, value in found.items()})
    student = student.eval().to(device)
    values, masks = student_inputs(features, beside, options)
    vectors = np.zeros((len(rows), encoder.options.dimensions), dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        part = torch.from_numpy(rows[start : start + _ROWS])
        shown = ({name: value[part].to(device) for name, value in x.items()} for x in (values, masks))
        vectors[start : start + _ROWS] = student(*shown).cpu().numpy()
    if encoder.position is not None:
        vectors += encoder.position.of(features.lon[rows], features.lat[rows])
    return encoder.published(vectors)
