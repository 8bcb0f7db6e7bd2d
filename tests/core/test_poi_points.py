import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MissingTableError, MobclipError, SourceError
from mobclip_core.poi_locating import KeyCounter
from mobclip_core.poi_points import SCHEMA, build_poi_points, region_file
from mobclip_core.store import TableRef
from tests import lake as lakes
from tests.core.sources.test_openstreetmap import extract
from tests.core.sources.test_published_points import CAFE, foursquare, overture, place, taxonomy, venue

CELLS = lakes.disk(40.7, -74.0, 1)
HERE, THERE = CELLS[:4], CELLS[4:]
FAR = lakes.disk(45.0, -74.0, 0)[0]


def world(folder, points, categories=("shop", "school"), **duckdb):
    poi = {"categories": list(categories), "points": points}
    limits = {"memory_limit": "1GB", "threads": 2} | duckdb
    lake = lakes.deployment(folder, ["here", "there"], poi=poi, duckdb=limits)
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    return lake


def points_table(rows):
    """Rows of cell, category, name, id."""
    centres = [lakes.centre(row[0]) for row in rows]
    return pa.table(
        {
            "lon": pa.array([c[0] for c in centres], pa.float64()),
            "lat": pa.array([c[1] for c in centres], pa.float64()),
            "category": pa.array([row[1] for row in rows], pa.string()),
            "name": pa.array([row[2] if len(row) > 2 else None for row in rows], pa.string()),
            "id": pa.array([row[3] if len(row) > 3 else None for row in rows], pa.string()),
        }
    )


def parquet(folder, rows, name="p.parquet"):
    pq.write_table(points_table(rows), folder / name)
    return str(folder / name)


def source(file, **more):
    return {"file": file, "lon": "lon", "lat": "lat", "category_column": "category"} | more


def rows_of(lake, region):
    table = pq.read_table(lake.store.bundle("poi_points") / region_file(region))
    assert table.schema.equals(SCHEMA)
    return [tuple(row.values()) for row in table.to_pylist()]


def test_each_region_has_a_file_of_gathered_points(tmp_path):
    rows = [(HERE[1], "school", "Elm"), (HERE[0], "odd", None), (HERE[0], "shop", "Rose"), (HERE[0], "shop", "Rose")]
    rows += [(HERE[0], None, "Ash"), (FAR, "shop", "x"), (HERE[0], "shop", " ")]
    lake = world(tmp_path, {"a": source(parquet(tmp_path, rows), name_column="name")})
    result = build_poi_points(lake)
    assert rows_of(lake, "here") == [
        (HERE[0], 0, True, "shop", 1),
        (HERE[0], 0, True, "shop: Rose", 2),
        (HERE[0], 2, False, "Ash", 1),
        (HERE[0], 2, False, "odd", 1),
        (HERE[1], 1, True, "school: Elm", 1),
    ]
    assert rows_of(lake, "there") == []
    assert (result.counts["points_read"], result.counts["points_inside"], result.counts["points_outside"]) == (7, 6, 1)
    assert "| here | 6 | 5 |" in result.markdown["Points by region"]
    assert result.markdown["Points by source"].splitlines()[2].startswith("| a | 0 | 6 | 0 | 1 | 7 |")


def test_counts_add_up_over_sources_of_all_kinds(tmp_path):
    x, y = lakes.centre(HERE[2])
    osm = extract(tmp_path / "a.osm.pbf", nodes=[(1, x, y, {"shop": "bakery"}), (2, 10.0, 10.0, {"shop": "mall"})])
    new = {"taxonomy": pa.struct([("primary", pa.string()), ("hierarchy", pa.list_(pa.string()))])}
    places = [place("a", x=x, y=y, taxonomy=taxonomy("bakery")), place("b", confidence=0.1, x=x, y=y)]
    places += [place("a", "Elm", x=x, y=y, taxonomy=taxonomy("school"))]
    venues = [venue(x=x, y=y), venue("b", x=x, y=y, date_closed="2020-01-01"), venue("c", x=None, y=None)]
    sources = {
        "osm": {"kind": "openstreetmap", "file": osm, "aliases": {"bakery": "shop"}},
        "overture": {
            "kind": "overture",
            "file": overture(tmp_path / "o.parquet", places, new),
            "min_confidence": 0.5,
            "aliases": {"bakery": "shop"},
        },
        "foursquare": {
            "kind": "foursquare",
            "file": foursquare(tmp_path / "f.parquet", venues),
            "level": 1,
            "aliases": {CAFE.split(" > ")[0]: "shop"},
        },
        "table": {"kind": "table"} | source(parquet(tmp_path, [(HERE[2], "shop")])),
    }
    lake = world(tmp_path, sources)
    counts = build_poi_points(lake).counts
    assert rows_of(lake, "here") == [
        (HERE[2], 0, True, "shop", 2),
        (HERE[2], 0, True, "shop: Rose", 1),
        (HERE[2], 1, True, "school: Elm", 1),  # at one place, school comes before shop
    ]
    parts = {name: number for name, number in counts.items() if name.startswith("points_") and number}
    assert parts == {
        "points_read": 9,
        "points_inside": 4,
        "points_outside": 1,
        "points_without_position": 1,
        "points_duplicate_id": 1,
        "points_closed": 1,
        "points_low_confidence": 1,
    }
    assert (counts["osm_nodes"], counts["osm_ways"]) == (2, 0)


@settings(max_examples=8)
@given(st.data())
def test_the_order_of_rows_and_files_changes_no_byte(tmp_path_factory, data):
    row = st.tuples(
        st.sampled_from([*CELLS, FAR]),
        st.sampled_from(["shop", "school", "x", "y", None]),
        st.sampled_from(["Rose", "Elm", None]),
        st.sampled_from(["1", "2", "3", None]),
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=25))
    columns = data.draw(st.sampled_from([{}, {"name_column": "name"}, {"name_column": "name", "id_column": "id"}]))
    seen = set()
    for order in (rows, data.draw(st.permutations(rows))):
        folder = tmp_path_factory.mktemp("order")
        cut = data.draw(st.integers(0, len(order)))
        names = data.draw(st.permutations(["a.parquet", "b.parquet"]))
        for name, part in zip(names, (order[:cut], order[cut:]), strict=True):
            parquet(folder, part, name)
        lake = world(folder, {"a": source(str(folder / "*.parquet"), **columns)})
        result = build_poi_points(lake)
        seen.add((result.written.data_version, tuple(result.counts.items())))
    assert len(seen) == 1


def test_parquet_read_by_arrow_is_the_same_as_text_read_by_duckdb(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        (CELLS[i % 7], [" shop", "school ", "", None][i % 4], ["Rose", "", "  ", None, " Elm "][i % 5], str(i % 50))
        for i in rng.permutation(90)
    ]
    table = points_table(rows)
    pyarrow.csv.write_csv(table, tmp_path / "p.csv")
    pq.write_table(table, tmp_path / "p.parquet")
    pq.write_table(table.set_column(2, "category", table["category"].dictionary_encode()), tmp_path / "d.parquet")
    versions = set()
    for name in ("p.csv", "p.parquet", "d.parquet"):
        lake = world(tmp_path, {"a": source(str(tmp_path / name), name_column="name", id_column="id")})
        versions.add(build_poi_points(lake).written.data_version)
    assert len(versions) == 1


def test_single_precision_and_half_positions(tmp_path):
    x, y = lakes.centre(HERE[0])
    lon = pa.array([x, x, None, np.nan, x, x], pa.float32())
    lat = pa.array([y, None, None, y, y, y], pa.float32())
    pq.write_table(pa.table({"lon": lon, "lat": lat}), tmp_path / "p.parquet")
    file = str(tmp_path / "p.parquet")
    lake = world(tmp_path, {"a": {"file": file, "lon": "lon", "lat": "lat", "category": "shop"}})
    counts = build_poi_points(lake).counts
    assert (counts["points_inside"], counts["points_without_position"]) == (3, 3)
    assert rows_of(lake, "here") == [(HERE[0], 0, True, "shop", 3)]


def test_files_do_not_depend_on_how_batches_are_cut(tmp_path, monkeypatch):
    rows = [(CELLS[i % 7], "shop", f"name {i}") for i in range(300)]
    lake = world(tmp_path, {"a": source(parquet(tmp_path, rows), name_column="name")})
    versions = set()
    for batch_rows in (7, 64, 1000):
        monkeypatch.setattr("mobclip_core.poi_points.BATCH_ROWS", batch_rows)
        monkeypatch.setattr("mobclip_core.poi_points._ROW_GROUP_ROWS", 50)
        versions.add(build_poi_points(lake).written.data_version)
    assert len(versions) == 1
    file = pq.ParquetFile(lake.store.bundle("poi_points") / region_file("here"))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)][:2] == [50, 50]


def test_categories_without_a_counter_are_counted_all_the_same(tmp_path, monkeypatch):
    rows = [(CELLS[i % 7], f"c{i % 20}") for i in range(200)]
    lake = world(tmp_path, {"a": source(parquet(tmp_path, rows))}, categories=[f"c{i}" for i in range(15)])
    version = build_poi_points(lake).written.data_version
    monkeypatch.setattr("mobclip_core.poi_points.KeyCounter", functools.partial(KeyCounter, counters=30))
    assert build_poi_points(lake).written.data_version == version
    assert sum(row[-1] for region in ("here", "there") for row in rows_of(lake, region)) == 200


def test_what_does_not_fit_in_memory_goes_to_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    n = 150_000
    x, y = np.array([lakes.centre(cell) for cell in CELLS])[rng.integers(0, 7, n)].T
    ids = np.char.add("an identifier of some length ", rng.integers(0, 100_000, n).astype(str))
    table = pa.table({"lon": x, "lat": y, "category": ["shop"] * n, "name": np.char.add("the name ", ids), "id": ids})
    pq.write_table(table, tmp_path / "p.parquet")
    file = source(str(tmp_path / "p.parquet"), name_column="name", id_column="id")
    results = [build_poi_points(world(tmp_path, {"a": file}, memory_limit=limit)) for limit in ("40MB", "1GB")]
    assert results[0].written.data_version == results[1].written.data_version
    assert results[0].counts["points_inside"] == len(np.unique(ids))


def damaged(path):
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 10, len(content) * 8 // 10)
    content[middle] = bytes(len(content[middle]))
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("columns", [{}, {"aliases": {}, "wkt": "where", "lon": None, "lat": None}])
def test_a_file_damaged_in_the_middle_is_named(tmp_path, columns):
    rng = np.random.default_rng(0)
    positions = rng.uniform(-80, 80, (50_000, 2))
    table = pa.table(
        {"lon": positions[:, 0], "lat": positions[:, 1], "category": ["shop"] * 50_000}
        | {"where": [f"POINT ({x} {y})" for x, y in positions]}
    )
    pq.write_table(table, tmp_path / "p.parquet", compression="zstd")
    damaged(tmp_path / "p.parquet")
    lake = world(tmp_path, {"a": source(str(tmp_path / "p.parquet")) | columns})
    with pytest.raises(SourceError, match=r"p\.parquet: cannot be read.*fetch it again"):
        build_poi_points(lake)
    assert not lake.store.exists(TableRef("poi_points"))


def test_mostly_swapped_positions_of_a_published_source_are_an_error(tmp_path):
    x, y = lakes.centre(HERE[0])
    file = foursquare(tmp_path / "f.parquet", [venue(str(i), x=y, y=x) for i in range(3)])
    with pytest.raises(
        SourceError, match=r"f\.parquet: 3 of 3 positions have longitude and.*column: longitude and latitude"
    ):
        build_poi_points(world(tmp_path, {"a": {"kind": "foursquare", "file": file}}))


def test_an_identifier_as_category_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("mobclip_core.poi_locating.MAX_CATEGORIES", 5)
    file = parquet(tmp_path, [(HERE[0], f"id {i}") for i in range(9)])
    with pytest.raises(MobclipError, match=r"more than 5 different categories, such as 'id 8'.*name the column"):
        build_poi_points(world(tmp_path, {"a": source(file)}))


def test_without_any_grid_nothing_is_read(tmp_path):
    lake = lakes.deployment(tmp_path, ["here"], poi={"categories": ["shop"]})
    with pytest.raises(MissingTableError, match="no partition of grid_cells"):
        build_poi_points(lake)


def test_progress_is_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("mobclip_core.poi_points._LOG_ROWS", 10)
    lake = world(tmp_path, {"a": source(parquet(tmp_path, [(HERE[0], "shop")] * 25))})
    with caplog.at_level("INFO"):
        build_poi_points(lake)
    assert "reading POIs of a" in caplog.text
    assert "million rows read" in caplog.text


def test_a_lake_in_memory_serves_the_points(tmp_path):
    from mobclip_core.poi import build_poi_aggregates
    from mobclip_core.store import Store

    lake = world(tmp_path, {"a": source(parquet(tmp_path, [(HERE[0], "shop")] * 2))})
    remote = dataclasses.replace(lake, store=Store("memory://points"))
    for region, cells in (("here", HERE), ("there", THERE)):
        lakes.write_grid(remote, region, cells)
    assert build_poi_points(remote).written.data_version == build_poi_points(lake).written.data_version
    assert build_poi_aggregates(remote, "here").counts["pois"] == 2
    remote.store.fs.rm("/points", recursive=True)
