import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from mobclip_core.errors import ContractError, MissingTableError, SourceError
from mobclip_core.evaluation.labels import build_geobench_labels
from mobclip_core.profile import TaskConfig
from mobclip_core.store import TableRef
from mobclip_core.vectors import vector_column


def task(label, **options):
    return {"title": "A task", "source": "made up", "unit": "things", "label": label, **options}


def build(world, **tasks):
    result = build_geobench_labels(world.deployment(tasks))
    return result, world.store.read(TableRef("geobench_labels")).to_pandas()


def csv(world, name, frame):
    path = world.path / name
    frame.to_csv(path, index=False)
    return str(path)


# ---- cells ----


def raster(world, values, name="label.tif"):
    """Pixels of 0.1 degrees from 9.0 E, 46.0 N."""
    path = world.path / name
    height, width = values.shape
    options = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", **options, nodata=-9999, transform=from_origin(9.0, 46.0, 0.1, 0.1)) as file:
        file.write(values.astype("float32"), 1)
    return str(path)


def test_raster_label_has_a_row_for_every_cell_with_data(world):
    values = np.full((20, 20), 7.0)
    values[:, 10:] = -9999
    result, rows = build(world, ELE=task({"kind": "raster", "file": raster(world, values)}, overlaps=["imagery"]))
    west = world.lon < 9.9
    east = world.lon > 10.1
    names = set(rows["unit"])
    assert {f"{c:x}" for c in world.cells[west]} <= names
    assert not names & {f"{c:x}" for c in world.cells[east]}
    np.testing.assert_allclose(rows["value"], 7.0)
    assert (rows["scale"] == "cell").all()
    assert rows["weights"].map(list).tolist() == [[1.0]] * len(rows)
    assert [f"{c[0]:x}" for c in rows["cells"]] == rows["unit"].tolist()
    assert result.counts == {"ELE_units": len(rows), "ELE_cells_without_data": len(world.cells) - len(rows)}
    assert "| ELE | A task | things | made up | cell |" in result.markdown["Tasks"]
    assert "| imagery |" in result.markdown["Tasks"]
    position = np.searchsorted(world.cells, [int(u, 16) for u in rows["unit"]])
    np.testing.assert_allclose(rows["lon"], world.lon[position])
    np.testing.assert_allclose(rows["lat"], world.lat[position])


def points(world, **columns):
    """Two points in one cell, one in another, then dirty ones."""
    a, b = 10, 40
    lon = [world.lon[a], world.lon[a], world.lon[b], 99.0, np.nan, 500.0, world.lon[b]]
    lat = [world.lat[a], world.lat[a], world.lat[b], 45.0, 45.0, 45.0, world.lat[b]]
    frame = pd.DataFrame(
        {"lon": lon, "lat": lat, "value": [2.0, 4.0, 5.0, 1.0, 1.0, 1.0, -999.0], "w": [1, 3, 2, 1, 1, 1, 1]}
    )
    return frame.assign(**columns), world.cells[a], world.cells[b]


@pytest.mark.parametrize(
    ("gather", "weight", "expected"),
    [
        ("mean", None, (3.0, 5.0)),
        ("mean", "w", (3.5, 5.0)),
        ("sum", None, (6.0, 5.0)),
        ("sum", "w", (14.0, 10.0)),
        ("count", None, (2.0, 1.0)),
    ],
)
def test_points_are_gathered_by_cell(world, gather, weight, expected):
    frame, a, b = points(world)
    label = {"kind": "points", "file": csv(world, "points.csv", frame), "lon": "lon", "lat": "lat", "value": "value"}
    result, rows = build(world, POP=task(label | {"gather": gather, "weight": weight}))
    assert dict(zip(rows["unit"], rows["value"], strict=True)) == {f"{a:x}": expected[0], f"{b:x}": expected[1]}
    assert result.counts == {
        "POP_units": 2,
        "POP_rows": 7,
        "POP_dropped_missing": 1,
        "POP_dropped_no_position": 1,
        "POP_dropped_swapped_position": 0,
        "POP_dropped_invalid_position": 1,
        "POP_dropped_outside_regions": 1,
    }


def test_swapped_points_are_counted_and_refused_where_they_are_most(world):
    lon, lat = world.lon[[10, 10, 40, 41, 42]], world.lat[[10, 10, 40, 41, 42]]
    frame = pd.DataFrame({"lon": lon, "lat": lat, "value": np.arange(5.0), "id": list("abcde")})
    frame.loc[4, ["lon", "lat"]] = frame.loc[4, ["lat", "lon"]].tolist()
    label = {"kind": "points", "file": csv(world, "p.csv", frame), "lon": "lon", "lat": "lat", "value": "value"}
    result, rows = build(world, POP=task(label))
    assert len(rows) == 3
    assert result.counts["POP_dropped_swapped_position"] == 1
    assert result.counts["POP_dropped_outside_regions"] == 0
    exchanged = label | {"lon": "lat", "lat": "lon"}
    with pytest.raises(SourceError, match=r"p\.csv: 4 of 5 .* swapped; column: lat and lon; first rows: 0, 1"):
        build(world, POP=task(exchanged))
    places = frame[["id", "lon", "lat"]].iloc[::-1]
    joined = {"positions": csv(world, "places.csv", places), "id_column": "id", "positions_id_column": "id"}
    # the file that holds the positions is named, with its own rows
    with pytest.raises(SourceError, match=r"places\.csv: 4 of 5 positions .* swapped; .*first rows: 4, 3, 2, 1"):
        build(world, POP=task(exchanged | joined))


def test_projected_points_are_an_error(world):
    frame = pd.DataFrame({"lon": [583959.4] * 3, "lat": [4507523.0] * 3, "value": [1.0] * 3})
    label = {"kind": "points", "file": csv(world, "p.csv", frame), "lon": "lon", "lat": "lat", "value": "value"}
    with pytest.raises(SourceError, match="3 of 3 positions are out of range"):
        build(world, POP=task(label))


def test_points_joined_to_their_positions(world):
    frame, a, b = points(world)
    places = pd.DataFrame(
        {"geoid": ["01", "02", "03", "09"], "x": frame["lon"][[0, 1, 2, 2]], "y": frame["lat"][[0, 1, 2, 2]]}
    )
    values = pd.DataFrame({"fips": ["01", "02", "03", "04", "01"], "value": [2, 4, 5, 1, 77]})
    label = {
        "kind": "points",
        "file": csv(world, "values.csv", values),
        "lon": "x",
        "lat": "y",
        "value": "value",
        "positions": csv(world, "places.csv", places),
        "id_column": "fips",
        "positions_id_column": "geoid",
    }
    result, rows = build(world, POP=task(label))
    assert dict(zip(rows["unit"], rows["value"], strict=True)) == {f"{a:x}": 3.0, f"{b:x}": 5.0}
    assert result.counts["POP_dropped_duplicate"] == 1
    assert result.counts["POP_dropped_no_position"] == 1
    assert result.counts["POP_positions_without_value"] == 1
    values["fips"] = values["fips"].str.lstrip("0")
    with pytest.raises(SourceError, match="leading zeros"):
        build(world, POP=task(label | {"file": csv(world, "stripped.csv", values)}))


def test_positions_need_identifiers():
    label = {"kind": "points", "file": "a.csv", "lon": "x", "lat": "y", "value": "v", "positions": "b.csv"}
    with pytest.raises(ValueError, match="positions needs id_column and positions_id_column"):
        TaskConfig.model_validate(task(label | {"id_column": "fips"}))


def test_infinite_values_are_missing_and_weights_of_zero_give_no_label(world):
    frame, _, b = points(world, value=[np.inf, 1, 5, 1, 1, 1, 1], w=[1, 0, 2, 1, 1, 1, -3])
    label = {
        "kind": "points",
        "file": csv(world, "p.csv", frame),
        "lon": "lon",
        "lat": "lat",
        "value": "value",
        "weight": "w",
    }
    result, rows = build(world, POP=task(label))
    assert rows["unit"].tolist() == [f"{b:x}"]
    assert result.counts["POP_dropped_missing"] == 2


# ---- zones ----


@pytest.fixture
def counties(world):
    """Four quarters of the world around 10 E, 45 N, the first in two polygons, and one county elsewhere."""
    boxes = {
        "01": (9, 44, 10, 45),
        "02": (10, 44, 11, 45),
        "03": (9, 45, 10, 46),
        "04": (10, 45, 11, 46),
        "05": (50, 0, 51, 1),
    }
    geometry = {name: shapely.box(*corners) for name, corners in boxes.items()}
    rows = [("01", shapely.box(9, 44, 9.7, 45)), ("01", shapely.box(9.7, 44, 10, 45))]
    rows += [(name, polygon) for name, polygon in geometry.items() if name != "01"]
    path = world.path / "counties.gpkg"
    gpd.GeoDataFrame({"fips": [r[0] for r in rows]}, geometry=[r[1] for r in rows], crs=4326).to_file(path)
    return str(path)


def county_label(world, counties, frame, **options):
    file = csv(world, "facts.csv", frame)
    return {
        "kind": "zones",
        "file": file,
        "id_column": "id",
        "value": "v",
        "zones": counties,
        "zone_id_column": "fips",
    } | options


def test_zone_label_weights_cells_by_people(world, counties):
    facts = pd.DataFrame({"id": ["02", "01", "03", "05", "77", "04"], "v": [2, 1, 3, 5, 7, -999]})
    result, rows = build(world, EDU=task(county_label(world, counties, facts)))
    assert rows["unit"].tolist() == ["01", "02", "03"]
    assert rows["value"].tolist() == [1, 2, 3]
    assert (rows["scale"] == "county").all()
    np.testing.assert_allclose(rows["weights"].map(sum), 1)
    first = rows.iloc[0]
    inside = (world.lon < 9.93) & (world.lat < 44.93)
    people = dict(zip(world.cells.tolist(), world.population, strict=True))
    weights = dict(zip(first["cells"].tolist(), first["weights"], strict=True))
    assert set(world.cells[inside].tolist()) <= set(weights)
    # cells wholly inside are weighted in proportion to their people
    ratios = [weights[c] / people[c] for c in world.cells[inside].tolist() if people[c] > 0]
    np.testing.assert_allclose(ratios, ratios[0])
    assert first["lon"] < 10
    assert first["lat"] < 45
    assert result.counts["EDU_units"] == 3
    assert result.counts["EDU_dropped_missing"] == 1
    assert result.counts["EDU_rows_without_zone"] == 1
    assert result.counts["EDU_zones_without_row"] == 1
    assert result.counts["EDU_units_without_cells"] == 1
    assert result.counts["EDU_zone_merged_duplicates"] == 1


def test_zone_rows_are_filtered_summed_and_divided(world, counties):
    facts = pd.DataFrame(
        {
            "id": ["01", "01", "02", "02", "03", "03", "04"],
            "year": [2020, 2020, 2020, 2019, 2020, 2020, 2020],
            "v": [3, 5, 4, 100, 6, None, 9],
            "v2": [1, 1, 0, 0, 0, 0, 0],
            "people": [10, 10, 8, 8, 6, 6, 0],
        }
    )
    options = {
        "value": ["v", "v2"],
        "divide_by": "people",
        "sum_rows": True,
        "where": {"year": "2020"},
        "weighting": "area",
    }
    result, rows = build(world, CRI=task(county_label(world, counties, facts, **options)))
    assert dict(zip(rows["unit"], rows["value"], strict=True)) == {"01": 0.5, "02": 0.5, "03": 1.0}
    assert result.counts["CRI_filtered_out"] == 1
    assert result.counts["CRI_dropped_missing"] == 1
    assert result.counts["CRI_dropped_divisor_not_positive"] == 1
    assert result.counts["CRI_dropped_duplicate"] == 0


def test_repeated_zone_rows_keep_the_first(world, counties):
    facts = pd.DataFrame({"id": ["01", "01", "02"], "v": [1, 9, 2]})
    result, rows = build(world, EDU=task(county_label(world, counties, facts)))
    assert rows["value"].tolist() == [1, 2]
    assert result.counts["EDU_dropped_duplicate"] == 1


def test_zone_tables_that_do_not_fit_are_errors(world, counties):
    facts = pd.DataFrame({"id": ["1", "2"], "v": [1, 2], "year": [2020, 2020]})
    with pytest.raises(SourceError, match=r"no identifier.*found '1', there '01'.*column: id.*leading zeros"):
        build(world, EDU=task(county_label(world, counties, facts)))
    with pytest.raises(SourceError, match=r"no row has \{'year': '1999'\}"):
        build(world, EDU=task(county_label(world, counties, facts, where={"year": "1999"})))
    with pytest.raises(SourceError, match="no column 'nope'"):
        build(world, EDU=task(county_label(world, counties, facts, value="nope")))


def test_tasks_on_the_same_zones_share_their_members(world, counties):
    facts = pd.DataFrame({"id": ["01", "02"], "v": [1, 2]})
    _, rows = build(
        world, EDU=task(county_label(world, counties, facts)), ELD=task(county_label(world, counties, facts))
    )
    edu, eld = rows[rows["task"] == "EDU"], rows[rows["task"] == "ELD"]
    assert edu["weights"].map(list).tolist() == eld["weights"].map(list).tolist()


# ---- cities ----


def test_city_label(world):
    frame = pd.DataFrame(
        {
            "city": ["a", "b", "far", "a", "none", "bad"],
            "x": [10.0, 10.1, -60.0, 10.0, 10.0, 10.0],
            "y": [45.0, 45.1, 45.0, 45.0, 45.0, 95.0],
            "r": [6.0, 0.1, 5.0, 6.0, 6.0, 6.0],
            "v": [3.0, 8.0, 1.0, 4.0, None, 1.0],
        }
    )
    label = {"kind": "cities", "file": csv(world, "c.csv", frame), "id_column": "city", "lon": "x", "lat": "y"}
    result, rows = build(world, ENE=task(label | {"radius_km": "r", "value": "v"}, transform="log1p"))
    assert rows["unit"].tolist() == ["a", "b"]
    assert (rows["scale"] == "city").all()
    np.testing.assert_allclose(rows["target"], np.log1p([3.0, 8.0]))
    assert rows["cells"].map(len).tolist()[1] == 1
    assert rows["cells"].map(len).tolist()[0] > 1
    assert result.counts == {
        "ENE_units": 2,
        "ENE_rows": 6,
        "ENE_dropped_missing": 1,
        "ENE_dropped_duplicate": 1,
        "ENE_dropped_invalid_position": 1,
        "ENE_units_without_cells": 1,
    }


# ---- the step ----


def test_log_of_a_negative_label_is_an_error(world, counties):
    facts = pd.DataFrame({"id": ["01", "02"], "v": [-3, 2]})
    with pytest.raises(SourceError, match=r"log1p of 1 negative labels; the smallest is -3; column: v"):
        build(world, EDU=task(county_label(world, counties, facts), transform="log1p"))


def test_no_tasks_give_an_empty_table(world):
    result, rows = build(world)
    assert len(rows) == 0
    assert result.counts == {}


def test_a_task_without_units_is_counted_and_warned_about(world, counties, caplog):
    facts = pd.DataFrame({"id": ["05"], "v": [1]})
    result, rows = build(world, EDU=task(county_label(world, counties, facts)))
    assert len(rows) == 0
    assert result.counts["EDU_units"] == 0
    assert "EDU has no labelled unit" in caplog.text


def test_the_same_input_gives_the_same_bytes(world, counties):
    facts = pd.DataFrame({"id": ["01", "02"], "v": [1, 2]})
    tasks = {"EDU": task(county_label(world, counties, facts))}
    first, _ = build(world, **tasks)
    second, _ = build(world, **tasks)
    assert first.written.data_version == second.written.data_version


def test_census_features_have_to_fit_the_grid(world):
    half = slice(0, 3)
    columns = {
        "cell": pa.array(world.cells[half]),
        "population": pa.array(world.population[half]),
        "histogram": vector_column(np.zeros((3, 2))),
        "zone_share": pa.array(np.ones(3)),
    }
    world.store.write(TableRef("census_features", "west"), pa.table(columns))
    with pytest.raises(ContractError, match="census_features has other cells"):
        build(world)
    world.store.fs.rm(world.store.path(TableRef("grid_cells", "west")))
    with pytest.raises(MissingTableError, match=r"grid_cells\[west\]"):
        build(world)


# ---- population ----


def test_population_is_that_of_the_census_features(world):
    result, rows = build(world, POP=task({"kind": "population"}, transform="log1p", overlaps=["census"]))
    assert result.counts["POP_units"] == len(world.cells)
    assert rows["value"].tolist() == world.population.tolist()
    assert rows["target"].tolist() == np.log1p(world.population).tolist()


def test_population_has_to_say_that_it_overlaps_with_the_census(world):
    with pytest.raises(ValueError, match="list census in overlaps"):
        build(world, POP=task({"kind": "population"}))
