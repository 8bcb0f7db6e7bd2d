"""The mean vectors of 3,000 polygons over 205,000 cells, by area.

    python -m tests.benchmarks.aggregate [--polygons 3000] [--cells 205000] [--lake usa] [--quick]

The polygons are the Voronoi cells of random points, irregular as counties; the cells as in `lookup`. The baseline is
the intersection of every polygon with every cell that its bounds meet, one polygon at a time, in plane degrees, on 100
polygons. `seconds` is the first time; it and the baseline make an index of the cells anew.
"""

import time

import numpy as np
import shapely

from tests.benchmarks._report import median_seconds, report
from tests.benchmarks._serving import options_and_places


def main() -> None:
    """Measure and print."""
    options, places = options_and_places(__doc__, polygons=3_000)
    number = options.polygons
    random = np.random.default_rng(1)
    hull = shapely.convex_hull(shapely.multipoints(np.column_stack([places.lon, places.lat])))
    west, south, east, north = shapely.bounds(hull)
    seeds = np.column_stack([random.uniform(west, east, 2 * number), random.uniform(south, north, 2 * number)])
    voronoi = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(seeds)))
    polygons = shapely.intersection(voronoi, hull)
    polygons = random.permutation(polygons[shapely.area(polygons) > 0])[:number]
    began = time.perf_counter()
    answers = places.aggregate(polygons)
    first = time.perf_counter() - began
    again = median_seconds(lambda: places.aggregate(polygons), 3)
    few = polygons[:100]
    cells = places.polygons
    began = time.perf_counter()
    tree = shapely.STRtree(cells)
    indexing = time.perf_counter() - began

    def plain() -> np.ndarray:
        means = []
        for polygon in few:
            near = tree.query(polygon)
            inside = shapely.area(shapely.intersection(polygon, cells[near])) / shapely.area(cells[near])
            weight = np.minimum(inside, places.coverage[near]) * places.area_km2[near]
            means.append(weight @ places.vectors[near] / max(weight.sum(), 1e-300))
        return np.array(means)

    baseline = indexing + median_seconds(plain, 3) / len(few) * len(polygons)
    report(
        "aggregate",
        len(polygons) / first,
        "polygons/s",
        n=len(polygons),
        baseline=len(polygons) / baseline,
        seconds=first,
        seconds_again=again,
        pairs=int(answers.cell_count.sum()),
    )


if __name__ == "__main__":
    main()
