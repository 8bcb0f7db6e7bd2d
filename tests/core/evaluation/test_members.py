import h3
import numpy as np
import pytest
import shapely

from mobclip_core.evaluation.members import GridFrame, cell_positions, city_members, weigh, zone_members
from mobclip_core.sphere import unit_vectors

SQUARES = np.array([shapely.box(x, 0, x + 1, 1) for x in range(4)])


def grid(population, area=None, cells=None, lon=None, lat=None):
    n = len(population)
    return GridFrame(
        np.arange(n, dtype=np.uint64) if cells is None else cells,
        np.arange(n) + 0.5 if lon is None else lon,
        np.full(n, 0.5) if lat is None else lat,
        np.full(n, 2.0) if area is None else np.asarray(area, dtype=float),
        np.asarray(population, dtype=float),
        6,
    )


def as_rows(members):
    return list(zip(members.unit.tolist(), members.cell.tolist(), members.weight.round(12).tolist(), strict=True))


def test_zone_weights_are_population_times_the_fraction_inside():
    # the zone holds half of cell 0 (100 people), all of cell 1 (30), a quarter of cell 2 (80)
    zone = np.array([shapely.box(0.5, 0, 2.25, 1)])
    members = zone_members(zone, SQUARES, grid([100, 30, 80, 7]), "population")
    assert as_rows(members) == [(0, 0, 0.5), (0, 1, 0.3), (0, 2, 0.2)]


def test_zone_weights_by_area():
    zone = np.array([shapely.box(0.5, 0, 2.25, 1)])
    members = zone_members(zone, SQUARES, grid([100, 30, 80, 7], [4, 1, 4, 1]), "area")
    assert as_rows(members) == [(0, 0, 0.5), (0, 1, 0.25), (0, 2, 0.25)]


def test_a_zone_where_nobody_lives_is_weighted_by_area():
    zones = np.array([shapely.box(0, 0, 2, 1), shapely.box(2, 0, 4, 1)])
    members = zone_members(zones, SQUARES, grid([0, 0, 0, 9], [1, 3, 1, 1]), "population")
    assert as_rows(members) == [(0, 0, 0.25), (0, 1, 0.75), (1, 2, 0.0), (1, 3, 1.0)]


def test_zones_that_only_touch_a_cell_do_not_have_it_and_zones_elsewhere_have_none():
    zones = np.array([shapely.box(1, 0, 2, 1), shapely.box(40, 40, 41, 41)])
    members = zone_members(zones, SQUARES, grid([1, 1, 1, 1]), "population")
    assert as_rows(members) == [(0, 1, 1.0)]


def test_zone_inside_one_cell():
    members = zone_members(np.array([shapely.box(2.2, 0.2, 2.4, 0.4)]), SQUARES, grid([1, 1, 1, 1]), "population")
    assert as_rows(members) == [(0, 2, 1.0)]


def test_weights_sum_to_one():
    rng = np.random.default_rng(0)
    unit, cell = rng.integers(0, 5, 60), rng.permutation(60)
    members = weigh(unit, cell, rng.uniform(0.1, 1, 60), grid(rng.integers(0, 3, 60)), "population")
    np.testing.assert_allclose(np.bincount(members.unit, members.weight), 1)
    assert (np.diff(members.unit) >= 0).all()


@pytest.fixture
def hexagons():
    cells = np.sort(
        np.array([h3.str_to_int(c) for c in h3.grid_disk(h3.latlng_to_cell(45, 10, 6), 3)], dtype=np.uint64)
    )
    lat, lon = np.array([h3.cell_to_latlng(h3.int_to_str(int(c))) for c in cells]).T
    return grid(np.ones(len(cells)), cells=cells, lon=lon, lat=lat)


def test_city_has_the_cells_within_its_radius(hexagons):
    members = city_members(np.array([10.0, 10.0]), np.array([45.0, 45.0]), np.array([0.0, 8.0]), hexagons, "population")
    home = cell_positions(np.array([10.0]), np.array([45.0]), hexagons)[0]
    assert members.cell[members.unit == 0].tolist() == [home]
    cosine = unit_vectors(hexagons.lon, hexagons.lat) @ unit_vectors(np.array([10.0]), np.array([45.0])).T
    near = np.flatnonzero(6371.0088 * np.arccos(cosine[:, 0]) <= 8)
    assert len(near) > 3
    assert members.cell[members.unit == 1].tolist() == sorted({*near.tolist(), int(home)})
    np.testing.assert_allclose(members.weight[members.unit == 1], 1 / len(near))


def test_a_city_far_away_has_no_cells(hexagons):
    members = city_members(np.array([-70.0]), np.array([45.0]), np.array([9.0]), hexagons, "population")
    assert len(members.unit) == len(members.weight) == 0
    empty = grid([], cells=np.zeros(0, np.uint64), lon=np.zeros(0), lat=np.zeros(0))
    assert len(city_members(np.array([10.0]), np.array([45.0]), np.array([9.0]), empty, "area").unit) == 0
    assert cell_positions(np.array([10.0]), np.array([45.0]), empty).tolist() == [-1]


def test_positions_of_points_that_have_no_cell(hexagons):
    found = cell_positions(np.array([10.0, np.nan, 0.0, 200.0]), np.array([45.0, 45.0, 0.0, 45.0]), hexagons)
    assert hexagons.cells[found[0]] == h3.str_to_int(h3.latlng_to_cell(45, 10, 6))
    assert found[1:].tolist() == [-1, -1, -1]
