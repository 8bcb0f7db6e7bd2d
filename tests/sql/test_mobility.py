import datetime as dt
from decimal import Decimal

import h3
import pyarrow as pa
import pytest

from mobclip_core.sql import session
from tests.statements import result, table

LON, LAT = -74.0, 40.7


def cell_at(lon):
    return h3.str_to_int(h3.latlng_to_cell(LAT, lon, 6))


A, B, C = cell_at(LON), cell_at(LON + 0.2), cell_at(LON + 0.4)


@pytest.fixture
def connection():
    with session() as connection:
        cells = pa.array([A, B, C], pa.uint64())
        connection.register(
            "grid", pa.table({"cell": cells, "region": ["here", "here", "there"], "area_km2": [36.0] * 3})
        )
        yield connection


def rows_of(connection, query):
    return connection.execute(query).fetchall()


def hour(h):
    return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=h)


def test_mobility_visits_and_mobility_row_counts(connection):
    rows = [
        (0, "p", hour(0), LON, LAT),
        (1, "p", hour(0), LON + 1e-6, LAT),  # the same person, time and cell
        (2, None, hour(0), LON, LAT),
        (3, "p", None, LON, LAT),
        (4, "p", hour(0), None, LAT),
        (5, "p", hour(0), LAT, LON),
        (6, "p", hour(0), 10.0, 10.0),
        (7, "p", hour(1), LON + 0.4, LAT),
    ]
    table(
        connection,
        "mobility_source",
        rows,
        "source_row BIGINT, person VARCHAR, time TIMESTAMPTZ, lon DOUBLE, lat DOUBLE",
    )
    result(connection, "mobility_visits", resolution=6)
    assert rows_of(
        connection, "SELECT source_row, cell, region, status FROM mobility_rows WHERE region IS NOT NULL ORDER BY 1"
    ) == [
        (0, A, "here", "inside"),
        (1, A, "here", "duplicate"),
        (2, A, "here", "without_person"),
        (3, A, "here", "without_time"),
        (7, C, "there", "inside"),
    ]
    assert result(connection, "mobility_row_counts") == [
        ("duplicate", 1, 1.0, [1]),
        ("inside", 2, 2.0, [0, 7]),
        ("outside", 1, 1.0, [6]),
        ("swapped", 1, 1.0, [5]),
        ("without_person", 1, 1.0, [2]),
        ("without_position", 1, 1.0, [4]),
        ("without_time", 1, 1.0, [3]),
    ]


def test_mobility_visit_movements_and_mobility_movement_counts(connection):
    rows = [
        ("p", hour(0), A, "here", "inside"),
        ("p", hour(1), B, "here", "inside"),
        ("p", hour(3), C, "there", "inside"),
        ("p", hour(4), A, "here", "inside"),
        ("p", hour(5), 77, None, "outside"),
        ("p", hour(5.5), B, "here", "duplicate"),
        ("p", hour(9), A, "here", "inside"),
        ("q", hour(0), C, "there", "inside"),
        ("q", hour(1), C, "there", "inside"),
    ]
    table(
        connection,
        "mobility_rows",
        rows,
        "person VARCHAR, time TIMESTAMPTZ, cell UBIGINT, region VARCHAR, status VARCHAR",
    )
    result(connection, "mobility_visit_movements", region="here", window_hours=1.5)
    assert set(rows_of(connection, "FROM mobility_movements")) == {
        ("p", A, B, "kept"),
        ("p", B, C, "after_window"),
        ("p", A, 77, "leaving"),
    }
    assert result(connection, "mobility_movement_counts") == [("after_window", 1), ("kept", 1), ("leaving", 1)]


def test_mobility_trips_and_mobility_trip_movements(connection):
    rows = [
        (0, LON, LAT, LON + 0.2, LAT, "p"),
        (1, LON + 0.4, LAT, LON, LAT, "p"),
        (2, LON, LAT, 10.0, 10.0, "p"),
        (3, LON, None, LON, LAT, "p"),
        (4, LON, LAT, LAT, LON, "p"),
        (5, LON, LAT, LON + 0.4, LAT, None),
    ]
    ends = "source_row BIGINT, origin_lon DOUBLE, origin_lat DOUBLE, destination_lon DOUBLE, destination_lat DOUBLE"
    table(connection, "mobility_source", rows, f"{ends}, person VARCHAR")
    result(connection, "mobility_trips", resolution=6, region="here", with_person=True)
    statuses = ["inside", "other_region", "outside", "without_position", "swapped", "without_person"]
    assert [s for (s,) in rows_of(connection, "SELECT status FROM mobility_rows ORDER BY source_row")] == statuses
    result(connection, "mobility_trip_movements")
    assert rows_of(connection, "FROM mobility_movements") == [("p", A, B, "kept")]
    table(connection, "mobility_source", [row[:-1] for row in rows], ends)
    result(connection, "mobility_trips", resolution=6, region="here", with_person=False)
    result(connection, "mobility_trip_movements")
    assert rows_of(connection, "FROM mobility_movements ORDER BY person") == [("0", A, B, "kept"), ("5", A, C, "kept")]


def test_mobility_movement_candidates(connection):
    rows = [("p", 1, 2, "kept"), ("p", 1, 2, "kept"), ("q", 1, 2, "kept"), ("q", 1, 1, "kept"), ("q", 1, 3, "leaving")]
    table(connection, "mobility_movements", rows, "person VARCHAR, src UBIGINT, dst UBIGINT, status VARCHAR")
    result(connection, "mobility_movement_candidates")
    assert rows_of(connection, "FROM mobility_candidates ORDER BY ALL") == [(1, 1, 1, 1), (1, 2, 3, 2)]


def test_mobility_flow_rows(connection):
    rows = [
        (0, "a", "b", 5.0),
        (1, "b", "a", 5.0),
        (2, "a", "z", 5.0),
        (3, None, "a", 5.0),
        (4, "a", "b", -5.0),
        (5, "a", "b", None),
        (6, "a", "b", float("inf")),
        (7, "z", "b", float("nan")),
        (8, "a", "b", 1e16),
    ]
    table(connection, "mobility_source", rows, "source_row BIGINT, origin VARCHAR, destination VARCHAR, count DOUBLE")
    table(connection, "zone_home", [("a", True), ("b", False)], "zone VARCHAR, here BOOLEAN")
    result(connection, "mobility_flow_rows")
    assert rows_of(connection, "SELECT amount, status FROM mobility_rows ORDER BY source_row") == [
        (5.0, "inside"),
        (5.0, "other_region"),
        (5.0, "without_zone"),
        (5.0, "without_zone"),
        *[(0.0, "bad_count")] * 5,
    ]


def test_mobility_flows_and_mobility_flow_counts(connection):
    rows = [
        ("a", "b", 5.0, "inside"),
        ("a", "b", 2.5, "inside"),
        ("b", "a", 3.0, "inside"),
        ("b", "a", 9.0, "other_region"),
        ("a", "a", 0.0, "inside"),
    ]
    table(connection, "mobility_rows", rows, "origin VARCHAR, destination VARCHAR, amount DOUBLE, status VARCHAR")
    result(connection, "mobility_flows")
    assert rows_of(connection, "FROM mobility_flows ORDER BY origin") == [
        ("a", "b", 2, Decimal("7.5"), 5.0),
        ("b", "a", 1, Decimal("3"), 3.0),
    ]
    assert result(connection, "mobility_flow_counts", minimum_people=5) == [(2, 1, 1, 3.0)]
    table(connection, "mobility_rows", [], "origin VARCHAR, destination VARCHAR, amount DOUBLE, status VARCHAR")
    result(connection, "mobility_flows")
    assert result(connection, "mobility_flow_counts", minimum_people=5) == [(0, 0, 0, 0.0)]


def test_mobility_flow_candidates(connection):
    rows = [("a", "b", 1, 8.0, 8.0), ("c", "b", 1, 2.0, 2.0), ("c", "a", 1, 1.0, 1.0)]
    columns = "origin VARCHAR, destination VARCHAR, rows BIGINT, weight DECIMAL(38, 18), people DOUBLE"
    table(connection, "mobility_flows", rows, columns)
    shares = [("a", 1, 0.25), ("a", 2, 0.75), ("b", 3, 0.5), ("b", 4, 0.5), ("c", 2, 1.0)]
    table(connection, "zone_shares", shares, "zone VARCHAR, cell UBIGINT, share DOUBLE")
    result(connection, "mobility_flow_candidates", minimum_people=2)
    assert rows_of(connection, "FROM mobility_candidates ORDER BY ALL") == [
        (1, 3, 1, 8),
        (1, 4, 1, 8),
        (2, 3, 4, 2),  # 8 x 0.75 x 0.5 from a, 2 x 0.5 from c
        (2, 4, 4, 2),
    ]


def test_mobility_judged_and_mobility_edge_counts(connection):
    rows = [(1, 1, 9.0, 9.0), (1, 2, 4.0, 2.0), (1, 3, 3.5, 3.0), (2, 2, 1.0, 1.0)]
    table(connection, "mobility_candidates", rows, "src UBIGINT, dst UBIGINT, weight DECIMAL(38, 18), people DOUBLE")
    result(connection, "mobility_judged", minimum_people=3, self_loops=False)
    assert result(connection, "mobility_edge_counts") == [("below_k", 1, 4.0), ("kept", 1, 3.5), ("self_loop", 2, 10.0)]
    result(connection, "mobility_judged", minimum_people=3, self_loops=True)
    assert result(connection, "mobility_edge_counts") == [("below_k", 2, 5.0), ("kept", 2, 12.5)]


def test_mobility_contributions_table_mobility_contribute_and_mobility_edges(connection):
    result(connection, "mobility_contributions_table")
    columns = "src UBIGINT, dst UBIGINT, weight DECIMAL(38, 18), people DOUBLE, fate VARCHAR"
    for rows in (
        [(2, 1, 0.1, 5.0, "kept"), (1, 2, 1.0, 7.0, "kept"), (1, 3, 1.0, 1.0, "below_k"), (3, 1, 0.0, 5.0, "kept")],
        [(2, 1, 0.2, 9.0, "kept")],
    ):
        table(connection, "mobility_judged", rows, columns)
        result(connection, "mobility_contribute")
    # decimals: 0.1 + 0.2 is 0.3; a weight too small for them leaves no edge
    assert result(connection, "mobility_edges") == [(1, 2, 1.0, 7.0), (2, 1, 0.3, 5.0)]
