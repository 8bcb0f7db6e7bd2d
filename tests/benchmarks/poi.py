"""Points to counts by cell and category through the step that makes `poi_points`, against pandas and h3-py in a loop.

Points are generated: 40 categories, clustered around cities of very different size over a country of 48 regions and
some 200,000 cells. The floor is what cannot be left out: scanning longitudes and latitudes of the Parquet file and
converting them to H3 with the fastest library, h3ronpy, on as many threads.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from h3ronpy import ContainmentMode
from h3ronpy.vector import coordinates_to_cells, wkb_to_cells

from mobclip_core.bulk_cells import BATCH_ROWS
from mobclip_core.deployment import Deployment
from mobclip_core.grid import cell_centres
from mobclip_core.poi_points import build_poi_points
from mobclip_core.profile import Profile
from mobclip_core.store import Store, TableRef
from mobclip_core.workers import ordered_map
from tests.benchmarks._report import report

RESOLUTION, THREADS, CATEGORIES = 6, 2, 40
WEST, SOUTH, EAST, NORTH = -120, 30, -80, 45
COLUMNS, ROWS = 8, 6
CHUNK = 1_000_000


def generate(path: Path, points: int) -> None:
    """Write points: nine of ten around one of 2,000 cities, the rest anywhere."""
    rng = np.random.default_rng(0)
    cities = rng.uniform((WEST + 1, SOUTH + 1), (EAST - 1, NORTH - 1), (2000, 2))
    size, popularity = 1 / np.arange(1, 2001) ** 0.8, 1 / np.arange(1, CATEGORIES + 1)
    names = pa.array([f"category_{i:02d}" for i in range(CATEGORIES)])
    schema = pa.schema([("lon", pa.float64()), ("lat", pa.float64()), ("category", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, points, CHUNK):
            rows = min(CHUNK, points - start)
            spread = np.where(rng.random(rows) < 0.7, 0.15, 0.8)[:, None]
            places = cities[rng.choice(2000, rows, p=size / size.sum())] + rng.standard_normal((rows, 2)) * spread
            anywhere = rng.random(rows) < 0.1
            places[anywhere] = rng.uniform((WEST, SOUTH), (EAST, NORTH), (int(anywhere.sum()), 2))
            category = rng.choice(CATEGORIES, rows, p=popularity / popularity.sum()).astype(np.int32)
            text = pa.DictionaryArray.from_arrays(category, names).cast(pa.string())
            writer.write_table(pa.table([*np.round(places, 7).T, text], schema=schema), row_group_size=CHUNK // 4)


def country(folder: Path, points: Path) -> Deployment:
    """A deployment whose regions are blocks of a rectangle, with the grids in its lake."""
    keys = [f"r{i:02d}" for i in range(COLUMNS * ROWS)]
    profile = Profile.model_validate(
        {
            "name": "benchmark",
            "regions": {"file": "regions.parquet", "key_column": "region", "keys": keys},
            "grid": {"resolution": RESOLUTION},
            "zones": {"tracts": {"file": "tracts.parquet", "id_column": "geoid"}},
            "census": {
                "zones": "tracts",
                "file": "census.parquet",
                "id_column": "geoid",
                "population": "people",
                "histogram": [{"column": "people"}],
            },
            "poi": {
                # two of the categories are not the profile's
                "categories": [f"category_{i:02d}" for i in range(CATEGORIES - 2)],
                "points": {
                    "generated": {"file": str(points), "lon": "lon", "lat": "lat", "category_column": "category"}
                },
            },
            "imagery": {"file": "image.tif"},
            "duckdb": {"memory_limit": "2GB", "threads": THREADS, "spill_directory": str(folder)},
        }
    )
    deployment = Deployment(profile, Store(str(folder / "lake")))
    box = pa.array([shapely.to_wkb(shapely.box(WEST, SOUTH, EAST, NORTH))], pa.binary())
    found = wkb_to_cells(box, RESOLUTION, containment_mode=ContainmentMode.ContainsCentroid, flatten=True)
    cells = np.unique(np.asarray(found, dtype=np.uint64))
    lon, lat = cell_centres(cells)
    column = ((lon - WEST) / (EAST - WEST) * COLUMNS).astype(int).clip(0, COLUMNS - 1)
    row = ((lat - SOUTH) / (NORTH - SOUTH) * ROWS).astype(int).clip(0, ROWS - 1)
    for i, key in enumerate(keys):
        here = column * ROWS + row == i
        number = int(here.sum())
        table = pa.table(
            {
                "cell": cells[here],
                "region": pa.array([key] * number, pa.string()),
                "lon": lon[here],
                "lat": lat[here],
                "area_km2": np.full(number, 36.0),
                "coverage": np.ones(number),
            }
        )
        deployment.store.write(TableRef("grid_cells", key), table)
    return deployment


def seconds_of(work: Callable[[], object]) -> np.ndarray:
    """Wall and processor seconds of a call."""
    started = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - started[0], time.process_time() - started[1]])


def floor(path: Path) -> None:
    """Scan the positions and convert them."""
    batches = pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=["lon", "lat"])
    for _ in ordered_map(
        lambda b: coordinates_to_cells(b["lat"].to_numpy(), b["lon"].to_numpy(), RESOLUTION),
        batches,
        THREADS,
        in_flight=2 * THREADS,
    ):
        pass


def baseline(path: Path, rows: int) -> float:
    """Rows a second of pandas with h3-py in a loop."""
    file = pq.ParquetFile(path)
    groups = range(-(-rows // file.metadata.row_group(0).num_rows))
    started = time.perf_counter()
    frame = file.read_row_groups(list(groups)).to_pandas()
    frame["cell"] = [
        h3.latlng_to_cell(lat, lon, RESOLUTION) for lat, lon in zip(frame["lat"], frame["lon"], strict=True)
    ]
    counts: pd.Series = frame.groupby(["cell", "category"]).size()
    seconds = time.perf_counter() - started
    assert counts.sum() == len(frame)
    return len(frame) / seconds


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--points", type=int, help="number of points")
    parser.add_argument("--generate", type=Path, help="only write the points to this file")
    parser.add_argument("--folder", type=Path, help="where to put some 2 GB of temporary files")
    arguments = parser.parse_args()
    points = arguments.points or (2_000_000 if arguments.quick else 100_000_000)
    if arguments.generate:
        generate(arguments.generate, points)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        path = Path(name) / "points.parquet"
        # in a process of its own, so that the peak is that of the work
        command = [sys.executable, "-m", "tests.benchmarks.poi", "--generate", str(path), "--points", str(points)]
        subprocess.run(command, check=True)
        deployment = country(Path(name), path)
        before = seconds_of(lambda: floor(path))
        results = []
        seconds, processor = seconds_of(lambda: results.append(build_poi_points(deployment)))
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        counts = results[0].counts
        assert counts["points_read"] == points
        # other programs come and go: the floor before and after
        least, least_processor = (before + seconds_of(lambda: floor(path))) / 2
        looped = baseline(path, 250_000 if arguments.quick else 2_000_000)
    report(
        "poi",
        points / seconds,
        "rows/s",
        n=points,
        baseline=looped,
        floor_ratio=seconds / least,
        peak_mib=peak_mib,
        seconds=seconds,
        processor_floor_ratio=processor / least_processor,
        points_inside=counts["points_inside"],
    )


if __name__ == "__main__":
    main()
