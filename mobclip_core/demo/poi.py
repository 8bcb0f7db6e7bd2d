"""What the POI sources see: points with names, a register of facilities, counts by zone.

Belongs here: drawing POIs from the hidden factors, with gaps in coverage and dirty rows. Does not belong here: files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import shapely

from mobclip_core.demo.factors import smooth_noise
from mobclip_core.demo.land import STEP_M, to_lon_lat
from mobclip_core.demo.names import draw_names
from mobclip_core.demo.world import World


@dataclass(frozen=True)
class Kind:
    """How a category of POIs follows the world.

    Args:
        share: Share of all POIs of its source.
        people: Exponent of the number of people.
        loadings: Factor -> weight in the log intensity.
    """

    share: float
    people: float
    loadings: Mapping[str, float] = field(default_factory=dict)


POINT_KINDS = {
    "restaurant": Kind(0.13, 0.7, {"tourism": 0.4, "wealth": 0.2}),
    "cafe": Kind(0.09, 0.75, {"wealth": 0.3, "age": -0.2}),
    "bar": Kind(0.06, 0.65, {"nightlife": 0.7}),
    "nightclub": Kind(0.02, 0.7, {"nightlife": 0.9, "age": -0.2}),
    "hotel": Kind(0.05, 0.4, {"tourism": 0.8}),
    "viewpoint": Kind(0.03, 0.1, {"tourism": 0.5, "relief": 0.5}),
    "supermarket": Kind(0.08, 0.8, {"commerce": 0.4}),
    "fashion_shop": Kind(0.08, 0.75, {"commerce": 0.7, "wealth": 0.2}),
    "jeweller": Kind(0.02, 0.7, {"commerce": 0.4, "wealth": 0.7}),
    "discount_store": Kind(0.05, 0.75, {"commerce": 0.4, "wealth": -0.7}),
    "bank": Kind(0.04, 0.75, {"wealth": 0.3, "commerce": 0.3}),
    "office": Kind(0.09, 0.8, {"industry": -0.6, "wealth": 0.2}),
    "factory": Kind(0.06, 0.5, {"industry": 0.9}),
    "warehouse": Kind(0.05, 0.5, {"industry": 0.7, "commerce": 0.2}),
    "farm": Kind(0.07, 0.15, {"farming": 0.8, "urban": -0.2}),
    "alpine_hut": Kind(0.02, 0.0, {"relief": 0.9, "tourism": 0.3}),
    "playground": Kind(0.03, 0.8, {"age": -0.6}),
    "care_home": Kind(0.03, 0.7, {"age": 0.7}),
}
FACILITY_KINDS = {"clinic": Kind(0.45, 0.75, {"age": 0.3}), "school": Kind(0.55, 0.8, {"age": -0.5})}
ZONE_KINDS = {"bus_stop": Kind(0.8, 0.7, {"wealth": -0.3}), "post_office": Kind(0.2, 0.55, {"age": 0.4})}

_POINT_SPELLINGS = {"restaurant": ("restaurant", "eatery"), "supermarket": ("supermarket", "grocery")}
_FACILITY_SPELLINGS = {
    "clinic": ("clinic", "Hospital", "health centre"),
    "school": ("school", "Primary School", "Secondary School"),
}
_COVERAGE_KM = {25.0: 0.35, 4.0: 0.8}
_OWN_KM = {3.0: 0.8}


def _nuisance(rng: np.random.Generator, world: World, ranges_km: Mapping[float, float]) -> np.ndarray:
    """Multiplicative error of an intensity: how well people mapped a place, or its own history."""
    shape, step_km = world.lattice.shape, STEP_M / 1_000
    field_ = np.sum([w * smooth_noise(rng, shape, r, step_km) for r, w in ranges_km.items()], axis=0)
    return np.asarray(np.exp(world.on_land(field_)))


def _intensity(rng: np.random.Generator, world: World, kind: Kind, total: float, coverage: np.ndarray) -> np.ndarray:
    """Expected POIs of one kind at each lattice point on land."""
    log = kind.people * np.log(world.on_land(world.factors.people) + 1.0)
    for name, weight in kind.loadings.items():
        log = log + weight * world.on_land(getattr(world.factors, name))
    rate = np.exp(log) * coverage * _nuisance(rng, world, _OWN_KM)
    return np.asarray(rate * total * kind.share / rate.sum())


def _draw(
    rng: np.random.Generator, world: World, kinds: Mapping[str, Kind], total: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lattice point and index of the kind of each POI, in random order."""
    coverage = _nuisance(rng, world, _COVERAGE_KM)
    numbers = [rng.poisson(_intensity(rng, world, kind, total, coverage)) for kind in kinds.values()]
    point = np.concatenate([np.repeat(np.arange(len(n)), n) for n in numbers])
    kind = np.repeat(np.arange(len(numbers)), [n.sum() for n in numbers])
    order = rng.permutation(len(point))
    return point[order], kind[order]


def _spell(
    rng: np.random.Generator, kinds: list[str], kind: np.ndarray, spellings: Mapping[str, tuple[str, ...]]
) -> np.ndarray:
    """Category strings as the source spells them: not always one way."""
    options = [spellings.get(name, (name,)) for name in kinds]
    width = max(len(o) for o in options)
    table = np.array([[o[i % len(o)] for i in range(width)] for o in options])
    return np.asarray(table[kind, rng.integers(0, width, len(kind))])


def poi_points(world: World) -> tuple[pa.Table, dict[str, int]]:
    """The main source: id, name, category and WKB geometry, some rows with a category of no meaning."""
    rng = world.config.rng("poi")
    point, kind = _draw(rng, world, POINT_KINDS, world.config.pois)
    names = draw_names(rng, world, list(POINT_KINDS), kind, point)
    category = _spell(rng, list(POINT_KINDS), kind, _POINT_SPELLINGS)
    unknown = rng.random(len(point)) < 0.002
    category = np.where(unknown, "yes", category)
    lon, lat = to_lon_lat(*world.scatter(rng, point))
    table = pa.table(
        {
            "id": pa.array(np.arange(len(point)), pa.int64()),
            "name": pa.array(names),
            "category": pa.array(category).dictionary_encode(),
            "geometry": pa.array(shapely.to_wkb(shapely.points(lon, lat)), pa.binary()),
        }
    )
    return table, {"poi": len(point), "poi_unknown_category": int(unknown.sum())}


def facilities(world: World) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The register of health and education facilities: text columns, badly kept in some regions.

    In the dirty regions rows have no coordinates, swapped ones, 999, or infinity, or an unknown kind, or come twice.
    """
    rng = world.config.rng("facilities")
    point, kind = _draw(rng, world, FACILITY_KINDS, world.config.facilities)
    names = draw_names(rng, world, list(FACILITY_KINDS), kind, point)
    spelled = _spell(rng, list(FACILITY_KINDS), kind, _FACILITY_SPELLINGS).astype("U20")
    lon, lat = to_lon_lat(*world.scatter(rng, point))
    region = world.zoning.region[world.zoning.of_point[point]]
    dirty = np.flatnonzero(np.isin(region, world.config.dirty_regions))
    rng.shuffle(dirty)
    part = max(2, len(dirty) // 60)
    missing, swapped, beyond, infinite, unknown, twice, *_ = (dirty[i * part : (i + 1) * part] for i in range(7))
    infinite = infinite[:2]
    x, y = (np.char.mod("%.5f", axis).astype("U12") for axis in (lon, lat))
    x[missing], y[missing] = "NaN", ""
    x[swapped], y[swapped] = y[swapped], x[swapped].copy()
    x[beyond], y[beyond] = "999", "999"
    x[infinite] = "inf"
    spelled[unknown] = "???"
    rows = np.concatenate([np.arange(len(point)), twice])
    identifier = np.char.mod("F%06d", np.arange(len(point)))
    columns = {"facility_id": identifier, "name": names, "kind": spelled, "longitude": x, "latitude": y}
    counts = {
        "missing": missing,
        "swapped": swapped,
        "beyond": beyond,
        "infinite": infinite,
        "unknown": unknown,
        "twice": twice,
    }
    numbers = {"facilities": len(rows)} | {f"facilities_{name}": len(some) for name, some in counts.items()}
    return {name: values[rows] for name, values in columns.items()}, numbers


def zone_counts(world: World) -> tuple[pa.Table, dict[str, int]]:
    """Counts of public services by zone and category; the last row's zone does not exist."""
    rng = world.config.rng("zone_counts")
    coverage = _nuisance(rng, world, _COVERAGE_KM)
    zones, categories, counts = [], [], []
    for name, kind in ZONE_KINDS.items():
        expected = world.zoning.sums(_intensity(rng, world, kind, world.config.pois / 6, coverage))
        found = rng.poisson(expected)
        zones.append(world.zoning.names[found > 0])
        categories += [name] * int((found > 0).sum())
        counts.append(found[found > 0])
    table = pa.table(
        {
            "zone": pa.array(np.append(np.concatenate(zones), "ZZ9999")),
            "category": pa.array([*categories, "bus_stop"]),
            "count": pa.array(np.append(np.concatenate(counts), 3), pa.int64()),
        }
    )
    return table, {"zone_counts": table.num_rows, "zone_counts_unknown_zone": 1}
