import pyarrow as pa
import pytest

from mobclip_core.sql import session, sql_text
from tests.statements import result


@pytest.fixture
def connection():
    with session() as connection:
        rows = [
            (0, "a", 100.0, 60.0, 50.0),
            (1, "a", 170.0, 7.0, 7.0),  # repeats an identifier
            (2, "b", 10.0, None, 20.0),
            (3, "c", -5.0, -1.0, 10.0),
            (4, "d", float("nan"), 4.0, float("inf")),
            (5, "elsewhere", 1.0, 1.0, 1.0),
            (6, None, 1.0, 1.0, 1.0),
        ]
        connection.execute(
            "CREATE TEMP TABLE census_source "
            "(source_row BIGINT, zone VARCHAR, population DOUBLE, value_0 DOUBLE, value_1 DOUBLE)"
        )
        connection.executemany("INSERT INTO census_source VALUES (?, ?, ?, ?, ?)", rows)
        zone_cells = {
            "zone": ["a", "a", "b", "c", "d", "e"],
            "cell": pa.array([1, 2, 2, 2, 3, 4], pa.uint64()),
            "area_km2": [2.0, 6.0, 4.0, 1.0, 5.0, 5.0],
            "weight": [0.25, 0.75, 1.0, 1.0, 1.0, 1.0],
        }
        connection.register("zone_cells", pa.table(zone_cells))
        # bin 0 counts people; bin 1 is a percentage of column 0
        bins = {"bin": [0, 1], "value_column": ["value_0", "value_1"], "base_column": [None, "value_0"]}
        connection.register("bins", pa.table(bins))
        yield connection


def test_census_zones(connection):
    result(connection, "census_zones")
    rows = connection.execute("SELECT zone, population, population_negative FROM census_zones ORDER BY zone").fetchall()
    assert rows == [("a", 100.0, False), ("b", 10.0, False), ("c", None, True), ("d", None, False)]


def test_census_zones_takes_the_same_of_repeated_rows_whatever_their_order(connection):
    nan = float("nan")
    rows = [(9.0, 1.0, 1.0), (None, 0.0, 0.0), (-3.0, 0.0, 0.0), (9.0, 1.0, nan), (9.0, None, 0.0), (nan, 0.0, 0.0)]
    for order in (rows, rows[::-1], rows[3:] + rows[:3]):
        connection.execute("DELETE FROM census_source")
        connection.executemany(
            "INSERT INTO census_source VALUES (?, 'a', ?, ?, ?)", [(i, *row) for i, row in enumerate(order)]
        )
        result(connection, "census_zones")
        assert connection.execute("FROM census_zones").fetchall() == [("a", 9.0, False, 1.0, 1.0)]


def test_census_bins(connection):
    result(connection, "census_zones")
    result(connection, "census_bins")
    # a: 50% of 60; b: no base; c and d: their populations are not known
    assert connection.execute("SELECT zone, bin, people FROM census_bins ORDER BY ALL").fetchall() == [
        ("a", 0, 60.0),
        ("a", 1, 30.0),
    ]


def test_census_zone_totals(connection):
    result(connection, "census_zones")
    result(connection, "census_bins")
    totals = result(connection, "census_zone_totals")
    assert totals == [(-1, 110.0), (0, 60.0), (1, 30.0)]


def test_census_cells(connection):
    result(connection, "census_zones")
    cells = pa.array([1, 2, 3, 4, 5], pa.uint64())
    connection.register("grid_cells", pa.table({"cell": cells, "area_km2": [8.0, 8.0, 8.0, 8.0, 8.0]}))
    # 2 of 8 km2; 6 + 4 of 8, at most all; zones d and e have no population known
    rows = result(connection, "census_cells", least_share=0.01)
    assert rows == [(1, 25.0, 0.25), (2, 85.0, 1.0), (3, 0.0, 0.0), (4, 0.0, 0.0), (5, 0.0, 0.0)]
    assert result(connection, "census_cells", least_share=0.5)[0] == (1, 25.0, 0.5)


def test_census_counts(connection):
    result(connection, "census_zones")
    result(connection, "census_bins")
    connection.register("layer", pa.table({"zone": ["a", "b", "c", "d", "e"]}))
    found = connection.execute(sql_text("census_counts"), {"bins": 2}).to_arrow_table().to_pylist()
    assert found == [
        {
            "zones": 5,
            "zones_without_row": 1,
            "rows_without_zone": 2,
            "duplicate_ids": 1,
            "population_missing": 2,
            "population_negative": 1,
            "bins_missing": 6,
            "population": 110.0,
        }
    ]
