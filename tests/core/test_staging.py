"""What a step writes is seen by the step alone until it is put in place."""

import contextlib
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core import staging
from mobclip_core.errors import ContractError, MissingTableError
from mobclip_core.staging import StagedStore, staged
from mobclip_core.store import Store, TableRef
from tests.lake import edges

EAST, WEST = TableRef("mobility_edges", "east"), TableRef("mobility_edges", "west")


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    found = Store(str(tmp_path / "lake") if request.param == "local" else f"memory://{tmp_path.name}")
    yield found
    if request.param == "memory" and found.fs.exists(found.root):
        found.fs.rm(found.root, recursive=True)


def files(store: Store) -> list[str]:
    return sorted(path.removeprefix(store.root) for path in store.fs.find(store.root))


def test_a_write_is_aside_until_it_is_put_in_place(store):
    store.write(EAST, edges(3))
    with staged(store) as aside:
        written = aside.write(EAST, edges(5))
        aside.write_batches(WEST, [edges(4)], row_group_rows=2)
        assert (aside.read(EAST).num_rows, store.read(EAST).num_rows) == (5, 3)
        assert aside.data_version(EAST) == written.data_version
        assert aside.row_groups(WEST)[0] == 2
        assert not store.exists(WEST)
        assert store.regions("mobility_edges") == ["east"]
        aside.put_in_place()
        assert (aside.read(EAST).num_rows, store.read(EAST).num_rows) == (5, 5)
    assert store.data_version(EAST) == written.data_version
    assert files(store) == [f"/mobility_edges/region={name}/part.parquet" for name in ("east", "west")]


def test_what_is_not_put_in_place_is_gone(store):
    store.write(EAST, edges(3))
    before = store.data_version(EAST)
    with contextlib.suppress(ZeroDivisionError), staged(store) as aside:
        aside.write(EAST, edges(5))
        aside.write(WEST, edges(5))
        raise ZeroDivisionError
    assert store.data_version(EAST) == before
    assert files(store) == ["/mobility_edges/region=east/part.parquet"]


def test_what_breaks_its_contract_leaves_nothing_aside(store):
    with staged(store) as aside:
        with pytest.raises(ContractError):
            aside.write(EAST, edges(5).drop_columns("weight"))
        with pytest.raises(MissingTableError):
            aside.read(EAST)
    assert files(store) == []


def test_what_a_killed_process_left_aside_goes_when_it_is_old(store, monkeypatch):
    killed = StagedStore(store)
    killed.write(EAST, edges(3))
    with staged(store) as aside:
        aside.write(EAST, edges(4))
        aside.put_in_place()
    assert len(files(store)) == 2
    monkeypatch.setattr(staging, "_ABANDONED", timedelta(seconds=-1))
    with staged(store) as aside:
        aside.write(EAST, edges(5))
        aside.put_in_place()
    assert files(store) == ["/mobility_edges/region=east/part.parquet"]
    assert store.read(EAST).num_rows == 5


def test_two_steps_at_once_do_not_see_each_other(store):
    with staged(store) as one, staged(store) as other:
        one.write(EAST, edges(3))
        other.write(EAST, edges(5))
        assert (one.read(EAST).num_rows, other.read(EAST).num_rows) == (3, 5)
        one.put_in_place()
        assert other.read(EAST).num_rows == 5
        other.put_in_place()
    assert store.read(EAST).num_rows == 5


@given(rows=st.lists(st.integers(1, 6), min_size=1, max_size=4), placed=st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_last_that_was_put_in_place_stands(rows, placed):
    store = Store("memory://staging")
    expected: pa.Table | None = None
    for count, place in zip(rows, placed, strict=False):
        with staged(store) as aside:
            aside.write(EAST, edges(count))
            if place:
                aside.put_in_place()
                expected = edges(count)
    if expected is None:
        assert not store.exists(EAST)
    else:
        assert store.read(EAST).equals(expected)
        store.fs.rm(store.root, recursive=True)
