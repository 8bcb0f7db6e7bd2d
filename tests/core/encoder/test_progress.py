"""A training that is interrupted goes on to the same bits."""

import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from mobclip_core.encoder import progress
from mobclip_core.encoder.progress import Checkpoints
from mobclip_core.encoder.trainer import Progress
from mobclip_core.encoder.training import train
from mobclip_core.store import Store

from .conftest import encoder_options, make_cells, make_features, make_graph, random_edges
from .test_training import FULL, vectors

OPTIONS = {**FULL, "modality_dropout": 0.3, "batch_size": 9, "max_epochs": 4, "checkpoint_minutes": 0}


class StoppedError(Exception):
    """The process is gone."""


class Interrupted(Checkpoints):
    """Ends the process when so many checkpoints were written."""

    def __init__(self, store, key, after):
        super().__init__(store, key)
        self.left = after

    def save(self, state):
        super().save(state)
        self.left -= 1
        if self.left == 0:
            raise StoppedError


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def inputs():
    cells = make_cells(40)
    return make_features(cells), make_graph(cells, random_edges(40, 200, isolated=[39])), vectors(40, [39])


@pytest.mark.parametrize("changes", [{}, {"learned_temperatures": True, "contrast": "sigmoid"}])
def test_interrupted_after_any_step_it_ends_at_the_same_bits(options, store, changes):
    config = options(**OPTIONS, **changes)
    expected = train(*inputs(), config)
    for after in (1, 2, 3, 5, 8):
        with pytest.raises(StoppedError):
            train(*inputs(), config, checkpoints=Interrupted(store, "a", after))
        found = train(*inputs(), config, checkpoints=Checkpoints(store, "a"))
        assert found.fingerprint == expected.fingerprint
        assert (found.history, found.best_epoch) == (expected.history, expected.best_epoch)
        Checkpoints(store, "a").clear()


def test_interrupted_at_every_step(options, store):
    config = options(**OPTIONS)
    expected = train(*inputs(), config)
    for _ in range(100):
        try:
            found = train(*inputs(), config, checkpoints=Interrupted(store, "a", 1))
        except StoppedError:
            continue
        break
    assert found.fingerprint == expected.fingerprint
    assert found.history == expected.history


def test_a_checkpoint_of_other_inputs_is_none(options, store, caplog):
    caplog.set_level("INFO")
    with pytest.raises(StoppedError):
        train(*inputs(), options(**OPTIONS), checkpoints=Interrupted(store, "a", 2))
    assert Checkpoints(store, "b").load() is None
    assert "other inputs" in caplog.text
    assert Checkpoints(store, "a").load() is not None
    Checkpoints(store, "a").clear()
    Checkpoints(store, "a").clear()
    assert Checkpoints(store, "a").load() is None


def test_a_checkpoint_holds_what_was_put_in(store):
    state = Progress({"model.x": np.arange(3.0)}, 2, 1, 0.5, 1, 0.25, {"train": [1.0, 0.75]}, 7)
    for number in range(3):
        Checkpoints(store, "a").save(replace(state, step=number))
    found = Checkpoints(store, "a").load()
    assert found.tensors.pop("model.x").tolist() == [0, 1, 2]
    assert found == replace(state, step=2, tensors={})
    # old ones are gone
    assert len([path for path in store.bundle(progress.BUNDLE).parent.iterdir() if path.is_dir()]) == 1


def _killed_while_it_writes(root, number):
    real = progress.save_file

    def half(tensors, path):
        real(tensors, path)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    class Fatal(Checkpoints):
        count = 0

        def save(self, state):
            self.count += 1
            if self.count == number:
                progress.save_file = half
            super().save(state)

    train(*inputs(), _options(), checkpoints=Fatal(Store(root), "a"))


def _options():
    return encoder_options(**OPTIONS)


@pytest.mark.slow
def test_killed_in_the_middle_of_writing_a_checkpoint_nothing_is_lost(store, tmp_path):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_killed_while_it_writes, args=(str(tmp_path), 3))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = Checkpoints(store, "a").load()
    assert left is not None
    assert left.updates == 2
    found = train(*inputs(), _options(), checkpoints=Checkpoints(store, "a"))
    assert found.fingerprint == train(*inputs(), _options()).fingerprint
