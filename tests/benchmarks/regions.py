"""A thousand regions: seconds of `mobclip status`, and of the UI's page of a partitioned asset.

    python -m tests.benchmarks.regions [--regions 1000]

Needs a built demo (`make demo`): its materialisations, with all their metadata, are told to an instance of its own
for every region of a profile that has so many, and their files are there as empty ones. `value` is the wall time of the
command, from its start to its end; `page` that of the page in a browser (Debian's chromium), from the address to the
partitions' bar, the web server being warm.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import dagster as dg
import yaml
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from mobclip_assets.build import build_defs
from mobclip_assets.instance import instance_home
from mobclip_assets.standing import observe_sources
from mobclip_core.deployment import Deployment
from mobclip_core.profile import profile_path
from mobclip_core.store import TableRef
from tests.benchmarks._report import report
from tests.e2e.services import free_port, wait_until

Event = tuple[dg.AssetKey, dg.AssetMaterialization]


def demo_events() -> list[Event]:
    """The newest materialisation of every asset of the demo, of one region where it has regions."""
    with dg.DagsterInstance.from_config(str(instance_home("demo"))) as instance:
        found = []
        graph = build_defs("demo").resolve_asset_graph()
        for key in graph.toposorted_asset_keys:
            records = instance.fetch_materializations(key, limit=1).records
            if key in graph.materializable_asset_keys and records and records[0].asset_materialization:
                found.append((key, records[0].asset_materialization))
    assert found, "the demo is not built: make demo"
    return found


def many_regions(folder: Path, number: int) -> Path:
    """The demo's profile with so many regions, and an instance of its own."""
    profile = yaml.safe_load(profile_path("demo").read_text()) | {"storage": str(folder / "lake")}
    profile["regions"]["keys"] = [f"region_{i:05}" for i in range(number)]
    path = folder / "many.yaml"
    path.write_text(yaml.safe_dump(profile))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    os.environ |= {"DAGSTER_HOME": str(folder), "MOBCLIP_PROFILE": str(path)}
    return path


def tell(profile: Path, events: list[Event]) -> int:
    """Tell the instance that all was made, of what is there and by today's code; gives the number of partitions."""
    deployment = Deployment.open(str(profile))
    store, number = deployment.store, 0
    graph = build_defs(str(profile)).resolve_asset_graph()
    newest: dict[dg.AssetKey, int] = {}
    versions: dict[dg.AssetKey, str] = {}
    with dg.DagsterInstance.get() as instance:
        for key in observe_sources(instance, deployment.profile):
            [record] = instance.fetch_observations(key, limit=1).records
            newest[key] = record.storage_id
            versions[key] = record.event_log_entry.tags[DATA_VERSION_TAG]
        for key, event in events:
            name, partitioned = key.to_user_string(), graph.get(key).partitions_def is not None
            version = (event.tags or {})[DATA_VERSION_TAG]
            tags = {DATA_VERSION_TAG: version, CODE_VERSION_TAG: str(graph.get(key).code_version)}
            for parent in graph.get(key).parent_keys:
                tags[get_input_data_version_tag(parent)] = versions[parent]
                tags[get_input_event_pointer_tag(parent)] = str(newest[parent])
            for region in deployment.profile.regions.region_keys if partitioned else [None]:
                told = dg.AssetMaterialization(key, metadata=event.metadata, partition=region, tags=tags)
                instance.report_runless_asset_event(told)
                number += 1
                if partitioned:
                    path = Path(store.path(TableRef(name, region)))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
            [record] = instance.fetch_materializations(key, limit=1).records
            newest[key], versions[key] = record.storage_id, version
    return number


def status_seconds(profile: Path) -> tuple[float, int]:
    """Wall time of the command, and how many rows it gave."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "mobclip_assets.cli", "status", "--json", "--profile", str(profile)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - began, said.count('"asset"')


@contextmanager
def web_server():
    """Dagster's web server; gives its address."""
    port, workspace = free_port(), Path(__file__).parents[2] / "workspace.yaml"
    program = str(Path(sys.executable).with_name("dagster-webserver"))
    command = [program, "-h", "127.0.0.1", "-p", str(port), "-w", str(workspace)]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            import requests

            url = f"http://127.0.0.1:{port}"
            wait_until("the web server", lambda: requests.get(f"{url}/server_info", timeout=5).ok)
            yield url
        finally:
            server.terminate()


def page_seconds(url: str, number: int, repeats: int = 3) -> list[float]:
    """Wall times of the page of the embeddings, until it says how many partitions are materialised."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(120_000)
        for _ in range(repeats + 1):
            began = time.perf_counter()
            page.goto(f"{url}/assets/embeddings?view=partitions")
            page.get_by_text(f"{number:,}").first.wait_for()
            page.get_by_text("region_00000").first.wait_for()
            times.append(time.perf_counter() - began)
        if picture := os.environ.get("MOBCLIP_PICTURE"):
            page.screenshot(path=picture)
        browser.close()
    return times[1:]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=1000)
    options = parser.parse_args()
    events = demo_events()
    with tempfile.TemporaryDirectory() as folder:
        profile = many_regions(Path(folder), options.regions)
        partitions = tell(profile, events)
        times, rows = zip(*(status_seconds(profile) for _ in range(5)), strict=True)
        pages: list[float] = []
        if shutil.which("chromium"):
            with web_server() as url:
                pages = page_seconds(url, options.regions)
    report(
        "regions",
        median(times),
        "s",
        n=options.regions,
        baseline=None,
        rows=rows[0],
        partitions=partitions,
        page=median(pages) if pages else None,
    )


if __name__ == "__main__":
    main()
