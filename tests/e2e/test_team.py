"""A team's deployment, all of it real: PostgreSQL, web server and daemon; backfills as the UI asks for them."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mobclip_core.contracts import CONTRACTS
from mobclip_core.demo.config import TINY
from mobclip_core.demo.generate import generate_demo
from mobclip_core.deployment import Deployment
from mobclip_core.store import TableRef
from tests.building import multiply_census, write_profile
from tests.e2e.services import Team, need_postgres, team

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
ARTEFACTS = Path(__file__).resolve().parents[2] / ".ci" / "artefacts"
"""Pictures of the UI."""

WORLD = dataclasses.replace(TINY, regions=6)
REGIONS = WORLD.region_keys
CHOSEN = REGIONS[:3]
REFRESHED = ["census_features", "poi_aggregates", "imagery_patches", "imagery_features", "embeddings"]
# a region whose census changes by more than the limits is not to be published by itself
QUALITY = {"tables": {"census_features": {"severity": "error"}}}
OFTEN = {"refresh_seconds": 30}


@pytest.fixture(scope="module")
def country(tmp_path_factory) -> tuple[Path, Path]:
    """Raw files of a country of six regions, and a profile."""
    need_postgres()
    folder = tmp_path_factory.mktemp("team")
    generate_demo(folder / "world", WORLD)
    return folder / "world", write_profile(folder, folder / "world", WORLD, quality=QUALITY, operations=OFTEN)


@pytest.fixture(scope="module")
def served(country, tmp_path_factory) -> Iterator[Team]:
    """The deployment, its lake built once from the command line."""
    with team(tmp_path_factory.mktemp("home"), country[1]) as found:
        build(found)
        yield found


def build(served: Team) -> None:
    """`mobclip materialize` of what a refresh makes and of all that it is made of."""
    command = [sys.executable, "-m", "mobclip_assets.cli", "materialize", "--profile", str(served.profile)]
    command += ["--select", "++++++++embeddings", "--select", "embeddings"]
    done = subprocess.run(command, env=served.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def hashes(profile: Path) -> dict[tuple[str, str], str]:
    """Data versions of every partition of what a refresh makes, by table and region."""
    store = Deployment.open(str(profile)).store
    return {(name, region): store.data_version(TableRef(name, region)) for name in REFRESHED for region in REGIONS}


def test_a_backfill_of_three_regions_one_of_which_breaks_a_rule(served, country):
    world, profile = country
    first = hashes(profile)
    good, broken = CHOSEN[:2], CHOSEN[2]
    census = world / "census.parquet"
    original = census.read_bytes()
    multiply_census(Deployment.open(str(profile)), {**dict.fromkeys(good, 1.01), broken: 0.5})

    backfill = served.backfill(REFRESHED, list(CHOSEN))
    assert served.finished(backfill) == "COMPLETED_FAILED"
    runs = served.runs(backfill)
    assert {region: status for region, (_, status) in runs.items()} == {
        **dict.fromkeys(good, "SUCCESS"),
        broken: "FAILURE",
    }
    second = hashes(profile)
    for (name, region), value in second.items():
        changed = region in good and name in ("census_features", "embeddings")
        assert (value != first[name, region]) == changed, (name, region)

    # the cause is mended, and the others' new census stays: only what is missing is made
    census.write_bytes(original)
    multiply_census(Deployment.open(str(profile)), dict.fromkeys(good, 1.01))
    again = served.re_execute(runs[broken][0])
    assert served.run_finished(again) == "SUCCESS"
    # what depends on the census, and no imagery
    assert served.steps(again) == {"census_features", "poi_aggregates", "embeddings"}
    third = hashes(profile)
    # its vectors are made of its neighbours' features too, which are new
    assert third.pop(("embeddings", broken)) != second.pop(("embeddings", broken))
    assert third == second


def test_a_region_is_made_from_a_browser(served):
    """The graph, the dialog of a materialisation, its success and its metadata; pictures are kept."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    region = REGIONS[2]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(90_000)
        page.goto(f"{served.url}/asset-groups")
        page.get_by_text("publishing").first.wait_for()
        page.get_by_text("geobench").first.wait_for()
        page.screenshot(path=ARTEFACTS / "graph.png")

        page.goto(f"{served.url}/assets/embeddings")
        page.get_by_role("button", name="Materialize").first.click()
        page.get_by_text("Select a partition or create one").click()
        page.get_by_placeholder("Filter partitions").fill(region)
        page.locator("[role=menuitem]").filter(has_text=region).last.click()
        page.keyboard.press("Escape")
        page.screenshot(path=ARTEFACTS / "launch.png")
        page.get_by_role("button", name="Launch 1 run").click()
        run = served.newest_run("embeddings", region)
        assert served.run_finished(run) == "SUCCESS"

        page.goto(f"{served.url}/assets/embeddings?view=partitions&partition={region}")
        page.get_by_text(run[:8]).first.wait_for()
        page.get_by_text("first_rows").first.wait_for()
        page.screenshot(path=ARTEFACTS / "materialised.png")
        # the map lies in an observation, shown with the materialisation
        title = f"Embeddings of {region}"
        page.locator("tr").filter(has_text=title).get_by_text("Show Markdown").first.click()
        picture = page.locator('img[src^="data:image/png"]').first
        picture.wait_for()
        assert picture.evaluate("image => image.complete && image.naturalWidth > 100")
        page.screenshot(path=ARTEFACTS / "plot.png")
        browser.close()


def test_the_sensor_makes_again_what_changed(served, country):
    """A region's census changes: the daemon sees it, and makes the region's features and then its vectors."""
    profile, region = country[1], REGIONS[4]
    before = hashes(profile)
    multiply_census(Deployment.open(str(profile)), {region: 1.01})
    with served.turned_on("refresh"):
        first = served.newest_run("census_features", region)
        assert served.run_finished(first) == "SUCCESS"
        second = served.newest_run("embeddings", region)
        assert served.run_finished(second) == "SUCCESS"
    served.all_runs_ended()
    # with the encoder that is there, and no imagery again
    assert served.steps(first) | served.steps(second) <= {
        "census_features",
        "poi_aggregates",
        "mobility_edges",
        "embeddings",
    }
    changed = {key for key, version in hashes(profile).items() if version != before[key]}
    assert {("census_features", region), ("embeddings", region)} <= changed
    assert {name for name, _ in changed} == {"census_features", "embeddings"}
    assert {where for name, where in changed if name == "census_features"} == {region}


def kills() -> int:
    """How many times something is killed: once in the suite, 20 times by `MOBCLIP_KILLS=20`, about a minute each."""
    return int(os.environ.get("MOBCLIP_KILLS", "1"))


def test_killed_at_random_moments_a_backfill_ends_as_if_undisturbed(served, country):
    """A process of a run, the daemon with all that it started, or PostgreSQL: killed, started again, run again."""
    profile = country[1]
    store = Deployment.open(str(profile)).store
    assets, regions = ["census_features", "poi_aggregates", "embeddings"], list(CHOSEN[:2])
    began = time.monotonic()
    assert served.finished(served.backfill(assets, regions)) == "COMPLETED_SUCCESS"
    undisturbed_seconds = time.monotonic() - began
    expected = hashes(profile)
    random = np.random.default_rng(0)
    victims = {
        "postgres": served.postgres.kill,
        "worker": lambda: served.kill_worker(random),
        "daemon": lambda: served.kill("daemon"),
    }
    for number in range(kills()):
        for name in assets:
            for region in regions:
                Path(store.path(TableRef(name, region))).unlink()
        backfill = served.backfill(assets, regions)
        time.sleep(random.uniform(0, undisturbed_seconds))
        victim = list(victims)[number % len(victims)]
        victims[victim]()
        if victim == "postgres":
            served.postgres.start()
        for _ in range(3):
            if served.finished(backfill, 600) == "COMPLETED_SUCCESS":
                break
            # what the operator does: the same again
            backfill = served.backfill(assets, regions)
        assert hashes(profile) == expected, (number, victim)
        for name in assets:
            for region in regions:
                ref = TableRef(name, region)
                CONTRACTS[name].validate(store.read(ref), region)
