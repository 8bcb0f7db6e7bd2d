"""`mobclip lookup`, `similar`, `aggregate`, `export` on a small generated lake."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from typer.testing import CliRunner

from mobclip_assets.cli import app
from tests.places import make_places, write_lake

PLACES = make_places(rings=4)
CELL = f"{PLACES.cells[30]:x}"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    write_lake(PLACES, folder)
    return folder


@pytest.fixture
def run(lake, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def called(*arguments, code=0):
        result = CliRunner().invoke(app, [*map(str, arguments), "--lake", str(lake)])
        assert result.exit_code == code, result.output
        return " ".join((result.stdout + result.stderr).split()) if code else result.stdout

    return called


def test_a_point_and_a_cell(run):
    answer = json.loads(run("lookup", "--lon", PLACES.lon[30], "--lat", PLACES.lat[30], "--json"))
    assert answer["encoder"] == PLACES.encoder
    [row] = answer["answers"]
    np.testing.assert_allclose(row["vector"], PLACES.vectors[30], rtol=1e-6)
    assert row["cell"] == CELL
    shown = run("lookup", "--cell", CELL, "--cell", "8001fffffffffff")
    assert CELL in shown
    assert "in no cell of the lake" in shown
    assert "... (6)" in shown


def test_a_file_of_points(run, tmp_path):
    points = pd.DataFrame({"name": ["a", "b", "c"], "x": [*PLACES.lon[:2], 0], "y": [*PLACES.lat[:2], 0]})
    points.to_csv(tmp_path / "points.csv", index=False)
    columns = ("--file", tmp_path / "points.csv", "--lon-column", "x", "--lat-column", "y")
    assert "3 rows, 1 of them in no cell" in run("lookup", *columns, "--out", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["name"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist()[:2], dtype=np.float32), PLACES.vectors[:2])
    run("lookup", *columns, "--out", tmp_path / "out.csv")
    frame = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(frame.loc[:1, [f"v{i:03}" for i in range(6)]], PLACES.vectors[:2], rtol=1e-5)
    assert frame.loc[2, "v000":"v005"].isna().all()
    run("lookup", *columns, "--out", tmp_path / "out.arrow")
    assert "no column 'lon'" in run("lookup", "--file", tmp_path / "points.csv", code=2)
    wrong = ("lookup", "--file", tmp_path / "points.csv", "--lon-column", "name", "--lat-column", "y")
    assert "column 'name' holds no numbers" in run(*wrong, code=2)
    assert "does not exist" in run("lookup", "--file", tmp_path / "none.csv", code=2)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "out.parquet").read_bytes()[:100])
    assert "cannot be read" in run("lookup", "--file", tmp_path / "cut.parquet", code=2)
    assert "expected .parquet" in run("lookup", *columns, "--out", tmp_path / "out.xls", code=2)


def test_polygons_of_a_file(run, tmp_path):
    boxes = [shapely.box(9.8, 49.9, 10.2, 50.1), shapely.box(0, 0, 1, 1)]
    gpd.GeoDataFrame({"county": ["x", "y"]}, geometry=boxes, crs=4326).to_file(tmp_path / "areas.gpkg")
    answer = json.loads(run("aggregate", tmp_path / "areas.gpkg", "--id-column", "county", "--json"))
    first, second = answer["answers"]
    np.testing.assert_allclose(first["vector"], PLACES.aggregate(boxes[:1]).vectors[0], rtol=1e-5)
    assert (first["county"], second["vector"]) == ("x", None)
    people = run("aggregate", tmp_path / "areas.gpkg", "--id-column", "county", "--weight", "population")
    assert "% graph" in people
    wrong = ("aggregate", tmp_path / "areas.gpkg", "--id-column", "county", "--weight", "cats")
    assert "area or population" in run(*wrong, code=2)


def test_what_is_alike(run):
    expected = PLACES.similar(cell=int(PLACES.cells[30]), k=3, regions=["west"])
    rows = json.loads(run("similar", "--cell", CELL, "-k", 3, "--region", "west", "--json"))
    assert [int(row["cells"], 16) for row in rows] == expected.cells.tolist()
    by_place = run("similar", "--lon", PLACES.lon[30], "--lat", PLACES.lat[30], "-k", 3, "--region", "west")
    assert all(row["cells"] in by_place for row in rows)
    assert "holds longitude 0, latitude 0" in run("similar", "--lon", 0, "--lat", 0, code=2)
    assert "is no H3 index" in run("similar", "--cell", "xyz", code=2)
    assert "give --lon and --lat" in run("similar", code=2)
    assert "give --lon and --lat, or --cell, or --file" in run("lookup", code=2)


def test_an_export_and_its_card(run, tmp_path):
    said = run("export", tmp_path / "a.arrow", "--int8", "--dimensions", 4, "--region", "west")
    assert "4 dimensions" in said
    assert "int8: cosine" in said
    assert "cells, 4 numbers each" in (tmp_path / "a.arrow.card.md").read_text()
