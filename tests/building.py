"""Building a deployment of a test's own through the command line, with a Dagster instance of its own."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mobclip_assets.cli import app


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
