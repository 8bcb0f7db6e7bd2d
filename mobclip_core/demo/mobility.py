"""What mobility records see: visits of a panel of people, rides, and commuting between zones.

Belongs here: who goes where, from distance, attraction and likeness of places. Does not belong here: files.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mobclip_core.demo.land import to_lon_lat
from mobclip_core.demo.world import World

_START = np.datetime64("2024-03-04T00:00:00", "us")
_GPS_ERROR_M = 150.0
_KINSHIP = ("wealth", "industry", "age", "urban")
"""Factors in which places must be alike for people to travel far between them, beside the three communities."""
_SMALLEST_FLOW = 4


@dataclass(frozen=True)
class Travel:
    """Where people of each zone go.

    Args:
        work: Probability of working in a zone, row = zone of the home, shape (zones, zones).
        leisure: Probability of spending free time in it, shape (zones, zones).
    """

    work: np.ndarray
    leisure: np.ndarray


def make_travel(world: World) -> Travel:
    """Gravity with a bias to places alike: near places by attraction, far ones only where people feel at home."""
    factors, zoning = world.factors, world.zoning
    distance = np.hypot(zoning.x[:, None] - zoning.x, zoning.y[:, None] - zoning.y) / 1_000
    traits = np.stack(
        [world.zone_means(getattr(factors, name)) for name in _KINSHIP] + [world.zone_means(c) for c in factors.culture]
    )
    gap = ((traits[:, :, None] - traits[:, None, :]) ** 2).sum(axis=0)
    alike = np.exp(-gap / 1.2)
    people = zoning.sums(world.on_land(factors.people))
    shops = np.exp(0.5 * world.zone_means(factors.commerce))
    jobs = people**0.7 * np.exp(0.4 * world.zone_means(factors.industry)) * shops
    fun = (
        people**0.5
        * shops
        * np.exp(0.5 * world.zone_means(factors.tourism) + 0.3 * world.zone_means(factors.nightlife))
    )

    def shares(attraction: np.ndarray, near_km: float, far: float) -> np.ndarray:
        near = attraction * np.exp(-distance / near_km) * alike**0.35
        away = attraction**0.5 * np.exp(-distance / 150) * alike
        near, away = (m / m.sum(axis=1, keepdims=True) for m in (near, away))
        return np.asarray((1 - far) * near + far * away)

    return Travel(shares(jobs, 7, 0.5), shares(fun, 10, 0.6))


def _zones_by_share(rng: np.random.Generator, shares: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """A destination zone for each origin zone, drawn from the row of shares."""
    destination = np.empty(len(origin), dtype=np.int64)
    draw = rng.random(len(origin))
    order = np.argsort(origin, kind="stable")
    zones, starts = np.unique(origin[order], return_index=True)
    for zone, rows in zip(zones, np.split(order, starts[1:]), strict=True):
        ladder = np.cumsum(shares[zone])
        destination[rows] = np.searchsorted(ladder, draw[rows] * ladder[-1], side="right")
    return destination


def _points_in_zones(rng: np.random.Generator, world: World, weight: np.ndarray, zone: np.ndarray) -> np.ndarray:
    """A lattice point of each zone given, drawn by weight. Zones without points give the nearest zone's."""
    of_point = world.zoning.of_point
    order = np.argsort(of_point, kind="stable")
    ladder = np.concatenate([[0.0], np.cumsum(weight[order])])
    start = np.searchsorted(of_point[order], zone, side="left")
    end = np.searchsorted(of_point[order], zone, side="right")
    mark = ladder[start] + rng.random(len(zone)) * (ladder[end] - ladder[start])
    at = np.searchsorted(ladder, mark, side="right") - 1
    return np.asarray(order[np.clip(at, start, np.maximum(end - 1, start)).clip(0, len(order) - 1)])


def _homes(rng: np.random.Generator, world: World, number: int) -> np.ndarray:
    """Lattice point where each person of a panel lives: rural people are asked more often than their number."""
    weight = world.on_land(world.factors.people) ** 0.5
    region = world.zoning.region[world.zoning.of_point]
    weight = weight * np.where(region == world.config.sparse_region, 0.2, 1.0)
    on_islet = world.zoning.county[world.zoning.of_point] == world.zoning.county[-1]
    weight = weight * np.where(on_islet & (region == world.config.island_region), 0.35, 1.0)
    return rng.choice(len(weight), number, p=weight / weight.sum())


def visits(world: World, travel: Travel) -> tuple[pa.Table, dict[str, int]]:
    """Visits: person, time, lon, lat. A day is home, work, then a place to shop or to enjoy oneself.

    Some positions are NaN or the "null island" 0, 0.
    """
    rng = world.config.rng("visits")
    persons, days = world.config.persons, world.config.days
    people = world.on_land(world.factors.people)
    busy = people**1.4 * np.exp(0.5 * world.on_land(world.factors.commerce))
    home = _homes(rng, world, persons)
    zone = world.zoning.of_point[home]
    work = _points_in_zones(rng, world, busy, _zones_by_share(rng, travel.work, zone))
    haunts = np.stack(
        [_points_in_zones(rng, world, busy, _zones_by_share(rng, travel.leisure, zone)) for _ in range(3)]
    )

    stays = np.stack([world.scatter(rng, place) for place in (home, work, *haunts)])
    third = 2 + rng.choice(3, (persons, days), p=[0.5, 0.3, 0.2])
    place = np.stack([np.zeros_like(third), np.ones_like(third), third], axis=2).reshape(persons, -1)
    person = np.repeat(np.arange(persons), 3 * days)
    x, y = stays[place.ravel(), :, person].T + rng.normal(0, _GPS_ERROR_M, (2, len(person)))
    hour = np.array([6.5, 9.0, 18.0]) + rng.uniform(-1, 1, (persons, days, 3)) + 24 * np.arange(days)[:, None]
    time = _START + (hour.ravel() * 3600).astype("timedelta64[s]")
    lon, lat = to_lon_lat(x, y)
    odd = rng.permutation(len(person))[: max(4, len(person) // 1_000)]
    nan, null_island = np.array_split(odd, 2)
    lon[nan], lat[nan] = np.nan, np.nan
    lon[null_island], lat[null_island] = 0.0, 0.0
    keep = rng.random(len(person)) > 0.02
    columns = {"person": person, "time": time, "lon": lon, "lat": lat}
    table = pa.table({name: pa.array(values[keep]) for name, values in columns.items()})
    counts = {
        "visits": table.num_rows,
        "visits_nan": int(keep[nan].sum()),
        "visits_null_island": int(keep[null_island].sum()),
    }
    return table, counts


def trips(world: World, travel: Travel) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Rides: rider, origin and destination positions; mostly in towns and short."""
    rng = world.config.rng("trips")
    people = world.on_land(world.factors.people)
    weight = people**0.9 * np.exp(0.3 * world.on_land(world.factors.nightlife))
    start = rng.choice(len(weight), world.config.trips, p=weight / weight.sum())
    end = _points_in_zones(rng, world, people, _zones_by_share(rng, travel.leisure, world.zoning.of_point[start]))
    from_lon, from_lat = to_lon_lat(*world.scatter(rng, start))
    to_lon, to_lat = to_lon_lat(*world.scatter(rng, end))
    rider = rng.integers(0, max(1, world.config.trips // 4), world.config.trips)
    columns = {"rider": rider, "from_lon": from_lon, "from_lat": from_lat, "to_lon": to_lon, "to_lat": to_lat}
    return columns, {"trips": len(rider)}


def flows(world: World, travel: Travel) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Commuters from zone to zone; the office withholds small flows. The last rows name zones that do not exist."""
    rng = world.config.rng("flows")
    workers = 0.4 * world.zoning.sums(world.on_land(world.factors.people))
    region = world.zoning.region
    asked = np.where(region == world.config.sparse_region, 0.25, 1.0)
    commuters = rng.poisson((workers * asked)[:, None] * travel.work)
    origin, destination = np.nonzero(commuters >= _SMALLEST_FLOW)
    names = world.zoning.names
    columns = {
        "origin": np.append(names[origin], ["ZZ9999", names[0]]),
        "destination": np.append(names[destination], [names[0], "ZZ9999"]),
        "people": np.append(commuters[origin, destination], [40, 40]),
    }
    return columns, {"flows": len(columns["people"]), "flows_unknown_zone": 2}
