"""Deployments of a test's own: profiles of generated countries, and building them through the command line."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from mobclip_assets.cli import app
from mobclip_core.demo.config import WorldConfig
from mobclip_core.deployment import Deployment
from mobclip_core.profile import PROFILES_DIR
from mobclip_core.store import TableRef

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
    "location_encoder": {"steps": 20, "hidden": 32},
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


def multiply_census(deployment: Deployment, factors: Mapping[str, float]) -> None:
    """Let a census by zone in one Parquet file tell of more or fewer people in the zones of some regions.

    Args:
        deployment: Its profile names the file; its lake has the regions' `zone_cells`.
        factors: What each number of a region's zones is multiplied by.
    """
    census = deployment.profile.census
    file = Path(str(census.file))
    table = pq.read_table(file)
    factor = pa.array([1.0] * table.num_rows)
    for region, value in factors.items():
        zones = deployment.store.read(TableRef("zone_cells", region))["zone"].unique()
        factor = pc.if_else(pc.is_in(table[census.id_column], zones), value, factor)
    for i, field in enumerate(table.schema):
        if field.name != census.id_column and pa.types.is_floating(field.type):
            table = table.set_column(i, field.name, pc.multiply(table[field.name], factor))
    pq.write_table(table, file)


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
