"""The same graph on a Ray cluster of two nodes: a regional backfill whose files equal those of one process."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mobclip_assets.cli import app
from mobclip_core.demo.config import TINY
from tests.e2e.isolation import need_a_namespace, run_isolated
from tests.e2e.ray_backfill import JOBS

pytestmark = pytest.mark.slow

ASSETS = [asset for assets in JOBS.values() for asset in assets]
CONFIGURATION = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
run_launcher:
  module: dagster_ray
  class: RayRunLauncher
  config:
    ray:
      address: http://127.0.0.1:8265
      env_vars: [DAGSTER_HOME, MOBCLIP_PROFILE, MOBCLIP_EXECUTOR]
"""


@pytest.fixture(autouse=True)
def _ray():
    need_a_namespace("dagster_ray", "ray", "aiohttp_cors")


def materialize(profile: Path, home: Path, *assets: str) -> None:
    """In this process, with an instance of its own."""
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        patch.setenv("MOBCLIP_PROFILE", str(profile))
        chosen = [part for asset in assets for part in ("--select", asset)]
        result = CliRunner().invoke(app, ["materialize", "--profile", str(profile), *chosen])
    assert result.exit_code == 0, result.stderr


def test_a_backfill_on_two_nodes_equals_one_process(tiny_profile, tmp_path):
    profile = tiny_profile()
    lake = tmp_path / "lake"
    # with all that they are made of
    materialize(profile, tmp_path / "alone", *(f"+{name}" for name in ASSETS))
    expected = {name: contents(lake, name) for name in ASSETS}
    for name in ASSETS:
        shutil.rmtree(lake / name)

    outcome = on_ray(profile, tmp_path)
    wanted = {(job, region) for job in JOBS for region in TINY.region_keys}
    assert {(run["job"], run["region"]) for run in outcome["runs"]} == wanted
    assert {run["status"] for run in outcome["runs"]} == {"SUCCESS"}
    steps = [job for job in outcome["jobs"] if job["id"].startswith("dagster-step-")]
    assert {job["step"] for job in steps} == set(ASSETS)
    assert {job["status"] for job in steps} == {"SUCCEEDED"}
    assert len({job["node"] for job in steps}) == 2
    assert {name: contents(lake, name) for name in ASSETS} == expected


def contents(lake: Path, table: str) -> dict[str, bytes]:
    """Bytes of the partitions of a table, by region."""
    found = {path.parent.name.removeprefix("region="): path.read_bytes() for path in lake.glob(f"{table}/*/*.parquet")}
    assert sorted(found) == sorted(TINY.region_keys)
    return found


def on_ray(profile: Path, folder: Path) -> dict:
    """Back-fill all regions on a cluster of two nodes that ends with this call."""
    home = folder / "cluster"
    home.mkdir()
    (home / "dagster.yaml").write_text(CONFIGURATION)
    output = folder / "outcome.json"
    environment = {"DAGSTER_HOME": str(home), "MOBCLIP_PROFILE": str(profile), "MOBCLIP_EXECUTOR": "ray"}
    run_isolated("tests.e2e.ray_backfill", output, environment, timeout=600)
    return json.loads(output.read_text())
