import pyarrow as pa
import pytest

from mobclip_core.sql import session, sql_text
from tests.statements import result, table

SHOP, ODD, NONE = 1 << 32, 1 << 32 | 1, 2 << 32 | 2
"""Keys: number of the cell << 32 | code of the category."""


@pytest.fixture
def connection():
    with session() as connection:
        connection.register("poi_aliases", pa.table({"source": ["A"], "target": ["shop"]}))
        connection.register("poi_categories", pa.table({"category": ["shop", "other"], "position": [0, 1]}))
        words = {"code": [0, 1, 2], "category": ["shop", "odd", None], "position": [0, 1, 1], "rank": [0, 2, 1]}
        connection.register("poi_words", pa.table(words | {"known": [True, False, False]}))
        connection.execute(sql_text("poi_items_table"))
        connection.execute(sql_text("poi_gathered_table"))
        yield connection


def items(connection):
    query = "SELECT cell, category, known, text, points, weight FROM poi_items ORDER BY ALL"
    return connection.execute(query).fetchall()


def gathered(connection):
    return connection.execute("SELECT key, name, points FROM poi_gathered ORDER BY ALL").fetchall()


def test_poi_items_table(connection):
    connection.execute("INSERT INTO poi_items VALUES (1, 0, true, 'x', 1, 0)")
    result(connection, "poi_items_table")
    assert items(connection) == []


def test_poi_gathered_table(connection):
    connection.execute("INSERT INTO poi_gathered VALUES (1, 'x', 1)")
    result(connection, "poi_gathered_table")
    assert gathered(connection) == []


def test_poi_point_rows(connection):
    rows = [
        (0, "i", "c", 1.0, 2.0, None, None),
        (1, None, None, None, None, "SRID=4326;POINT Z (3 4 5)", None),
        (2, None, None, None, None, "LINESTRING (1 2, 3 4)", None),
        (3, None, None, None, None, None, b"x"),
        (4, None, None, float("nan"), None, None, None),
        (5, None, None, None, None, None, None),
    ]
    columns = "source_row BIGINT, id VARCHAR, category VARCHAR, lon DOUBLE, lat DOUBLE, wkt VARCHAR, wkb BLOB"
    table(connection, "poi_source", rows, columns)
    found = sorted(result(connection, "poi_point_rows"))
    assert found[0] == (0, "i", None, "c", True, 1.0, 2.0, None, None)
    assert found[1] == (1, None, None, None, True, 3.0, 4.0, None, None)
    assert [row[4] for row in found] == [True] * 5 + [False]
    assert [row[6] for row in found[2:]] == [None] * 4
    assert found[3][7] == b"x"


def test_poi_point_rows_of_a_source_with_a_position_only(connection):
    table(connection, "poi_source", [(7, 1.0, 2.0)], "source_row BIGINT, lon DOUBLE, lat DOUBLE")
    assert result(connection, "poi_point_rows") == [(7, None, None, None, True, 1.0, 2.0, None, None)]


def test_poi_overture_rows(connection):
    rows = [
        (0, "a", " Rose ", "cafe", None, 0.7, "open", b"x"),
        (1, "b", "", None, ["food", "bar"], 0.9, "permanently_closed", None),
        (2, "c", None, "", [], None, None, b"x"),
        (3, "d", None, None, None, float("inf"), None, b"x"),
    ]
    columns = (
        "source_row BIGINT, id VARCHAR, name VARCHAR, category VARCHAR, hierarchy VARCHAR[], confidence DOUBLE, "
        "operating_status VARCHAR, wkb BLOB"
    )
    table(connection, "poi_places", rows, columns)
    assert result(connection, "poi_overture_rows", min_confidence=0.5) == [
        (0, "a", "Rose", "cafe", True, None, None, b"x", None),
        (1, "b", None, "food", False, None, None, None, "closed"),
        (2, "c", None, None, True, None, None, b"x", "low_confidence"),
        (3, "d", None, None, True, None, None, b"x", "low_confidence"),
    ]


def test_poi_foursquare_rows(connection):
    rows = [
        (0, "a", "Rose", 1.0, 2.0, None, ["Food > Cafe > Tea Room", "Retail"]),
        (1, "b", None, None, None, "2024-01-01", None),
        (2, "c", None, None, 2.0, " ", ["Retail"]),
    ]
    columns = (
        "source_row BIGINT, id VARCHAR, name VARCHAR, lon DOUBLE, lat DOUBLE, date_closed VARCHAR, labels VARCHAR[]"
    )
    table(connection, "poi_places", rows, columns)
    assert result(connection, "poi_foursquare_rows", level=2) == [
        (0, "a", "Rose", "Cafe", True, 1.0, 2.0, None, None),
        (1, "b", None, None, False, None, None, None, "closed"),
        (2, "c", None, "Retail", True, None, 2.0, None, None),
    ]
    assert [row[3] for row in result(connection, "poi_foursquare_rows", level=None)] == ["Tea Room", None, "Retail"]


def test_poi_gather_and_poi_gather_named(connection):
    table(connection, "poi_located", [(SHOP, "n"), (ODD, "n"), (SHOP, "m"), (SHOP, "n")], "key UBIGINT, name VARCHAR")
    result(connection, "poi_gather")
    assert gathered(connection) == [(SHOP, None, 3), (ODD, None, 1)]
    result(connection, "poi_gathered_table")
    result(connection, "poi_gather_named")
    assert gathered(connection) == [(SHOP, "m", 1), (SHOP, "n", 2), (ODD, "n", 1)]


def test_poi_gather_counted(connection):
    table(connection, "poi_counted", [(SHOP, None, 5)], "key UBIGINT, name VARCHAR, points BIGINT")
    result(connection, "poi_gather_counted")
    assert gathered(connection) == [(SHOP, None, 5)]


LOCATED = "key UBIGINT, name VARCHAR, id VARCHAR, lon DOUBLE, lat DOUBLE"


def test_poi_staged_poi_drop_duplicates_and_poi_gather_staged(connection):
    rows = [
        (SHOP, "b", "i", 1.0, 5.0),
        (SHOP, "a", "i", 1.0, 5.0),  # the first by name
        (ODD, "a", "i", 0.0, 9.0),  # the first by longitude
        (SHOP, "x", None, 1.0, 5.0),  # without an identifier nothing repeats
        (SHOP, "x", None, 1.0, 5.0),
        (NONE, None, "j", 1.0, 1.0),
        (ODD, None, "j", 1.0, 1.0),  # a category comes before none
        (SHOP, "same", "k", 1.0, 1.0),
        (SHOP, "same", "k", 1.0, 1.0),
        (SHOP, "one", "l", 1.0, 1.0),
    ]
    for order in (rows, rows[::-1]):
        result(connection, "poi_gathered_table")
        table(connection, "poi_located", order, LOCATED)
        result(connection, "poi_staged")
        assert result(connection, "poi_drop_duplicates") == [(4,)]
        result(connection, "poi_gather_staged")
        expected = [(SHOP, "one", 1), (SHOP, "same", 1), (SHOP, "x", 2), (ODD, "a", 1), (ODD, None, 1)]
        assert gathered(connection) == expected


def test_poi_regathered_and_poi_gathered(connection):
    rows = [(NONE, "n", 1), (ODD, None, 2), (SHOP, "n", 3), (SHOP, None, 4), (SHOP, "n", 5), (NONE, None, 6)]
    connection.executemany("INSERT INTO poi_gathered VALUES (?, ?, ?)", rows)
    result(connection, "poi_regathered")
    assert len(gathered(connection)) == 5
    assert result(connection, "poi_gathered") == [
        (1, 0, True, "shop", 4),
        (1, 0, True, "shop: n", 8),
        (1, 1, False, "odd", 2),
        (2, 1, False, "", 6),
        (2, 1, False, "n", 1),
    ]


def test_poi_point_items(connection):
    columns = "cell UBIGINT, category INTEGER, known BOOLEAN, text VARCHAR, points BIGINT"
    table(connection, "poi_region_points", [(5, 0, True, "shop: n", 2), (6, 1, False, "odd", 1)], columns)
    table(connection, "grid", [(5, "here"), (6, "there")], "cell UBIGINT, region VARCHAR")
    result(connection, "poi_point_items", region="here")
    assert items(connection) == [(5, 0, True, "shop: n", 2, 0.0)]


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
        (1, 0, True, "shop", 0, 2.0),
        (2, 0, True, "shop", 0, 8.0),
        (2, 1, False, "", 0, 1.0),
        (2, 1, False, "odd", 0, 1.0),
    ]


def test_poi_zone_items_and_counts_do_not_depend_on_the_order_of_rows(connection):
    rows = [(i, "a", "shop", 0.1 * 3**i, "inside") for i in range(12)]
    table(connection, "zone_shares", [("a", 1, 1 / 3)], "zone VARCHAR, cell UBIGINT, share DOUBLE")
    seen = set()
    for order in (rows, rows[::-1], rows[5:] + rows[:5]):
        renumbered = [(i, *row[1:]) for i, row in enumerate(order)]
        table(connection, "poi_zone_rows", renumbered, ZONE_ROWS)
        result(connection, "poi_items_table")
        result(connection, "poi_zone_items", other=1)
        [(_, _, pois, _)] = result(connection, "poi_zone_row_counts")
        seen.add((items(connection)[0][-1].hex(), pois.hex()))
    assert len(seen) == 1


def test_poi_counts_and_poi_texts(connection):
    rows = [
        (2, 0, True, "shop", 0, 1.5),
        (2, 1, False, "odd", 1, 0.0),
        (2, 1, True, "other", 2, 0.0),
        (1, 0, True, "shop", 1, 0.0),
        (2, 0, True, "shop", 0, 0.5),
        (2, 0, True, "shop: n", 3, 0.0),
    ]
    connection.executemany("INSERT INTO poi_items VALUES (?, ?, ?, ?, ?, ?)", rows)
    result(connection, "poi_counts", minimum=3)
    assert connection.table("poi_counts").fetchall() == [
        (1, 0, 1.0, 0.0, True),
        (2, 0, 5.0, 0.0, False),
        (2, 1, 3.0, 1.0, False),
    ]
    assert result(connection, "poi_texts") == [
        (2, "odd", 1.0),
        (2, "other", 2.0),
        (2, "shop", 2.0),
        (2, "shop: n", 3.0),
    ]
    result(connection, "poi_counts", minimum=0)
    assert result(connection, "poi_texts")[0] == (1, "shop", 1.0)
