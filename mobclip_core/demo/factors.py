"""The hidden factors: what the country is really like, which no file states.

Belongs here: random fields over the lattice. Does not belong here: how a modality sees them, or labels.

Each factor mixes components of several ranges, and the middle one (some 14 km) carries most of the variance:
neighbouring cells are alike, so averaging over them takes noise away, while a spatial block is out of reach of its
coordinates.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from mobclip_core.demo.config import WorldConfig
from mobclip_core.demo.land import STEP_M, Land

RANGES_KM = {45.0: 0.30, 14.0: 0.90, 5.0: 0.15}
"""Standard deviation of the smoothing kernel in km -> weight of that component."""


@dataclass(frozen=True)
class Cities:
    """The cities, largest first. All arrays have shape (cities,).

    Args:
        x: UTM metres.
        y: UTM metres.
        size: Relative size; the largest has 1.
        radius_km: Reach; its statistics are about all within.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    radius_km: np.ndarray


@dataclass(frozen=True)
class Factors:
    """Hidden fields, each of the lattice's shape; standardised over land unless a unit is given.

    Args:
        elevation_m: Height in metres; 0 at sea.
        relief: Standardised height.
        moisture: Rain.
        farming: Share of land under the plough.
        people: People a lattice point (2 km x 2 km).
        urban: Log density of people.
        wealth: Income.
        age: How old people are.
        industry: Manufacturing against services.
        tourism: Visitors.
        nightlife: Bars, clubs, late hours.
        commerce: Shops beyond what the number of people explains.
        culture: Three communities people feel close to or not, shape (3, rows, columns).
    """

    elevation_m: np.ndarray
    relief: np.ndarray
    moisture: np.ndarray
    farming: np.ndarray
    people: np.ndarray
    urban: np.ndarray
    wealth: np.ndarray
    age: np.ndarray
    industry: np.ndarray
    tourism: np.ndarray
    nightlife: np.ndarray
    commerce: np.ndarray
    culture: np.ndarray

    @cached_property
    def forest(self) -> np.ndarray:
        """Fraction of land under trees."""
        return sigmoid(-0.2 + 0.9 * self.moisture + 0.5 * self.relief - 0.9 * self.farming - 0.5 * self.urban)


def sigmoid(value: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-value))."""
    return np.asarray(1.0 / (1.0 + np.exp(-value)))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], range_km: float, step_km: float) -> np.ndarray:
    """White noise smoothed by a Gaussian of the range given, of unit variance."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), range_km / step_km, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())


def standardised(field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The field with mean 0 and variance 1 over the mask."""
    return np.asarray((field - field[mask].mean()) / field[mask].std())


def mixed_noise(rng: np.random.Generator, land: Land, ranges_km: dict[float, float] | None = None) -> np.ndarray:
    """A standardised random field of several ranges."""
    ranges = RANGES_KM if ranges_km is None else ranges_km
    parts = [w * smooth_noise(rng, land.lattice.shape, r, STEP_M / 1_000) for r, w in ranges.items()]
    return standardised(np.sum(parts, axis=0), land.mask)


def _place_cities(config: WorldConfig, land: Land, suitability: np.ndarray) -> Cities:
    """Cities by rank and size, at suitable places, not too near to one another."""
    rng = config.rng("cities")
    x, y = land.lattice.positions()
    weight = np.where(land.mask, np.exp(suitability), 0).ravel()
    apart_m = 0.55 * np.sqrt(land.mask.sum() * STEP_M**2 / config.cities)
    chosen: list[int] = []
    while len(chosen) < config.cities:
        draw = int(rng.choice(len(weight), p=weight / weight.sum()))
        chosen.append(draw)
        near = np.hypot(x.ravel() - x.ravel()[draw], y.ravel() - y.ravel()[draw]) < apart_m
        weight[near] = 0
        if not weight.any():
            raise ValueError(f"{config.cities} cities do not fit on an island of {config.radius_km} km")
    size = (1 + np.arange(config.cities)) ** -0.75 * np.exp(rng.normal(0, 0.2, config.cities))
    return Cities(x.ravel()[chosen], y.ravel()[chosen], size, 9 + 7 * size**0.45)


def make_factors(config: WorldConfig, land: Land) -> tuple[Factors, Cities]:
    """Draw all hidden fields."""
    rng = config.rng("factors")
    mask, coast = land.mask, land.coast_km
    rise = 1 - np.exp(-coast / 12)

    height = mixed_noise(rng, land, {60.0: 0.35, 14.0: 0.85, 5.0: 0.15})
    elevation_m = np.where(mask, 420 * np.log1p(np.exp(1.3 * height + 0.2)) * rise, 0.0)
    relief = standardised(np.sqrt(elevation_m), mask)
    moisture = standardised(mixed_noise(rng, land) + 0.25 * relief, mask)
    farming = standardised(mixed_noise(rng, land) - 0.5 * relief + 0.2 * moisture, mask)

    seaside = np.exp(-coast / 10)
    cities = _place_cities(config, land, 0.8 * mixed_noise(rng, land) - 0.9 * relief + 0.8 * seaside)
    x, y = land.lattice.positions()
    rural = np.exp(0.9 * mixed_noise(rng, land) - 0.45 * relief + 0.25 * farming)
    town = np.zeros(mask.shape)
    for cx, cy, size in zip(cities.x, cities.y, cities.size, strict=True):
        core_m = 2_500 + 4_500 * size**0.45
        town += 80 * size**0.7 * np.exp(-np.hypot(x - cx, y - cy) / core_m)
    people = np.where(mask, rural + town, 0.0)
    people *= config.population / people.sum()
    urban = standardised(np.log(people + 1.0), mask)

    def own(share: float, rest: np.ndarray | float) -> np.ndarray:
        return standardised(share * mixed_noise(rng, land) + rest, mask)

    wealth = own(1.0, 0.2 * urban)
    industry = own(1.0, 0.15 * urban - 0.25 * wealth)
    tourism = own(1.0, 0.9 * seaside + 0.15 * relief - 0.2 * industry)
    nightlife = own(1.0, 0.3 * urban + 0.4 * tourism)
    commerce = own(1.0, 0.2 * urban + 0.2 * wealth)
    age = own(1.0, -0.3 * urban - 0.3 * industry)
    culture = np.stack([own(1.0, 0.0) for _ in range(3)])
    factors = Factors(
        elevation_m,
        relief,
        moisture,
        farming,
        people,
        urban,
        wealth,
        age,
        industry,
        tourism,
        nightlife,
        commerce,
        culture,
    )
    return factors, cities
