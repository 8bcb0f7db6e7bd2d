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


PAIRS = "status VARCHAR, person VARCHAR, src UBIGINT, dst UBIGINT, movements BIGINT"


def test_mobility_visit_rows(connection):
    rows = [(0, 7, dt.datetime(2024, 1, 1), LON, LAT), (1, None, None, None, LAT)]
    columns = "source_row BIGINT, person BIGINT, time TIMESTAMP, lon DOUBLE, lat DOUBLE"
    table(connection, "mobility_source", rows, columns)
    connection.execute("INSERT INTO mobility_source VALUES (2, 7, 'infinity', 0, 0)")
    found = sorted(result(connection, "mobility_visit_rows"))
    start = int(hour(0).timestamp() * 1e6)
    assert [(row, person, time, lon, lat) for row, person, _, time, lon, lat in found] == [
        (0, 7, start, LON, LAT),
        (1, None, None, None, LAT),
        (2, 7, None, 0.0, 0.0),
    ]
    assert found[0][2] == found[2][2] != found[1][2]


def test_mobility_trip_rows(connection):
    ends = "source_row BIGINT, origin_lon DOUBLE, origin_lat DOUBLE, destination_lon DOUBLE, destination_lat DOUBLE"
    rows = [(0, 1.0, 2.0, 3.0, 4.0, "p"), (1, 5.0, 6.0, 7.0, 8.0, "p"), (2, 1.0, 2.0, 9.0, 9.0, None)]
    table(connection, "mobility_source", rows, f"{ends}, person VARCHAR")
    found = sorted(result(connection, "mobility_trip_rows", with_person=True))
    assert [row[:2] + row[3:] for row in found] == [(i, who, *places) for i, *places, who in rows]
    assert found[0][2] == found[1][2] != found[2][2]
    table(connection, "mobility_source", [row[:-1] for row in rows], ends)
    found = sorted(result(connection, "mobility_trip_rows", with_person=False))
    assert [person for _, person, *_ in found] == [None] * 3
    assert found[0][2] == found[2][2] != found[1][2]


def test_mobility_visit_pairs_and_mobility_movement_counts(connection):
    hours = 3_600_000_000
    rows = [
        ("p", 0, A, True),
        ("p", 1 * hours, B, True),
        ("p", 3 * hours, C, True),
        ("p", 4 * hours, A, True),
        ("p", 4 * hours, A, True),
        ("p", 5 * hours, 77, False),
        ("p", 5 * hours, 77, False),
        ("p", 9 * hours, A, True),
        ("q", 0, C, True),
        ("q", 1 * hours, C, True),
        ("q", 2 * hours, C, True),
    ]
    table(connection, "mobility_bucket", rows, "person VARCHAR, time_us BIGINT, cell UBIGINT, inside BOOLEAN")
    result(connection, "mobility_visit_pairs", window_hours=1.5)
    assert set(rows_of(connection, "FROM mobility_pairs WHERE status = 'kept'")) == {
        ("kept", "p", A, B, 1),
        ("kept", "p", C, A, 1),
        ("kept", "q", C, C, 2),
    }
    assert result(connection, "mobility_movement_counts") == [
        ("after_window", 1),
        ("duplicate", 1),
        ("duplicate_outside", 1),
        ("kept", 4),
        ("leaving", 1),
        ("outside", 1),
    ]


def test_mobility_trip_pairs(connection):
    rows = [("p", A, B), ("p", A, B), (None, A, B)]
    table(connection, "mobility_bucket", rows, "person VARCHAR, src UBIGINT, dst UBIGINT")
    result(connection, "mobility_trip_pairs")
    assert rows_of(connection, "FROM mobility_pairs ORDER BY person") == [
        ("kept", "p", A, B, 2),
        ("kept", None, A, B, 1),
    ]


def test_mobility_all_pairs_and_mobility_bounded_counts(connection):
    rows = [("kept", "p", 1, 2, 3), ("kept", "q", 1, 2, 4), ("leaving", None, None, None, 9)]
    table(connection, "mobility_pairs", rows, PAIRS)
    result(connection, "mobility_all_pairs")
    assert rows_of(connection, "FROM mobility_bounded ORDER BY ALL") == [("p", 1, 2, 3), ("q", 1, 2, 4)]
    assert result(connection, "mobility_bounded_counts") == [(7,)]


@pytest.mark.parametrize("self_loops", [False, True])
def test_mobility_bounded_pairs(connection, self_loops):
    rows = [("kept", who, 1, dst, 3) for who in "pq" for dst in range(1, 8)] + [("leaving", None, None, None, 9)]
    found = []
    for ordered in (rows, rows[::-1]):
        table(connection, "mobility_pairs", ordered, PAIRS)
        parameters = {"max_edges": 4, "max_movements": 10, "self_loops": self_loops}
        result(connection, "mobility_bounded_pairs", **parameters)
        found.append(rows_of(connection, "FROM mobility_bounded ORDER BY ALL"))
    assert found[0] == found[1]
    for who in "pq":
        kept = [(dst, n) for person, src, dst, n in found[0] if person == who and (self_loops or src != dst)]
        # 3 + 3 + 3 + 1
        assert sorted(n for _, n in kept) == [1, 3, 3, 3]
    # which edges stay is not the same for everybody
    edges = {who: {dst for person, _, dst, _ in found[0] if person == who and dst > 1} for who in "pq"}
    assert edges["p"] != edges["q"]
    if not self_loops:
        # a loop that is dropped later is left for its own count
        assert ("p", 1, 1, 3) in found[0]


def test_mobility_bucket_edges(connection):
    table(connection, "cell_regions", [(A, 0), (B, 0), (C, 1)], "cell UBIGINT, region INTEGER")
    columns = "person VARCHAR, src UBIGINT, dst UBIGINT, movements BIGINT"
    table(connection, "mobility_bounded", [("p", A, B, 2), ("q", A, B, 1), ("q", C, A, 5)], columns)
    found = sorted(result(connection, "mobility_bucket_edges", with_person=True))
    assert found == [(0, A, B, 3, 2), (1, C, A, 5, 1)]
    found = sorted(result(connection, "mobility_bucket_edges", with_person=False))
    assert found == [(0, A, B, 3, 3), (1, C, A, 5, 5)]


def test_mobility_candidates(connection):
    rows = [(0, A, B, 3, 2), (0, A, B, 4, 1), (1, C, A, 5, 1)]
    columns = "region INTEGER, src UBIGINT, dst UBIGINT, movements BIGINT, people BIGINT"
    table(connection, "mobility_parts", rows, columns)
    result(connection, "mobility_candidates", region=0, first_src=0, last_src=A)
    assert rows_of(connection, "FROM mobility_candidates") == [(A, B, 7, 3)]
    result(connection, "mobility_candidates", region=0, first_src=A + 1, last_src=(1 << 64) - 1)
    assert rows_of(connection, "FROM mobility_candidates") == []
    assert result(connection, "mobility_src_rows", region=0) == [(A, 2)]


FLOWS = "source_row BIGINT, origin VARCHAR, destination VARCHAR, count DOUBLE"
AS_THEY_ARE = {"code_digits": None, "zone_digits": None, "kinds": None, "occasion": "row", "file_bits": 40}


def test_mobility_flow_pairs(connection):
    rows = [
        (0, "a", "b", 5.0),
        (1, "a", "b", 2.5),
        (2, None, "a", 5.0),
        (3, "a", "b", -999.0),
        (4, "a", "b", None),
        (5, "a", "b", float("inf")),
        (6, "z", "b", float("nan")),
        (7, "a", "b", 1e16),
        ((1 << 40) + 0, "a", "b", 1.0),
    ]
    table(connection, "mobility_source", rows, FLOWS)
    order = "FROM mobility_zone_pairs ORDER BY status, origin"
    result(connection, "mobility_flow_pairs", **AS_THEY_ARE)
    bad = [("bad_count", "a", "b", 4, 0, 0), ("bad_count", "z", "b", 1, 0, 0)]
    nowhere = ("counted", None, "a", 1, 5, 5)
    assert rows_of(connection, order) == [*bad, ("counted", "a", "b", 3, Decimal("8.5"), 5.0), nowhere]
    # rows of a file add up, another file may count the same people
    result(connection, "mobility_flow_pairs", **AS_THEY_ARE | {"occasion": "file"})
    assert rows_of(connection, order)[2] == ("counted", "a", "b", 3, Decimal("8.5"), 7.5)
    result(connection, "mobility_flow_pairs", **AS_THEY_ARE | {"occasion": "trip"})
    assert rows_of(connection, order) == [
        ("counted", "a", "b", 7, 7, 7),
        ("counted", "z", "b", 1, 1, 1),
        ("counted", None, "a", 1, 1, 1),
    ]


def test_mobility_flow_pairs_of_published_codes(connection):
    rows = [
        (0, "0101", "0201", 1.0, "mon", "3"),
        (1, "0102", "0202", 2.0, "mon", "3"),
        (2, "0102", "0202", 5.0, "tue", "3"),
        (3, "101", "0202", 9.0, "tue", "3"),
        (4, "0102", "0202", 7.0, "tue", "1"),
        (5, "0102", "0202", 7.0, "tue", None),
    ]
    table(connection, "mobility_source", rows, f"{FLOWS}, occasion VARCHAR, kind VARCHAR")
    options = {"code_digits": 4, "zone_digits": 2, "kinds": ["3"], "occasion": "named"}
    result(connection, "mobility_flow_pairs", **AS_THEY_ARE | options)
    assert rows_of(connection, "FROM mobility_zone_pairs ORDER BY status, origin") == [
        ("counted", "01", "02", 3, 8, 5),
        ("counted", None, "02", 1, 9, 9),
        ("not_selected", "01", "02", 2, 14, 14),
    ]


def test_mobility_zone_trips_and_mobility_zone_trip_pairs(connection):
    rows = [(0, "a", "b", "p"), (1, "a", "b", "p"), (2, "a", "b", "q"), (3, "b", None, "q"), (4, "a", "b", None)]
    table(connection, "mobility_source", rows, "source_row BIGINT, origin VARCHAR, destination VARCHAR, person VARCHAR")
    result(connection, "mobility_zone_trips")
    result(connection, "mobility_all_pairs")
    result(connection, "mobility_zone_trip_pairs")
    assert rows_of(connection, "FROM mobility_zone_pairs ORDER BY rows DESC, status") == [
        ("counted", "a", "b", 3, 3, 2),
        ("counted", "b", None, 1, 1, 1),
        ("without_person", None, None, 1, 1, 0),
    ]


def test_mobility_flows_and_its_counts(connection):
    rows = [
        ("counted", "a", "b", 2, 7.5, 5.0),
        ("counted", "b", "a", 1, 3.0, 3.0),
        ("counted", "b", "b", 1, 0.0, 0.0),
        ("counted", "z", "a", 1, 9.0, 9.0),
        ("bad_count", "a", "b", 4, 0.0, 0.0),
    ]
    columns = "status VARCHAR, origin VARCHAR, destination VARCHAR, rows BIGINT, weight DECIMAL(38, 18), people DOUBLE"
    table(connection, "mobility_zone_pairs", rows, columns)
    table(connection, "zone_home", [("a", "here"), ("b", "there")], "zone VARCHAR, region VARCHAR")
    result(connection, "mobility_flows", minimum_people=5)
    assert rows_of(connection, "FROM mobility_flows WHERE fate IS NOT NULL ORDER BY fate") == [
        ("inside", "below_k", "there", "here", "b", "a", 1, Decimal("3"), 3.0),
        ("inside", "kept", "here", "there", "a", "b", 2, Decimal("7.5"), 5.0),
    ]
    assert result(connection, "mobility_flow_rows") == [
        ("bad_count", 4, 0.0),
        ("inside", 4, 10.5),
        ("without_zone", 1, 9.0),
    ]
    assert result(connection, "mobility_flow_counts") == [
        ("here", "kept", 1, 7.5, 1),
        ("there", "below_k", 1, 3.0, 0),
    ]


def test_flows_that_are_published(connection):
    columns = (
        "fate VARCHAR, region VARCHAR, destination_region VARCHAR, origin VARCHAR, destination VARCHAR, "
        "weight DECIMAL(38, 18), people DOUBLE"
    )
    rows = [
        ("kept", "r", "s", "b", "c", 7.5, 5.5),
        ("kept", "r", "s", "a", "c", 6, 6),
        ("below_k", "r", "s", "d", "c", 1, 1),
    ]
    table(connection, "mobility_flows", rows, columns)
    assert sorted(result(connection, "mobility_exact_flows")) == [
        ("r", "s", "a", "c", 6.0, 6.0),
        ("r", "s", "b", "c", 8.0, 5.0),
    ]
    result(connection, "mobility_published_flows")
    result(connection, "mobility_zone_flows_table")
    result(connection, "mobility_contribute_flows", source="f")
    assert result(connection, "mobility_region_flows", region="r") == [
        ("f", "a", "c", "s", 6.0, 6.0),
        ("f", "b", "c", "s", 7.5, 5.5),
    ]
    assert result(connection, "mobility_region_flows", region="s") == []


def test_mobility_flow_candidates(connection):
    rows = [("f", "a", "b", 8.0, 8.0), ("f", "c", "b", 2.0, 2.0), ("other", "c", "a", 1.0, 1.0)]
    columns = "source VARCHAR, origin VARCHAR, destination VARCHAR, weight DOUBLE, people DOUBLE"
    table(connection, "mobility_region", rows, columns)
    shares = [("a", 1, 0.25), ("a", 2, 0.75), ("b", 3, 0.5), ("b", 4, 0.5), ("c", 2, 1.0)]
    table(connection, "zone_shares", shares, "zone VARCHAR, cell UBIGINT, share DOUBLE")
    result(connection, "mobility_flow_candidates", source="f")
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


def test_mobility_published_and_mobility_exact_edges(connection):
    columns = "src UBIGINT, dst UBIGINT, weight DECIMAL(38, 18), people DOUBLE, fate VARCHAR"
    table(connection, "mobility_judged", [(1, 2, 3.0, 3.0, "kept"), (1, 3, 1.0, 1.0, "below_k")], columns)
    result(connection, "mobility_published")
    assert rows_of(connection, "FROM mobility_published") == [(1, 2, 3, 3)]
    assert result(connection, "mobility_exact_edges") == [(1, 2, 3.0, 3.0)]


def test_mobility_contributions_table_mobility_contribute_and_mobility_edges(connection):
    result(connection, "mobility_contributions_table")
    columns = "src UBIGINT, dst UBIGINT, weight DECIMAL(38, 18), people DOUBLE"
    for rows in ([(2, 1, 0.1, 5.0), (1, 2, 1.0, 7.0), (3, 1, 0.0, 5.0)], [(2, 1, 0.2, 9.0)]):
        table(connection, "mobility_published", rows, columns)
        result(connection, "mobility_contribute")
    # decimals: 0.1 + 0.2 is 0.3; a weight too small for them leaves no edge
    assert result(connection, "mobility_edges") == [(1, 2, 1.0, 7.0), (2, 1, 0.3, 5.0)]
    assert result(connection, "mobility_edge_totals") == [(2, 1.3)]
