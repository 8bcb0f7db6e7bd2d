"""Any timm model as an image encoder.

Belongs here: opening a model with weights of one's own, and feeding it patches the way it was trained. Does not belong
here: other encoders (see `features`). Importing this module imports timm, which takes seconds.
"""

import pickle
import sys

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn import functional

from mobclip_core.errors import SourceError
from mobclip_core.imagery import vision  # noqa: F401  # before timm: makes torchvision importable
from mobclip_core.imagery.features import fingerprint_of

import timm  # isort: skip
from timm.data.config import resolve_model_data_config  # isort: skip


class TimmEncoder:
    """A timm model's pooled features, with its own input size and normalisation.

    The first three bands are taken as red, green and blue; where there are fewer the first is repeated. uint8 pixels
    are scaled from 0..255 to 0..1; float pixels are taken as 0..1 and clipped.

    Args:
        model: timm model name.
        checkpoint: Local checkpoint: safetensors, or a state dict that loads with `weights_only=True`; of the model
            itself or of a family that timm converts to it (e.g. OpenCLIP's ViTs). A classifier in it is not used.
        pretrained: Load timm's hub weights where no checkpoint is given.
        batch_size: Images a batch.
        device: Where to compute.

    Raises:
        SourceError: Unknown model, no weights, or a checkpoint that is missing, unreadable or of another model.
    """

    def __init__(
        self,
        model: str,
        *,
        checkpoint: str | None = None,
        pretrained: bool = False,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device, self._batch_size = torch.device(device), batch_size
        network = _open_model(model, checkpoint, pretrained)
        weights = {key: value.float().numpy() for key, value in network.state_dict().items()}
        self.fingerprint = fingerprint_of(model, weights)
        data = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        self._size, self._interpolation = tuple(data["input_size"][1:]), data["interpolation"]
        self._mean = torch.tensor(data["mean"], device=self._device)[:, None, None]
        self._std = torch.tensor(data["std"], device=self._device)[:, None, None]
        self._network = network.to(self._device)
        self.dimensions = int(self._encode_batch(np.zeros((1, 3, 8, 8), dtype=np.uint8)).shape[1])

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Features of patches of shape (n, bands, rows, columns): float32, shape (n, dimensions)."""
        result = np.empty((len(patches), self.dimensions), dtype=np.float32)
        for start in range(0, len(patches), self._batch_size):
            part = slice(start, start + self._batch_size)
            result[part] = self._encode_batch(patches[part]).cpu().numpy()
        return result

    @torch.inference_mode()
    def _encode_batch(self, patches: np.ndarray) -> torch.Tensor:
        rgb = patches[:, :3] if patches.shape[1] >= 3 else patches[:, [0, 0, 0]]
        images = torch.from_numpy(np.array(rgb)).to(self._device, torch.float32)
        images = images / 255.0 if patches.dtype == np.uint8 else images.clamp(0.0, 1.0)
        mode = self._interpolation if self._interpolation in ("bicubic", "bilinear") else "bicubic"
        images = functional.interpolate(images, size=self._size, mode=mode, antialias=True, align_corners=False)
        features: torch.Tensor = self._network((images.clamp(0.0, 1.0) - self._mean) / self._std)
        return features.float()


def _open_model(model: str, checkpoint: str | None, pretrained: bool) -> torch.nn.Module:
    if not timm.is_model(model.removeprefix("timm/")):
        hint = f"similar names: {timm.list_models(f'*{model[:6]}*')[:8]}"
        raise SourceError(model, "timm has no model of this name", hint=hint)
    if checkpoint is None and not pretrained:
        raise SourceError(
            model, "the model has no weights", hint="name a checkpoint in imagery.encoder, or set pretrained: true"
        )
    try:
        network: torch.nn.Module = timm.create_model(model, pretrained=checkpoint is None, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise SourceError(
            model,
            f"the hub's weights cannot be loaded: {_first_line(error)}",
            hint="without network name a local checkpoint in imagery.encoder",
        ) from error
    if checkpoint is not None:
        _load_weights(network, model, checkpoint)
    return network.eval()


def _load_weights(network: torch.nn.Module, model: str, checkpoint: str) -> None:
    """Fill a network from a checkpoint; every weight of the network must be in it."""
    try:
        state = timm.models.load_state_dict(checkpoint, weights_only=True)
        # the model family's own conversion of foreign checkpoints
        convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        state = convert(state, network) if convert is not None else state
        missing = network.load_state_dict(state, strict=False).missing_keys
    except FileNotFoundError as error:
        raise SourceError(checkpoint, "no such file", hint="check imagery.encoder.checkpoint in the profile") from error
    except (
        RuntimeError,
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise SourceError(
            checkpoint, f"not a checkpoint of {model}: {_first_line(error)}", hint="check the model's name and the file"
        ) from error
    if missing:
        raise SourceError(
            checkpoint,
            f"not a checkpoint of {model}: {len(missing)} weights are missing, first {', '.join(missing[:3])}",
            hint="check the model's name and the file",
        )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
