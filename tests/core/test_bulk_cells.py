import threading

import h3
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.bulk_cells import CellNumbers, cells_of_points, wkb_positions
from mobclip_core.workers import ordered_map


def cell(lat, lon, resolution=6):
    return h3.str_to_int(h3.latlng_to_cell(lat, lon, resolution))


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(-400, 400), st.floats(-200, 200)), max_size=30),
    st.sampled_from([0, 3, 6, 15]),
)
def test_cells_agree_with_h3_and_are_zero_where_they_cannot_be(points, resolution):
    lon, lat = np.array(points, dtype=float).reshape(-1, 2).T
    expected = [cell(y, x, resolution) if abs(x) <= 180 and abs(y) <= 90 else 0 for x, y in points]
    assert cells_of_points(lon, lat, resolution).tolist() == expected


def test_nan_and_infinity_have_no_cell():
    bad = np.array([np.nan, np.inf, -np.inf, 0.0])
    assert cells_of_points(bad, np.zeros(4), 6).tolist() == [0, 0, 0, cell(0, 0)]
    assert cells_of_points(np.zeros(3), bad[:3], 6).tolist() == [0, 0, 0]
    assert cells_of_points(np.zeros(0), np.zeros(0), 6).tolist() == []


def test_threads_keep_the_order_and_bound_what_is_in_flight():
    read, done, most = 0, 0, 0
    gate = threading.Event()

    def items():
        nonlocal read, most
        for i in range(50):
            read += 1
            most = max(most, read - done)
            yield i

    def work(i):
        gate.wait(0.001)
        return i * i

    results = []
    for value in ordered_map(work, items(), 2, in_flight=4):
        results.append(value)
        done += 1
    assert results == [i * i for i in range(50)]
    assert most <= 6


def test_an_error_in_a_thread_comes_out_and_stops_the_reading():
    seen = []

    def items():
        for i in range(1000):
            seen.append(i)
            yield i

    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda i: 1 // (3 - i), items(), 2, in_flight=4))
    assert len(seen) < 20


@settings(max_examples=30)
@given(st.data(), st.sampled_from([0, 2, 4, 6, 9, 15]))
def test_numbers_find_every_cell_of_the_grid_and_no_other(data, resolution):
    places = st.tuples(st.floats(-80, 80), st.floats(-179, 179))
    near = st.tuples(st.floats(40, 41), st.floats(-74, -73))
    cells = sorted({cell(*p, resolution) for p in data.draw(st.lists(places | near, max_size=20))})
    others = {cell(*p, resolution) for p in data.draw(st.lists(places | near, max_size=20))} - set(cells)
    order = data.draw(st.permutations(cells))
    numbers = CellNumbers(np.array(order, dtype=np.uint64), resolution)
    asked = np.array([*order, *others, 0], dtype=np.uint64)
    assert numbers.find(asked).tolist() == list(range(1, len(order) + 1)) + [0] * (len(others) + 1)


def test_points_are_located_and_exchanged_coordinates_seen():
    here = cell(40.7, -74.0)
    numbers = CellNumbers(np.array([cell(10, 10), here], dtype=np.uint64), 6)
    lon = np.array([-74.0, 40.7, 0.0, np.nan, 200.0])
    lat = np.array([40.7, -74.0, 0.0, 0.0, 0.0])
    at = numbers.locate(lon, lat)
    assert at.cell.tolist() == [here, cell(-74.0, 40.7), cell(0, 0), 0, 0]
    assert at.number.tolist() == [2, 0, 0, 0, 0]
    assert at.inside.tolist() == [True, False, False, False, False]
    assert at.swapped.tolist() == [False, True, False, False, False]


POINTS = [(-74.0, 40.7), (0.0, 0.0), (179.5, -89.0)]


@pytest.mark.parametrize("typed", [pa.binary(), pa.large_binary()])
def test_wkb_points_of_all_spellings(typed):
    geometries = [shapely.Point(p) for p in POINTS]
    plain = [shapely.to_wkb(g) for g in geometries]
    for encoded in (
        plain,
        [shapely.to_wkb(g, byte_order=0) for g in geometries],
        [shapely.to_wkb(shapely.set_srid(g, 4326), include_srid=True) for g in geometries],
        [shapely.to_wkb(shapely.Point(*p, 5.0), output_dimension=3) for p in POINTS],
        [*plain[:2], shapely.to_wkb(geometries[2], byte_order=0)],
    ):
        array = pa.array([b"x", *encoded], typed)[1:]
        assert list(zip(*(part.tolist() for part in wkb_positions(array)), strict=True)) == POINTS


def test_wkb_that_is_no_point_is_nan():
    area = shapely.to_wkb(shapely.box(0, 0, 1, 1))
    array = pa.array([shapely.to_wkb(shapely.Point(1, 2)), area, b"\x01\x02", None, b"\x01" * 21], pa.binary())
    lon, lat = wkb_positions(array)
    np.testing.assert_array_equal(lon, [1, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(lat, [2, np.nan, np.nan, np.nan, np.nan])
    assert len(wkb_positions(pa.array([], pa.binary()))[0]) == 0
