"""Making torchvision importable beside a CPU build of torch; import this module before timm.

Belongs here: the workaround and nothing else. The torchvision that registries carry is built for CUDA. Where its
library cannot be loaded, `import torchvision` fails on two operators that the library would have declared; declared
here, without a kernel, they let everything else (timm's models and transforms) work. Where the library loads, nothing
is changed.
"""

import importlib.util
from pathlib import Path

import torch

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _load_torchvision_library() -> bool:
    """Whether torchvision's compiled library is there and loads."""
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return False
    libraries = sorted(Path(found.submodule_search_locations[0]).glob("_C*.so"))
    try:
        for library in libraries:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in _OPERATORS:
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}{_SCHEMA}")  # type: ignore[no-untyped-call]
    return library


# the declarations last as long as the object that holds them
DECLARATIONS = None if _load_torchvision_library() else _declare_operators()
