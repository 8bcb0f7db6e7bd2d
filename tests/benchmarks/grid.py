"""Cells with their regions, against h3-py's polyfill and a loop over cells and regions.

Regions are generated: squares of two degrees that share borders. The floor is h3ronpy's bare polyfill of the squares,
without saying which region a cell on a border belongs to.
"""

import argparse

import h3
import numpy as np
import shapely
from h3ronpy import ContainmentMode
from h3ronpy.vector import wkb_to_cells

from mobclip_core.grid import region_cells
from tests.benchmarks._report import median_seconds, report

RESOLUTION = 6


def squares(side: int) -> dict[str, shapely.Polygon]:
    """side x side squares of 2 degrees from 90 W 35 N."""
    return {
        f"{i}_{j}": shapely.box(-90 + 2 * i, 35 + 2 * j, -88 + 2 * i, 37 + 2 * j)
        for i in range(side)
        for j in range(side)
    }


def ours(regions: dict[str, shapely.Polygon]) -> list[np.ndarray]:
    """Cells of every region."""
    return [region_cells(regions, region, RESOLUTION, 0.5)[0] for region in regions]


def loop(regions: dict[str, shapely.Polygon]) -> dict[str, str]:
    """Cell -> region with h3-py, shapely and Python loops: the largest share wins."""
    owners: dict[str, tuple[float, str]] = {}
    for name, polygon in regions.items():
        for cell in h3.h3shape_to_cells_experimental(h3.geo_to_h3shape(polygon), RESOLUTION, contain="overlap"):
            outline = shapely.Polygon([(lon, lat) for lat, lon in h3.cell_to_boundary(cell)])
            share = outline.intersection(polygon).area / outline.area
            if share > owners.get(cell, (0.0, ""))[0]:
                owners[cell] = (share, name)
    return {cell: name for cell, (_, name) in owners.items()}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    side = 3 if parser.parse_args().quick else 8
    regions = squares(side)
    cells = sum(len(found) for found in ours(regions))
    seconds = median_seconds(lambda: ours(regions), 3)
    small = squares(2)
    few = len(loop(small))
    baseline = few / median_seconds(lambda: loop(small), 1)
    outlines = shapely.to_wkb(np.array(list(regions.values())))
    floor = median_seconds(
        lambda: [wkb_to_cells([o], RESOLUTION, containment_mode=ContainmentMode.ContainsCentroid) for o in outlines], 3
    )
    report("grid", cells / seconds, "cells/s", n=cells, baseline=baseline, floor_ratio=seconds / floor)


if __name__ == "__main__":
    main()
