"""Ray Train: two workers on two nodes train what one process trains."""

import numpy as np
import pytest

from mobclip_core.encoder.checkpoint import TrainedEncoder
from tests.core.encoder.test_several_processes import KINDS, trained
from tests.e2e.isolation import need_a_namespace, run_isolated

pytestmark = pytest.mark.slow


def test_two_workers_train_what_one_process_trains(tmp_path):
    need_a_namespace("ray")
    run_isolated("tests.e2e.ray_train", tmp_path, {}, timeout=400)
    for kind in KINDS:
        alone, found = trained(kind), TrainedEncoder.load(tmp_path / "lake" / kind)
        for name, values in alone.history.items():
            np.testing.assert_allclose(found.history[name], values, rtol=1e-5, err_msg=f"{kind} {name}")
    assert "no such thing in test" in (tmp_path / "error.txt").read_text()
    # nothing of Ray's own stays in the lake
    assert sorted(path.name for path in (tmp_path / "lake").iterdir()) == sorted(KINDS)
