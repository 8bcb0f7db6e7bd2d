"""The trained encoder as files.

Belongs here: parameters, node order, options and provenance together; saving, loading, the fingerprint. Does not belong
here: making them (see `training`) and using them (see `embedding`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.numpy import load_file, save

from mobclip_core.encoder.features import Statistics
from mobclip_core.encoder.modules import MobCLIP

if TYPE_CHECKING:
    from mobclip_core.profile import EncoderConfig, StudentConfig


@dataclass(frozen=True)
class TrainedEncoder:
    """A trained encoder and all that is needed to apply it again.

    Args:
        tensors: Parameters by name; the features' `statistics.<modality>.mean` and `.scale`; those of the student,
            `student.<name>`; `alignment`, the rotation (d, d) of all vectors, if it is aligned to an earlier one.
        cells: Node order, uint64 (N,).
        config: Options and provenance: `encoder` (the `EncoderConfig`), `student` (the `StudentConfig`, if there is
            one), `widths`, `directed`, `image_encoder`, `inputs` (data versions).
        history: Values by epoch: `train`, `validation`, and the validation value of each term of the loss.
        best_epoch: Epoch (0-based) whose parameters these are.
    """

    tensors: Mapping[str, np.ndarray]
    cells: np.ndarray
    config: Mapping[str, Any]
    history: Mapping[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0

    @property
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
        """The options of the training."""
        return cast("EncoderConfig", SimpleNamespace(**self.config["encoder"]))

    @property
    def student_options(self) -> "StudentConfig | None":
        """The options of the student; None if there is none."""
        found = self.config.get("student")
        return None if found is None else cast("StudentConfig", SimpleNamespace(**found))

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters of the model."""
        return {k: v for k, v in self.tensors.items() if not k.startswith(("statistics.", "student.", "alignment"))}

    def aligned(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n, d) turned by `alignment`; as they are without one."""
        rotation = self.tensors.get("alignment")
        return vectors if rotation is None else vectors @ rotation

    @property
    def reads_features(self) -> bool:
        """Whether embedding needs the features of all cells (else the node table holds all)."""
        return bool(self.options.feature_fusion or self.options.spatial_edges_weight > 0)

    def _checkpoint(self) -> bytes:
        arrays = {name: np.ascontiguousarray(value) for name, value in sorted(self.tensors.items())}
        return bytes(save({**arrays, "cells": np.ascontiguousarray(self.cells)}))

    def _configuration(self) -> bytes:
        return json.dumps(self.config, indent=2, sort_keys=True).encode()

    def save(self, directory: Path) -> None:
        """Write `model.safetensors`, `config.json`, `history.json` and `cells.npy`."""
        (directory / "model.safetensors").write_bytes(self._checkpoint())
        (directory / "config.json").write_bytes(self._configuration())
        history = {"best_epoch": self.best_epoch, "history": self.history}
        (directory / "history.json").write_text(json.dumps(history, indent=2))
        np.save(directory / "cells.npy", self.cells)

    @classmethod
    def load(cls, directory: Path) -> "TrainedEncoder":
        """Read what `save` wrote."""
        tensors = load_file(directory / "model.safetensors")
        cells = tensors.pop("cells")
        past = json.loads((directory / "history.json").read_text())
        config = json.loads((directory / "config.json").read_text())
        return cls(tensors, cells, config, past["history"], past["best_epoch"])

    def model(self) -> MobCLIP:
        """The module with these parameters, in evaluation mode."""
        model = MobCLIP(len(self.cells), self.config["widths"], self.options)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in self.parameters.items()})
        return model.eval()
