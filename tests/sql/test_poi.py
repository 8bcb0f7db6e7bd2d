import h3
import pyarrow as pa
import pytest
from duckdb.func import ARROW
from duckdb.sqltypes import BLOB, DOUBLE

from mobclip_core.poi import _wkb_points
from mobclip_core.sql import session, sql_text
from tests.statements import result, table

LON, LAT = -74.0, 40.7
CELL = h3.str_to_int(h3.latlng_to_cell(LAT, LON, 6))
NEAR = h3.str_to_int(h3.latlng_to_cell(LAT, LON + 0.2, 6))


@pytest.fixture
def connection():
    with session() as connection:
        connection.create_function("wkb_point", _wkb_points, [BLOB], connection.list_type(DOUBLE), type=ARROW)
        cells = pa.array([CELL, NEAR], pa.uint64())
        connection.register("grid", pa.table({"cell": cells, "region": ["here", "there"], "area_km2": [36.0, 36.0]}))
        connection.register("poi_aliases", pa.table({"source": ["A"], "target": ["shop"]}))
        connection.register("poi_categories", pa.table({"category": ["shop", "other"], "position": [0, 1]}))
        connection.execute(sql_text("poi_items_table"))
        yield connection


def items(connection):
    return connection.execute("SELECT cell, category, known, text, weight FROM poi_items ORDER BY ALL").fetchall()


def test_poi_items_table(connection):
    connection.execute("INSERT INTO poi_items VALUES (1, 0, true, 'x', 1)")
    result(connection, "poi_items_table")
    assert items(connection) == []


def test_poi_points(connection):
    rows = [
        (0, "i", "n", "c", LON, LAT),
        (1, "i", None, None, LON, LAT),
        (2, None, None, None, LON + 0.2, LAT),
        (3, None, None, None, LAT, LON),
        (4, None, None, None, 200.0, LAT),
        (5, None, None, None, 10.0, 10.0),
        (6, None, None, None, float("nan"), LAT),
        (7, None, None, None, None, None),
    ]
    columns = "source_row BIGINT, id VARCHAR, name VARCHAR, category VARCHAR, lon DOUBLE, lat DOUBLE"
    table(connection, "poi_source", rows, columns)
    result(connection, "poi_points", resolution=6)
    found = connection.execute(
        "SELECT source_row, name, category, cell, region, filled, status FROM poi_points ORDER BY 1"
    ).fetchall()
    assert found[0] == (0, "n", "c", CELL, "here", True, "inside")
    assert found[2][3:] == (NEAR, "there", True, "inside")
    statuses = [row[-1] for row in found]
    expected = "inside duplicate_id inside swapped out_of_range outside without_position without_position"
    assert statuses == expected.split()
    assert [row[5] for row in found] == [True] * 7 + [False]


def test_poi_point_counts(connection):
    rows = [(i, None, None, CELL, "here", True, "inside") for i in range(7)]
    rows += [(8, None, None, NEAR, "there", True, "inside"), (9, None, None, None, None, False, "without_position")]
    table(connection, "poi_points", rows, POINTS)
    assert result(connection, "poi_point_counts", region="here") == [
        ("inside", False, 1, 1, [8]),
        ("inside", True, 7, 7, [0, 1, 2, 3, 4]),
        ("without_position", False, 1, 0, [9]),
    ]


def test_poi_point_items(connection):
    rows = [
        (0, "n", "shop", CELL, "here", True, "inside"),
        (1, "n", "A", CELL, "here", True, "inside"),
        (2, None, "odd", CELL, "here", True, "inside"),
        (3, "m", None, CELL, "here", True, "inside"),
        (4, "n", "shop", NEAR, "there", True, "inside"),
        (5, "n", "shop", CELL, "here", True, "duplicate_id"),
    ]
    table(connection, "poi_points", rows, POINTS)
    result(connection, "poi_point_items", region="here", category=None, other=1)
    assert items(connection) == [
        (CELL, 0, True, "shop: n", 2.0),
        (CELL, 1, False, "m", 1.0),
        (CELL, 1, False, "odd", 1.0),
    ]
    result(connection, "poi_items_table")
    result(connection, "poi_point_items", region="there", category="other", other=1)
    assert items(connection) == [(NEAR, 0, True, "shop: n", 1.0)]


POINTS = """source_row BIGINT, name VARCHAR, category VARCHAR, cell UBIGINT, region VARCHAR, filled BOOLEAN,
    status VARCHAR"""
ZONE_ROWS = "source_row BIGINT, zone VARCHAR, category VARCHAR, count DOUBLE, status VARCHAR"


def test_poi_zone_rows_and_poi_zone_row_counts(connection):
    rows = [
        (0, "a", "shop", 2.0),
        (1, "b", "shop", 3.0),
        (2, "z", "shop", 1.0),
        (3, None, "shop", 1.0),
        (4, "a", "shop", -1.0),
        (5, "a", "shop", None),
        (6, "a", "shop", float("inf")),
        (7, "a", "odd", 0.5),
    ]
    table(connection, "poi_source", rows, "source_row BIGINT, zone VARCHAR, category VARCHAR, count DOUBLE")
    table(connection, "zone_home", [("a", True), ("b", False)], "zone VARCHAR, here BOOLEAN")
    result(connection, "poi_zone_rows")
    found = connection.execute("SELECT status FROM poi_zone_rows ORDER BY source_row").fetchall()
    assert [status for (status,) in found] == [
        "inside", "other_region", "without_zone", "without_zone", "bad_count", "bad_count", "bad_count", "inside",
    ]  # fmt: skip
    assert result(connection, "poi_zone_row_counts") == [
        ("bad_count", 3, 0.0, [4, 5, 6]),
        ("inside", 2, 2.5, [0, 7]),
        ("other_region", 1, 3.0, [1]),
        ("without_zone", 2, 0.0, [2, 3]),
    ]


def test_poi_zone_items(connection):
    rows = [
        (0, "a", "shop", 8.0, "inside"),
        (1, "b", "A", 2.0, "inside"),
        (2, "b", "odd", 1.0, "inside"),
        (3, "b", None, 1.0, "inside"),
        (4, "b", "shop", 0.0, "inside"),
        (5, "b", "shop", 9.0, "other_region"),
    ]
    table(connection, "poi_zone_rows", rows, ZONE_ROWS)
    table(
        connection,
        "zone_shares",
        [("a", 1, 0.25), ("a", 2, 0.75), ("b", 2, 1.0)],
        "zone VARCHAR, cell UBIGINT, share DOUBLE",
    )
    result(connection, "poi_zone_items", other=1)
    assert items(connection) == [
        (1, 0, True, "shop", 2.0),
        (2, 0, True, "shop", 8.0),
        (2, 1, False, "", 1.0),
        (2, 1, False, "odd", 1.0),
    ]


def test_poi_counts_and_poi_texts(connection):
    rows = [
        (2, 0, True, "shop", 1.5),
        (2, 1, False, "odd", 1.0),
        (2, 1, True, "other", 2.0),
        (1, 0, True, "shop", 1.0),
        (2, 0, True, "shop", 0.5),
    ]
    connection.executemany("INSERT INTO poi_items VALUES (?, ?, ?, ?, ?)", rows)
    assert result(connection, "poi_counts") == [(1, 0, 1.0, 0.0), (2, 0, 2.0, 0.0), (2, 1, 3.0, 1.0)]
    assert result(connection, "poi_texts") == [(1, "shop", 1.0), (2, "odd", 1.0), (2, "other", 2.0), (2, "shop", 2.0)]
