"""What the census sees: people by age and sex in each zone, estimated from a sample.

Belongs here: the attribute table and its gaps. Does not belong here: zone polygons (see `zoning`).
"""

import numpy as np
import pyarrow as pa

from mobclip_core.demo.world import World

AGES = [f"{low:02d}_{low + 4:02d}" for low in range(0, 95, 5)] + ["95_plus"]
BINS = [f"{sex}_{age}" for sex in ("m", "f") for age in AGES]
"""Columns of the histogram: 20 ages for men, then for women."""
MISSING = -999.0
EMPTY_ZONE = "ZZ8888"
"""Zone with an empty polygon."""
_SAMPLE = 0.04


def _log_pyramid() -> np.ndarray:
    """Log share of each bin in the whole country, shape (40,)."""
    age = 2.5 + 5 * np.arange(20)
    men = -((np.maximum(age - 45, 0) / 27) ** 2) - 0.05
    women = -((np.maximum(age - 47, 0) / 28) ** 2)
    return np.concatenate([men, women])


def age_shares(world: World, noise: np.random.Generator | None = None) -> np.ndarray:
    """Share of each bin at each zone, shape (zones, 40); with what is peculiar to a zone if `noise` is given."""
    factors = world.factors
    age = np.tile(2.5 + 5 * np.arange(20), 2)
    men = np.repeat([1.0, 0.0], 20)

    def between(low: float, high: float) -> np.ndarray:
        return ((age >= low) & (age < high)).astype(float)

    shapes = {
        "age": np.clip((age - 42) / 40, -1, 1.1) * 0.55,
        "urban": between(20, 35) * 0.18,
        "industry": between(20, 60) * men * 0.22,
        "wealth": between(75, 100) * 0.2 + between(5, 20) * 0.1,
    }
    log = np.tile(_log_pyramid(), (len(world.zoning.zones), 1))
    for name, shape in shapes.items():
        log += world.zone_means(getattr(factors, name))[:, None] * shape
    log += world.zone_means(factors.culture[0])[:, None] * between(0, 15) * 0.25
    if noise is not None:
        # barracks, dormitories, new estates: what happens to stand in a zone
        places = np.stack([between(18, 30), between(0, 12) + between(28, 42), between(70, 100), between(20, 60) * men])
        log += noise.normal(0, 0.28, (len(log), len(places))) @ places
    shares = np.exp(log)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def census_table(world: World) -> tuple[pa.Table, dict[str, int]]:
    """The attribute table: zone, population and 40 bins of people.

    Some zones have no row, some rows no polygon, some values are -999 or NaN.
    """
    rng = world.config.rng("census")
    zones = len(world.zoning.zones)
    people = world.zoning.sums(world.on_land(world.factors.people))
    population = np.round(people * np.exp(rng.normal(0, 0.12, zones)))
    sample = np.maximum(40, np.round(_SAMPLE * population)).astype(np.int64)
    drawn = rng.multinomial(sample, age_shares(world, rng))
    histogram = np.round(population[:, None] * drawn / sample[:, None])

    few = max(1, zones // 120)
    odd = rng.permutation(zones)
    absent, minus, nan, minus_bin = (odd[i * few : (i + 1) * few] for i in range(4))
    population = population.astype(float)
    population[minus], population[nan] = MISSING, np.nan
    histogram[minus_bin, rng.integers(0, len(BINS), few)] = MISSING
    histogram[minus] = MISSING
    keep = np.setdiff1d(np.arange(zones), absent)
    ghosts = max(1, zones // 200)
    names = np.concatenate([world.zoning.names[keep], [f"ZZ{i:04d}" for i in range(ghosts)]])
    # a zone whose polygon is empty (see `files`): its people cannot be placed
    names = np.append(names, EMPTY_ZONE)
    extra = ghosts + 1
    population = np.concatenate([population[keep], np.full(extra, 1_000.0)])
    histogram = np.vstack([histogram[keep], np.full((extra, len(BINS)), 25.0)])
    columns = {"zone": pa.array(names), "population": pa.array(population)}
    columns |= {name: pa.array(histogram[:, i]) for i, name in enumerate(BINS)}
    counts = {
        "census_rows": len(names),
        "census_rows_without_polygon": ghosts,
        "census_zones_without_row": few,
        "census_population_minus_999": few,
        "census_population_nan": few,
        "census_bins_minus_999": few,
    }
    return pa.table(columns), counts
