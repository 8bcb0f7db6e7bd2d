"""Cells with their regions, against h3-py's polyfill and a loop over cells and regions.

Regions are the 48 contiguous states of the United States where the real data are (the folder that MOBCLIP_DATA names,
or `../shared/data` beside the repository); else they are generated: squares of two degrees that share borders. The
baseline is measured on a few small ones. The floor is h3ronpy's bare polyfill of the regions, without saying which
region a cell on a border belongs to.
"""

import argparse
import os
from pathlib import Path

import h3
import numpy as np
import shapely
from h3ronpy import ContainmentMode
from h3ronpy.vector import wkb_to_cells

from mobclip_core.grid import region_cells
from mobclip_core.sources.polygons import read_polygons
from tests.benchmarks._report import median_seconds, report

RESOLUTION = 6
DATA = Path(os.environ.get("MOBCLIP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
STATES = DATA / "usa" / "states.parquet"
NEW_ENGLAND = ("09", "23", "25", "33", "44", "50")
SMALL = ("09", "25", "44")


def states(keys: tuple[str, ...] = ()) -> dict[str, shapely.Geometry]:
    """The states of the file, or some of them, by key."""
    frame, _ = read_polygons(str(STATES), "state", ids=keys or None)
    return dict(zip(frame["id"], frame.geometry, strict=True))


def squares(side: int) -> dict[str, shapely.Geometry]:
    """side x side squares of 2 degrees from 90 W 35 N."""
    return {
        f"{i}_{j}": shapely.box(-90 + 2 * i, 35 + 2 * j, -88 + 2 * i, 37 + 2 * j)
        for i in range(side)
        for j in range(side)
    }


def ours(regions: dict[str, shapely.Geometry]) -> list[np.ndarray]:
    """Cells of every region."""
    return [region_cells(regions, region, RESOLUTION, 0.5)[0] for region in regions]


def loop(regions: dict[str, shapely.Geometry]) -> dict[str, str]:
    """Cell -> region with h3-py, shapely and Python loops: the largest share wins."""
    owners: dict[str, tuple[float, str]] = {}
    for name, polygon in regions.items():
        shape = h3.geo_to_h3shape(polygon)
        for cell in h3.h3shape_to_cells_experimental(shape, RESOLUTION, contain="overlap"):
            outline = shapely.Polygon([(lon, lat) for lat, lon in h3.cell_to_boundary(cell)])
            share = outline.intersection(polygon).area / outline.area
            if share > owners.get(cell, (0.0, ""))[0]:
                owners[cell] = (share, name)
    return {cell: name for cell, (_, name) in owners.items()}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    if STATES.is_file():
        regions, small = states(NEW_ENGLAND if quick else ()), states(SMALL)
    else:
        regions, small = squares(3 if quick else 8), squares(2)
    cells = sum(len(found) for found in ours(regions))
    seconds = median_seconds(lambda: ours(regions), 3)
    few = len(loop(small))
    baseline = few / median_seconds(lambda: loop(small), 1)
    outlines = shapely.to_wkb(np.array(list(regions.values())))
    floor = median_seconds(
        lambda: [wkb_to_cells([o], RESOLUTION, containment_mode=ContainmentMode.ContainsCentroid) for o in outlines], 3
    )
    report(
        "grid",
        cells / seconds,
        "cells/s",
        n=cells,
        baseline=baseline,
        floor_ratio=seconds / floor,
        seconds=seconds,
        regions=len(regions),
        data="states" if STATES.is_file() else "generated",
    )


if __name__ == "__main__":
    main()
