"""The training loop: steps, epochs, early stopping, and the state that an interrupted training goes on from.

Belongs here: what happens in a step and between steps. Does not belong here: modules and losses, the inputs and what
becomes of the result (see `training`), where checkpoints lie (see `progress`).

What is drawn at random (batches, hidden modalities) depends on the seed and the number of the epoch or step alone, so
that a training that was interrupted goes on to the same bits, on any number of processes to the same numbers up to
rounding.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobclip_core.cells import parents
from mobclip_core.encoder.modules import MobCLIP, Tensors, parameter_groups
from mobclip_core.encoder.propagation import Adjacency
from mobclip_core.encoder.ranks import Ranks
from mobclip_core.encoder.tracking import Scalars
from mobclip_core.encoder.validation import validation_mask

if TYPE_CHECKING:
    from mobclip_core.profile import EncoderConfig

logger = logging.getLogger(__name__)

_BATCHES, _HIDDEN = 1, 2
"""Kinds of random numbers, beside the seed."""


@dataclass
class Progress:
    """Where a training stands.

    Args:
        tensors: Parameters (`model.`), the optimiser's moments (`moments.`) and the best epoch's parameters (`best.`).
        epoch: Epoch under way.
        step: Steps taken in it.
        total: Loss of its cells so far, summed.
        best: Best epoch so far.
        lowest: Its validation loss.
        history: Values by epoch.
        updates: Steps taken in all.
    """

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    total: float = 0.0
    best: int = 0
    lowest: float = float("inf")
    history: dict[str, list[float]] = field(default_factory=dict)
    updates: int = 0


Keep = Callable[[Progress], None]
"""Called with what a training needs to go on; on every rank, all tensors whole."""


def optimiser_of(model: MobCLIP, config: "EncoderConfig") -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    return torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.learning_rate, fused=True)


class Trainer:
    """One training run.

    Args:
        model: The model, on its device; its table holds this rank's nodes.
        features: Features of this rank's nodes and masks of all nodes.
        adjacency: This rank's rows.
        cells: Cells of all nodes, uint64 (N,).
        config: Options.
        ranks: The processes that train together.
    """

    def __init__(
        self,
        model: MobCLIP,
        features: tuple[Tensors, Tensors],
        adjacency: Adjacency,
        cells: np.ndarray,
        config: "EncoderConfig",
        ranks: Ranks,
    ) -> None:
        self.model, self.adjacency, self.config, self.ranks = model, adjacency, config, ranks
        self.values, self.masks = features
        self.optimiser = optimiser_of(model, config)
        self.device = model.node_table.device
        # batches and hidden modalities are drawn in cell order: node order plays no part
        self.order = np.argsort(cells, kind="stable")
        self.rank_of_cell = torch.from_numpy(np.argsort(self.order, kind="stable"))
        held = validation_mask(cells, config)
        self.train_cells = self.order[~held[self.order]]
        self.validation_cells = self.order[held[self.order]] if held.any() else self.train_cells
        self.groups = None
        if config.negatives_apart is not None:
            _, groups = np.unique(parents(cells, config.negatives_apart), return_inverse=True)
            self.groups = torch.from_numpy(groups).to(self.device)
        self.state = Progress()

    def _visible(self) -> Tensors:
        """Masks, over this rank's nodes, of what the fusion sees in this step."""
        shown = dict(self.masks)
        if self.config.modality_dropout > 0 and self.model.fusion and self.model.training:
            random = np.random.default_rng([self.config.seed, _HIDDEN, self.state.updates])
            for name, mask in self.masks.items():
                kept = torch.from_numpy(random.random(len(self.order)) >= self.config.modality_dropout)
                shown[name] = mask & kept[self.rank_of_cell].to(mask.device)
        return {name: self.ranks.own(mask) for name, mask in shown.items()}

    def _loss(self, batch: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # in node order the rows of the graph are read from front to back
        index = torch.from_numpy(np.sort(batch)).to(self.device)
        position = self.ranks.among(index) if self.ranks.size > 1 else torch.arange(len(index), device=self.device)
        own = index[position] - self.ranks.nodes.start
        z = self.model(self.values, self._visible(), self.adjacency, self.adjacency.rows(own))
        groups = None if self.groups is None else self.groups[index]
        return self.model.loss(z, _rows(self.values, own), _rows(self.masks, index), position=position, groups=groups)

    def step(self, batch: np.ndarray) -> float:
        """One update on a batch of nodes (numbers of all nodes, (B,)); its loss."""
        self.optimiser.zero_grad()
        loss, _ = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.ranks.size > 1:
            self._join_gradients()
        self.optimiser.step()
        self.state.updates += 1
        return float(loss.detach())

    def _join_gradients(self) -> None:
        """Sum the gradients of what every rank holds; those of scalars are the same on each already."""
        for parameter in self.model.parameters():
            if parameter is not self.model.node_table and parameter.dim() > 0:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self.ranks.sum(parameter.grad)

    def epoch(self, after_step: Callable[[], None] = lambda: None) -> float:
        """What is left of the epoch under way; mean loss a cell over all of it."""
        self.model.train()
        n, state = len(self.train_cells), self.state
        random = np.random.default_rng([self.config.seed, _BATCHES, state.epoch])
        shuffled = self.train_cells if n <= self.config.batch_size else random.permutation(self.train_cells)
        batches = np.array_split(shuffled, -(-n // self.config.batch_size))
        for batch in batches[state.step :]:
            state.total += self.step(batch) * len(batch)
            state.step += 1
            after_step()
        return state.total / n

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the held-out cells and its terms."""
        self.model.eval()
        loss, terms = self._loss(self.validation_cells)
        return {"validation": float(loss), **{name: float(term) for name, term in terms.items()}}

    def fit(self, keep: Keep | None = None, scalars: Scalars | None = None) -> None:
        """Train until the validation loss has not fallen for `patience` epochs, from where `state` stands.

        Args:
            keep: Called after steps, at most every `checkpoint_minutes`.
            scalars: Told the losses of each epoch.
        """
        state, config = self.state, self.config
        last = time.monotonic()

        def kept_now_and_then() -> None:
            nonlocal last
            # the clock of one rank decides for all: keeping takes part of each
            late = torch.tensor(float(time.monotonic() - last >= 60 * config.checkpoint_minutes), device=self.device)
            if keep is not None and bool(self.ranks.highest(late)):
                keep(self.progress())
                last = time.monotonic()

        if not state.tensors:
            state.tensors = self.parameters("best.")
        while state.epoch < config.max_epochs and state.epoch - state.best <= config.patience:
            values = {"train": self.epoch(kept_now_and_then), **self.validate()}
            if scalars is not None:
                scalars.add(values, state.epoch)
            for name, value in values.items():
                state.history.setdefault(name, []).append(value)
            if values["validation"] < state.lowest:
                state.best, state.lowest, state.tensors = state.epoch, values["validation"], self.parameters("best.")
            if state.epoch % 10 == 0:
                train, validation = values["train"], values["validation"]
                logger.info("encoder: epoch %d, train %.4f, validation %.4f", state.epoch, train, validation)
            if state.epoch - state.best >= config.patience:
                break
            state.epoch, state.step, state.total = state.epoch + 1, 0, 0.0

    def parameters(self, prefix: str = "") -> dict[str, np.ndarray]:
        """All parameters as arrays, on every rank whole."""
        return {f"{prefix}{name}": self._whole(name, value) for name, value in self.model.state_dict().items()}

    def _whole(self, name: str, value: torch.Tensor) -> np.ndarray:
        whole = self.ranks.gather(value.detach()) if name == "node_table" else value.detach()
        array: np.ndarray = whole.cpu().numpy().copy()
        return array

    def _own(self, name: str, value: np.ndarray) -> torch.Tensor:
        return torch.tensor(self.ranks.own(value) if name == "node_table" else value)

    def progress(self) -> Progress:
        """All that the training needs to go on."""
        tensors = {**self.parameters("model."), **self.state.tensors}
        for name, parameter in self.model.named_parameters():
            for moment, value in self.optimiser.state[parameter].items():
                whole = name if moment != "step" else ""
                tensors[f"moments.{moment}.{name}"] = self._whole(whole, value)
        return Progress(**{**vars(self.state), "tensors": tensors})

    def resume(self, progress: Progress) -> None:
        """Go on from where another run stood."""
        groups: dict[str, dict[str, np.ndarray]] = {"model": {}, "moments": {}, "best": {}}
        for name, value in progress.tensors.items():
            kind, _, rest = name.partition(".")
            groups[kind][rest] = value
        self.model.load_state_dict({name: self._own(name, value) for name, value in groups["model"].items()})
        parameters = dict(self.model.named_parameters())
        for key, value in groups["moments"].items():
            moment, _, name = key.partition(".")
            whole = name if moment != "step" else ""
            self.optimiser.state[parameters[name]][moment] = self._own(whole, value).to(self.device)
        best = {f"best.{name}": value for name, value in groups["best"].items()}
        self.state = Progress(**{**vars(progress), "tensors": best})

    def best(self) -> dict[str, np.ndarray]:
        """Parameters of the best epoch so far."""
        return {name.removeprefix("best."): value for name, value in self.state.tensors.items()}

    @torch.no_grad()
    def vectors(self) -> np.ndarray:
        """Trained vectors of all nodes, with the parameters of the best epoch, (N, d)."""
        self.model.load_state_dict({name: self._own(name, value) for name, value in self.best().items()})
        self.model.eval()
        z = self.model(self.values, self._visible(), self.adjacency)
        whole: np.ndarray = self.ranks.gather(z).cpu().numpy()
        return whole


def _rows(tensors: Mapping[str, torch.Tensor], index: torch.Tensor) -> Tensors:
    return {name: value[index] for name, value in tensors.items()}
