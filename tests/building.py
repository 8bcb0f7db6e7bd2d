"""Deployments of a test's own: profiles of generated countries, and building them through the command line."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mobclip_assets.cli import app
from mobclip_core.demo.config import WorldConfig
from mobclip_core.profile import PROFILES_DIR

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
"""Sections of a profile that learns little and quickly."""


def write_profile(folder: Path, world: Path, config: WorldConfig, name: str = "tiny", **sections: Any) -> Path:
    """Write the demo's profile for a small generated country; its lake lies beside the YAML file.

    Args:
        folder: Where to.
        world: Folder of the country's raw files.
        config: What the country was made by.
        name: Of the profile.
        sections: Values of sections of the profile, over the demo's.
    """
    text = (PROFILES_DIR / "demo.yaml").read_text().replace("${MOBCLIP_DEMO_DATA:-../demo_data}", str(world))
    profile = yaml.safe_load(text)
    profile |= {"name": name, "storage": str(folder / "lake")}
    profile["regions"]["keys"] = list(config.region_keys)
    for section, values in copy.deepcopy({**FAST, **sections}).items():
        profile[section] = {**profile.get(section, {}), **values}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def materialize(folder: Path, profile_text: str) -> Path:
    """Write a profile whose lake lies in a folder, and materialise all of it; returns the profile's path."""
    profile = folder / "profile.yaml"
    profile.write_text(yaml.safe_dump(yaml.safe_load(profile_text) | {"storage": str(folder / "lake")}))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder))
        patch.setenv("MOBCLIP_PROFILE", str(profile))
        result = CliRunner().invoke(app, ["materialize", "--profile", str(profile)])
    assert result.exit_code == 0, result.stderr
    return profile
