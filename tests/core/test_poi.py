import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import shapely

from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.poi import build_poi_aggregates
from mobclip_core.poi_points import build_poi_points
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of
from tests import lake as lakes
from tests.poi_worlds import CELLS, FAR, HERE, THERE, aggregates, counts_of, csv, point, source, world


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
