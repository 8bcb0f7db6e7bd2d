import io
import logging

import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from mobclip_core.errors import SourceError
from mobclip_core.sources.polygons import Near, identifiers, polygonal, read_polygons, wrap_longitudes

FORMATS = ["parquet", "gpkg", "shp", "geojson"]


def frame(**columns):
    columns = columns or {"code": ["a1", "a2", "b1"], "kind": ["x", "y", "y"]}
    count = len(next(iter(columns.values())))
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(i, 0, i + 1, 1) for i in range(count)], crs=4326)


def write(data, folder, suffix):
    path = folder / f"zones.{suffix}"
    data.to_parquet(path) if suffix == "parquet" else data.to_file(path)
    return str(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_frame(tmp_path, suffix):
    found, counts = read_polygons(write(frame(), tmp_path, suffix), "code", columns=["kind"])
    assert found["id"].tolist() == ["a1", "a2", "b1"]
    assert found["kind"].tolist() == ["x", "y", "y"]
    assert found["features"].tolist() == [1, 1, 1]
    assert found.crs.to_epsg() == 4326
    assert [g.bounds[0] for g in found.geometry] == [0, 1, 2]
    assert counts == {
        "rows": 3,
        "crs_assumed": 0,
        "dropped_no_id": 0,
        "dropped_empty": 0,
        "dropped_not_finite": 0,
        "dropped_not_polygon": 0,
        "repaired_invalid": 0,
        "wrapped_longitude": 0,
        "dropped_duplicates": 0,
    }


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("prefix", ["a", "a1", "", "A", "%", "z"])
def test_prefix_filter_is_exact(tmp_path, suffix, prefix):
    data = frame(code=["a1", "a2", "b1", "A3"], kind=list("wxyz"))
    found, counts = read_polygons(write(data, tmp_path, suffix), "kind", where={"code": prefix})
    expected = [kind for code, kind in zip(data["code"], data["kind"], strict=True) if code.startswith(prefix)]
    assert found["id"].tolist() == expected
    assert counts["rows"] == len(expected)


@pytest.mark.parametrize("suffix", FORMATS)
def test_prefix_filter_on_numbers(tmp_path, suffix):
    data = frame(code=[36001, 36061, 37001])
    found, _ = read_polygons(write(data, tmp_path, suffix), "code", where={"code": "36"})
    assert found["id"].tolist() == ["36001", "36061"]


@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_wanted_ids_only(tmp_path, suffix):
    found, counts = read_polygons(write(frame(), tmp_path, suffix), "code", ids=["b1", "a1", "nowhere"])
    assert found["id"].tolist() == ["a1", "b1"]
    assert counts["rows"] == 2


def test_filters_reach_the_parquet_reader(tmp_path, monkeypatch):
    seen = {}
    original = gpd.read_parquet

    def spy(file, **options):
        seen.update(options)
        return original(file, **options)

    monkeypatch.setattr(gpd, "read_parquet", spy)
    read_polygons(write(frame(), tmp_path, "parquet"), "code", where={"kind": "y"}, ids=["b1"])
    assert seen["columns"] == ["code", "kind", "geometry"]
    assert "starts_with" in str(seen["filters"])
    assert "is_in" in str(seen["filters"])


def test_float_and_padded_identifiers_become_plain_text():
    assert identifiers(pd.Series([36001.0, 7.5, np.nan])).tolist() == ["36001", "7.5", None]
    assert identifiers(pd.Series([" a ", "", None, "b"])).tolist() == ["a", None, None, "b"]
    assert identifiers(pd.Series([1, 22])).tolist() == ["1", "22"]


def test_rows_without_identifier_are_dropped_and_counted(tmp_path):
    found, counts = read_polygons(write(frame(code=["a", None, " "]), tmp_path, "parquet"), "code")
    assert found["id"].tolist() == ["a"]
    assert counts["dropped_no_id"] == 2


def test_other_crs_is_reprojected(tmp_path):
    path = write(frame().to_crs(3857), tmp_path, "gpkg")
    found, counts = read_polygons(path, "code")
    assert found.crs.to_epsg() == 4326
    assert found.geometry[2].bounds == pytest.approx((2, 0, 3, 1))
    assert counts["crs_assumed"] == 0


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("suffix", ["parquet", "shp"])
def test_missing_crs_is_assumed_counted_and_logged(tmp_path, suffix, caplog):
    data = frame().set_crs(None, allow_override=True)
    with caplog.at_level(logging.WARNING):
        found, counts = read_polygons(write(data, tmp_path, suffix), "code")
    assert counts["crs_assumed"] == 1
    assert found.crs.to_epsg() == 4326
    assert "states no CRS" in caplog.text


def test_metres_without_crs_are_refused(tmp_path):
    data = frame().to_crs(3857).set_crs(None, allow_override=True)
    with pytest.raises(
        SourceError, match=r"3 polygons have coordinates that are no longitude and latitude, e\.g\. \['a1'"
    ):
        read_polygons(write(data, tmp_path, "parquet"), "code")


def test_swapped_coordinates_are_refused_where_they_can_be_seen(tmp_path):
    data = gpd.GeoDataFrame({"code": ["a"]}, geometry=[shapely.box(40.0, -100.0, 41.0, -99.0)], crs=4326)
    with pytest.raises(SourceError, match=r"1 polygons .*swap x and y"):
        read_polygons(write(data, tmp_path, "parquet"), "code")


@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_dirty_geometry_is_repaired_or_dropped_and_counted(tmp_path, suffix):
    bowtie = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    flat = shapely.Polygon([(0, 0), (1, 1), (2, 2)])
    spike = shapely.Polygon([(0, 0), (2, 0), (2, 1), (1, 1), (1, 3), (1, 1), (0, 1)])
    good = shapely.box(0, 0, 1, 1)
    raised = shapely.force_3d(good, 5.0)
    shapes = {
        "bowtie": bowtie,
        "flat": flat,
        "spike": spike,
        "none": None,
        "empty": shapely.MultiPolygon(),
        "good": good,
        "3d": raised,
        "line": shapely.LineString([(0, 0), (1, 1)]),
    }
    data = gpd.GeoDataFrame({"code": list(shapes)}, geometry=list(shapes.values()), crs=4326)
    found, counts = read_polygons(write(data, tmp_path, suffix), "code")
    assert found["id"].tolist() == ["3d", "bowtie", "good", "spike"]
    assert found.geometry.is_valid.all()
    assert not shapely.has_z(found.geometry.to_numpy()).any()
    assert shapely.area(found.geometry.to_numpy()).tolist() == pytest.approx([1.0, 0.5, 1.0, 2.0])
    assert counts["dropped_empty"] == 2
    assert counts["dropped_not_polygon"] == 2
    assert counts["repaired_invalid"] == 3
    assert counts["rows"] == len(found) + 4


def test_coordinates_that_are_not_finite_are_dropped_and_counted(tmp_path):
    bad = shapely.Polygon([(0, 0), (np.inf, 0), (1, 1), (0, 0)])
    data = gpd.GeoDataFrame({"code": ["bad", "good"]}, geometry=[bad, shapely.box(0, 0, 1, 1)], crs=4326)
    found, counts = read_polygons(write(data, tmp_path, "parquet"), "code")
    assert found["id"].tolist() == ["good"]
    assert counts["dropped_not_finite"] == 1


def test_longitudes_beyond_180_are_wrapped(tmp_path):
    data = gpd.GeoDataFrame({"code": ["fiji"]}, geometry=[shapely.box(178, -18, 181, -16)], crs=4326)
    found, counts = read_polygons(write(data, tmp_path, "parquet"), "code")
    assert counts["wrapped_longitude"] == 1
    assert sorted(part.bounds for part in found.geometry[0].geoms) == [(-180, -18, -179, -16), (178, -18, 180, -16)]


def test_wrapping_keeps_the_area():
    assert wrap_longitudes(shapely.box(-190, 0, -170, 10)).area == pytest.approx(200)
    assert wrap_longitudes(shapely.box(200, 0, 210, 10)).bounds == (-160, 0, -150, 10)


def test_only_polygons_are_left_of_a_collection():
    square = shapely.box(0, 0, 1, 1)
    mixed = shapely.GeometryCollection([shapely.Point(5, 5), square, shapely.LineString([(0, 0), (2, 2)])])
    assert polygonal(mixed).equals(square)
    assert polygonal(square) is square


def test_duplicates_first_kept_or_merged(tmp_path):
    path = write(frame(code=["a", "b", "a", "a"], kind=list("wxyz")), tmp_path, "parquet")
    first, counts = read_polygons(path, "code", columns=["kind"])
    assert first["id"].tolist() == ["a", "b"]
    assert first.geometry[0].bounds == (0, 0, 1, 1)
    assert counts["dropped_duplicates"] == 2
    merged, counts = read_polygons(path, "code", columns=["kind"], merge_duplicates=True)
    assert merged["id"].tolist() == ["a", "b"]
    assert merged["kind"].tolist() == ["w", "x"]
    assert merged["features"].tolist() == [3, 1]
    assert shapely.area(merged.geometry.to_numpy()).tolist() == [3, 1]
    assert counts["merged_duplicates"] == 2


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_the_order_of_rows_and_files_changes_nothing(tmp_path, suffix, merge):
    ids = ["a", "b", "a", "c", "a", "b"]
    data = frame(code=ids, kind=list("wxyzwx"))
    data.geometry = [shapely.Point(i / 3, 0).buffer(0.7) for i in range(6)]
    versions = []
    for name, order in (("one", range(6)), ("two", [5, 3, 1, 4, 2, 0])):
        (tmp_path / name).mkdir()
        rows = data.iloc[list(order)]
        for part, some in (("x", rows[:4]), ("y", rows[4:])):
            (tmp_path / name / part).mkdir()
            write(some, tmp_path / name / part, suffix)
        found, counts = read_polygons(
            str(tmp_path / name / "*" / f"zones.{suffix}"), "code", columns=["kind"], merge_duplicates=merge
        )
        assert found["id"].tolist() == ["a", "b", "c"]
        versions.append((found.drop(columns="geometry").to_dict(), found.geometry.to_wkb().tolist(), counts))
    assert versions[0] == versions[1]
    assert versions[0][2]["rows"] == 6


def test_files_in_their_own_crs_and_of_their_own_format(tmp_path):
    first = write(frame(code=["a", "b"]), tmp_path, "parquet")
    second = write(frame(code=["c"]).to_crs(3857), tmp_path, "gpkg")
    found, counts = read_polygons([second, first], "code")
    assert found["id"].tolist() == ["a", "b", "c"]
    assert found.geometry[2].bounds == pytest.approx((0, 0, 1, 1))
    assert counts["rows"] == 3


def test_the_file_of_several_that_lacks_a_column_is_named(tmp_path):
    good = write(frame(), tmp_path, "parquet")
    bad = write(frame(name=["a"]), tmp_path, "gpkg")
    with pytest.raises(SourceError, match=r"zones\.gpkg: no column 'code'"):
        read_polygons([good, bad], "code")


def test_only_what_is_near_is_checked_and_the_rest_is_counted(tmp_path):
    bowtie = shapely.Polygon([(50, 50), (51, 51), (51, 50), (50, 51)])
    shapes = {
        "here": shapely.box(0, 0, 1, 1),
        "edge": shapely.box(1, 1, 2, 2),
        "there": shapely.box(9, 0, 10, 1),
        "nowhere": bowtie,
        "fiji": shapely.box(178, -18, 181, -16),
        "twice": shapely.box(60, 60, 61, 61),
        "none": None,
    }
    data = gpd.GeoDataFrame({"code": [*shapes, "twice"]}, geometry=[*shapes.values(), bowtie], crs=4326)
    near = Near(np.array([0, 0, 1, 1.0]), np.array([[0, 0, 1, 1.0], [9, 0, 12, 1]]))
    found, counts = read_polygons(write(data, tmp_path, "parquet"), "code", near=near)
    # what leaves the map and what repeats an identifier stays, wherever it is
    assert found["id"].tolist() == ["edge", "fiji", "here", "twice"]
    assert counts["elsewhere"] == 2
    assert counts["far"] == 1
    assert counts["rows"] == 8
    assert counts["dropped_empty"] == 1
    assert counts["dropped_duplicates"] == 1
    # that of `nowhere` is not
    assert counts["repaired_invalid"] == 1


def test_nothing_left_is_an_empty_frame(tmp_path):
    found, counts = read_polygons(write(frame(), tmp_path, "parquet"), "code", where={"code": "zzz"})
    assert len(found) == 0
    assert found.columns.tolist() == ["id", "geometry", "features"]
    assert counts["rows"] == 0


@pytest.mark.parametrize("suffix", FORMATS)
def test_missing_columns_are_named_with_those_there_are(tmp_path, suffix):
    path = write(frame(), tmp_path, suffix)
    for options in ({"where": {"zip": "1"}}, {"columns": ["zip"]}):
        with pytest.raises(
            SourceError, match=r"no column 'zip'; column: zip; way out: the file has \['code',.*'kind'"
        ) as e:
            read_polygons(path, "code", **options)
        assert e.value.file == path


def test_missing_file():
    with pytest.raises(SourceError, match=r"/nowhere/zones\.gpkg: no such file"):
        read_polygons("/nowhere/zones.gpkg", "code")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    path = tmp_path / f"zones.{suffix}"
    many = frame(code=[f"zone{i}" for i in range(400)])
    many.geometry = [shapely.Point(i % 20, i // 20).buffer(0.4) for i in range(400)]
    write(many, tmp_path, suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SourceError, match="truncated"):
        read_polygons(str(path), "code")


def test_parquet_without_geometry_is_refused(tmp_path):
    pq.write_table(pa.table({"code": ["a"]}), tmp_path / "zones.parquet")
    with pytest.raises(SourceError, match="without GeoParquet metadata"):
        read_polygons(str(tmp_path / "zones.parquet"), "code")


def test_a_table_without_geometry_is_refused(tmp_path):
    pyogrio.write_dataframe(pd.DataFrame({"code": ["a"]}), tmp_path / "zones.gpkg")
    with pytest.raises(SourceError, match="has no geometry"):
        read_polygons(str(tmp_path / "zones.gpkg"), "code")


def test_geometry_column_of_another_name(tmp_path):
    data = frame().rename_geometry("shape")
    found, _ = read_polygons(write(data, tmp_path, "parquet"), "code")
    assert found.geometry.name == "geometry"
    assert len(found) == 3


def test_key_column_called_id_and_also_kept(tmp_path):
    found, _ = read_polygons(write(frame(id=["a", "b"]), tmp_path, "parquet"), "id", columns=["id"])
    assert found["id"].tolist() == ["a", "b"]


@pytest.mark.filterwarnings("ignore:.*non conformant file extension")
@pytest.mark.parametrize("suffix", ["parquet", "gpkg", "geojson"])
def test_remote_files(tmp_path, suffix):
    local = write(frame(), tmp_path, suffix)
    url = f"memory://polygons/zones.{suffix}"
    with fsspec.open(url, "wb") as remote, io.FileIO(local) as source:
        remote.write(source.read())
    found, _ = read_polygons(url, "code", where={"code": "a"})
    assert found["id"].tolist() == ["a1", "a2"]
