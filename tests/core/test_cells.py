import h3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.cells import are_cells, parents, resolution_of

POINTS = st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=20)


@given(POINTS, st.integers(0, 15), st.integers(0, 15))
def test_resolution_and_parents_agree_with_h3(points, resolution, coarser):
    names = [h3.latlng_to_cell(lat, lon, resolution) for lat, lon in points]
    cells = np.array([h3.str_to_int(name) for name in names], dtype=np.uint64)
    assert resolution_of(cells).tolist() == [resolution] * len(cells)
    coarser = min(coarser, resolution)
    found = parents(cells, coarser)
    assert found.dtype == np.uint64
    assert found.tolist() == [h3.str_to_int(h3.cell_to_parent(name, coarser)) for name in names]


def test_a_pentagon_and_its_children():
    pentagon = sorted(h3.get_pentagons(3))[0]
    children = np.array([h3.str_to_int(c) for c in h3.cell_to_children(pentagon, 5)], dtype=np.uint64)
    assert set(parents(children, 3).tolist()) == {h3.str_to_int(pentagon)}


def test_mixed_resolutions():
    names = [h3.latlng_to_cell(40.7, -74.0, r) for r in (4, 6, 9)]
    cells = np.array([h3.str_to_int(n) for n in names], dtype=np.uint64)
    assert resolution_of(cells).tolist() == [4, 6, 9]
    assert parents(cells, 4).tolist() == [h3.str_to_int(names[0])] * 3


def test_no_cells():
    assert parents(np.zeros(0, dtype=np.uint64), 3).shape == (0,)
    assert resolution_of(np.zeros(0, dtype=np.uint64)).shape == (0,)


def test_a_finer_parent_is_refused():
    cell = np.array([h3.str_to_int(h3.latlng_to_cell(40.7, -74.0, 4))], dtype=np.uint64)
    with pytest.raises(ValueError, match="parents at resolution 6 asked for cells of resolution 4"):
        parents(cell, 6)


@given(POINTS, st.integers(0, 15))
def test_cells_are_told_from_other_numbers(points, resolution):
    cells = np.array([h3.str_to_int(h3.latlng_to_cell(lat, lon, resolution)) for lat, lon in points], dtype=np.uint64)
    assert are_cells(cells)
    assert not are_cells(np.append(cells, np.uint64(7)))
    # a directed edge has another mode
    assert not are_cells(
        np.array([h3.str_to_int(h3.origin_to_directed_edges(h3.int_to_str(int(cells[0])))[0])], np.uint64)
    )
