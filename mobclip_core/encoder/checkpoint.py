"""The trained encoder as files.

Belongs here: parameters, node order, options and provenance together; saving, loading, the fingerprint. Does not belong
here: making them (see `training`) and using them (see `embedding`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch.nn.functional import normalize

from mobclip_core.encoder.features import Statistics
from mobclip_core.encoder.modules import MobCLIP
from mobclip_core.encoder.position import PositionFactors
from mobclip_core.encoder.readout import Readout

if TYPE_CHECKING:
    from mobclip_core.profile import EncoderConfig, StudentConfig

_BESIDE = ("statistics.", "readout.", "position.", "student.", "alignment")
"""Tensors that are no parameters of the model."""

READOUT = tuple(field.name for field in fields(Readout))


@dataclass(frozen=True)
class TrainedEncoder:
    """A trained encoder and all that is needed to apply it again.

    Args:
        tensors: Parameters by name; the features' `statistics.<modality>.mean` and `.scale`; with the option
            `factors` the fields of the `readout.<name>`, with `position_factors` those of `position.<name>`; with a
            student its parameters, `student.<name>`; `alignment`, the rotation (d, d) of all vectors, if it is aligned
            to an earlier one.
        cells: Node order, uint64 (N,).
        config: Options and provenance: `encoder` (the `EncoderConfig`), `widths`, `directed`, `image_encoder`,
            `inputs` (data versions), `counts`.
        history: Values by epoch: `train`, `validation`, and the validation value of each term of the loss.
        best_epoch: Epoch (0-based) whose parameters these are.
        student_history: Loss of the student by epoch, `train` and `validation`; empty without one.
    """

    tensors: Mapping[str, np.ndarray]
    cells: np.ndarray
    config: Mapping[str, Any]
    history: Mapping[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    student_history: Mapping[str, list[float]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of checkpoint and configuration, hexadecimal: the same model has the same one."""
        digest = hashlib.sha256(self._checkpoint())
        digest.update(self._configuration())
        return digest.hexdigest()

    @property
    def statistics(self) -> dict[str, Statistics]:
        """What the features were standardised with, by modality."""
        return {
            name: Statistics(self.tensors[f"statistics.{name}.mean"], self.tensors[f"statistics.{name}.scale"])
            for name in self.config["widths"]
        }

    @property
    def options(self) -> "EncoderConfig":
        """The options of the training; what an older encoder does not name has its default."""
        from mobclip_core.profile import EncoderConfig

        return EncoderConfig.model_validate(self.config["encoder"])

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters of the model."""
        return {name: value for name, value in self.tensors.items() if not name.startswith(_BESIDE)}

    @property
    def student_options(self) -> "StudentConfig | None":
        """The options of the student; None if there is none."""
        return self.options.student if any(name.startswith("student.") for name in self.tensors) else None

    def published(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n, d) as they leave the encoder: scaled and turned as its options and `alignment` say."""
        if self.options.normalise_output:
            vectors = normalize(torch.from_numpy(vectors)).numpy()
        rotation = self.tensors.get("alignment")
        return vectors if rotation is None else vectors @ rotation

    @property
    def reads_features(self) -> bool:
        """Whether embedding needs the features of all cells (else the node table holds all)."""
        options = self.options
        return bool(options.feature_fusion or options.spatial_edges_weight > 0 or options.factors)

    @property
    def readout(self) -> Readout | None:
        """What the published vectors are made with; None where they are the trained ones."""
        parts = {name: self.tensors.get(f"readout.{name}") for name in READOUT}
        return None if parts["offset"] is None else Readout(**cast("dict[str, np.ndarray]", parts))

    @property
    def position(self) -> PositionFactors | None:
        """What says where a cell lies; None where nothing does."""
        parts = {field.name: self.tensors.get(f"position.{field.name}") for field in fields(PositionFactors)}
        return None if parts["mean"] is None else PositionFactors(**cast("dict[str, np.ndarray]", parts))

    def _checkpoint(self) -> bytes:
        arrays = {name: np.ascontiguousarray(value) for name, value in sorted(self.tensors.items())}
        return bytes(save({**arrays, "cells": np.ascontiguousarray(self.cells)}))

    def _configuration(self) -> bytes:
        return json.dumps(self.config, indent=2, sort_keys=True).encode()

    def save(self, directory: Path) -> None:
        """Write `model.safetensors`, `config.json`, `history.json` and `cells.npy`."""
        (directory / "model.safetensors").write_bytes(self._checkpoint())
        (directory / "config.json").write_bytes(self._configuration())
        history = {"best_epoch": self.best_epoch, "history": self.history, "student": self.student_history}
        (directory / "history.json").write_text(json.dumps(history, indent=2))
        np.save(directory / "cells.npy", self.cells)

    @classmethod
    def load(cls, directory: Path) -> "TrainedEncoder":
        """Read what `save` wrote."""
        tensors = load_file(directory / "model.safetensors")
        cells = tensors.pop("cells")
        past = json.loads((directory / "history.json").read_text())
        config = json.loads((directory / "config.json").read_text())
        return cls(tensors, cells, config, past["history"], past["best_epoch"], past.get("student", {}))

    def model(self) -> MobCLIP:
        """The module with these parameters, in evaluation mode."""
        model = MobCLIP(len(self.cells), self.config["widths"], self.options)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in self.parameters.items()})
        return model.eval()
