"""Administrative geography: zones, counties made of zones, regions made of counties.

Belongs here: polygons. Does not belong here: attributes of zones (see `census`).

Zones are Voronoi polygons clipped to the coast; everything larger is a union of them, so that shared borders match to
the last digit.
"""

from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from scipy.spatial import KDTree

from mobclip_core.demo.config import WorldConfig
from mobclip_core.demo.factors import Factors
from mobclip_core.demo.land import CRS, STEP_M, Land

_DEGREES_GRID = 1e-7
_METRES_GRID = 1e-2


@dataclass(frozen=True)
class Zoning:
    """Zones and what they belong to.

    Args:
        zones: Polygons in UTM metres, shape (zones,).
        names: Zone identifiers, shape (zones,), in order of region.
        county: Index of each zone's county, shape (zones,).
        region: Index of each zone's region, shape (zones,).
        of_point: Zone of each lattice point on land, in the order of the mask's true values, shape (points,).
        x: UTM x of the zones' centres of people, shape (zones,).
        y: UTM y of the same.
    """

    zones: np.ndarray
    names: np.ndarray
    county: np.ndarray
    region: np.ndarray
    of_point: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def counties(self) -> np.ndarray:
        """County polygons, shape (counties,)."""
        return _unions(self.zones, self.county)

    def regions(self) -> np.ndarray:
        """Region polygons, shape (regions,)."""
        return _unions(self.zones, self.region)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of a value of lattice points (in the order of `of_point`) by zone."""
        return np.bincount(self.of_point, values, len(self.zones))


def _unions(polygons: np.ndarray, group: np.ndarray) -> np.ndarray:
    return np.array([shapely.union_all(polygons[group == g], grid_size=_METRES_GRID) for g in range(group.max() + 1)])


def to_degrees(polygons: np.ndarray) -> np.ndarray:
    """UTM polygons as longitude and latitude, on a grid of about a centimetre so that shared borders stay shared."""
    transformer = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    moved = shapely.transform(polygons, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))
    return np.asarray(shapely.set_precision(moved, _DEGREES_GRID))


def _relax(seeds: np.ndarray, points: np.ndarray, weight: np.ndarray, rounds: int) -> np.ndarray:
    """Lloyd's iteration: each seed moves to the weighted centre of the points nearest to it."""
    for _ in range(rounds):
        nearest = KDTree(seeds).query(points)[1]
        mass = np.bincount(nearest, weight, len(seeds))
        centre = np.column_stack([np.bincount(nearest, weight * points[:, k], len(seeds)) for k in (0, 1)])
        seeds = np.where(mass[:, None] > 0, centre / np.maximum(mass, 1e-12)[:, None], seeds)
    return seeds


def _draw_seeds(rng: np.random.Generator, points: np.ndarray, weight: np.ndarray, number: int) -> np.ndarray:
    chosen = rng.choice(len(points), number, replace=False, p=weight / weight.sum())
    return np.asarray(points[chosen] + rng.uniform(-0.4, 0.4, (number, 2)) * STEP_M)


def _nearest_group(rng: np.random.Generator, centres: np.ndarray, weight: np.ndarray, number: int) -> np.ndarray:
    """Groups of neighbouring centres: index of the group of each, every group used."""
    seeds = _relax(_draw_seeds(rng, centres, weight, number), centres, weight, 4)
    group = KDTree(seeds).query(centres)[1]
    return np.unique(group, return_inverse=True)[1]


def _clip(land: Land, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi polygons of the seeds inside the coast, and which of them lie on the islet.

    A zone on both islands becomes two.
    """
    cells = shapely.get_parts(
        shapely.voronoi_polygons(
            shapely.multipoints(seeds), extend_to=shapely.union_all([land.main, land.islet]), ordered=True
        )
    )
    parts = [shapely.intersection(cells, coast, grid_size=_METRES_GRID) for coast in (land.main, land.islet)]
    on_islet = np.repeat([False, True], [len(parts[0]), len(parts[1])])
    polygons = np.concatenate(parts)
    keep = shapely.area(polygons) > 1e6
    return polygons[keep], on_islet[keep]


def make_zoning(config: WorldConfig, land: Land, factors: Factors) -> Zoning:
    """Draw zones (smaller where more people live), then group them."""
    rng = config.rng("zoning")
    x, y = (axis[land.mask] for axis in land.lattice.positions())
    points = np.column_stack([x, y])
    people = factors.people[land.mask]
    weight = 1 / len(people) + 0.6 * people**0.6 / (people**0.6).sum()
    seeds = _relax(_draw_seeds(rng, points, weight, config.zones), points, weight, 2)
    polygons, on_islet = _clip(land, seeds)

    centre = shapely.centroid(polygons)
    centres = np.column_stack([shapely.get_x(centre), shapely.get_y(centre)])
    area = shapely.area(polygons)
    main = ~on_islet
    county = np.full(len(polygons), -1)
    county[main] = _nearest_group(rng, centres[main], area[main], config.counties - 1)
    county[on_islet] = county.max() + 1
    county_of, first = np.unique(county, return_index=True)
    mass = np.bincount(county, area)
    county_centres = np.column_stack([np.bincount(county, area * centres[:, k]) / mass for k in (0, 1)])
    islet_county = county[on_islet][0] if on_islet.any() else -1
    mainland = county_of != islet_county
    region_of_county = np.full(len(first), config.island_region)
    group = _nearest_group(rng, county_centres[mainland], mass[mainland], config.regions)
    region_of_county[mainland] = _north_to_south(group, county_centres[mainland])
    region = region_of_county[county]

    order = np.lexsort((county, region))
    county = np.unique(region_of_county[county] * len(first) + county, return_inverse=True)[1][order]
    polygons, region = polygons[order], region[order]
    number = np.arange(len(order)) - np.searchsorted(region, region)
    names = np.array([f"{config.region_keys[r][:2].upper()}{n + 1:04d}" for r, n in zip(region, number, strict=True)])

    of_point = _zone_of(points, polygons)
    total = np.bincount(of_point, people, len(polygons))
    middle = shapely.centroid(polygons)
    cx, cy = (
        np.where(total > 0, np.bincount(of_point, people * axis, len(polygons)) / np.maximum(total, 1e-9), fallback)
        for axis, fallback in ((x, shapely.get_x(middle)), (y, shapely.get_y(middle)))
    )
    return Zoning(polygons, names, county, region, of_point, cx, cy)


def _north_to_south(group: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Number groups from north to south, so that the last (with the islet) is in the south."""
    mean_y = np.bincount(group, centres[:, 1]) / np.bincount(group)
    return np.asarray(np.argsort(np.argsort(-mean_y))[group])


def _zone_of(points: np.ndarray, polygons: np.ndarray) -> np.ndarray:
    """Zone of each lattice point: the one that holds it, or the nearest."""
    tree = shapely.STRtree(polygons)
    point, zone = tree.query_nearest(shapely.points(points), all_matches=False)
    found = np.zeros(len(points), dtype=np.int64)
    found[point] = zone
    return found
