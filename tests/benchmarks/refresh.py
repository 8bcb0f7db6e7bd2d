"""One region refreshed with the encoder frozen, against the whole built again: seconds, and scores on that region.

    python -m tests.benchmarks.refresh [--region KEY] [--quick]
    python -m tests.benchmarks.refresh --profile usa --quick [--region KEY] [--full-seconds SECONDS]

The demo country is generated and built in a folder of its own by `mobclip materialize`; that wall time is the baseline.
Then the census tells of 5% more people in one region, the median one by cells; the assets of the job `refresh_region`
are made for that region, all of them, changed or not, and that wall time is `value`; and in the end the encoder is
trained again and every region is embedded. `scores` are the mean R2 on the region's units of a ridge probe that learnt
from all others (as in `tests.benchmarks.inductive`): after the refresh and after the retraining.

Another profile's lake is built where it lies, or, with the seconds that its build took, only refreshed; --quick stops
after the times.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from sklearn.metrics import r2_score

from mobclip_assets.build import build_defs
from mobclip_assets.jobs import make_jobs
from mobclip_assets.refreshing import RETRAINED
from mobclip_core.demo.generate import generate_demo
from mobclip_core.deployment import Deployment
from mobclip_core.evaluation.units import unit_sets
from mobclip_core.profile import profile_path
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of
from tests.benchmarks._report import report
from tests.benchmarks.inductive import LEAST_SPREAD, predictions_of
from tests.building import multiply_census


def materialize(profile: Path, *options: str) -> float:
    """Seconds of `mobclip materialize`, from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "mobclip_assets.cli", "materialize", "--profile", str(profile), *options]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return time.perf_counter() - began


def selected(*names: str) -> list[str]:
    """Options that select assets."""
    return [part for name in names for part in ("--select", name)]


def refreshed(profile: Path) -> list[str]:
    """Assets of the job `refresh_region`."""
    [job] = [job for job in make_jobs() if job.name == "refresh_region"]
    graph = build_defs(str(profile)).resolve_asset_graph()
    return sorted(key.to_user_string() for key in job.selection.resolve(graph))


def median_region(deployment: Deployment) -> str:
    """The region in the middle by its number of cells."""
    keys = deployment.profile.regions.region_keys
    cells = {key: deployment.store.read(TableRef("grid_cells", key), ["cell"]).num_rows for key in keys}
    return sorted(keys, key=lambda key: cells[key])[len(keys) // 2]


def score(deployment: Deployment, region: str) -> float:
    """Mean R2 on the region's units, over the tasks whose labels vary there."""
    store, keys = deployment.store, deployment.profile.regions.region_keys
    grid = store.read_all("grid_cells", ["cell", "region"], keys).sort_by("cell")
    inside = np.array(grid["region"].to_pylist()) == region
    vectors = matrix_of(store.read_all("embeddings", ["cell", "vector"], keys).sort_by("cell")["vector"])
    scores = []
    for units in unit_sets(store.read(TableRef("geobench_labels")), grid["cell"].to_numpy()):
        found = predictions_of(units, inside, {"vectors": vectors}, deployment.profile.evaluation.block_resolution)
        if found is None:
            continue
        for i in range(len(units.tasks)):
            truth = found["truth"][:, i]
            if truth.std() >= LEAST_SPREAD * units.targets[:, i].std():
                scores.append(r2_score(truth, found["vectors"][:, i]))
    return float(np.mean(scores))


def demo_profile(folder: Path) -> Path:
    """The demo's profile with raw files and a lake of its own."""
    generate_demo(folder / "world")
    text = profile_path("demo").read_text().replace("${MOBCLIP_DEMO_DATA:-../demo_data}", str(folder / "world"))
    path = folder / "demo.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(text) | {"storage": str(folder / "lake")}))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    os.environ["DAGSTER_HOME"] = str(folder)
    return path


def compare(profile: Path, region: str | None, full: float | None, quick: bool) -> None:
    """Build, refresh, train again; print the line."""
    full = full or materialize(profile, "--force")
    deployment = Deployment.open(str(profile))
    region = region or median_region(deployment)
    if not quick:
        multiply_census(deployment, {region: 1.05})
    seconds = materialize(profile, "--region", region, "--force", *selected(*refreshed(profile)))
    scores = {}
    if not quick:
        scores["refreshed"] = score(deployment, region)
        materialize(profile, "--force", *selected(*(name for name in RETRAINED if name != "encoder_variants")))
        materialize(profile, "--force", *selected("embeddings"))
        scores["retrained"] = score(deployment, region)
    report(
        "refresh",
        seconds,
        "s",
        n=deployment.store.read(TableRef("grid_cells", region), ["cell"]).num_rows,
        baseline=full,
        # full over one region: the bigger, the better
        ratio=full / seconds,
        profile=deployment.profile.name,
        region=region,
        scores=scores,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--region")
    parser.add_argument("--full-seconds", type=float, help="what a full build of that lake took on this machine")
    parser.add_argument("--quick", action="store_true", help="times alone")
    options = parser.parse_args()
    if options.profile != "demo":
        compare(profile_path(options.profile), options.region, options.full_seconds, quick=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(demo_profile(Path(folder)), options.region, None, options.quick)


if __name__ == "__main__":
    main()
