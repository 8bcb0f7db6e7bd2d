"""A command that is killed and given again: it goes on where it was, and the result is the same to the last bit."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mobclip_assets.build import build_defs
from mobclip_assets.materialize import only_command
from mobclip_assets.status import read_status
from mobclip_core.demo.config import TINY
from mobclip_core.deployment import Deployment
from mobclip_core.store import TableRef
from tests.building import multiply_census

pytestmark = pytest.mark.slow
KILLS = 3


def with_lake(profile: Path, lake: Path) -> Path:
    raw = yaml.safe_load(profile.read_text())
    profile.write_text(yaml.safe_dump(raw | {"storage": str(lake), "name": "tiny"}))
    return profile


def environment(home: Path, profile: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "DAGSTER_HOME": str(home), "MOBCLIP_PROFILE": str(profile), "PYTHONPATH": root}


def command(home: Path, profile: Path, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "mobclip_assets.cli", "materialize", "--profile", str(profile), *options]
    return subprocess.Popen(words, env=environment(home, profile), stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    _, messages = process.communicate(timeout=900)
    assert process.returncode == 0, messages
    return messages


def versions(home: Path, profile: Path) -> dict[tuple[str, str | None], str | None]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        graph = build_defs(str(profile)).resolve_asset_graph()
        rows = read_status(instance, graph, Deployment.open(str(profile)))
    assert {row.state for row in rows} == {"fresh"}
    # the catalog holds views, not data
    return {(row.asset, row.region): row.data_version for row in rows if row.asset != "catalog"}


def times_made(home: Path, profile: Path) -> dict[tuple[str, str | None], list[float]]:
    """When each partition was materialised, by asset and region."""
    found: dict[tuple[str, str | None], list[float]] = {}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for key in build_defs(str(profile)).resolve_asset_graph().materializable_asset_keys:
            for record in instance.fetch_materializations(key, limit=100).records:
                found.setdefault((key.to_user_string(), record.partition_key), []).append(record.timestamp)
    return found


def test_killed_at_random_moments(tiny_profile, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    undisturbed = with_lake(tiny_profile(name="whole"), tmp_path / "lake_whole")
    started = time.monotonic()
    finished(command(whole, undisturbed))
    duration = time.monotonic() - started

    profile = with_lake(tiny_profile(name="torn"), tmp_path / "lake_torn")
    dice = random.Random(0)
    before: dict[tuple[str, str | None], list[float]] = {}
    for _ in range(KILLS):
        process = command(torn, profile)
        time.sleep(dice.uniform(0.3, 0.7) * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
        made = times_made(torn, profile)
        # at most the partitions of the run that was cut off were made again
        again = [key for key, times in before.items() if made[key] != times]
        assert len({region for _, region in again}) <= 1
        before = made
    messages = finished(command(torn, profile))
    assert "done" in messages
    assert len(before) > 0
    assert versions(torn, profile) == versions(whole, undisturbed)
    with dg.DagsterInstance.from_config(str(torn)) as instance:
        unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
        assert instance.get_runs(unfinished) == []


def test_what_stands_is_kept_until_a_file_changes(tiny_world, tiny_profile, tmp_path):
    world = tmp_path / "world"
    shutil.copytree(tiny_world, world)
    quality = {"tables": {"census_features": {"severity": "error"}}}
    home, profile = tmp_path / "home", with_lake(tiny_profile(world, quality=quality), tmp_path / "lake")
    finished(command(home, profile, "--select", "*census_features"))
    first = times_made(home, profile)
    assert "everything stood already" in finished(command(home, profile, "--select", "*census_features"))
    assert times_made(home, profile) == first

    census = world / "census.parquet"
    os.utime(census, (1, 1))
    finished(command(home, profile, "--select", "*census_features"))
    made = times_made(home, profile)
    assert {asset for (asset, _), times in made.items() if len(times) > 1} == {"census_features"}

    finished(command(home, profile, "--select", "*census_features", "--force"))
    assert all(len(times) > 1 for times in times_made(home, profile).values())

    # twice the people in one region: refused until it is said that this is meant
    before = Deployment.open(str(profile)).store.data_version(TableRef("census_features", TINY.region_keys[1]))
    multiply_census(Deployment.open(str(profile)), {TINY.region_keys[1]: 2.0})
    refused = command(home, profile, "--select", "census_features")
    _, messages = refused.communicate(timeout=900)
    assert refused.returncode == 1
    assert f"failed {TINY.region_keys[1]}" in messages
    finished(command(home, profile, "--select", "census_features", "--accept"))
    after = Deployment.open(str(profile)).store.data_version(TableRef("census_features", TINY.region_keys[1]))
    assert after != before


def test_two_commands_at_once(tiny_profile, tmp_path):
    home, profile = tmp_path / "home", tiny_profile()
    environment(home, profile)
    with dg.DagsterInstance.from_config(str(home)) as instance, only_command(instance, home):
        process = command(home, profile)
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"another `mobclip materialize` (process {os.getpid()})" in messages
