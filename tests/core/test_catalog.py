import shutil

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.catalog import write_catalog
from mobclip_core.errors import MobclipError
from mobclip_core.store import Store, TableRef


def edges(src):
    src = np.asarray(src, dtype=np.uint64)
    return pa.table({"src": src, "dst": src, "weight": np.ones(len(src)), "people": np.full(len(src), 5.0)})


def regions(keys):
    return pa.table(
        {
            "region": keys,
            "name": keys,
            "geometry": pa.array([b""] * len(keys), pa.binary()),
            "area_km2": [1.0] * len(keys),
            "source_features": [1] * len(keys),
        }
    )


def test_views_over_what_is_there_with_region_and_comments(tmp_path):
    store = Store(str(tmp_path / "it's a lake"))
    store.write(TableRef("mobility_edges", "01"), edges([1, 2]))
    store.write(TableRef("mobility_edges", "02"), edges([3]))
    store.write(TableRef("regions"), regions(["01", "02"]))
    with store.writing_catalog() as aside, duckdb.connect(str(aside)) as connection:
        rows = write_catalog(connection, store)
        # the file alone is the catalog before the connection is closed: nothing of it lies in a log beside
        shutil.copy(aside, tmp_path / "copy.duckdb")
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM regions").fetchall() == [(2,)]
    assert rows == {"regions": 2, "mobility_edges": 3}
    with duckdb.connect(str(store.catalog_path), read_only=True) as connection:
        found = connection.execute("SELECT region, src FROM mobility_edges ORDER BY src").fetchall()
        unit = connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'mobility_edges' AND column_name = 'weight'"
        ).fetchone()
    assert found == [("01", 1), ("01", 2), ("02", 3)]
    assert unit == ("movements (movements)",)


def test_a_catalog_that_fails_leaves_the_published_one(tmp_path):
    store = Store(str(tmp_path))
    store.write(TableRef("regions"), regions(["a"]))
    with store.writing_catalog() as aside, duckdb.connect(str(aside)) as connection:
        write_catalog(connection, store)
    before = store.catalog_path.read_bytes()

    def fail_half_way():
        with store.writing_catalog() as aside:
            aside.write_bytes(b"half")
            raise MobclipError("stop")

    with pytest.raises(MobclipError, match="stop"):
        fail_half_way()
    assert store.catalog_path.read_bytes() == before
    assert [path.name for path in tmp_path.glob(".aside-*")] == []


def test_published_files_lie_at_the_root(tmp_path):
    store = Store(str(tmp_path))
    assert store.publish("map.png", b"picture") == str(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == b"picture"
