from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from mobclip_core.demo.config import TINY
from mobclip_core.demo.generate import generate_demo
from tests.building import write_profile

# machines that run the tests are shared and noisy: slow is not wrong
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, and the many quick tests fill up what is left of the workers' time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of a generated country of some 200 cells in three regions."""
    folder = tmp_path_factory.mktemp("world") / "tiny"
    generate_demo(folder, TINY)
    return folder


@pytest.fixture
def tiny_profile(tiny_world: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the demo's profile for the tiny country: `tiny_profile(world, **sections)` gives the YAML's path."""

    def write(world: Path = tiny_world, name: str = "tiny", **sections: Any) -> Path:
        return write_profile(tmp_path, world, TINY, name, **sections)

    return write
