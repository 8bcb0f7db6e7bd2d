"""The truth to predict: the 11 labels of GeoBench.

Belongs here: labels, each from hidden factors and its own noise. Does not belong here: anything that a modality saw;
this module imports none of `poi`, `imagery`, `census`, `mobility`.
"""

from dataclasses import dataclass

import numpy as np

from mobclip_core.demo.factors import sigmoid, smooth_noise
from mobclip_core.demo.land import STEP_M, to_lon_lat, to_metres
from mobclip_core.demo.world import World

PIXEL_DEGREES = 0.01
NODATA = -9999.0
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class LabelRaster:
    """A one-band raster in EPSG:4326.

    Args:
        values: float32, shape (rows, columns), row 0 the northernmost; `NODATA` at sea.
        west: Longitude of the left edge.
        north: Latitude of the top edge.
    """

    values: np.ndarray
    west: float
    north: float


def label_rasters(world: World) -> dict[str, LabelRaster]:
    """Registered population, night lights, elevation and forest cover, by name of the file."""
    rng = world.config.rng("label_rasters")
    lattice, factors = world.lattice, world.factors
    lon, lat = to_lon_lat(*(axis.ravel() for axis in lattice.positions()))
    west, north = np.floor(lon.min() * 10) / 10, np.ceil(lat.max() * 10) / 10
    columns, rows = (int((b - a) / PIXEL_DEGREES) for a, b in ((west, lon.max()), (lat.min(), north)))
    grid = np.meshgrid(
        west + PIXEL_DEGREES * (0.5 + np.arange(columns)), north - PIXEL_DEGREES * (0.5 + np.arange(rows))
    )
    at = to_metres(*grid)
    on_land = lattice.sample(world.land.mask.astype(float), *at) > 0.5

    def seen(field: np.ndarray) -> np.ndarray:
        return lattice.sample(field, *at)

    def blur(deviation: float) -> np.ndarray:
        return deviation * smooth_noise(rng, (rows, columns), 1.5, 1.0)

    light = np.exp(0.7 * factors.urban + 0.45 * factors.industry + 0.4 * factors.wealth + 0.3 * factors.nightlife)
    values = {
        "registered_population": seen(factors.people) / (STEP_M / 1_000) ** 2 * np.exp(blur(0.15)),
        "night_lights": 2.5 * seen(light) * np.exp(blur(0.15)),
        "elevation": np.maximum(0, seen(factors.elevation_m) + blur(15.0)),
        "forest_cover": np.clip(100 * seen(factors.forest) + blur(4.0), 0, 100),
    }
    return {
        name: LabelRaster(np.where(on_land, value, NODATA).astype(np.float32), float(west), float(north))
        for name, value in values.items()
    }


def crime_points(world: World) -> Columns:
    """Incidents in a year at each police patrol square (about 3 km x 3 km, jittered), zero included."""
    rng = world.config.rng("crime")
    factors = world.factors
    point = rng.permutation(len(world.x))[: int(len(world.x) * 0.5)]
    log = (
        0.45 * factors.urban
        + 0.6 * factors.nightlife
        - 0.5 * factors.wealth
        - 0.35 * factors.age
        + 0.45 * factors.culture[1]
    )
    incidents = rng.poisson(12 * np.exp(world.on_land(log)[point] + rng.normal(0, 0.2, len(point))))
    lon, lat = to_lon_lat(*world.scatter(rng, point))
    return {"square": np.arange(len(point)), "lon": lon, "lat": lat, "incidents": incidents}


def spending_points(world: World) -> Columns:
    """Card spending in a year at payment terminals, thousands."""
    rng = world.config.rng("spending")
    factors = world.factors
    log = 0.35 * factors.urban + 0.3 * factors.commerce + 0.25 * factors.tourism
    rate = np.exp(world.on_land(log))
    number = rng.poisson(rate * world.config.terminals / rate.sum())
    point = np.repeat(np.arange(len(number)), number)
    worth = world.on_land(0.5 * factors.wealth + 0.35 * factors.commerce + 0.3 * factors.culture[2])[point]
    spent = np.round(40 * np.exp(worth + rng.normal(0, 0.4, len(point))), 2)
    lon, lat = to_lon_lat(*world.scatter(rng, point))
    return {"terminal": np.arange(len(point)), "lon": lon, "lat": lat, "spending_thousands": spent}


def _county_means(world: World, field: np.ndarray) -> np.ndarray:
    """Mean of a field over each county, weighted by people."""
    people = world.on_land(world.factors.people)
    county = world.zoning.county[world.zoning.of_point]
    total = np.bincount(county, people * world.on_land(field), world.zoning.county.max() + 1)
    return np.asarray(total / np.bincount(county, people, world.zoning.county.max() + 1))


def county_ids(world: World) -> np.ndarray:
    """Identifiers of the counties, shape (counties,)."""
    return np.char.mod("C%03d", 1 + np.arange(world.zoning.county.max() + 1))


def county_table(world: World) -> Columns:
    """Education, ageing, migration and housing by county; one value is withheld (-999)."""
    rng = world.config.rng("counties")
    factors = world.factors
    people = world.zoning.sums(world.on_land(factors.people))
    residents = np.round(np.bincount(world.zoning.county, people))
    number = len(residents)

    def noisy(log: np.ndarray, deviation: float) -> np.ndarray:
        return _county_means(world, log) + rng.normal(0, deviation, number)

    education = noisy(
        10.2 + 0.9 * factors.wealth + 0.7 * factors.culture[0] + 0.5 * factors.urban - 0.5 * factors.age, 0.15
    )
    elderly = sigmoid(noisy(-1.5 + 0.45 * factors.age + 0.2 * factors.culture[1] - 0.15 * factors.industry, 0.05))
    elsewhere = sigmoid(
        noisy(
            -1.4 + 0.45 * factors.industry + 0.35 * factors.tourism - 0.35 * factors.age + 0.35 * factors.culture[2],
            0.08,
        )
    )
    housing = np.exp(
        noisy(3.6 + 0.16 * factors.wealth - 0.12 * factors.urban + 0.08 * factors.age + 0.06 * factors.relief, 0.02)
    )
    housing = np.round(housing, 2)
    housing[rng.integers(number)] = -999.0
    return {
        "county": county_ids(world),
        "residents": residents.astype(np.int64),
        "education_years": np.round(education, 3),
        "elderly_percent": np.round(100 * elderly, 2),
        "registered_elsewhere": np.round(residents * elsewhere).astype(np.int64),
        "housing_m2_per_person": housing,
    }


def city_table(world: World) -> Columns:
    """Energy use of each city: of all people within its radius, by how they live and what they make."""
    rng = world.config.rng("energy")
    cities, factors = world.cities, world.factors
    use = factors.people * np.exp(0.4 * factors.industry + 0.3 * factors.wealth + 0.15 * factors.relief)
    radius_m = 1_000 * cities.radius_km
    inside = np.hypot(world.x - cities.x[:, None], world.y - cities.y[:, None]) <= radius_m[:, None]
    energy = 0.05 * (inside @ world.on_land(use)) * np.exp(rng.normal(0, 0.08, len(cities.x)))
    lon, lat = to_lon_lat(cities.x, cities.y)
    number = np.arange(1, len(lon) + 1)
    return {
        "city_id": np.char.mod("T%03d", number),
        "name": np.char.mod("City %d", number),
        "lon": lon,
        "lat": lat,
        "radius_km": np.round(cities.radius_km, 1),
        "energy_terajoules": np.round(energy, 1),
    }
