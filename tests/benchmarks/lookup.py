"""Asking 205,000 cells: a million points, 3,000 polygons, the ten places most like one. One line each.

    python -m tests.benchmarks.lookup [--points 1000000] [--polygons 3000] [--lake usa]

Generated vectors of 128 numbers on a disk of H3 cells of resolution 6; the polygons are the Voronoi cells of random
points, irregular as counties. Baselines: h3-py and a dictionary, a point at a time (on 20,000 points); the intersection
of every polygon with every cell that its bounds meet (on 100 polygons); scikit-learn's exact nearest neighbours.
"""

import argparse
import time

import h3.api.numpy_int as h3
import numpy as np
import shapely
from sklearn.neighbors import NearestNeighbors

from mobclip_core import serving
from mobclip_core.serving import Places
from tests.benchmarks._report import median_seconds, report
from tests.places import make_places


def points(places: Places, number: int) -> None:
    """Lookup by longitude and latitude."""
    random = np.random.default_rng(0)
    lon = random.uniform(places.lon.min(), places.lon.max(), number)
    lat = random.uniform(places.lat.min(), places.lat.max(), number)
    seconds = median_seconds(lambda: places.lookup(lon=lon, lat=lat), 5)
    row = {int(cell): i for i, cell in enumerate(places.cells)}
    few = min(20_000, number)

    nothing = np.full(places.dimensions, np.nan, dtype=np.float32)

    def plain() -> np.ndarray:
        found = [row.get(int(h3.latlng_to_cell(lat[i], lon[i], 6))) for i in range(few)]
        return np.stack([nothing if i is None else places.vectors[i] for i in found])

    baseline = few / median_seconds(plain, 3)
    report("lookup", number / seconds, "points/s", n=number, baseline=baseline, seconds=seconds)


def counties(places: Places, number: int) -> None:
    """Means of polygons, with the index of the cells made anew."""
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
    tree = shapely.STRtree(cells)

    def plain() -> np.ndarray:
        means = []
        for polygon in few:
            near = tree.query(polygon)
            inside = shapely.area(shapely.intersection(polygon, cells[near])) / shapely.area(cells[near])
            weight = np.minimum(inside, places.coverage[near]) * places.area_km2[near]
            means.append(weight @ places.vectors[near] / max(weight.sum(), 1e-300))
        return np.array(means)

    baseline = len(few) / median_seconds(plain, 3)
    report(
        "aggregate",
        len(polygons) / first,
        "polygons/s",
        n=len(polygons),
        baseline=baseline,
        seconds=first,
        seconds_again=again,
        pairs=int(answers.cell_count.sum()),
    )


def alike(places: Places) -> None:
    """The ten cells most like one."""
    places.similar(cell=int(places.cells[0]))
    chosen = [int(cell) for cell in places.cells[:: len(places) // 20]]
    seconds = median_seconds(lambda: [places.similar(cell=cell) for cell in chosen], 3) / len(chosen)
    known = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(places.vectors)
    rows = places.rows_of(np.array(chosen[:5], dtype=np.uint64))
    baseline = median_seconds(lambda: [known.kneighbors(places.vectors[[row]]) for row in rows], 3) / 5
    report("similar", 1 / seconds, "questions/s", n=len(places), baseline=1 / baseline, milliseconds=1000 * seconds)


def about_alike(places: Places) -> None:
    """The same by the approximate index; the baseline is the exact search. Generated vectors are the worst case."""
    began = time.perf_counter()
    index = serving.LikenessIndex.of(places)
    build = time.perf_counter() - began
    chosen = [int(cell) for cell in places.cells[:: len(places) // 200]]
    exact, near = ([places.similar(cell=cell, index=by).cells for cell in chosen] for by in (None, index))
    recall = float(np.mean([np.isin(found, wanted).mean() for found, wanted in zip(near, exact, strict=True)]))
    times = [
        median_seconds(lambda by=by: [places.similar(cell=cell, index=by) for cell in chosen], 3) / len(chosen)
        for by in (index, None)
    ]
    report(
        "similar_by_index",
        1 / times[0],
        "questions/s",
        n=len(places),
        baseline=1 / times[1],
        milliseconds=1000 * times[0],
        recall_at_10=recall,
        build_seconds=build,
    )


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--polygons", type=int, default=3_000)
    parser.add_argument("--cells", type=int, default=205_000)
    parser.add_argument("--lake", help="a lake that is built, in place of generated places")
    options = parser.parse_args()
    if options.lake:
        places = serving.open(options.lake)
    else:
        places = make_places(lon=-98, lat=39, resolution=6, rings=round((options.cells / 3) ** 0.5), dimensions=128)
    points(places, options.points)
    counties(places, options.polygons)
    alike(places)
    about_alike(places)


if __name__ == "__main__":
    main()
