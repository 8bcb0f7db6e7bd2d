import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from mobclip_core.demo.config import TINY
from mobclip_core.demo.generate import generate_demo
from mobclip_core.profile import PROFILES_DIR

# machines that run the tests are shared and noisy: slow is not wrong
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

FAST: dict[str, Any] = {
    "line": {"max_samples": 60_000, "dimensions": 16},
    "encoder": {
        "dimensions": 16,
        "factors": 8,
        "position_factors": 2,
        "max_epochs": 5,
        "patience": 5,
        "validation_block_resolution": 4,
    },
    "evaluation": {"seeds": [0], "block_resolution": 4, "bootstrap": 20, "variants": ["adjacency"]},
}


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
        text = (PROFILES_DIR / "demo.yaml").read_text().replace("${MOBCLIP_DEMO_DATA:-../demo_data}", str(world))
        profile = yaml.safe_load(text)
        profile |= {"name": name, "storage": str(tmp_path / "lake")}
        profile["regions"]["keys"] = list(TINY.region_keys)
        for section, values in copy.deepcopy({**FAST, **sections}).items():
            profile[section] = {**profile.get(section, {}), **values}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(profile))
        return path

    return write
