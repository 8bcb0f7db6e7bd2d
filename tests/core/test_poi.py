import dataclasses
import math

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.contracts import matrix_of
from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.poi import build_poi_aggregates, category_counts, check_poi_suppression, text_means
from mobclip_core.poi_points import build_poi_points
from mobclip_core.store import TableRef
from mobclip_core.text import HashedNgramEncoder
from tests import lake as lakes

CELLS = lakes.disk(40.7, -74.0, 1)  # 7 cells
HERE, THERE = CELLS[:4], CELLS[4:]
FAR = lakes.disk(45.0, -74.0, 0)[0]  # a cell of no region


def world(folder, points=None, zone_counts=None, categories=("shop", "school"), **text):
    poi = {"categories": list(categories), "points": points or {}, "zone_counts": zone_counts or {}}
    poi["text"] = {"dimensions": 16} | text
    lake = lakes.deployment(folder, ["here", "there"], poi=poi)
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    return lake


def csv(folder, rows, header="lon,lat,category,name,id", name="poi.csv", bom=False):
    path = folder / name
    lines = [header, *(",".join("" if v is None else str(v) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig" if bom else "utf-8")
    return str(path)


def source(file, **more):
    return {"file": file, "lon": "lon", "lat": "lat", "category_column": "category", "name_column": "name"} | more


def point(cell, category="shop", name="", ident=""):
    return (*lakes.centre(cell), category, name, ident)


def aggregates(lake, region="here"):
    """The result with the counts of both steps, and the table."""
    points = build_poi_points(lake)
    result = build_poi_aggregates(lake, region)
    table = lake.store.read(TableRef("poi_aggregates", region))
    return dataclasses.replace(result, counts=points.counts | result.counts), table


def counts_of(table):
    return dict(zip(table["cell"].to_pylist(), matrix_of(table["counts"]).tolist(), strict=True))


def test_points_are_counted_by_cell_and_category(tmp_path):
    rows = [point(HERE[0]), point(HERE[0]), point(HERE[0], "school"), point(HERE[2], "church"), point(THERE[0])]
    lake = world(tmp_path, {"a": source(csv(tmp_path, rows))})
    result, table = aggregates(lake)
    assert table["cell"].to_pylist() == HERE
    assert counts_of(table) == {HERE[0]: [2, 1, 0], HERE[1]: [0, 0, 0], HERE[2]: [0, 0, 1], HERE[3]: [0, 0, 0]}
    assert table["poi_count"].to_pylist() == [3, 0, 1, 0]
    assert result.counts["points_read"] == 5
    assert result.counts["points_inside"] == 5
    assert result.counts["points_in_region"] == 4
    assert result.counts["pois_category_unknown"] == 1
    assert result.counts["pois"] == 4
    assert result.counts["cells_with_poi"] == 2
    assert "| shop | 2.0 |" in result.markdown["POIs by category"]


def test_every_bad_row_is_counted_once(tmp_path):
    x, y = lakes.centre(HERE[0])
    rows = [
        point(HERE[0], ident=1),
        point(HERE[0], "school", ident=1),  # same id and place: the first category stays
        point(HERE[0]),  # no id: never a duplicate
        point(HERE[0]),
        (None, y, "shop", "", ""),
        ("nan", y, "shop", "", ""),
        ("inf", y, "shop", "", ""),
        (x, 95, "shop", "", ""),
        (y, x, "shop", "", ""),  # swapped
        point(FAR),
        point(THERE[1], ident=2),
    ]
    lake = world(tmp_path, {"a": source(csv(tmp_path, rows), id_column="id")})
    result, table = aggregates(lake)
    expected = {
        "points_read": 11,
        "points_in_region": 3,
        "points_inside": 4,
        "points_duplicate_id": 1,
        "points_without_position": 3,
        "points_out_of_range": 1,
        "points_swapped_suspected": 1,
        "points_outside": 1,
    }
    assert {key: result.counts[key] for key in expected} == expected
    assert counts_of(table)[HERE[0]] == [2, 1, 0]


def test_a_duplicate_id_counts_in_one_region_only(tmp_path):
    rows = [point(THERE[0], ident=7), point(HERE[0], ident=7)]
    lake = world(tmp_path, {"a": source(csv(tmp_path, rows), id_column="id")})
    totals = [aggregates(lake, region)[0].counts["pois"] for region in ("here", "there")]
    assert totals == [0, 1]


def test_an_id_without_a_position_does_not_hide_the_row_that_has_one(tmp_path):
    rows = [(None, None, "shop", "", 7), point(HERE[0], ident=7)]
    lake = world(tmp_path, {"a": source(csv(tmp_path, rows), id_column="id")})
    assert aggregates(lake)[0].counts["points_in_region"] == 1


def test_mostly_swapped_positions_are_an_error(tmp_path):
    rows = [(y, x, "shop", "", "") for x, y in map(lakes.centre, CELLS)] + [point(HERE[0])]
    lake = world(tmp_path, {"a": source(csv(tmp_path, rows))})
    with pytest.raises(
        SourceError, match=r"poi\.csv.*7 of 8 positions have longitude.*swapped.*lon and lat.*rows: 0, 1"
    ):
        aggregates(lake)
    assert not lake.store.exists(TableRef("poi_aggregates", "here"))


def test_projected_positions_are_an_error(tmp_path):
    rows = [(583959.4, 4507523.0, "shop", "", "")] * 3
    lake = world(tmp_path, {"a": source(csv(tmp_path, rows))})
    with pytest.raises(SourceError, match=r"out of range.*EPSG:4326"):
        aggregates(lake)


def test_a_source_without_any_position_is_an_error(tmp_path):
    lake = world(tmp_path, {"a": source(csv(tmp_path, [(None, None, "shop", "", "")] * 2))})
    with pytest.raises(SourceError, match="2 of 2 positions cannot be read"):
        aggregates(lake)


def test_an_error_leaves_the_last_good_partition_untouched(tmp_path):
    path = csv(tmp_path, [point(HERE[0])])
    lake = world(tmp_path, {"a": source(path)})
    aggregates(lake)
    refs = TableRef("poi_points"), TableRef("poi_aggregates", "here")
    versions = [lake.store.data_version(ref) for ref in refs]
    csv(tmp_path, [("x", "y", "shop", "", "")])
    with pytest.raises(SourceError):
        aggregates(lake)
    assert [lake.store.data_version(ref) for ref in refs] == versions


def test_byte_order_mark_compression_and_quotes_are_read(tmp_path):
    x, y = lakes.centre(HERE[0])
    path = tmp_path / "poi.csv.gz"
    table = pa.table({"lon": [x, x], "lat": [y, y], "category": ["shop", "shop"], "name": ['A, B "C"', "D\nE"]})
    with pa.output_stream(str(path), compression="gzip") as out:
        out.write(b"\xef\xbb\xbf")
        pyarrow.csv.write_csv(table, out)
    lake = world(tmp_path, {"a": source(str(path))})
    result, table = aggregates(lake)
    assert table["poi_count"].to_pylist()[0] == 2
    assert result.counts["text_strings_distinct"] == 2


@pytest.mark.parametrize(
    "form",
    [
        "POINT ({} {})",
        "point({} {})",
        "POINT Z ({} {} 5)",
        "POINTZ({} {} 5)",
        "SRID=4326;POINT ({} {})",
        " POINT( {}  {} )",
    ],
)
def test_wkt_points(tmp_path, form):
    wkt = form.format(*lakes.centre(HERE[1]))
    rows = [(wkt, "shop"), (None, "shop"), ("POINT EMPTY", "shop"), (wkt, "school")]
    path = csv(tmp_path, rows, header="where,category")
    lake = world(tmp_path, {"a": {"file": path, "wkt": "where", "category_column": "category"}})
    result, table = aggregates(lake)
    assert counts_of(table)[HERE[1]] == [1, 1, 0]
    assert result.counts["points_without_position"] == 2


def test_wkt_that_is_mostly_no_points_is_an_error(tmp_path):
    path = csv(tmp_path, [("MULTIPOINT(1 2)", "shop")] * 3 + [("POINT (1 2)", "shop")], header="where,category")
    lake = world(tmp_path, {"a": {"file": path, "wkt": "where", "category_column": "category"}})
    with pytest.raises(SourceError, match=r"3 of 4 positions cannot be read.*where.*rows: 0, 1, 2"):
        aggregates(lake)


def geoparquet(path, geometries, categories):
    import geopandas

    frame = geopandas.GeoDataFrame({"category": categories}, geometry=geometries, crs="EPSG:4326")
    frame.to_parquet(path)
    return str(path)


def test_geoparquet_points(tmp_path):
    inside = shapely.Point(*lakes.centre(HERE[3]))
    area = inside.buffer(0.01)
    path = geoparquet(tmp_path / "poi.parquet", [inside, inside, None, area], ["shop", "school", "shop", "shop"])
    lake = world(tmp_path, {"a": {"file": path, "geometry": "geometry", "category_column": "category"}})
    result, table = aggregates(lake)
    assert counts_of(table)[HERE[3]] == [1, 1, 0]
    assert result.counts["points_without_position"] == 2


def test_plain_wkb_points_and_broken_ones(tmp_path):
    wkb = shapely.to_wkb(shapely.Point(*lakes.centre(HERE[0])))
    ewkb = shapely.to_wkb(shapely.set_srid(shapely.Point(*lakes.centre(HERE[1])), 4326), include_srid=True)
    path = tmp_path / "poi.parquet"
    pq.write_table(pa.table({"g": pa.array([wkb, ewkb, b"\x01\x02", None], pa.binary())}), path)
    lake = world(tmp_path, {"a": {"file": str(path), "geometry": "g", "category": "school"}})
    result, table = aggregates(lake)
    assert matrix_of(table["counts"])[:, 1].tolist() == [1, 1, 0, 0]
    assert result.counts["points_without_position"] == 2


def test_a_geometry_column_of_text_is_an_error(tmp_path):
    path = csv(tmp_path, [("POINT (1 2)",)], header="place")
    lake = world(tmp_path, {"a": {"file": path, "geometry": "place", "category": "school"}})
    with pytest.raises(SourceError, match=r"holds VARCHAR, expected WKB geometry.*place.*under wkt"):
        aggregates(lake)


def test_aliases_rename_and_one_category_for_all(tmp_path):
    rows = [point(HERE[0], "A"), point(HERE[0], "school"), point(HERE[0], None)]
    path = csv(tmp_path, rows)
    sources = {
        "renamed": source(path, aliases={"A": "shop", "school": "shop"}),
        "fixed": {"file": path, "lon": "lon", "lat": "lat", "category": "school"},
    }
    result, table = aggregates(world(tmp_path, sources))
    assert counts_of(table)[HERE[0]] == [2, 3, 1]
    assert result.counts["pois_category_unknown"] == 1  # the missing category


def test_a_category_called_other_is_known(tmp_path):
    lake = world(tmp_path, {"a": source(csv(tmp_path, [point(HERE[0], "other")]))})
    result, table = aggregates(lake)
    assert counts_of(table)[HERE[0]] == [0, 0, 1]
    assert result.counts["pois_category_unknown"] == 0


def test_names_with_sql_in_them_are_names(tmp_path):
    evil = 'x"; DROP TABLE grid; --'
    x, y = lakes.centre(HERE[0])
    path = tmp_path / "it's.parquet"
    pq.write_table(pa.table({evil: [x], "lat": [y], "c'": ["'); DROP TABLE poi_items; --"]}), path)
    lake = world(tmp_path, {evil: {"file": str(path), "lon": evil, "lat": "lat", "category_column": "c'"}})
    assert aggregates(lake)[1]["poi_count"].to_pylist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "/no/such/file.csv"}, "no such file"),
        ({"lon": "longitude"}, "no column 'longitude'.*the file has"),
        ({"name_column": "title"}, "no column 'title'"),
        ({"lat": "category"}, "cannot be read as DOUBLE.*column: category.*rows: 0"),
    ],
)
def test_missing_file_missing_column_wrong_type(tmp_path, change, message):
    lake = world(tmp_path, {"a": source(csv(tmp_path, [point(HERE[0], name="A")])) | change})
    with pytest.raises(SourceError, match=message):
        aggregates(lake)


def test_truncated_parquet_is_an_error(tmp_path):
    path = tmp_path / "poi.parquet"
    pq.write_table(pa.table({"lon": np.arange(1000.0), "lat": np.arange(1000.0), "category": ["a"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-100])
    lake = world(tmp_path, {"a": {"file": str(path), "lon": "lon", "lat": "lat", "category_column": "category"}})
    with pytest.raises(SourceError, match="truncated"):
        aggregates(lake)


def test_no_sources_and_empty_files_give_zeros(tmp_path):
    for sources in ({}, {"a": source(csv(tmp_path, []))}):
        result, table = aggregates(world(tmp_path, sources))
        assert table["poi_count"].to_pylist() == [0, 0, 0, 0]
        assert not matrix_of(table["text_vector"]).any()
        assert result.counts["cells_with_poi"] == 0


def test_a_region_without_cells_gives_an_empty_table(tmp_path):
    lake = world(tmp_path, {"a": source(csv(tmp_path, [point(HERE[0])]))})
    lakes.write_grid(lake, "there", [])
    result, table = aggregates(lake, "there")
    assert table.num_rows == 0
    assert table.schema.field("counts").type == pa.list_(pa.float32(), 3)
    assert table.schema.field("text_vector").type == pa.list_(pa.float32(), 16)
    assert result.counts["points_in_region"] == 0


def test_a_missing_grid_is_named(tmp_path):
    lake = lakes.deployment(tmp_path, ["here"])
    with pytest.raises(MissingTableError, match="no partition of grid_cells"):
        aggregates(lake)


def test_only_this_regions_grid_is_enough(tmp_path):
    lake = lakes.deployment(
        tmp_path,
        ["here", "there"],
        poi={"categories": ["shop"], "points": {"a": source(csv(tmp_path, [point(c) for c in CELLS]))}},
    )
    lakes.write_grid(lake, "here", HERE)
    result, table = aggregates(lake)
    assert table["poi_count"].to_pylist() == [1, 1, 1, 1]
    assert result.counts["points_outside"] == 3


def test_the_order_of_rows_changes_no_byte(tmp_path):
    rng = np.random.default_rng(0)
    rows = [point(CELLS[i % 7], ["shop", "school", "church"][i % 3], f"name {i % 5}") for i in range(60)]
    versions = set()
    for _ in range(3):
        lake = world(tmp_path, {"a": source(csv(tmp_path, [rows[i] for i in rng.permutation(60)]))})
        versions.add(aggregates(lake)[0].written.data_version)
    assert len(versions) == 1


def test_points_older_than_the_grid_are_an_error(tmp_path):
    lake = world(tmp_path, {"a": source(csv(tmp_path, [point(HERE[0]), point(HERE[1])]))})
    build_poi_points(lake)
    lakes.write_grid(lake, "here", HERE[1:])
    with pytest.raises(MissingTableError, match=r"1 points of here in cells that its grid does not have.*again"):
        build_poi_aggregates(lake, "here")


def test_a_region_whose_points_are_missing_is_named(tmp_path):
    lake = lakes.deployment(tmp_path, ["here", "there"], poi={"categories": ["shop"]})
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    with pytest.raises(MissingTableError, match="poi_points is not materialised"):
        build_poi_aggregates(lake, "here")
    lake.store.fs.rm(lake.store.path(TableRef("grid_cells", "there")))
    build_poi_points(lake)
    lakes.write_grid(lake, "there", THERE)
    with pytest.raises(MissingTableError, match="poi_points has no points of there"):
        build_poi_aggregates(lake, "there")


# ---- suppression ----


def suppressing(folder, minimum, rows):
    poi = {"categories": ["shop", "school"], "points": {"a": source(csv(folder, rows))}, "minimum_count": minimum}
    lake = lakes.deployment(folder, ["here", "there"], poi=poi | {"text": {"dimensions": 16}})
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    return lake


def test_small_counts_are_suppressed_with_their_texts(tmp_path):
    rows = [point(HERE[0], "shop", "Rose")] * 3 + [point(HERE[0], "school", "Elm")] * 2 + [point(HERE[1], "odd", "X")]
    lake = suppressing(tmp_path, 3, rows)
    result, table = aggregates(lake)
    assert counts_of(table)[HERE[0]] == [3, 0, 0]
    assert table["poi_count"].to_pylist() == [3, 0, 0, 0]
    np.testing.assert_allclose(
        matrix_of(table["text_vector"])[0], HashedNgramEncoder(16).encode(["shop: rose"])[0], atol=1e-6
    )
    assert not matrix_of(table["text_vector"])[1].any()
    assert [result.counts[f"suppressed_{name}"] for name in ("counts", "cells", "pois")] == [2, 2, 3]
    shown = result.markdown["Suppressed POIs by category"]
    assert "| school | 1 | 2.0 |" in shown
    assert "| other | 1 | 1.0 |" in shown
    assert check_poi_suppression(lake, "here").passed


def test_without_a_minimum_nothing_is_suppressed(tmp_path):
    result, table = aggregates(suppressing(tmp_path, 0, [point(HERE[0])]))
    assert table["poi_count"].to_pylist() == [1, 0, 0, 0]
    assert not [name for name in result.counts if name.startswith("suppressed")]


def test_the_check_finds_counts_below_the_minimum(tmp_path):
    aggregates(suppressing(tmp_path, 0, [point(HERE[0]), point(HERE[1]), point(HERE[1])]))
    outcome = check_poi_suppression(suppressing(tmp_path, 2, []), "here")
    assert not outcome.passed
    assert outcome.numbers == {"small_counts": 1, "cells": 1, "minimum": 2}
    assert "1 counts in 1 cells are below the minimum of 2" in outcome.message


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40), st.integers(0, 6))
def test_no_count_is_above_zero_and_below_the_minimum(tmp_path_factory, points, minimum):
    rows = [point(HERE[cell], ["shop", "school", "x"][category]) for cell, category in points]
    lake = suppressing(tmp_path_factory.mktemp("suppress"), minimum, rows)
    result, table = aggregates(lake)
    counts = matrix_of(table["counts"])
    assert not ((counts > 0) & (counts < minimum)).any()
    assert counts.sum() + result.counts.get("suppressed_pois", 0) == len(points)


# ---- text ----


def test_text_vector_is_the_weighted_mean_of_distinct_strings(tmp_path):
    rows = [point(HERE[0], name="Rose"), point(HERE[0], name=" ROSE "), point(HERE[0], "school", "Elm"), point(HERE[1])]
    result, table = aggregates(world(tmp_path, {"a": source(csv(tmp_path, rows))}))
    rose, elm, plain = HashedNgramEncoder(16).encode(["shop: rose", "school: elm", "shop"]).astype(float)
    vectors = matrix_of(table["text_vector"])
    np.testing.assert_allclose(vectors[0], (2 * rose + elm) / 3, atol=1e-6)
    np.testing.assert_allclose(vectors[1], plain, atol=1e-6)
    assert not vectors[2:].any()
    assert result.counts["text_strings_distinct"] == 3


def test_each_distinct_string_is_encoded_once(monkeypatch):
    seen = []

    class Encoder(HashedNgramEncoder):
        def encode(self, strings):
            seen.extend(strings)
            return super().encode(strings)

    monkeypatch.setattr("mobclip_core.poi._STRINGS_AT_ONCE", 2)
    cells = np.array(CELLS, dtype=np.uint64)
    texts = pa.table(
        {
            "cell": pa.array([CELLS[0], CELLS[0], CELLS[1], CELLS[2], CELLS[2]], pa.uint64()),
            "text": ["b", "a", "A ", "c", "a"],
            "weight": [1.0, 1.0, 2.0, 1.0, 3.0],
        }
    )
    means, counts = text_means(cells, texts, Encoder(8))
    assert seen == ["a", "b", "c"]
    assert counts == {"text_strings_total": 5, "text_strings_distinct": 3}
    a, b, c = HashedNgramEncoder(8).encode(["a", "b", "c"])
    np.testing.assert_allclose(means[:3], [(a + b) / 2, a, (3 * a + c) / 4], atol=1e-6)
    assert not means[3:].any()


def test_category_counts_fills_a_matrix():
    cells = np.array([3, 5, 9], dtype=np.uint64)
    rows = pa.table({"cell": pa.array([9, 3], pa.uint64()), "category": [1, 0], "count": [2.5, 1.0]})
    assert category_counts(cells, rows, 2).tolist() == [[1, 0], [0, 0], [0, 2.5]]


# ---- counts by zone ----


def zone_source(file, **more):
    return {
        "file": file,
        "zones": "tracts",
        "id_column": "zone",
        "category_column": "category",
        "count_column": "count",
    } | more


def zone_csv(folder, rows):
    return csv(folder, rows, header="zone,category,count", name="zones.csv")


def zone_world(folder, rows, tracts=None, **more):
    lake = world(folder, zone_counts={"z": zone_source(zone_csv(folder, rows), **more)})
    zones = {"007": {HERE[0]: 0.25, HERE[1]: 0.75}, "008": {HERE[1]: 1.0}}
    lakes.write_zones(lake, "here", {"tracts": tracts or zones, "blocks": {"b": {HERE[0]: 0.5, HERE[1]: 0.5}}})
    lakes.write_zones(lake, "there", {"tracts": {"009": {THERE[0]: 1.0}}})
    return lake


def test_zone_counts_spread_by_the_weights_of_the_census_layer(tmp_path):
    rows = [("007", "shop", 8), ("008", "shop", 1), ("008", "church", 2), ("009", "shop", 5)]
    lake = zone_world(tmp_path, rows)
    result, table = aggregates(lake)
    assert counts_of(table) == {HERE[0]: [2, 0, 0], HERE[1]: [7, 0, 2], HERE[2]: [0, 0, 0], HERE[3]: [0, 0, 0]}
    assert result.counts["pois"] == 11
    assert result.counts["zone_rows_in_region"] == 3
    assert result.counts["zone_rows_in_other_regions"] == 1
    assert aggregates(lake, "there")[0].counts["pois"] == 5


def test_bad_zone_rows_are_counted(tmp_path):
    rows = [
        ("007", "shop", 8),
        ("777", "shop", 1),
        ("", "shop", 1),
        ("007", "shop", -3),
        ("007", "shop", None),
        ("007", "shop", "inf"),
    ]
    result, table = aggregates(zone_world(tmp_path, rows))
    assert result.counts["zone_rows_read"] == 6
    assert result.counts["zone_rows_without_zone"] == 2
    assert result.counts["zone_rows_bad_count"] == 3
    assert result.counts["zone_rows_in_region"] == 1
    assert table["poi_count"].to_pylist() == [2, 6, 0, 0]


def test_zone_ids_that_never_match_are_an_error(tmp_path):
    lake = zone_world(tmp_path, [("7", "shop", 8), ("8", "shop", 8)])
    with pytest.raises(
        SourceError, match=r"zones\.csv: no row matches a zone of the layer 'tracts'.*'007', leading zeros"
    ):
        aggregates(lake)


def test_another_layer_spreads_by_population_density(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks")
    lakes.write_census(lake, "here", {HERE[0]: 100.0, HERE[1]: 200.0, HERE[2]: 50.0, HERE[3]: 0.0})
    result, table = aggregates(lake)
    areas = lake.store.read(TableRef("grid_cells", "here"))["area_km2"].to_numpy()
    density = np.array([100.0, 200.0]) / areas[:2]
    np.testing.assert_allclose(table["poi_count"].to_numpy()[:2], 6 * density / density.sum())
    assert result.counts["pois"] == pytest.approx(6, rel=1e-12)


def test_zones_where_nobody_lives_fall_back_to_area(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks")
    lakes.write_census(lake, "here", dict.fromkeys(HERE, 0.0))
    assert aggregates(lake)[1]["poi_count"].to_pylist() == [3, 3, 0, 0]


def test_spread_by_area_needs_no_census(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks", spread="area")
    assert aggregates(lake)[1]["poi_count"].to_pylist() == [3, 3, 0, 0]


def test_spread_by_population_without_census_names_what_is_missing(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks")
    with pytest.raises(MissingTableError, match=r"census_features\[here\]"):
        aggregates(lake)


def test_zone_text_is_the_category(tmp_path):
    lake = zone_world(tmp_path, [("008", "A", 2), ("008", "school", 2)], aliases={"A": "shop"})
    _, table = aggregates(lake)
    expected = HashedNgramEncoder(16).encode(["shop", "school"]).mean(axis=0)
    np.testing.assert_allclose(matrix_of(table["text_vector"])[1], expected, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6)), min_size=1, max_size=8),
    st.lists(st.floats(0, 1e5), min_size=4, max_size=4),
)
def test_every_zones_count_arrives(tmp_path_factory, rows, people):
    folder = tmp_path_factory.mktemp("zones")
    lake = zone_world(folder, [("b", ["shop", "school", "x", "y"][c], n) for c, n in rows], zones="blocks")
    lakes.write_census(lake, "here", dict(zip(HERE, people, strict=True)))
    result, _ = aggregates(lake)
    assert result.counts["pois"] == pytest.approx(math.fsum(n for _, n in rows), rel=1e-9)
