import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core import subdivide
from mobclip_core.subdivide import overlap_areas, pieces_of


def star(corners, x=0.0, y=0.0, size=5.0):
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radii = size * (1 + 0.3 * np.sin(7 * angles) + 0.1 * np.cos(31 * angles))
    return shapely.Polygon(np.column_stack([x + radii * np.cos(angles), y + radii * np.sin(angles)]))


def test_pieces_are_small_and_make_the_whole():
    whole = shapely.difference(star(3000), star(900, 0.5, 0.5, 1.0))
    pieces = pieces_of(whole)
    assert shapely.get_num_coordinates(pieces).max() <= subdivide.MAX_VERTICES
    assert shapely.area(pieces).sum() == pytest.approx(whole.area, rel=1e-12)
    assert shapely.area(shapely.symmetric_difference(shapely.union_all(pieces), whole)) < 1e-9
    small = shapely.box(0, 0, 1, 1)
    assert pieces_of(small).tolist() == [small]


def test_pieces_near_something_are_some_of_all_the_pieces():
    whole = star(3000)
    near = pieces_of(whole, np.array([[0, 0, 1, 1.0]]))
    every = {piece.wkb for piece in pieces_of(whole)}
    assert 0 < len(near) < len(every)
    assert {piece.wkb for piece in near} <= every
    assert len(pieces_of(whole, np.zeros((0, 4)))) == 0


def test_many_vertices_in_one_place_end_the_cutting(monkeypatch):
    monkeypatch.setattr(subdivide, "MAX_VERTICES", 8)
    tiny = star(50, size=1e-13)
    pieces = pieces_of(shapely.union(tiny, shapely.box(1, 1, 2, 2)))
    assert shapely.area(pieces).sum() == pytest.approx(1, rel=1e-9)


def test_a_half_that_only_touches_is_left_out():
    combs = [shapely.box(i, 0, i + 0.5, 1) for i in range(100)]
    comb = shapely.union_all([*combs, shapely.box(0, 0, 100, 0.1)])
    pieces = pieces_of(comb)
    assert (shapely.area(pieces) > 0).all()
    assert shapely.area(pieces).sum() == pytest.approx(comb.area)


# GEOS multiplies coordinates: below 1e-150 or so the products are zero, and its overlaps wrong
coordinates = st.floats(-7, 7).map(lambda value: round(value, 12))


@settings(max_examples=30)
@given(st.lists(st.tuples(coordinates, coordinates, st.floats(0.05, 3)), min_size=1, max_size=12), st.randoms())
def test_overlaps_are_those_of_the_whole(squares, random):
    small = np.array([shapely.box(x, y, x + side, y + side) for x, y, side in squares], dtype=object)
    large = [star(2000), star(700, 6, 2), shapely.box(-1, -1, 1, 1)]
    pairs = [(i, j) for i in range(len(small)) for j in range(3)]
    random.shuffle(pairs)
    pairs = pairs[: random.randint(0, len(pairs))]
    polygon, geometry = np.array(pairs, dtype=int).reshape(-1, 2).T
    found = overlap_areas(small, large, polygon, geometry)
    expected = shapely.area(shapely.intersection(small[polygon], np.array(large, dtype=object)[geometry]))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    # the same number to the last bit, whatever else is asked
    for k in range(min(len(pairs), 3)):
        alone = overlap_areas(small[polygon[k : k + 1]], [large[geometry[k]]], np.array([0]), np.array([0]))
        assert alone[0] == found[k]
