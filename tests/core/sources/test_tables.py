import datetime
import gzip
import uuid

import duckdb
import fsspec
import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from mobclip_core.errors import SourceError
from mobclip_core.sources.tables import (
    MAX_UNREADABLE,
    SourceColumn,
    create_source_view,
    file_suffix,
    first_line,
    quote,
    read_table,
    require_file,
)
from mobclip_core.sql import session

TEXT = "id,value,when\n01,1.5,2024-01-02 03:04:05\n02,,\n03,-999,2024-01-03\n"
COLUMNS = {
    "key": SourceColumn("id", "VARCHAR"),
    "number": SourceColumn("value", "DOUBLE", [-999.0]),
    "time": SourceColumn("when", "TIMESTAMP"),
}
ROWS = [
    {"source_row": 0, "key": "01", "number": 1.5, "time": datetime.datetime(2024, 1, 2, 3, 4, 5)},
    {"source_row": 1, "key": "02", "number": None, "time": None},
    {"source_row": 2, "key": "03", "number": None, "time": datetime.datetime(2024, 1, 3)},
]


def save(folder, name, text, encoding="utf-8"):
    path = folder / name
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def parquet(folder, name="table.parquet", **columns):
    pq.write_table(pa.table(columns), folder / name)
    return str(folder / name)


# ---- formats ----


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz", "TABLE.CSV", "it's a 'table'.csv"])
def test_csv_is_typed_whatever_its_packaging(tmp_path, name, encoding):
    table, counts = read_table(save(tmp_path, name, TEXT, encoding), COLUMNS)
    assert table.to_pylist() == ROWS
    assert counts == {"rows": 3}


def test_tab_separated_and_quoted_values(tmp_path):
    table, _ = read_table(
        save(tmp_path, "table.tsv", 'id\tname\n1\t"a ""quoted"", name"\n2\tb\n'),
        {"name": SourceColumn("name", "VARCHAR")},
    )
    assert table.column("name").to_pylist() == ['a "quoted", name', "b"]


def test_long_csv_keeps_its_order(tmp_path):
    text = "id\n" + "".join(f"{i}\n" for i in range(300_000))
    table, _ = read_table(save(tmp_path, "long.csv", text), {"id": SourceColumn("id", "BIGINT")})
    assert table.column("id").equals(table.column("source_row"))


def test_parquet_is_typed_and_numbered(tmp_path):
    file = parquet(tmp_path, id=[3, 1, 2], value=["1.5", " 2 ", None])
    table, counts = read_table(file, {"key": SourceColumn("id", "VARCHAR"), "number": SourceColumn("value", "DOUBLE")})
    assert table.to_pylist() == [
        {"source_row": 0, "key": "3", "number": 1.5},
        {"source_row": 1, "key": "1", "number": 2.0},
        {"source_row": 2, "key": "2", "number": None},
    ]
    assert counts == {"rows": 3}


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_attributes_of_vector_files(tmp_path, suffix):
    frame = gpd.GeoDataFrame({"id": ["a", "b"], "value": [1.5, -999.0]}, geometry=[shapely.Point(0, 0)] * 2, crs=4326)
    frame.to_file(tmp_path / f"zones.{suffix}")
    wanted = {name: COLUMNS[name] for name in ("key", "number")}
    table, _ = read_table(str(tmp_path / f"zones.{suffix}"), wanted)
    assert table.to_pylist() == [
        {"source_row": 0, "key": "a", "number": 1.5},
        {"source_row": 1, "key": "b", "number": None},
    ]


@pytest.mark.filterwarnings("ignore:.*non conformant file extension")
def test_remote_files_several_in_one_session(tmp_path):
    folder = f"memory://{uuid.uuid4().hex}"
    frame = gpd.GeoDataFrame({"id": ["a"], "value": [1.0]}, geometry=[shapely.Point(0, 0)], crs=4326)
    frame.to_file(tmp_path / "zones.gpkg")
    pq.write_table(pa.table({"id": ["p"], "value": [2.0]}), tmp_path / "zones.parquet")
    save(tmp_path, "zones.csv", "id,value\nc,3\n")
    wanted = {name: COLUMNS[name] for name in ("key", "number")}
    with session() as connection:
        for suffix in ("gpkg", "parquet", "csv"):
            with fsspec.open(f"{folder}/zones.{suffix}", "wb") as file:
                file.write((tmp_path / f"zones.{suffix}").read_bytes())
            create_source_view(connection, suffix, f"{folder}/zones.{suffix}", wanted)
        rows = connection.execute("FROM gpkg UNION ALL FROM parquet UNION ALL FROM csv ORDER BY number").fetchall()
    assert rows == [(0, "a", 1.0), (0, "p", 2.0), (0, "c", 3.0)]


def test_file_endings():
    assert file_suffix("s3://bucket/a.b/POI.CSV.gz") == ".csv"
    assert file_suffix("https://host/x.parquet?versionId=3") == ".parquet"
    assert file_suffix("no_ending") == ""


# ---- identifiers ----


def test_identifiers_are_trimmed_and_whole_numbers_stay_whole(tmp_path):
    file = parquet(
        tmp_path,
        text=[" a ", "", None, "7.0"],
        float=[36061000100.0, 1.5, None, float("nan")],
        integer=[1, 22, None, 4],
    )
    columns = {name: SourceColumn(name, "VARCHAR") for name in ("text", "float", "integer")}
    table, counts = read_table(file, columns)
    assert table.column("text").to_pylist() == ["a", None, None, "7.0"]
    assert table.column("float").to_pylist() == ["36061000100", "1.5", None, None]
    assert table.column("integer").to_pylist() == ["1", "22", None, "4"]
    assert counts == {"rows": 4}


def test_leading_zeros_survive_csv(tmp_path):
    table, _ = read_table(save(tmp_path, "t.csv", "id\n00123\n"), {"id": SourceColumn("id", "VARCHAR")})
    assert table.column("id").to_pylist() == ["00123"]


@pytest.mark.parametrize("name", ['a"b', "x; DROP TABLE y", "select", "Größe m²", "a b", "'"])
def test_any_column_name_is_only_a_name(tmp_path, name):
    file = parquet(tmp_path, **{name: [1.0]})
    table, _ = read_table(file, {name: SourceColumn(name, "DOUBLE")})
    assert table.column(name).to_pylist() == [1.0]
    assert quote(name).startswith('"')


# ---- values ----


def test_missing_values_become_null_and_are_not_unreadable(tmp_path):
    file = parquet(tmp_path, value=[1, -999, -888, 4])
    table, counts = read_table(file, {"n": SourceColumn("value", "BIGINT", [-999.0, -888.0])})
    assert table.column("n").to_pylist() == [1, None, None, 4]
    assert counts == {"rows": 4}


def test_a_few_unreadable_values_are_null_and_counted(tmp_path):
    text = "v\n" + "1\n" * 19 + "n/a\n"
    table, counts = read_table(save(tmp_path, "t.csv", text), {"v": SourceColumn("v", "DOUBLE")})
    assert table.column("v").to_pylist() == [1.0] * 19 + [None]
    assert counts == {"rows": 20, "unreadable_v": 1}


def test_many_unreadable_values_are_the_wrong_type(tmp_path):
    text = "v\n1\nx\ny\n\n2\n"
    message = (
        r"t\.csv: 2 of 4 values cannot be read as DOUBLE; column: v; first rows: 1, 2; way out: name another column"
    )
    with pytest.raises(SourceError, match=message) as caught:
        read_table(save(tmp_path, "t.csv", text), {"n": SourceColumn("v", "DOUBLE")})
    assert caught.value.rows == (1, 2)
    assert caught.value.column == "v"


def test_the_limit_between_a_few_and_many(tmp_path):
    at_limit = "v\n" + "1\n" * 9 + "x\n"
    assert MAX_UNREADABLE == 0.1
    assert read_table(save(tmp_path, "t.csv", at_limit), {"v": SourceColumn("v", "DOUBLE")})[1]["unreadable_v"] == 1


def test_timestamps_that_are_not_any(tmp_path):
    file = parquet(tmp_path, time=["yesterday", "2024-01-01"])
    with pytest.raises(SourceError, match="1 of 2 values cannot be read as TIMESTAMP; column: time; first rows: 0"):
        read_table(file, {"t": SourceColumn("time", "TIMESTAMP")})


def test_empty_tables(tmp_path):
    table, counts = read_table(save(tmp_path, "t.csv", "id,value,when\n"), COLUMNS)
    assert table.num_rows == 0
    assert table.column_names == ["source_row", "key", "number", "time"]
    assert counts == {"rows": 0}
    file = parquet(tmp_path, id=pa.array([], pa.string()))
    assert read_table(file, {"key": COLUMNS["key"]})[1] == {"rows": 0}


def test_binary_columns(tmp_path):
    point = shapely.to_wkb(shapely.Point(1, 2))
    file = parquet(tmp_path, geometry=[point, None], label=["a", "b"])
    table, _ = read_table(file, {"g": SourceColumn("geometry", "BLOB")})
    assert table.column("g").to_pylist() == [point, None]
    with pytest.raises(SourceError, match="holds VARCHAR, expected WKB geometry; column: label"):
        read_table(file, {"g": SourceColumn("label", "BLOB")})


# ---- files that cannot be used ----


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "none.gpkg"])
def test_missing_file(tmp_path, name):
    with pytest.raises(SourceError, match=rf"{name}: no such file; way out: check the path in the profile"):
        read_table(str(tmp_path / name), COLUMNS)
    with pytest.raises(SourceError, match="no such file"):
        require_file(f"memory://{uuid.uuid4().hex}/{name}")


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "table.gpkg"])
def test_missing_column_is_named_with_those_there_are(tmp_path, name):
    if name.endswith("csv"):
        file = save(tmp_path, name, TEXT)
    elif name.endswith("parquet"):
        file = parquet(tmp_path, name, id=["a"], value=[1.0])
    else:
        file = str(tmp_path / name)
        gpd.GeoDataFrame({"id": ["a"], "value": [1.0]}, geometry=[shapely.Point(0, 0)], crs=4326).to_file(file)
    with pytest.raises(
        SourceError, match=r"no column 'fips'; column: fips; way out: the file has \['id', .*'value'"
    ) as e:
        read_table(file, {"key": SourceColumn("fips", "VARCHAR")})
    assert "source_row" not in str(e.value)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
def test_truncated_parquet(tmp_path, share):
    file = parquet(tmp_path, id=[str(i) for i in range(5000)])
    path = tmp_path / "table.parquet"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SourceError, match=r"table\.parquet: cannot be read: .*way out: the file may be truncated"):
        read_table(file, {"key": SourceColumn("id", "VARCHAR")})


def test_parquet_with_damaged_pages(tmp_path):
    file = parquet(tmp_path, value=[float(i) for i in range(5000)])
    path = tmp_path / "table.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(bytes(content))
    with pytest.raises(SourceError, match="cannot be read"):
        read_table(file, {"v": SourceColumn("value", "DOUBLE")})


def test_geometry_of_geoparquet_is_wkb(tmp_path):
    gpd.GeoDataFrame({"id": ["a"]}, geometry=[shapely.Point(1, 2)], crs=4326).to_parquet(tmp_path / "p.parquet")
    table, _ = read_table(str(tmp_path / "p.parquet"), {"g": SourceColumn("geometry", "BLOB")})
    assert shapely.from_wkb(table.column("g")[0].as_py()).equals(shapely.Point(1, 2))


def test_numbers_of_other_widths(tmp_path):
    file = parquet(tmp_path, f=pa.array([0.5, None], pa.float32()), i=pa.array([1, 2], pa.int16()), d=[2.0, 3.0])
    columns = {"f": SourceColumn("f", "DOUBLE"), "i": SourceColumn("i", "DOUBLE"), "d": SourceColumn("d", "BIGINT")}
    table, counts = read_table(file, columns)
    assert table.drop(["source_row"]).to_pydict() == {"f": [0.5, None], "i": [1.0, 2.0], "d": [2, 3]}
    assert counts == {"rows": 2}


def test_an_error_without_a_message_still_has_a_line():
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("one\ntwo")) == "one"


def test_truncated_gzip(tmp_path):
    text = "id,value,when\n" + "".join(f"{i},{i * 7919 % 1000},2024-01-01\n" for i in range(20_000))
    path = tmp_path / "table.csv.gz"
    save(tmp_path, path.name, text)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"table\.csv\.gz: cannot be read.*truncated"):
        read_table(str(path), COLUMNS)


def test_a_damaged_row_in_the_middle_of_a_csv(tmp_path):
    text = "id,value,when\n" + "1,2,2024-01-01\n" * 5000 + "1,2,3,4,5\n"
    with pytest.raises(SourceError, match="cannot be read"):
        read_table(save(tmp_path, "t.csv", text), COLUMNS)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.gpkg", "t.shp", "t.xlsx"])
def test_files_that_are_something_else(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SourceError, match=rf"t\.{name[2:]}: "):
        read_table(str(tmp_path / name), COLUMNS)


def test_a_view_is_lazy_and_leaves_other_columns_out(tmp_path):
    file = save(tmp_path, "t.csv", TEXT)
    with session() as connection:
        assert create_source_view(connection, "mine", file, {"key": COLUMNS["key"]}) == {"rows": 3}
        assert [row[0] for row in connection.execute("DESCRIBE mine").fetchall()] == ["source_row", "key"]
        create_source_view(connection, "mine", file, {"number": COLUMNS["number"]})
        assert [row[0] for row in connection.execute("DESCRIBE mine").fetchall()] == ["source_row", "number"]
        with pytest.raises(duckdb.Error):
            connection.execute("SELECT key FROM mine")
