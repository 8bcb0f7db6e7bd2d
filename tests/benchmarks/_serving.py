"""What the benchmarks of using the vectors ask: 205,000 generated places, or a lake.

Belongs here: the places and the options that choose them. Does not belong here: what is measured.
"""

import argparse

from mobclip_core import serving
from tests.places import make_places


def options_and_places(description: str | None, **numbers: int) -> tuple[argparse.Namespace, serving.Places]:
    """The options of the command line, and the places.

    Args:
        description: Of the benchmark.
        numbers: Options that are numbers, with their defaults (`cells` is one anyway); a tenth of each with `--quick`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"cells": 205_000, **numbers}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lake", help="a lake that is built, in place of generated places")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    if options.quick:
        for name in numbers:
            setattr(options, name, getattr(options, name) // 10)
    if options.lake:
        return options, serving.open(options.lake)
    # a disk of k rings has 3 k (k + 1) + 1 cells
    rings = round((options.cells / 3) ** 0.5)
    return options, make_places(lon=-98, lat=39, resolution=6, rings=rings, dimensions=128)
