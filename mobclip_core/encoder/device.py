"""Where torch computes.

Belongs here: choosing a device and making it deterministic. Does not belong here: what is computed.
"""

import contextlib
import os
from collections.abc import Iterator

import torch


def resolve_device(name: str) -> torch.device:
    """The device of a profile's option: `auto` takes CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Scattered additions in a fixed order inside the block; the CPU's are so anyway."""
    if device.type == "cpu":
        yield
        return
    # cuBLAS wants its workspace fixed before the first call
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Many small products on one core inside the block: handing each out to threads takes longer than doing it.

    Measured on two busy cores, batches of five images: 0.3 ms an image with one thread, 5 ms with two.
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
