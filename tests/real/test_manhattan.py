"""Manhattan's zones, nodes that are not H3 cells, by the published protocol: one seed of the benchmark."""

import numpy as np
import pytest

from tests.benchmarks import manhattan

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not manhattan.DATA.is_dir(), reason=f"no real data at {manhattan.DATA}: set MOBCLIP_DATA"),
]


def test_zones_are_ahead_of_the_published_rows():
    zones = manhattan.Zones.read(manhattan.DATA)
    assert zones.trips.shape == (180, 180)
    assert zones.trips.sum() == 9_332_740
    trained = manhattan.trained_vectors(zones, seed=0)
    blocks = manhattan.factors(zones)
    vectors = manhattan.vectors(zones, [blocks["trips"], blocks["totals"]], trained)
    assert vectors.shape == (180, 128)
    assert np.isfinite(vectors).all()
    assert (manhattan.r2(zones, vectors) >= [0.84, 0.73, 0.49]).all()
    # labels in another order are not predicted: the vectors hold nothing of them
    mixed = np.random.default_rng(0).permutation(180)
    shuffled = {task: values[mixed] for task, values in zones.labels.items()}
    assert (manhattan.r2(manhattan.Zones(**{**vars(zones), "labels": shuffled}), vectors) < 0.1).all()
