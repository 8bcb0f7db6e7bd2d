import itertools
import threading
import time
import uuid

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import ContractError, MissingTableError, MobclipError
from mobclip_core.store import Store, TableRef, Written
from mobclip_core.vectors import vector_column
from tests.lake import edges, save_bundle


def regions():
    row = {"region": "a", "name": "A", "geometry": b"x", "area_km2": 1.0, "source_features": 1}
    return pa.Table.from_pylist([row], CONTRACTS["regions"].schema())


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Store(str(tmp_path / "lake") if request.param == "local" else f"memory://{uuid.uuid4().hex}/lake")


# ---- tables ----


def test_a_table_comes_back_as_it_went_in(store):
    ref = TableRef("mobility_edges", "36")
    assert not store.exists(ref)
    written = store.write(ref, edges())
    assert store.read(ref).equals(edges())
    assert store.exists(ref)
    assert written.rows == 3
    assert written.data_version == store.data_version(ref)
    assert written.bytes == store.fs.size(store.path(ref))
    assert store.read(ref, ["weight"]).column_names == ["weight"]


def test_same_content_same_version_other_content_other_version(store):
    ref = TableRef("mobility_edges", "36")
    first = store.write(ref, edges()).data_version
    assert store.write(ref, edges()).data_version == first
    assert store.write(ref, edges(weight=2.0)).data_version != first
    assert store.read(ref).column("weight").to_pylist() == [2.0] * 3


def test_partitions_are_listed_sorted_and_read_together(store):
    for region in ("b", "a", "c"):
        store.write(TableRef("mobility_edges", region), edges(weight={"a": 1.0, "b": 2.0, "c": 3.0}[region]))
    assert store.regions("mobility_edges") == ["a", "b", "c"]
    assert store.regions("embeddings") == []
    assert (
        store.read_all("mobility_edges", ["weight"]).column("weight").to_pylist() == [1.0] * 3 + [2.0] * 3 + [3.0] * 3
    )
    assert (
        store.read_all("mobility_edges", ["weight"], ["c", "a"]).column("weight").to_pylist() == [3.0] * 3 + [1.0] * 3
    )


def test_scan_gives_paths_that_duckdb_opens(store):
    for region in ("b", "a"):
        store.write(TableRef("mobility_edges", region), edges())
    store.write(TableRef("regions"), regions())
    with duckdb.connect() as connection:
        if not store.is_local:
            connection.register_filesystem(store.fs)
        for files, rows in (
            (store.scan("mobility_edges"), 6),
            (store.scan("mobility_edges", ["a"]), 3),
            (store.scan("regions"), 1),
        ):
            assert connection.execute("SELECT count(*) FROM read_parquet($files)", {"files": files}).fetchone() == (
                rows,
            )


def test_what_is_missing_is_named(store):
    with pytest.raises(MissingTableError, match=r"mobility_edges\[36\] is not materialised yet .*part\.parquet"):
        store.read(TableRef("mobility_edges", "36"))
    with pytest.raises(MissingTableError, match="not materialised yet: mobility_edges;"):
        store.scan("mobility_edges")
    with pytest.raises(MissingTableError, match=r"not materialised yet: mobility_edges\[x\], mobility_edges\[y\]"):
        store.scan("mobility_edges", ["x", "y"])
    with pytest.raises(MissingTableError, match="not materialised yet: regions"):
        store.scan("regions")
    with pytest.raises(MissingTableError, match="no partition of mobility_edges"):
        store.read_all("mobility_edges")
    with pytest.raises(MissingTableError, match=r"encoder is not materialised yet"):
        store.bundle("encoder")


def test_a_table_against_its_contract_is_not_written(store):
    ref = TableRef("mobility_edges", "36")
    before = store.write(ref, edges()).data_version
    with pytest.raises(
        ContractError, match=r"mobility_edges \(36\) breaks its contract:\n  - weight: 3 values below 0"
    ):
        store.write(ref, edges(weight=-1.0))
    assert store.data_version(ref) == before


@pytest.mark.parametrize("cuts", [(), (1,), (3,), (2, 2, 9), (10,), (0, 4, 8)])
def test_batches_make_the_same_file_however_they_are_cut(store, cuts):
    ref, table = TableRef("mobility_edges", "36"), edges(10)
    whole = store.write_batches(ref, [table], row_group_rows=4)
    bounds = [0, *cuts, 10]
    parts = [table.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    written = store.write_batches(ref, iter(parts), row_group_rows=4)
    assert written == whole
    assert written.rows == 10
    assert written.data_version == store.data_version(ref)
    assert written.bytes == store.fs.size(store.path(ref))
    assert store.read(ref).equals(table)
    assert [batch.num_rows for batch in store.read_batches(ref)] == [4, 4, 2]
    assert store.row_groups(ref) == (3, table.schema)
    assert store.read_row_group(ref, 1, ["src"])["src"].to_pylist() == [4, 5, 6, 7]
    assert store.write_batches(ref, parts).data_version == store.write(ref, table).data_version


def test_batches_that_break_the_contract_leave_what_was_there(store, tmp_path):
    ref = TableRef("mobility_edges", "36")
    before = store.write(ref, edges()).data_version

    def batches():
        yield edges(4)
        yield edges(8, weight=-1.0).slice(4)

    for wrong, problem in (
        (batches(), "weight: 4 values below 0.0 .first rows: 4, 5, 6, 7"),
        ([edges(4), edges(4)], "1 duplicate keys|not sorted"),
        ([edges(2), edges(4).slice(2).drop(["people"])], "one batch has the columns"),
        ([], "no batch was written"),
    ):
        with pytest.raises(ContractError, match=problem):
            store.write_batches(ref, wrong, row_group_rows=4)
        assert store.data_version(ref) == before
    assert not list(tmp_path.rglob(".aside-*"))


def test_a_table_without_rows_in_batches(store):
    ref = TableRef("mobility_edges", "36")
    assert store.write_batches(ref, [edges().slice(0, 0)] * 2).rows == 0
    assert store.read(ref).equals(edges().slice(0, 0))


def test_batches_of_what_is_missing_or_damaged(store):
    ref = TableRef("mobility_edges", "36")
    with pytest.raises(MissingTableError, match="not materialised yet"):
        next(store.read_batches(ref))
    store.write(ref, edges(1000))
    content = store.fs.cat_file(store.path(ref))
    store.fs.pipe_file(store.path(ref), content[: len(content) // 2])
    with pytest.raises(ContractError, match="cannot be read"):
        next(store.read_batches(ref))


def test_widths_of_vectors_survive_an_empty_partition(store):
    ref = TableRef("imagery_features", "36")
    names = ("cell", "features", "valid_fraction", "image_encoder")
    columns = [pa.array([], pa.uint64()), vector_column(np.zeros((0, 7), np.float32)), pa.array([], pa.float64())]
    store.write(ref, pa.table([*columns, pa.array([], pa.string())], names=names))
    assert store.read(ref).schema.field("features").type.list_size == 7


@pytest.mark.parametrize("region", ["../36", "..", ".", "a/b", "a\\b", "", "a..b", ".hidden", "x" * 65, "a\n", "a=b c"])
def test_region_keys_cannot_leave_the_lake(region):
    with pytest.raises(MobclipError, match="not usable as a directory name"):
        TableRef("mobility_edges", region)


def test_a_region_where_it_belongs_and_only_there(store):
    with pytest.raises(MobclipError, match=r"regions\[36\]: the table regions takes no region"):
        store.path(TableRef("regions", "36"))
    with pytest.raises(MobclipError, match="mobility_edges: the table mobility_edges takes a region"):
        store.path(TableRef("mobility_edges"))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_partition_is_a_contract_error(store, share):
    ref = TableRef("mobility_edges", "36")
    store.write(ref, edges(1000))
    path = store.path(ref)
    content = store.fs.cat_file(path)
    store.fs.pipe_file(path, content[: int(share * len(content))])
    with pytest.raises(ContractError, match=r"mobility_edges\[36\]: .*cannot be read .*materialise it again"):
        store.read(ref)


def test_a_partition_with_damaged_pages_is_a_contract_error(store):
    ref = TableRef("mobility_edges", "36")
    store.write(ref, edges(1000))
    path = store.path(ref)
    content = bytearray(store.fs.cat_file(path))
    content[4:400] = b"\xff" * 396
    store.fs.pipe_file(path, bytes(content))
    with pytest.raises(ContractError, match="cannot be read"):
        store.read(ref)


def test_nothing_is_left_aside(tmp_path):
    store = Store(str(tmp_path / "lake"))
    store.write(TableRef("mobility_edges", "36"), edges())
    save_bundle(store, "encoder", {"a.txt": "1"})
    with pytest.raises(ContractError):
        store.write(TableRef("mobility_edges", "36"), edges(weight=-1.0))
    assert not list(tmp_path.rglob(".aside-*"))


def test_another_process_sees_new_partitions_at_once(store):
    other = Store(store.url)
    assert other.regions("mobility_edges") == []
    store.write(TableRef("mobility_edges", "36"), edges())
    assert other.regions("mobility_edges") == ["36"]


def test_readers_never_see_half_a_partition(tmp_path):
    store = Store(str(tmp_path / "lake"))
    ref = TableRef("mobility_edges", "36")
    store.write(ref, edges(20_000, 0.0))
    done = threading.Event()

    def rewrite():
        for i in range(1, 20):
            store.write(ref, edges(20_000, float(i)))
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    reads = 0
    while not done.is_set() or not reads:
        weights = set(store.read(ref, ["weight"]).column("weight").to_pylist())
        assert len(weights) == 1
        reads += 1
    writer.join()
    assert store.read(ref).column("weight")[0].as_py() == 19.0


# ---- bundles ----


def test_a_bundle_comes_back_as_it_went_in(store):
    written = save_bundle(store, "encoder", {"config.json": "{}", "deep/weights.txt": "1 2 3"})
    folder = store.bundle("encoder")
    assert (folder / "config.json").read_text() == "{}"
    assert (folder / "deep/weights.txt").read_text() == "1 2 3"
    assert folder.name == written.data_version == store.data_version(TableRef("encoder"))
    assert written.bytes == 7
    assert store.exists(TableRef("encoder"))
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "deep"]


def test_version_is_by_names_and_content(store):
    first = save_bundle(store, "encoder", {"a": "1", "b": "2"}).data_version
    assert save_bundle(store, "encoder", {"b": "2", "a": "1"}).data_version == first
    assert save_bundle(store, "encoder", {"a": "2", "b": "1"}).data_version != first
    assert save_bundle(store, "encoder", {"a": "1", "c": "2"}).data_version != first


def test_an_error_while_a_bundle_is_written_leaves_the_old_one(store):
    before = save_bundle(store, "encoder", {"a": "old"})
    result: list[Written] = []

    def fail():
        with store.write_bundle("encoder", result) as folder:
            (folder / "a").write_text("new")
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert result == []
    assert store.data_version(TableRef("encoder")) == before.data_version
    assert (store.bundle("encoder") / "a").read_text() == "old"


def test_half_an_upload_of_the_same_content_is_made_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store(f"memory://{uuid.uuid4().hex}/lake")
    content = {"a": "first", "b": "second"}
    version = save_bundle(Store(f"memory://{uuid.uuid4().hex}/other"), "encoder", content).data_version
    # what a process killed while it uploaded leaves: one of the two files, and no current.json
    store.fs.pipe_file(f"{store.root}/encoder/{version}/a", b"first")
    assert save_bundle(store, "encoder", content).data_version == version
    assert sorted(p.name for p in store.bundle("encoder").iterdir()) == ["a", "b"]


def test_old_versions_are_forgotten_but_not_the_newest(store):
    versions = []
    for i in range(5):
        versions.append(save_bundle(store, "encoder", {"a": str(i)}).data_version)
        time.sleep(0.01)
    left = {path.rstrip("/").split("/")[-1] for path in store.fs.ls(f"{store.root}/encoder", detail=False)}
    assert versions[-1] in left
    assert len(left - {"current.json"}) == 3
    assert (store.bundle("encoder") / "a").read_text() == "4"


def test_going_back_to_an_older_version(store):
    first = save_bundle(store, "encoder", {"a": "1"})
    save_bundle(store, "encoder", {"a": "2"})
    assert save_bundle(store, "encoder", {"a": "1"}).data_version == first.data_version
    assert (store.bundle("encoder") / "a").read_text() == "1"


def test_a_remote_bundle_is_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store(f"memory://{uuid.uuid4().hex}/lake")
    save_bundle(store, "encoder", {"a": "1"})
    folder = store.bundle("encoder")
    monkeypatch.setattr(store.fs, "get", lambda *_, **__: pytest.fail("fetched again"))
    assert store.bundle("encoder") == folder


def test_two_processes_that_fetch_the_same_bundle_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store(f"memory://{uuid.uuid4().hex}/lake")
    version = save_bundle(store, "encoder", {"a": "1"}).data_version
    fetch = store.fs.get

    def overtaken(source, target, **options):
        fetch(source, target, **options)
        other = store._cache_dir() / "encoder" / version
        other.mkdir(parents=True)
        (other / "a").write_text("1")

    monkeypatch.setattr(store.fs, "get", overtaken)
    assert (store.bundle("encoder") / "a").read_text() == "1"
    assert not list(tmp_path.rglob(".aside-*"))


# ---- the catalog ----


def test_the_catalog_is_replaced_as_a_whole(store):
    with store.writing_catalog() as aside:
        aside.write_bytes(b"one")
    assert store.catalog_path.read_bytes() == b"one"

    def fail():
        with store.writing_catalog() as aside:
            aside.write_bytes(b"tw")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert store.catalog_path.read_bytes() == b"one"
    assert not list(store.catalog_path.parent.glob(".aside-*"))
    if not store.is_local:
        assert store.fs.cat_file(f"{store.root}/catalog.duckdb") == b"one"
