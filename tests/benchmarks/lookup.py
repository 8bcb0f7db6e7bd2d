"""Asking 205,000 cells for the vectors of a million points.

    python -m tests.benchmarks.lookup [--points 1000000] [--cells 205000] [--lake usa] [--quick]

Generated vectors of 128 numbers on a disk of H3 cells of resolution 6, unless a lake is named. The baseline is h3-py
and a dictionary, a point at a time, on 20,000 points.
"""

import h3.api.numpy_int as h3
import numpy as np

from tests.benchmarks._report import median_seconds, report
from tests.benchmarks._serving import options_and_places


def main() -> None:
    """Measure and print."""
    options, places = options_and_places(__doc__, points=1_000_000)
    number = options.points
    random = np.random.default_rng(0)
    lon = random.uniform(places.lon.min(), places.lon.max(), number)
    lat = random.uniform(places.lat.min(), places.lat.max(), number)
    seconds = median_seconds(lambda: places.lookup(lon=lon, lat=lat), 5)
    row = {int(cell): i for i, cell in enumerate(places.cells)}
    few = min(20_000, number)

    nothing = np.full(places.dimensions, np.nan, dtype=np.float32)

    def plain() -> np.ndarray:
        found = [row.get(int(h3.latlng_to_cell(lat[i], lon[i], places.resolution))) for i in range(few)]
        return np.stack([nothing if i is None else places.vectors[i] for i in found])

    baseline = few / median_seconds(plain, 3)
    report("lookup", number / seconds, "points/s", n=number, baseline=baseline, seconds=seconds)


if __name__ == "__main__":
    main()
