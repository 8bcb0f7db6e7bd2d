"""The step that makes `census_features`, and its checks.

Belongs here: people of any source as a table, small groups hidden, totals proved. Does not belong here: reading a
source (see `zones` and `rasters`).
"""

import numpy as np
import pyarrow as pa

from mobclip_core.census.people import People
from mobclip_core.census.rasters import people_of_rasters, totals_of_rasters
from mobclip_core.census.zones import people_of_zones, totals_of_zones
from mobclip_core.contracts import CENSUS_FEATURES
from mobclip_core.deployment import CheckOutcome, Count, Deployment, StepResult
from mobclip_core.plots import cell_map
from mobclip_core.profile import WorldPopCensus
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of, vector_column

TOTALS_TOLERANCE = 1e-6


def build_census_features(deployment: Deployment, region: str) -> StepResult:
    """Write `census_features[region]`: population, histogram and share of the cell with census data.

    Every grid cell has a row. A cell with fewer people than `census.minimum_people`, but not none, keeps its population
    and has zeros in its histogram.

    Counts: those of the source, `cells_with_census`, and of suppression `cells_suppressed` and `people_suppressed`.

    Raises:
        SourceError: As `people_of_zones` and `people_of_rasters`.
        MissingTableError: `grid_cells[region]`, or for a census by zone `zone_cells[region]`, is not materialised.
    """
    minimum = deployment.profile.census.minimum_people
    everybody, counts = _people(deployment, region)
    people, few = everybody.suppressed(minimum), everybody.few(minimum)
    counts |= {
        "cells_with_census": int((people.share > 0).sum()),
        "cells_suppressed": int(few.sum()),
        "people_suppressed": float(people.population[few].sum()),
    }
    table = pa.table(
        {
            "cell": pa.array(people.cells, pa.uint64()),
            "population": pa.array(people.population, pa.float64()),
            "histogram": vector_column(people.histogram),
            "zone_share": pa.array(people.share, pa.float64()),
        }
    )
    written = deployment.store.write(TableRef(CENSUS_FEATURES.name, region), table)
    return StepResult(written, counts, _pictures(region, people))


def _people(deployment: Deployment, region: str) -> tuple[People, dict[str, Count]]:
    config = deployment.profile.census
    if isinstance(config, WorldPopCensus):
        return people_of_rasters(deployment, config, region)
    return people_of_zones(deployment, config, region)


def _pictures(region: str, people: People) -> dict[str, bytes]:
    if not len(people.cells):
        return {}
    # cells without people are drawn as cells without a value
    shown = np.log10(np.where(people.population > 0, people.population, np.nan))
    return {"Population": cell_map(people.cells, shown, f"{region}: people", "log10 of people a cell")}


def check_census_totals(deployment: Deployment, region: str) -> CheckOutcome:
    """Whether the people in the region's cells add up to those of its source: population and every bin.

    The totals are taken from the source again: those of the region's zones, without the crosswalk's weights; or those
    of the rasters over the one polygon that the region's cells make together. People of suppressed histograms are
    worked out anew and added to the cells' totals.

    Returns:
        Passed when every total agrees within 1e-6 relative. Numbers: `population_source`, `population_cells`,
        `people_in_suppressed_bins`, `largest_relative_error` (over population and bins), `bins`, `tolerance`.

    Raises:
        SourceError, MissingTableError: As `build_census_features`.
    """
    config = deployment.profile.census
    if isinstance(config, WorldPopCensus):
        source = totals_of_rasters(deployment, config, region)
    else:
        source = totals_of_zones(deployment, config, region)
    bins = len(source) - 1
    features = deployment.store.read(TableRef(CENSUS_FEATURES.name, region), ["population", "histogram"])
    suppressed = np.zeros(bins)
    if config.minimum_people > 0:
        everybody, _ = _people(deployment, region)
        suppressed = everybody.histogram[everybody.few(config.minimum_people)].sum(axis=0)
    in_bins = matrix_of(features.column("histogram")).sum(axis=0) + suppressed
    cells = np.concatenate([[features.column("population").to_numpy().sum()], in_bins])
    error = np.abs(cells - source) / np.maximum(source, 1.0)
    worst = int(error.argmax())
    name = "population" if worst == 0 else f"bin {worst - 1} ({config.bin_names(bins)[worst - 1]})"
    numbers: dict[str, Count] = {
        "population_source": float(source[0]),
        "population_cells": float(cells[0]),
        "people_in_suppressed_bins": float(suppressed.sum()),
        "largest_relative_error": float(error[worst]),
        "bins": bins,
        "tolerance": TOTALS_TOLERANCE,
    }
    passed = bool(error[worst] <= TOTALS_TOLERANCE)
    verb = "equal" if passed else "differ from"
    message = (
        f"census totals of {region} {verb} the source's; the largest relative error is {error[worst]:.1e}, in {name}"
    )
    return CheckOutcome(passed, message, numbers)


def check_minimum_people(deployment: Deployment, region: str) -> CheckOutcome:
    """Whether no cell with fewer people than `census.minimum_people`, but not none, shows a histogram.

    Returns:
        Numbers: `minimum_people`, `cells_with_few_people`, `violations`.

    Raises:
        MissingTableError: `census_features[region]` is not materialised.
    """
    minimum = deployment.profile.census.minimum_people
    features = deployment.store.read(TableRef(CENSUS_FEATURES.name, region), ["cell", "population", "histogram"])
    population, cells = features.column("population").to_numpy(), features.column("cell").to_numpy()
    few = (population > 0) & (population < minimum)
    shown = few & (matrix_of(features.column("histogram")) != 0).any(axis=1)
    numbers: dict[str, Count] = {
        "minimum_people": minimum,
        "cells_with_few_people": int(few.sum()),
        "violations": int(shown.sum()),
    }
    examples = ", ".join(f"{cell:x}" for cell in cells[shown][:5])
    message = (
        f"{int(shown.sum())} cells with fewer than {minimum:g} people show a histogram: {examples}"
        if shown.any()
        else f"no cell with fewer than {minimum:g} people shows a histogram"
    )
    return CheckOutcome(not shown.any(), message, numbers)
