import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mobclip_core.errors import FILE_BITS, SourceError
from mobclip_core.poi_locating import CategoryCodes, KeyCounter, Located, Locator
from mobclip_core.sources.parquet_points import is_plain, parquet_batches, prepare
from mobclip_core.sources.point_batches import POINT_COLUMNS
from mobclip_core.sources.tables import SourceColumn
from tests import lake as lakes

CELLS = np.array(lakes.disk(40.7, -74.0, 1), dtype=np.uint64)
COLUMNS = {
    "lon": SourceColumn("x", "DOUBLE"),
    "lat": SourceColumn("y", "DOUBLE"),
    "category": SourceColumn("c", "VARCHAR"),
}


def test_a_counter_counts_and_hands_back_what_it_has_no_place_for():
    counter = KeyCounter(cells=3, counters=8)  # two categories a cell
    keys = np.array([1 << 32, 3 << 32 | 1, 3 << 32 | 1, 2 << 32 | 2, 2 << 32 | 7], dtype=np.uint64)
    assert counter.take(keys).tolist() == [2 << 32 | 2, 2 << 32 | 7]
    assert counter.take(keys[:1]).tolist() == []
    assert counter.table().to_pydict() == {"key": [1 << 32, 3 << 32 | 1], "name": [None, None], "points": [2, 2]}


def test_codes_are_positions_ranks_and_words():
    codes = CategoryCodes()
    assert codes.of(["school", None, "odd"]).tolist() == [0, 1, 2]
    assert codes.of(["odd", "shop"]).tolist() == [2, 3]
    assert codes.table(["shop", "school", "other"]).to_pylist() == [
        {"code": 0, "rank": 1, "category": "school", "position": 1, "known": True},
        {"code": 1, "rank": 2, "category": None, "position": 2, "known": False},
        {"code": 2, "rank": 3, "category": "odd", "position": 2, "known": False},
        {"code": 3, "rank": 0, "category": "shop", "position": 0, "known": True},
    ]


def batch_of(lon, lat, **more):
    n = len(lon)
    columns = {
        "source_row": pa.array(range(10, 10 + n), pa.int64()),
        "filled": pa.array([True] * n),
        "lon": pa.array(lon, pa.float64()),
        "lat": pa.array(lat, pa.float64()),
        "wkb": pa.nulls(n, pa.binary()),
    }
    texts = {name: pa.array(more.get(name, [None] * n), pa.string()) for name in ("id", "name", "category", "dropped")}
    return pa.RecordBatch.from_pydict(columns | texts)


def test_a_batch_is_judged_row_by_row():
    x, y = lakes.centre(int(CELLS[0]))
    codes = CategoryCodes()
    locator = Locator(CELLS, 6, codes, {"A": "shop"}, "school")
    schema = locator.schema(with_id=True, with_name=True)
    batch = batch_of(
        [x, x, y, 200.0, 10.0, np.nan, None, x],
        [y, y, x, y, 10.0, y, None, y],
        category=["A", None, "A", "A", "A", "A", "A", "A"],
        name=["n"] * 8,
        dropped=[None] * 7 + ["closed"],
    )
    found = locator.locate(batch, schema)
    assert found.rows == 8
    assert found.batch.schema == schema
    assert found.batch["key"].to_pylist() == [1 << 32, 1 << 32 | 1]
    assert codes.table(["shop", "school", "other"])["category"].to_pylist() == ["shop", "school"]
    statuses = {"inside": 2, "swapped": 1, "out_of_range": 1, "outside": 1, "without_position": 2, "unreadable": 2}
    assert {name: found.tally.counts[name] for name in [*statuses, "closed"]} == statuses | {"closed": 1}
    assert found.tally.first_rows == {
        "without_position": [15, 16],
        "swapped": [12],
        "out_of_range": [13],
        "outside": [14],
    }
    total = Located(batch.slice(0, 0))
    total.add(found)
    total.add(found)
    assert (total.rows, total.tally.counts["inside"], total.dropped) == (16, 4, {"closed"})
    assert total.tally.first_rows["without_position"] == [15, 15, 16, 16]


def test_an_empty_batch_and_an_empty_grid():
    locator = Locator(CELLS[:0], 6, CategoryCodes(), {}, None)
    schema = locator.schema(with_id=False, with_name=False)
    assert locator.locate(batch_of([], []), schema).batch.num_rows == 0
    assert locator.locate(batch_of([1.0], [1.0]), schema).tally.counts["outside"] == 1


def test_plain_parquet_is_read_by_batches_with_numbers_of_files_and_rows(tmp_path):
    files = []
    for name in "ab":
        files.append(str(tmp_path / f"{name}.parquet"))
        table = pa.table({"c": [" A ", "", None], "x": [1.0, None, 3.0], "y": [1.0, None, None], "z": [0, 0, 0]})
        pq.write_table(table, files[-1])
    batches = [prepare(batch) for batch in parquet_batches(files, COLUMNS, 2)]
    assert all(set(batch.schema.names) == set(POINT_COLUMNS) for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row["source_row"] for row in rows] == [0, 1, 2, *(1 << FILE_BITS | i for i in range(3))]
    assert [row["category"] for row in rows] == ["A", None, None] * 2
    assert [row["filled"] for row in rows] == [True, False, True] * 2
    assert {row["name"] for row in rows} == {None}


def test_a_damaged_plain_file_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read to its end.*fetch it again"):
        list(parquet_batches([str(tmp_path / "a.parquet")], COLUMNS, 2))


@pytest.mark.parametrize(
    ("present", "file", "plain"),
    [
        ({"x": "DOUBLE", "y": "FLOAT", "c": "VARCHAR"}, "a.parquet", True),
        ({"x": "DOUBLE", "y": "DOUBLE", "c": "BIGINT"}, "a.parquet", False),
        ({"x": "VARCHAR", "y": "DOUBLE", "c": "VARCHAR"}, "a.parquet", False),
        ({"x": "DOUBLE", "y": "DOUBLE", "c": "VARCHAR"}, "a.csv", False),
    ],
)
def test_which_sources_are_plain(present, file, plain):
    assert is_plain([file], COLUMNS, present) == plain
    assert not is_plain([file], {"wkt": SourceColumn("c", "VARCHAR")}, present)
