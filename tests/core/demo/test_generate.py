import ast
import dataclasses
import hashlib
import inspect
import json
from pathlib import Path

import geopandas
import h3
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import yaml

from mobclip_core.demo import generate, labels
from mobclip_core.demo.config import TINY, WorldConfig
from mobclip_core.demo.generate import MANIFEST, ensure_demo, generate_demo
from mobclip_core.demo.world import make_world
from mobclip_core.demo.zoning import to_degrees
from mobclip_core.profile import PROFILES_DIR, load_profile
from mobclip_core.sources.tables import SourceColumn, read_table

LABEL_TABLES = ("crime", "spending", "counties", "cities")


def hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    counts = generate_demo(folder, TINY)
    return folder, counts


@pytest.fixture(scope="module")
def regions(tiny):
    return geopandas.read_parquet(tiny[0] / "regions.parquet")


def test_the_same_seed_gives_the_same_bytes(tiny, tmp_path):
    folder, counts = tiny
    assert generate_demo(tmp_path / "again", TINY) == counts
    assert hashes(tmp_path / "again") == hashes(folder)


def test_another_seed_gives_other_files(tiny, tmp_path):
    generate_demo(tmp_path / "other", dataclasses.replace(TINY, seed=1))
    ours, theirs = hashes(tiny[0]), hashes(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] == theirs[name]] == []


def test_labels_do_not_depend_on_what_the_modalities_saw(tiny, tmp_path):
    changed = dataclasses.replace(TINY, pois=3_000, facilities=200, persons=300, days=2, trips=500)
    generate_demo(tmp_path / "changed", changed)
    ours, theirs = hashes(tiny[0]), hashes(tmp_path / "changed")
    same = {name for name in ours if ours[name] == theirs[name]}
    assert {name for name in ours if name.startswith("labels/")} <= same
    assert not same & {"poi.parquet", "facilities.csv", "services_by_zone.parquet", "visits.parquet", "trips.csv"}


def test_the_labels_module_knows_no_modality():
    tree = ast.parse(inspect.getsource(labels))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modalities = {f"mobclip_core.demo.{name}" for name in ("poi", "names", "imagery", "census", "mobility", "files")}
    assert "mobclip_core.demo.world" in imported
    assert not imported & modalities
    makers = [labels.label_rasters, labels.crime_points, labels.spending_points, labels.county_table, labels.city_table]
    assert {tuple(inspect.signature(maker).parameters) for maker in makers} == {("world",)}


def test_the_demo_profile_has_all_tasks_and_names_only_files_that_exist(tiny, monkeypatch):
    monkeypatch.setenv("MOBCLIP_DEMO_DATA", str(tiny[0]))
    profile = load_profile("demo")
    assert set(profile.tasks) == {"POP", "CRI", "COS", "NTL", "ELE", "FOR", "EDU", "ELD", "HSR", "HOU", "ENE"}
    assert profile.regions.region_keys == list(WorldConfig().region_keys)
    named = []

    def collect(value):
        if isinstance(value, dict):
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)
        elif isinstance(value, str) and value.startswith(str(tiny[0])):
            named.append(Path(value))

    collect(profile.model_dump())
    assert [path for path in named if not path.is_file()] == []
    assert {path.relative_to(tiny[0]).as_posix() for path in named} == set(hashes(tiny[0]))


def test_the_demo_profile_names_columns_that_exist(tiny, monkeypatch):
    monkeypatch.setenv("MOBCLIP_DEMO_DATA", str(tiny[0]))
    profile = load_profile("demo")
    census = pq.read_schema(profile.census.file).names
    assert {b.column for b in profile.census.histogram} | {profile.census.population, profile.census.id_column} == set(
        census
    )
    assert len(profile.census.histogram) == 40
    visits = profile.mobility.sources["visits"]
    assert pq.read_schema(visits.file).names == [visits.person, visits.time, visits.lon, visits.lat]
    for task in profile.tasks.values():
        label = task.label.model_dump()
        wanted = [label[k] for k in ("id_column", "value", "divide_by", "lon", "lat", "radius_km") if label.get(k)]
        if label["kind"] != "raster":
            assert set(wanted) <= set(pd.read_csv(label["file"], nrows=1).columns)


def test_paths_of_the_demo_profile_start_at_demo_data():
    raw = yaml.safe_load((PROFILES_DIR / "demo.yaml").read_text())
    assert raw["imagery"]["file"] == "${MOBCLIP_DEMO_DATA:-../demo_data}/imagery.tif"


def test_regions_share_borders_exactly(regions):
    assert list(regions["region"]) == list(TINY.region_keys)
    assert regions.crs.to_epsg() == 4326
    assert regions.geometry.is_valid.all()
    total = shapely.union_all(regions.geometry.values)
    assert total.area == pytest.approx(shapely.area(regions.geometry.values).sum(), rel=1e-9)
    # no slivers inside: the union has no holes
    assert sum(len(part.interiors) for part in shapely.get_parts(total)) == 0
    assert len(shapely.get_parts(total)) == 2, "the main island and the islet"


@pytest.mark.parametrize(("config", "low", "high"), [(TINY, 150, 300), (WorldConfig(), 4_800, 5_200)])
def test_number_of_cells(config, low, high):
    zoning = make_world(config).zoning
    country = to_degrees(zoning.regions())
    cells = {cell for polygon in country for cell in h3.geo_to_cells(polygon, 6)}
    assert low <= len(cells) <= high


def test_the_islet_belongs_to_the_last_region(regions):
    parts = [len(shapely.get_parts(geometry)) for geometry in regions.geometry]
    assert parts == [1] * (TINY.regions - 1) + [2]


def test_zones_have_one_invalid_and_one_empty_polygon(tiny):
    zones = geopandas.read_file(tiny[0] / "zones.gpkg")
    empty = zones.geometry.isna() | zones.geometry.is_empty
    assert len(zones) == tiny[1]["zones"]
    assert zones["zone"].is_unique
    assert empty.sum() == tiny[1]["zones_empty_polygon"] == 1
    assert (~zones.geometry[~empty].is_valid).sum() == tiny[1]["zones_invalid_polygon"] == 1


def test_zones_and_counties_tile_the_country(tiny, regions):
    zones = geopandas.read_file(tiny[0] / "zones.gpkg")
    zones = zones[~(zones.geometry.isna() | zones.geometry.is_empty)]
    counties = geopandas.read_file(tiny[0] / "labels" / "counties.gpkg")
    country = shapely.area(regions.geometry.values).sum()
    assert shapely.area(counties.geometry.values).sum() == pytest.approx(country, rel=1e-7)
    assert shapely.union_all(counties.geometry.values).area == pytest.approx(country, rel=1e-7)
    assert shapely.area(zones.geometry.make_valid().values).sum() == pytest.approx(country, rel=0.01)


def test_census_and_zones_do_not_match_on_either_side(tiny):
    folder, counts = tiny
    census = pd.read_parquet(folder / "census.parquet")
    zones = geopandas.read_file(folder / "zones.gpkg")
    assert len(census) == counts["census_rows"]
    assert len(set(census["zone"]) - set(zones["zone"])) == counts["census_rows_without_polygon"] > 0
    assert len(set(zones["zone"]) - set(census["zone"])) == counts["census_zones_without_row"] > 0
    assert (census["population"] == -999).sum() == counts["census_population_minus_999"] > 0
    assert census["population"].isna().sum() == counts["census_population_nan"] > 0
    good = census[(census["population"] > 0) & (census.iloc[:, 2:] >= 0).all(axis=1)]
    assert good.iloc[:, 2:].sum(axis=1).to_numpy() == pytest.approx(good["population"].to_numpy(), abs=20)


def test_dirty_facilities_are_as_counted(tiny, regions):
    folder, counts = tiny
    path = folder / "facilities.csv"
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    columns = {name: SourceColumn(name, "VARCHAR") for name in ("facility_id", "kind")}
    columns |= {name: SourceColumn(name, "DOUBLE") for name in ("longitude", "latitude")}
    table, read = read_table(str(path), columns)
    rows = table.to_pandas()
    assert read["rows"] == counts["facilities"] == len(rows)
    lon, lat = rows["longitude"], rows["latitude"]
    once = ~rows["facility_id"].duplicated()
    assert (~once).sum() == counts["facilities_twice"] > 0
    assert (lon.isna() & lat.isna() & once).sum() == counts["facilities_missing"] > 0
    assert np.isinf(lon[once]).sum() == counts["facilities_infinite"] > 0
    assert (lon[once] == 999).sum() == counts["facilities_beyond"] > 0
    assert ((lon[once] > 0) & (lat[once] < 0)).sum() == counts["facilities_swapped"] > 0
    assert (rows["kind"][once] == "???").sum() == counts["facilities_unknown"] > 0
    twins = rows[rows["facility_id"].duplicated(keep=False)]
    inside = geopandas.sjoin(
        geopandas.GeoSeries.from_xy(twins["longitude"], twins["latitude"], crs=4326).to_frame("geometry"), regions
    )
    assert set(inside["region"]) <= {TINY.region_keys[i] for i in TINY.dirty_regions}


def test_poi_points_are_geoparquet_with_speaking_names(tiny, regions):
    folder, counts = tiny
    poi = geopandas.read_parquet(folder / "poi.parquet")
    assert poi.crs.to_epsg() in (4326, None)
    assert len(poi) == counts["poi"]
    assert poi["id"].is_unique
    assert (poi["category"] == "yes").sum() == counts["poi_unknown_category"] > 0
    profile = load_profile("demo")
    known = set(profile.poi.categories) | set(profile.poi.points["map"].aliases) | {"yes"}
    assert set(poi["category"].unique()) <= known
    assert poi["name"].str.split().str.len().min() >= 3
    inside = poi.within(shapely.union_all(regions.geometry.values).buffer(0.03))
    assert inside.all()


def test_facility_kinds_and_services_are_known_to_the_profile(tiny):
    profile = load_profile("demo").poi
    kinds = set(pd.read_csv(tiny[0] / "facilities.csv")["kind"]) - {"???"}
    assert kinds <= set(profile.categories) | set(profile.points["facilities"].aliases)
    services = pd.read_parquet(tiny[0] / "services_by_zone.parquet")
    assert set(services["category"]) <= set(profile.categories)
    assert (services["count"] > 0).all()
    zones = geopandas.read_file(tiny[0] / "zones.gpkg")
    assert (~services["zone"].isin(zones["zone"])).sum() == tiny[1]["zone_counts_unknown_zone"]


def test_the_picture_is_cloud_optimised_and_has_a_gap(tiny):
    with rasterio.open(tiny[0] / "imagery.tif") as raster:
        assert raster.count == 3
        assert raster.dtypes == ("uint8",) * 3
        assert raster.crs.is_projected
        assert raster.res == (500, 500)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.nodata == 0
        valid = raster.read_masks(1) > 0
    assert 0.02 < (~valid).mean() < 0.3
    assert not valid[0, -1]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("registered_population", 0, 1e5), ("night_lights", 0, 1e4), ("elevation", 0, 4000), ("forest_cover", 0, 100)],
)
def test_label_rasters_cover_the_country(tiny, regions, name, low, high):
    with rasterio.open(tiny[0] / "labels" / f"{name}.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        values = raster.read(1, masked=True)
        inner = shapely.union_all(regions.geometry.values).buffer(-0.05).representative_point()
        assert next(raster.sample([(inner.x, inner.y)]))[0] != raster.nodata
    assert values.min() >= low
    assert values.max() <= high
    assert values.std() > 0
    land = shapely.area(regions.geometry.values).sum() / 0.01**2
    assert values.count() == pytest.approx(land, rel=0.05)


def test_visits_are_consecutive_days_of_a_panel(tiny):
    visits = pd.read_parquet(tiny[0] / "visits.parquet")
    assert len(visits) == tiny[1]["visits"]
    assert visits["person"].nunique() == TINY.persons
    assert visits["lon"].isna().sum() == tiny[1]["visits_nan"] > 0
    assert ((visits["lon"] == 0) & (visits["lat"] == 0)).sum() == tiny[1]["visits_null_island"] > 0
    assert (visits["time"].max() - visits["time"].min()).days < TINY.days
    assert visits.groupby("person")["time"].is_monotonic_increasing.all()


def test_flows_name_zones(tiny):
    flows = pd.read_csv(tiny[0] / "commuters.csv")
    zones = set(geopandas.read_file(tiny[0] / "zones.gpkg")["zone"])
    unknown = ~flows["origin"].isin(zones) | ~flows["destination"].isin(zones)
    assert unknown.sum() == tiny[1]["flows_unknown_zone"] == 2
    assert not flows.duplicated(["origin", "destination"]).any()
    assert flows["people"].min() >= 4


def test_label_tables(tiny):
    folder, counts = tiny
    tables = {name: pd.read_csv(folder / "labels" / f"{name}.csv") for name in LABEL_TABLES}
    assert {name: len(table) for name, table in tables.items()} == {n: counts[f"labels_{n}"] for n in LABEL_TABLES}
    counties, cities = tables["counties"], tables["cities"]
    assert len(cities) == TINY.cities
    assert (cities["radius_km"] > 0).all()
    assert set(counties["county"]) == set(geopandas.read_file(folder / "labels" / "counties.gpkg")["county"])
    assert (counties["housing_m2_per_person"] == -999).sum() == 1
    assert (counties["registered_elsewhere"] < counties["residents"]).all()
    assert counties["elderly_percent"].between(1, 60).all()
    assert (tables["spending"]["spending_thousands"] > 0).all()


def test_ensure_writes_only_what_is_missing_or_of_another_configuration(tmp_path):
    folder = tmp_path / "parent" / "demo"
    assert ensure_demo(folder, TINY)
    before = (folder / "poi.parquet").stat().st_mtime_ns
    assert not ensure_demo(folder, TINY)
    assert (folder / "poi.parquet").stat().st_mtime_ns == before
    assert ensure_demo(folder, dataclasses.replace(TINY, persons=100))
    (folder / MANIFEST).write_text("{")
    assert ensure_demo(folder, TINY)
    assert [path.name for path in folder.parent.iterdir()] == ["demo"], "nothing is left aside"


def test_another_version_is_written_anew(tiny, monkeypatch, tmp_path):
    folder = tmp_path / "demo"
    generate_demo(folder, TINY)
    monkeypatch.setattr(generate, "VERSION", 999)
    assert ensure_demo(folder, TINY)
    assert json.loads((folder / MANIFEST).read_text())["version"] == 999


def test_a_failure_leaves_the_old_country(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    generate_demo(folder, TINY)
    before = hashes(folder)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(generate.files, "write_picture", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_demo(folder, dataclasses.replace(TINY, seed=5))
    assert hashes(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"regions": 7}, "regions is 7"),
        ({"regions": 1}, "regions is 1"),
        ({"counties": 2}, "regions <= counties"),
        ({"zones": 5}, "<= zones"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY, **changes)


def test_more_cities_than_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        generate_demo(tmp_path / "demo", dataclasses.replace(TINY, cities=100_000))
    assert list(tmp_path.iterdir()) == []
