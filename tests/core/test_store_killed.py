"""Processes killed in the middle of a write: what can be read is the old or the new, never half."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pyarrow.parquet as pq
import pytest

from mobclip_core.store import Store, TableRef
from tests.lake import edges, save_bundle

_HANG = """
    import json, os, pathlib, sys, time
    import pyarrow as pa
    from mobclip_core.store import Store, TableRef

    root, stage, what = sys.argv[1:]
    store = Store(root)

    def hang():
        print("here", flush=True)
        time.sleep(120)

    class Half:
        def __init__(self, file):
            self.file = file
        def __enter__(self):
            return self
        def __exit__(self, *_):
            self.file.close()
        def write(self, content):
            self.file.write(bytes(content)[: len(content) // 2])
            self.file.flush()
            hang()

    real_open, real_replace, real_rename = pathlib.Path.open, os.replace, os.rename
    if stage == "half written":
        pathlib.Path.open = lambda self, mode="r", *a, **k: (
            Half(real_open(self, mode)) if mode == "wb" else real_open(self, mode, *a, **k)
        )
    elif stage == "not synced":
        os.fsync = lambda _: hang()
    elif stage == "not renamed":
        os.replace = lambda *_: hang()
    elif stage == "version renamed":
        os.rename = lambda *a: (real_rename(*a), hang())
    elif stage == "renamed":
        os.replace = lambda *a: (real_replace(*a), hang())

    if what == "table":
        cells = pa.array(range(1000), pa.uint64())
        table = pa.table({"src": cells, "dst": cells, "weight": [2.0] * 1000, "people": [9.0] * 1000})
        store.write(TableRef("mobility_edges", "36"), table)
    else:
        with store.write_bundle("encoder", []) as folder:
            (folder / "a").write_text("new")
            if stage == "in the block":
                hang()
            (folder / "b").write_text("new")
"""


def kill_while_writing(root, stage, what):
    """Run a writer in a process of its own, let it come to a stage of the write, and kill it there with SIGKILL."""
    command = [sys.executable, "-c", textwrap.dedent(_HANG), str(root), stage, what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("stage", "weight"), [("half written", 1.0), ("not synced", 1.0), ("not renamed", 1.0), ("renamed", 2.0)]
)
def test_a_killed_write_of_a_table_leaves_the_old_or_the_new_one(tmp_path, stage, weight):
    store = Store(str(tmp_path))
    ref = TableRef("mobility_edges", "36")
    store.write(ref, edges(1000, 1.0))
    kill_while_writing(tmp_path, stage, "table")
    table = store.read(ref)
    assert table.num_rows == 1000
    assert set(table.column("weight").to_pylist()) == {weight}
    # what the killed process left aside is in nobody's way
    assert store.regions("mobility_edges") == ["36"]
    assert pq.read_table(store.scan("mobility_edges")[0]).num_rows == 1000
    store.write(ref, edges(5, 3.0))
    assert store.read(ref).num_rows == 5


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ("in the block", "old"),
        ("version renamed", "old"),
        ("half written", "old"),
        ("not renamed", "old"),
        ("renamed", "new"),
    ],
)
def test_a_killed_write_of_a_bundle_leaves_the_old_or_the_new_one(tmp_path, stage, text):
    store = Store(str(tmp_path))
    save_bundle(store, "encoder", {"a": "old", "b": "old"})
    kill_while_writing(tmp_path, stage, "bundle")
    folder = store.bundle("encoder")
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": text, "b": text}
    assert json.loads((tmp_path / "encoder/current.json").read_text())["version"] == folder.name
    assert (store.bundle("encoder") / "a").exists()
    save_bundle(store, "encoder", {"a": "new", "b": "new"})
    assert (store.bundle("encoder") / "b").read_text() == "new"
