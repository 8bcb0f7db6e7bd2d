"""Any timm model as an image encoder.

Belongs here: opening a model, and feeding it patches the way it was trained, at the speed of the model. Does not belong
here: filling a model from a file (see `checkpoints`), other encoders (see `features`). Importing this module imports
timm, which takes seconds.

Resizing and normalising happen on the device, batch by batch. On a GPU, copies in both directions overlap with the
forward pass (pinned memory), which runs in bfloat16 unless the profile says otherwise. The vector of an image does not
depend on the other images of its batch; another batch size may change the last bits (1e-5 of its size in float32, 1e-2
in bfloat16). On a CPU vectors are the same in every run.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mobclip_core.errors import MobclipError, SourceError
from mobclip_core.imagery import vision  # noqa: F401  # before timm: makes torchvision importable
from mobclip_core.imagery.checkpoints import first_line, load_weights, projection_size, require_projection, weights_of
from mobclip_core.imagery.features import fingerprint_of
from mobclip_core.profile.imagery import BandNormalisation, TimmConfig
from mobclip_core.workers import ahead

import timm  # isort: skip
from timm.data.config import resolve_model_data_config  # isort: skip
from timm.data.constants import (  # isort: skip
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

_STATED = {
    "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "none": ((0.0,) * 3, (1.0,) * 3),
}


class TimmEncoder:
    """A timm model's features, with its own input size and interpolation.

    A patch is resized to the model's input size as a whole; nothing is cropped. The model takes as many bands as the
    patches have; one band is repeated three times unless the normalisation is stated for one band. Hub weights for
    three bands are adapted to another number by timm; a checkpoint must be for as many.

    Args:
        config: Model, weights, output, normalisation, precision and batch size.
        bands: Bands of the patches.
        device: Where to compute.

    Raises:
        SourceError: Unknown model, no weights, or a checkpoint that is missing, unreadable, of another model or for
            another number of bands.
        MobclipError: If the normalisation is for another number of bands.
    """

    def __init__(self, config: TimmConfig, bands: int = 3, device: torch.device | str = "cpu") -> None:
        self._device, self.batch_size = torch.device(device), config.batch_size
        self._bands, stated = bands, config.normalisation
        self._channels = 3 if bands == 1 and not isinstance(stated, BandNormalisation) else bands
        network = _open_model(config, self._channels)
        data = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        self._size, self._interpolation = tuple(data["input_size"][1:]), data["interpolation"]
        self._is_image, mean, std, scale = _normalisation(stated, data, self._channels)
        record = {
            "bands": bands,
            "output": config.output,
            "precision": config.precision,
            "size": self._size,
            "interpolation": self._interpolation,
            "mean": mean,
            "std": std,
            "scale": scale,
            "clipped": self._is_image,
        }
        weights = {key: value.float().numpy() for key, value in network.state_dict().items()}
        self.fingerprint = fingerprint_of(f"{config.model} {json.dumps(record, sort_keys=True)}", weights)
        # folded into one subtraction and one division of raw pixels
        self._mean, self._std = (
            torch.tensor([value * scale for value in values], device=self._device)[:, None, None]
            for values in (mean, std)
        )
        self._limit = scale
        half = config.precision == "bfloat16" or (config.precision == "auto" and self._device.type == "cuda")
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=half)
        self._network = network.to(self._device)
        probe = np.zeros((1, bands, 8, 8), np.uint8)
        self.dimensions = int(self._forward(torch.from_numpy(probe)).shape[1])

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Features of patches of shape (n, bands, rows, columns): float32, shape (n, dimensions)."""
        starts = range(0, len(patches), self.batch_size)
        parts = list(self.encode_stream(patches[start : start + self.batch_size] for start in starts))
        return np.concatenate(parts) if parts else np.empty((0, self.dimensions), np.float32)

    def encode_stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Features of batches, in order; the next batches are made ready in a thread while the model computes.

        Raises:
            MobclipError: Patches of another number of bands, or not of 8 bits without a stated normalisation.
        """
        waiting: tuple[torch.Tensor, torch.cuda.Event | None] | None = None
        for images in ahead(self._ready(batch) for batch in batches):
            begun = self._begin(images)
            if waiting is not None:
                yield _finished(*waiting)
            waiting = begun
        if waiting is not None:
            yield _finished(*waiting)

    def _ready(self, patches: np.ndarray) -> torch.Tensor:
        """Patches as a tensor that copies to the device without waiting."""
        if patches.shape[1] != self._bands:
            raise MobclipError(
                f"the image encoder was opened for {self._bands} bands, the patches have {patches.shape[1]}; "
                "materialise imagery_encoder and imagery_patches again"
            )
        if self._is_image and patches.dtype != np.uint8:
            raise MobclipError(
                f"the patches hold {patches.dtype} values, not 8-bit pixels: say how they are scaled with "
                "imagery.encoder.normalisation: {mean: [...], std: [...], scale: ...}, one value a band"
            )
        images = torch.from_numpy(np.require(patches, requirements=["C", "W"]))
        return images.pin_memory() if self._device.type == "cuda" else images

    def _begin(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        features = self._forward(images)
        if self._device.type != "cuda":
            return features, None
        result = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        result.copy_(features, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return result, copied

    @torch.inference_mode()
    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        with self._autocast:
            features: torch.Tensor = self._network(self._prepare(images.to(self._device, non_blocking=True)))
        return features.float()

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Raw pixels on the device as the model's input."""
        images = images.to(torch.float32)
        if tuple(images.shape[2:]) != self._size:
            mode = self._interpolation if self._interpolation in ("bicubic", "bilinear") else "bicubic"
            images = functional.interpolate(images, size=self._size, mode=mode, antialias=True, align_corners=False)
            if self._is_image:
                # bicubic weights overshoot
                images = images.clamp_(0.0, self._limit)
        return images.expand(-1, self._channels, -1, -1).sub(self._mean).div_(self._std)


def _finished(features: torch.Tensor, copied: "torch.cuda.Event | None") -> np.ndarray:
    if copied is not None:
        copied.synchronize()
    return features.numpy()


def _normalisation(
    stated: str | BandNormalisation | None, data: dict[str, object], channels: int
) -> tuple[bool, list[float], list[float], float]:
    """Whether pixels are those of an 8-bit image, and mean, std and scale of them."""
    if isinstance(stated, BandNormalisation):
        is_image, mean, std, scale = False, list(stated.mean), list(stated.std), stated.scale
    else:
        found = (data["mean"], data["std"]) if stated is None else _STATED[stated]
        mean, std = ([float(value) for value in values] for values in found)  # type: ignore[attr-defined]
        is_image, scale = True, 255.0
        if stated == "none":
            mean, std = mean[:1] * channels, std[:1] * channels
    if len(mean) != channels:
        name = "the model's own" if stated is None else stated if isinstance(stated, str) else "the one stated"
        raise MobclipError(
            f"imagery.encoder.normalisation: {name} is for {len(mean)} bands, the imagery has {channels}; choose the "
            "bands with imagery.bands, or state mean and std of each band"
        )
    return is_image, mean, std, scale


def _open_model(config: TimmConfig, channels: int) -> torch.nn.Module:
    model, checkpoint = config.model, config.checkpoint
    if not timm.is_model(model.removeprefix("timm/")):
        hint = f"similar names: {timm.list_models(f'*{model[:6]}*')[:8]}"
        raise SourceError(model, "timm has no model of this name", hint=hint)
    if checkpoint is None and not config.pretrained:
        raise SourceError(
            model, "the model has no weights", hint="name a checkpoint in imagery.encoder, or set pretrained: true"
        )
    state = None if checkpoint is None else weights_of(checkpoint, model)
    outputs: dict[str, Any] = {"num_classes": 0} if config.output == "pooled" else {}
    if state is not None and checkpoint is not None and config.output == "projected":
        outputs = {"num_classes": projection_size(state, checkpoint)}
    try:
        network: torch.nn.Module = timm.create_model(model, pretrained=state is None, in_chans=channels, **outputs)
    except (OSError, RuntimeError) as error:
        raise SourceError(
            model,
            f"the hub's weights cannot be loaded: {first_line(error)}",
            hint="without network name a local checkpoint in imagery.encoder",
        ) from error
    if state is not None and checkpoint is not None:
        load_weights(network, state, model, checkpoint, channels)
    if config.output == "projected":
        require_projection(network, checkpoint or model)
    return network.eval()
