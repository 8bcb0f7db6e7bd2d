"""Checkpoints of a training under way, in the lake.

Belongs here: the bundle `encoder_progress`: writing it, finding one that fits, removing it. Does not belong here: what
a checkpoint holds (see `trainer`), the trained encoder (see `checkpoint`).

A checkpoint is written aside and takes its place in one rename, or, in an object store, when its `current.json` is
replaced: a process killed while it writes leaves the checkpoint before.
"""

import json
import logging

from safetensors.numpy import load_file, save_file

from mobclip_core.encoder.ranks import first_rank
from mobclip_core.encoder.trainer import Progress
from mobclip_core.errors import MissingTableError
from mobclip_core.store import Store, Written

BUNDLE = "encoder_progress"

logger = logging.getLogger(__name__)


class Checkpoints:
    """The one checkpoint of a lake's training.

    Args:
        store: The lake.
        key: Names inputs and options; a checkpoint of another key is none.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key

    def save(self, progress: Progress) -> None:
        """Replace the checkpoint; of several processes the first one does."""
        if not first_rank():
            return
        state = {name: value for name, value in vars(progress).items() if name != "tensors"}
        written: list[Written] = []
        with self._store.write_bundle(BUNDLE, written, keep=1) as folder:
            save_file(progress.tensors, folder / "tensors.safetensors")
            (folder / "progress.json").write_text(json.dumps({"key": self._key, **state}))

    def load(self) -> Progress | None:
        """The checkpoint, None where there is none for this key."""
        try:
            folder = self._store.bundle(BUNDLE)
        except MissingTableError:
            return None
        state = json.loads((folder / "progress.json").read_text())
        if state.pop("key") != self._key:
            logger.info("encoder: the checkpoint found is of other inputs or options; training from the start")
            return None
        logger.info("encoder: going on from epoch %d, step %d", state["epoch"], state["step"])
        return Progress(tensors=load_file(folder / "tensors.safetensors"), **state)

    def clear(self) -> None:
        """Remove the checkpoint, if there is one."""
        self._store.remove_bundle(BUNDLE)
