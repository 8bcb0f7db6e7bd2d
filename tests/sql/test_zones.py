import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.sql import session, sql_text

LAYER = pa.table(
    {
        "layer": ["t"] * 5 + ["u"],
        "zone": ["a", "a", "b", "b", "c", "a"],
        "cell": pa.array([1, 2, 2, 3, 4, 9], pa.uint64()),
        "weight": [0.25, 0.75, 0.5, 0.5, 1.0, 1.0],
    }
)
GRID = pa.table(
    {"cell": pa.array([1, 2, 3, 4], pa.uint64()), "region": ["r", "r", "s", "s"], "area_km2": [10.0, 20.0, 10.0, 10.0]}
)
CENSUS = pa.table({"cell": pa.array([1, 2, 3], pa.uint64()), "population": [100.0, 0.0, 0.0]})


@pytest.fixture
def connection():
    with session() as connection:
        connection.register("zone_cells", LAYER)
        connection.register("grid", GRID)
        connection.register("census", CENSUS)
        yield connection


def shares(connection, layer, by_population):
    connection.execute(sql_text("zone_shares"), {"layer": layer, "by_population": by_population})
    return connection.execute("SELECT zone, cell, share FROM zone_shares ORDER BY ALL").fetchall()


def test_zone_shares_by_weight(connection):
    assert shares(connection, "t", False) == [
        ("a", 1, 0.25),
        ("a", 2, 0.75),
        ("b", 2, 0.5),
        ("b", 3, 0.5),
        ("c", 4, 1.0),
    ]
    assert shares(connection, "u", False) == [("a", 9, 1.0)]


def test_zone_shares_by_density(connection):
    # a: all its people are in cell 1; b: nobody lives there; c: its cell has no census row
    assert shares(connection, "t", True) == [("a", 1, 1.0), ("b", 2, 0.5), ("b", 3, 0.5), ("c", 4, 1.0)]
    connection.register("census", pa.table({"cell": pa.array([1, 2], pa.uint64()), "population": [100.0, 50.0]}))
    # a: 0.25 x 100 / 10 = 2.5 against 0.75 x 50 / 20 = 1.875
    assert shares(connection, "t", True)[:2] == [("a", 1, 2.5 / 4.375), ("a", 2, 1.875 / 4.375)]


@settings(max_examples=20)
@given(st.data())
def test_shares_of_any_zones_sum_to_one_and_keep_any_mass(data):
    layer, people = [], {}
    for zone in range(data.draw(st.integers(1, 5))):
        cells = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True))
        parts = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(cells), max_size=len(cells))))
        layer += [("t", f"z{zone}", cell, part) for cell, part in zip(cells, parts / parts.sum(), strict=True)]
        people |= {cell: data.draw(st.sampled_from([0.0, 1e-3, 7.0, 1e7])) for cell in cells}
    random = data.draw(st.randoms(use_true_random=False))
    counts = {f"z{i}": float(i + 1) for i in range(5)}
    found = {}
    with session() as connection:
        grid = {
            "cell": pa.array(range(1, 13), pa.uint64()),
            "region": ["r"] * 12,
            "area_km2": [36.0 + i for i in range(12)],
        }
        connection.register("grid", pa.table(grid))
        census = {"cell": pa.array(people, pa.uint64()), "population": list(people.values())}
        connection.register("census", pa.table(census))
        for by_population in (False, True):
            for order in (layer, random.sample(layer, len(layer))):
                columns = dict(zip(("layer", "zone", "cell", "weight"), zip(*order, strict=True), strict=True))
                columns["cell"] = pa.array(columns["cell"], pa.uint64())
                connection.register("zone_cells", pa.table(columns))
                rows = shares(connection, "t", by_population)
                totals = {zone: sum(s for z, _, s in rows if z == zone) for zone, _, _ in rows}
                assert totals == pytest.approx(dict.fromkeys({row[1] for row in layer}, 1.0), rel=1e-9)
                spread = sum(counts[zone] * share for zone, _, share in rows)
                assert spread == pytest.approx(sum(counts[zone] for zone in totals), rel=1e-9)
                # the order of rows changes no bit
                assert found.setdefault(by_population, rows) == rows


def test_zone_home(connection):
    shares(connection, "t", False)
    connection.execute(sql_text("zone_home"), {"region": "s"})
    # b has a cell in both regions here, which the crosswalk never does: any cell decides
    assert connection.execute("FROM zone_home ORDER BY zone").fetchall() == [("a", False), ("b", True), ("c", True)]
