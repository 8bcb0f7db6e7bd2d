"""New York State's real polygons and census table through regions, cells, crosswalk and census."""

import os
import time
from pathlib import Path

import h3
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mobclip_core.areal import build_zone_cells
from mobclip_core.census import build_census_features, check_census_totals
from mobclip_core.errors import SourceError
from mobclip_core.grid import build_grid_cells, build_regions, cell_centres, region_cells
from mobclip_core.sources.polygons import read_polygons
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of
from tests import lake as lakes

DATA = Path(os.environ.get("MOBCLIP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
USA = DATA / "usa"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not USA.is_dir(), reason=f"no real data at {DATA}: set MOBCLIP_DATA"),
]

CITY = ["36005", "36047", "36061", "36081", "36085"]
LONG_ISLAND = ["36059", "36103"]
STATE = {"file": str(USA / "states.parquet"), "key_column": "state", "keys": ["36"]}
TRACTS = {"file": str(USA / "tracts.parquet"), "id_column": "geoid", "where": {"county_fips": "36"}}
CENSUS = {
    "zones": "tracts",
    "file": str(USA / "acs.parquet"),
    "id_column": "geoid",
    "population": "total_population",
    "histogram": [
        {"column": "85_years_and_over_total", "percent_of": "total_population"},
        {"column": "male_population"},
        {"column": "bachelors_degree_or_higher"},
        {"column": "under_5_years_total", "percent_of": "total_population"},
    ],
}


@pytest.fixture(scope="module")
def counties():
    ids = pq.read_table(USA / "tracts.parquet", columns=["county_fips"]).column("county_fips")
    return sorted(set(ids.filter(pc.starts_with(ids, "36")).to_pylist()))


@pytest.fixture(scope="module")
def country(tmp_path_factory, counties):
    """The state in three regions made by grouping counties, as a user would; the results of its steps."""
    rest = sorted(set(counties) - {*CITY, *LONG_ISLAND})
    keys = {
        "upstate": {"name": "Upstate", "members": rest},
        "city": {"name": "New York City", "members": CITY},
        "long_island": {"name": "Long Island", "members": LONG_ISLAND},
    }
    regions = {"file": str(USA / "tracts.parquet"), "key_column": "county_fips", "keys": keys}
    lake = lakes.deployment(
        tmp_path_factory.mktemp("new_york"), list(keys), regions=regions, zones={"tracts": TRACTS}, census=CENSUS
    )
    results = {"regions": build_regions(lake)}
    for key in keys:
        results[key] = (build_grid_cells(lake, key), build_zone_cells(lake, key), build_census_features(lake, key))
    return lake, results


def test_the_state_has_its_cells(tmp_path):
    lake = lakes.deployment(tmp_path, ["36"], regions=STATE)
    build_regions(lake)
    result = build_grid_cells(lake, "36")
    assert result.counts["cells"] == pytest.approx(3370, abs=15)
    # land and inland water of the state: 141,300 km2 with its share of the lakes, 122,057 km2 of land
    assert 122_000 < result.counts["area_km2"] < 142_000
    cells = lake.store.read(TableRef("grid_cells", "36")).column("cell").to_numpy()
    albany, boston = (h3.str_to_int(h3.latlng_to_cell(*p, 6)) for p in ((42.65, -73.75), (42.36, -71.06)))
    assert albany in cells
    assert boston not in cells


def test_grouped_counties_share_the_same_cells_out(country):
    lake, results = country
    counts = results["regions"].counts
    assert counts["regions"] == 3
    assert counts["source_features"] == 4906
    parts = [
        lake.store.read(TableRef("grid_cells", key)).column("cell").to_numpy()
        for key in lake.store.regions("grid_cells")
    ]
    cells = np.concatenate(parts)
    assert len(parts) == 3
    assert len(np.unique(cells)) == len(cells) == pytest.approx(3370, abs=80)
    times_square = h3.str_to_int(h3.latlng_to_cell(40.758, -73.9855, 6))
    assert times_square in lake.store.read(TableRef("grid_cells", "city")).column("cell").to_pylist()


def test_every_tract_is_spread_once_and_whole(country):
    lake, results = country
    table = lake.store.read_all("zone_cells")
    totals = table.group_by("zone").aggregate([("weight", "sum")])
    # tracts that lie in two regions would sum to 2
    np.testing.assert_allclose(totals.column("weight_sum").to_numpy(), 1, atol=1e-9)
    homes = sum(results[key][1].counts["tracts_zones"] for key in ("city", "upstate", "long_island"))
    assert totals.num_rows == homes == 4906
    assert all(results[key][1].counts["tracts_zones_outside"] == 0 for key in ("city", "upstate", "long_island"))


def test_census_totals_equal_the_sources(country):
    lake, results = country
    for key in ("city", "upstate", "long_island"):
        outcome = check_census_totals(lake, key)
        assert outcome.passed, outcome.message
        assert outcome.numbers["largest_relative_error"] < 1e-9
    acs = pq.read_table(USA / "acs.parquet")
    acs = acs.filter(pc.starts_with(acs.column("geoid"), "36"))
    features = lake.store.read_all("census_features")
    people = acs.column("total_population").to_numpy().astype(np.float64)
    assert people.sum() == 19_367_189
    assert features.column("population").to_numpy().sum() == pytest.approx(people.sum(), rel=1e-9)
    share = acs.column("85_years_and_over_total").to_numpy().astype(np.float64)
    assert matrix_of(features.column("histogram"))[:, 0].sum() == pytest.approx((people * share / 100).sum(), rel=1e-9)
    # 90 tracts of the layer have no census row
    assert sum(results[key][2].counts["zones_without_row"] for key in ("city", "upstate", "long_island")) == 90


def test_people_live_where_they_do(country):
    lake, _ = country
    city = lake.store.read(TableRef("census_features", "city"))
    lon, lat = cell_centres(city.column("cell").to_numpy())
    people = city.column("population").to_numpy()
    assert people.sum() == pytest.approx(8.4e6, rel=0.03)
    densest = people.argmax()
    assert (lon[densest], lat[densest]) == pytest.approx((-73.95, 40.73), abs=0.15)


def test_a_county_that_does_not_exist_is_named(tmp_path):
    keys = {"typo": {"name": "Typo", "members": ["36061", "36999"]}}
    regions = {"file": str(USA / "tracts.parquet"), "key_column": "county_fips", "keys": keys}
    with pytest.raises(
        SourceError, match=r"no polygon for \['36999'\]; column: county_fips; .*the file has 3008 keys, such as \['36"
    ):
        build_regions(lakes.deployment(tmp_path, ["typo"], regions=regions))


def test_neighbouring_states_never_share_a_cell():
    states, counts = read_polygons(str(USA / "states.parquet"), "state")
    assert counts["rows"] == 48
    geometries = dict(zip(states["id"], states.geometry, strict=True))
    near = ["36", "34", "42", "09", "25", "50"]
    parts = [region_cells(geometries, key, 6, 0.5)[0] for key in near]
    cells = np.concatenate(parts)
    assert len(np.unique(cells)) == len(cells)


@pytest.mark.slow
def test_the_whole_country_is_tiled_in_seconds():
    states, _ = read_polygons(str(USA / "states.parquet"), "state")
    geometries = dict(zip(states["id"], states.geometry, strict=True))
    begin = time.perf_counter()
    cells = np.concatenate([region_cells(geometries, key, 6, 0.5)[0] for key in geometries])
    seconds = time.perf_counter() - begin
    assert len(np.unique(cells)) == len(cells) == pytest.approx(205_500, rel=0.01)
    # 4 s alone on 2 cores; the margin is for a busy machine
    assert seconds < 60
