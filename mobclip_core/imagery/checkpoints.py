"""Checkpoint files of image models: reading them without running their code, and filling a timm model.

Belongs here: files of weights, of timm itself and of the families that timm converts (OpenCLIP's and RemoteCLIP's
`visual.*`, DINOv2's). Does not belong here: what a model is used for (see `timm_encoder`).
"""

import pickle
import sys
from typing import Any

import torch
from safetensors import SafetensorError

from mobclip_core.errors import SourceError
from mobclip_core.imagery import vision  # noqa: F401  # before timm: makes torchvision importable

import timm  # isort: skip

State = dict[str, torch.Tensor]
_PROJECTIONS = {"visual.proj": 1, "visual.head.proj.weight": 0, "head.weight": 0}
"""Where a CLIP checkpoint keeps its projection, and which axis of it is the embedding."""
_HINT = "check the model's name and the file"
_UNREADABLE = (
    RuntimeError,
    SafetensorError,
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)


def weights_of(checkpoint: str, model: str) -> State:
    """The tensors of a checkpoint: safetensors, or a state dict that loads with `weights_only=True`.

    A state dict may lie under `state_dict` or `model`, and its names may start with `module.`.

    Args:
        checkpoint: Local path.
        model: Name of the model wanted, for messages.

    Raises:
        SourceError: A file that is missing, unreadable, or holds other things than tensors.
    """
    try:
        state = dict(timm.models.load_state_dict(checkpoint, weights_only=True))
    except FileNotFoundError as error:
        raise SourceError(checkpoint, "no such file", hint="check imagery.encoder.checkpoint in the profile") from error
    except _UNREADABLE as error:
        raise SourceError(checkpoint, f"not a checkpoint of {model}: {first_line(error)}", hint=_HINT) from error
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def projection_size(state: State, checkpoint: str) -> int:
    """Length of the embedding that a CLIP checkpoint projects to.

    Raises:
        SourceError: If it has no projection.
    """
    for key, axis in _PROJECTIONS.items():
        if key in state:
            return int(state[key].shape[axis])
    raise SourceError(
        checkpoint,
        f"no projection: none of {', '.join(_PROJECTIONS)} is in it",
        hint="set imagery.encoder.output to pooled",
    )


def require_projection(network: Any, source: str) -> None:
    """Raise if the last layer of a model is not CLIP's projection, which has no bias, but a classifier.

    Raises:
        SourceError: Naming the file or the model.
    """
    head = network.get_classifier() if hasattr(network, "get_classifier") else None
    bias = getattr(head, "bias", None)
    if not isinstance(head, torch.nn.Linear) or (bias is not None and bool(bias.any())):
        raise SourceError(
            source, "its last layer is no projection of CLIP", hint="set imagery.encoder.output to pooled"
        )


def load_weights(network: torch.nn.Module, state: State, model: str, checkpoint: str, bands: int) -> None:
    """Fill a network from a checkpoint, converted by the model's family where it is foreign.

    Every weight of the network must be in the checkpoint. What else is in it must not belong to the network's parts:
    a text tower or a classifier may be there and is not used, a further layer may not.

    Raises:
        SourceError: A checkpoint of another model, or for another number of bands.
    """
    try:
        convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        state = convert(state, network) if convert is not None else state
        _require_bands(network, state, checkpoint, bands)
        result = network.load_state_dict(state, strict=False)
    except _UNREADABLE as error:
        raise SourceError(checkpoint, f"not a checkpoint of {model}: {first_line(error)}", hint=_HINT) from error
    if result.missing_keys:
        raise SourceError(
            checkpoint,
            f"not a checkpoint of {model}: {len(result.missing_keys)} weights are missing, first "
            f"{', '.join(result.missing_keys[:3])}",
            hint=_HINT,
        )
    parts = {name for name, part in network.named_children() if any(True for _ in part.parameters())}
    classifier = str(getattr(network, "pretrained_cfg", {}).get("classifier") or "head").split(".")[0]
    more = [
        key
        for key in result.unexpected_keys
        if state[key].is_floating_point() and key.split(".")[0] in parts - {classifier}
    ]
    if more:
        raise SourceError(
            checkpoint,
            f"not a checkpoint of {model}: it has {len(more)} weights more, first {', '.join(sorted(more)[:3])}",
            hint=_HINT,
        )


def _require_bands(network: torch.nn.Module, state: State, checkpoint: str, bands: int) -> None:
    layer = getattr(network, "pretrained_cfg", {}).get("first_conv")
    weight = state.get(f"{layer}.weight") if isinstance(layer, str) else None
    if weight is not None and weight.ndim == 4 and weight.shape[1] != bands:
        raise SourceError(
            checkpoint,
            f"the weights are for {weight.shape[1]} bands, the imagery has {bands}",
            hint=f"choose {weight.shape[1]} bands with imagery.bands (or stac.assets), or use other weights",
        )


def first_line(error: Exception) -> str:
    """The first line of an error's message, for a message of our own."""
    return (str(error) or type(error).__name__).splitlines()[0]
