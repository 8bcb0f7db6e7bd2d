"""Predictions as people look at them."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from mobclip_core.evaluation.predictions import _units_of_cells, out_of_sample
from mobclip_core.evaluation.scores import build_geobench_scores
from mobclip_core.evaluation.units import UnitSet


def test_residuals_are_what_the_probe_leaves_of_each_cell(world):
    vectors = world.features()
    noise = np.random.default_rng(1).normal(size=len(world.cells))
    exact = vectors @ np.arange(12.0)
    options = {"title": "t", "source": "s", "unit": "u", "label": {"kind": "raster", "file": "label.tif"}}
    world.label({"EXA": (world.cells, exact), "NOI": (world.cells, noise)})
    evaluation = {"seeds": [0], "block_resolution": 4, "probes": ["ridge"]}
    deployment = world.deployment(dict.fromkeys(["EXA", "NOI"], options), **evaluation)
    build_geobench_scores(deployment)
    first, second = out_of_sample(deployment)
    assert (first.task, second.task, first.scale) == ("EXA", "NOI", "cell")
    for one in (first, second):
        np.testing.assert_array_equal(one.cells, world.cells)
        assert len(one.label) == len(one.prediction) == len(world.cells)
    np.testing.assert_allclose(first.label[first.unit], exact)
    assert np.abs(first.residual).max() < 0.1
    assert second.residual.std() == pytest.approx(1, abs=0.15)


def test_a_cell_of_two_units_goes_to_the_one_in_which_it_weighs_most():
    weights = csr_array(np.array([[0.4, 0.6, 0.0, 0.0], [0.5, 0.2, 0.3, 0.0], [0.5, 0.0, 0.5, 0.0]]))
    units = UnitSet(("T",), weights, np.zeros(3, dtype=np.uint64), np.zeros((3, 1)), "county", ("v",))
    cells, unit = _units_of_cells(units)
    assert cells.tolist() == [0, 1, 2]
    assert unit.tolist() == [1, 0, 2]
