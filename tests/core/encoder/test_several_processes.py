"""Two and three processes train what one trains, and one that dies loses nothing."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from mobclip_core.encoder.launch import train_together
from mobclip_core.encoder.progress import Checkpoints
from mobclip_core.encoder.ranks import Ranks, first_rank
from mobclip_core.encoder.training import train
from mobclip_core.errors import TrainingError
from tests import lake as lakes

from .conftest import encoder_options, make_cells, make_features, make_graph, random_edges
from .test_training import FULL, vectors

pytestmark = pytest.mark.slow

OPTIONS = {**FULL, "max_epochs": 20, "patience": 100, "modality_dropout": 0.3, "checkpoint_minutes": 0}
KINDS = {
    "paper": {"max_epochs": 20, "patience": 100},
    "all": {**OPTIONS, "batch_size": 9, "max_epochs": 5},
    "sigmoid": {**OPTIONS, "contrast": "sigmoid", "learned_temperatures": True, "negatives_apart": 5},
    "cold": {"max_epochs": 20, "patience": 100, "temperatures": {"poi": 0.01, "census": 0.01, "imagery": 0.02}},
}


def trained(kind, checkpoints=None):
    cells = make_cells(40)
    graph = make_graph(cells, random_edges(40, 200, isolated=[39]))
    config = encoder_options(**KINDS[kind])
    return train(make_features(cells), graph, vectors(40, [39]), config, checkpoints=checkpoints)


def train_every_kind(deployment):
    for kind in KINDS:
        result = trained(kind)
        if first_rank():
            result.save(folder := Path(deployment.store.url) / kind)
            assert folder.is_dir()


class Fatal(Checkpoints):
    """Ends one of the processes after some checkpoints."""

    left = 3

    def save(self, progress):
        super().save(progress)
        self.left -= 1
        if self.left == 0 and not first_rank():
            os.kill(os.getpid(), signal.SIGKILL)


def die_on_the_way(deployment):
    trained("all", Fatal(deployment.store, "a"))


def go_on(deployment):
    result = trained("all", Checkpoints(deployment.store, "a"))
    if first_rank():
        (Path(deployment.store.url) / "history.json").write_text(json.dumps(result.history))


def fail(deployment):
    raise ValueError(f"no such thing in {deployment.profile.name}")


def deployment(folder, processes):
    folder.mkdir(exist_ok=True)
    return lakes.deployment(folder, ["a"], encoder={"processes": processes, "device": "cpu"})


@pytest.fixture
def saved(tmp_path):
    def read(folder, kind):
        from mobclip_core.encoder.checkpoint import TrainedEncoder

        return TrainedEncoder.load(folder / kind)

    return read


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_train_what_one_trains(tmp_path, processes, saved):
    together = deployment(tmp_path / "lake", processes)
    for kind in KINDS:
        (Path(together.store.url) / kind).mkdir(parents=True)
    train_together(train_every_kind, together)
    for kind in KINDS:
        alone, found = trained(kind), saved(Path(together.store.url), kind)
        assert len(alone.history["train"]) * (4 if kind == "all" else 1) >= 20
        for name, values in alone.history.items():
            np.testing.assert_allclose(found.history[name], values, rtol=1e-5, err_msg=f"{kind} {name}")
        for name, value in alone.tensors.items():
            np.testing.assert_allclose(found.tensors[name], value, rtol=2e-3, atol=2e-4, err_msg=f"{kind} {name}")


def test_a_process_that_dies_is_named_and_loses_nothing(tmp_path):
    together = deployment(tmp_path / "lake", 2)
    with pytest.raises(TrainingError, match=r"process 1 of 2 was ended by SIGKILL.*goes on from the last checkpoint"):
        train_together(die_on_the_way, together)
    left = Checkpoints(together.store, "a").load()
    assert left is not None
    # the first process may have been stopped while it wrote the third
    assert left.updates in (2, 3)
    train_together(go_on, together)
    history = json.loads((Path(together.store.url) / "history.json").read_text())
    for name, values in trained("all").history.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)


def test_what_a_process_says_when_it_fails(tmp_path):
    together = deployment(tmp_path / "lake", 2)
    with pytest.raises(TrainingError, match=rf"process \d of 2 failed: .*no such thing in {together.profile.name}"):
        train_together(fail, together)


def test_nodes_are_cut_by_their_work(monkeypatch):
    import torch.distributed as dist

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    ranks = Ranks.of(np.array([6, 1, 1, 1, 1, 1, 1, 3, 3]))
    assert ranks.bounds == (0, 1, 7, 9)
    assert ranks.nodes == slice(1, 7)
    assert [Ranks(r, 3, ranks.bounds).strip(10) for r in range(3)] == [slice(0, 3), slice(3, 6), slice(6, 10)]
