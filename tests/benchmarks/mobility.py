"""Visits to edges: a country's visits in bounded memory, against pandas with h3-py in a loop.

Visits are generated: people who live and work in two of some 200,000 cells and go elsewhere now and then, in eight
Parquet files in no order. Two sizes run, each in a process of its own: time and memory should grow with the rows, and
not, respectively. The baseline keeps all rows in memory, so it runs on a part of them.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from h3ronpy.vector import cells_to_coordinates

from mobclip_core.bulk_cells import cells_of_points
from mobclip_core.mobility.movements import build_movements
from mobclip_core.store import TableRef
from tests import lake as lakes
from tests.benchmarks._report import report

FILES = 8
VISITS_PER_PERSON = 100
DAYS = 30
MINIMUM_PEOPLE = 5
REGION_DEGREES = (6, 4)
"""48 regions of 6 x 4 degrees, about 36 km2 a cell."""
WEST, SOUTH, COLUMNS, ROWS = -120.0, 28.0, 8, 6
_CHUNK = 2_000_000


def write_grid(folder: Path) -> None:
    """The cells of 48 rectangles."""
    regions = [f"r{i:02d}" for i in range(COLUMNS * ROWS)]
    lake = _lake(folder)
    width, height = REGION_DEGREES
    lon, lat = np.meshgrid(np.arange(WEST, WEST + COLUMNS * width, 0.02), np.arange(SOUTH, SOUTH + ROWS * height, 0.02))
    cells = np.unique(cells_of_points(lon.ravel(), lat.ravel(), lakes.RESOLUTION))
    places = cells_to_coordinates(cells)
    centres = np.c_[np.asarray(places["lng"]), np.asarray(places["lat"])]
    column = np.clip((centres[:, 0] - WEST) // width, 0, COLUMNS - 1).astype(int)
    row = np.clip((centres[:, 1] - SOUTH) // height, 0, ROWS - 1).astype(int)
    owner = row * COLUMNS + column
    for i, region in enumerate(regions):
        mine, middles = cells[owner == i], centres[owner == i]
        table = pa.table(
            {
                "cell": mine,
                "region": pa.array([region] * len(mine), pa.string()),
                "lon": middles[:, 0],
                "lat": middles[:, 1],
                "area_km2": np.full(len(mine), 36.0),
                "coverage": np.ones(len(mine)),
            }
        )
        lake.store.write(TableRef("grid_cells", region), table)


def write_visits(folder: Path, visits: int) -> None:
    """Eight files of visits."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_write_file, [folder] * FILES, [visits] * FILES, range(FILES)))


def _write_file(folder: Path, visits: int, file: int) -> None:
    rng = np.random.default_rng(visits)
    people = max(visits // VISITS_PER_PERSON, 1)
    width, height = REGION_DEGREES[0] * COLUMNS, REGION_DEGREES[1] * ROWS
    # people crowd in towns, whose sizes differ as those of towns do
    towns = np.c_[rng.uniform(WEST, WEST + width, 3000), rng.uniform(SOUTH, SOUTH + height, 3000)]
    size = 1 / np.arange(1, 3001)
    home = (towns[rng.choice(3000, people, p=size / size.sum())] + rng.normal(0, 0.3, (people, 2))).astype(np.float32)
    work = (home + rng.normal(0, 0.15, (people, 2))).astype(np.float32)
    # the people are those of every file, their visits are not
    rng = np.random.default_rng([visits, file])
    with pq.ParquetWriter(folder / f"visits_{file}.parquet", _SCHEMA) as writer:
        left = visits // FILES
        while left:
            n = min(left, _CHUNK)
            writer.write_table(_some_visits(rng, home, work, n))
            left -= n


_SCHEMA = pa.schema(
    [("person", pa.int64()), ("time", pa.timestamp("us")), ("lon", pa.float64()), ("lat", pa.float64())]
)


def _some_visits(rng: np.random.Generator, home: np.ndarray, work: np.ndarray, n: int) -> pa.Table:
    person = rng.integers(0, len(home), n)
    seconds = rng.integers(0, DAYS * 86_400, n)
    place = rng.random(n)
    at = np.where((place < 0.45)[:, None], home[person], work[person]).astype(float)
    elsewhere = place > 0.8
    at[elsewhere] += rng.normal(0, 0.2, (int(elsewhere.sum()), 2))
    times = pa.array(seconds * 1_000_000, pa.int64()).cast(pa.timestamp("us"))
    return pa.table([pa.array(person), times, pa.array(at[:, 0]), pa.array(at[:, 1])], schema=_SCHEMA)


def _lake(folder: Path) -> lakes.Deployment:
    source = {"kind": "visits", "file": f"{folder}/visits_*.parquet"}
    source |= {"person": "person", "time": "time", "lon": "lon", "lat": "lat"}
    return lakes.deployment(
        folder,
        [f"r{i:02d}" for i in range(COLUMNS * ROWS)],
        mobility={"sources": {"visits": source}, "minimum_people": MINIMUM_PEOPLE},
        duckdb={"memory_limit": "2GB", "threads": 2, "spill_directory": str(folder)},
    )


def child(folder: Path) -> None:
    """Make the edges and print what it took."""
    lake = _lake(folder)
    started, worked = time.perf_counter(), time.process_time()
    counts = build_movements(lake).counts
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    edges = int(counts["visits_edges"]) + int(counts["visits_below_k_edges"]) + int(counts["visits_self_loop_edges"])
    found = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mib": peak,
        "edges": edges,
        "movements": counts["visits_movements_kept"],
    }
    print(json.dumps(found))


def measured(visits: int) -> dict[str, float]:
    """Generate visits and make their edges, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mobility-benchmark-") as folder:
        for step in ("generate", "measure"):
            command = [sys.executable, "-m", "tests.benchmarks.mobility", "--child", step, folder, str(visits)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def loop(visits: int) -> float:
    """Rows a second of pandas with h3-py in a loop, all in memory."""
    folder = Path(tempfile.mkdtemp(prefix="mobility-benchmark-"))
    try:
        write_visits(folder, visits)
        started = time.perf_counter()
        frame = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("visits_*.parquet"))])
        places = zip(frame["lat"], frame["lon"], strict=True)
        frame["src"] = [h3.latlng_to_cell(lat, lon, lakes.RESOLUTION) for lat, lon in places]
        frame = frame.drop_duplicates(["person", "time", "src"]).sort_values(["person", "time", "src"])
        following = frame.groupby("person")[["time", "src"]].shift(-1)
        frame["dst"] = following["src"]
        frame = frame[(following["time"] - frame["time"]) <= pd.Timedelta(hours=24)]
        edges = frame.groupby(["src", "dst"])["person"].agg(["size", "nunique"])
        edges = edges[(edges["nunique"] >= MINIMUM_PEOPLE)]
        return visits / (time.perf_counter() - started)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=3, metavar=("STEP", "FOLDER", "VISITS"))
    arguments = parser.parse_args()
    if arguments.child:
        step, folder, visits = arguments.child
        if step == "generate":
            write_grid(Path(folder))
            write_visits(Path(folder), int(visits))
        else:
            child(Path(folder))
        return
    few, many = (200_000, 2_000_000) if arguments.quick else (20_000_000, 200_000_000)
    small, large = measured(few), measured(many)
    report(
        "mobility",
        many / large["seconds"],
        "visits/s",
        n=many,
        baseline=loop(200_000 if arguments.quick else 2_000_000),
        peak_mib=large["peak_mib"],
        seconds=large["seconds"],
        cpu_seconds=large["cpu_seconds"],
        edges=large["edges"],
        movements=large["movements"],
        small_n=few,
        small_seconds=small["seconds"],
        small_cpu_seconds=small["cpu_seconds"],
        small_peak_mib=small["peak_mib"],
        time_per_row_ratio=(large["seconds"] / many) / (small["seconds"] / few),
        # on a busy machine the time of the processor says more than the clock
        cpu_per_row_ratio=(large["cpu_seconds"] / many) / (small["cpu_seconds"] / few),
        peak_ratio=large["peak_mib"] / small["peak_mib"],
    )


if __name__ == "__main__":
    main()
