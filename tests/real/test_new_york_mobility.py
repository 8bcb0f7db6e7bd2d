"""New York State's real flows and POIs through the steps, with a crosswalk made by tract centre."""

import os
from pathlib import Path

import geopandas
import h3
import numpy as np
import pyarrow.parquet as pq
import pytest
from h3ronpy.vector import coordinates_to_cells

from mobclip_core.mobility.edges import build_mobility_edges, check_mobility_privacy
from mobclip_core.mobility.graph import build_mobility_graph, open_graph
from mobclip_core.mobility.movements import build_movements
from mobclip_core.poi import build_poi_aggregates
from mobclip_core.poi_points import build_poi_points
from mobclip_core.store import TableRef
from tests import lake as lakes

DATA = Path(os.environ.get("MOBCLIP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DATA / "new_york").is_dir(), reason=f"no real data at {DATA}: set MOBCLIP_DATA"),
]
FLOWS = DATA / "new_york" / "flows_tract.parquet"
K = 10


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """The state in two regions: New York City with Long Island, and the rest."""
    poi = {
        "categories": ["store", "hospital"],
        "points": {
            "retail": {
                "file": str(DATA / "new_york" / "retail_food_stores.csv.gz"),
                "wkt": "Georeference",
                "id_column": "License Number",
                "name_column": "Entity Name",
                "category_column": "Operation Type",
                "aliases": {"Store": "store"},
            },
            "health": {
                "file": str(DATA / "new_york" / "health_facilities.csv.gz"),
                "lon": "Facility Longitude",
                "lat": "Facility Latitude",
                "id_column": "Facility ID",
                "name_column": "Facility Name",
                "category_column": "Description",
                "aliases": {"Hospital": "hospital"},
            },
        },
    }
    flows = {"kind": "flows", "file": str(FLOWS), "zones": "tracts"}
    flows |= {"origin": "residence", "destination": "workplace", "count": "commuters"}
    lake = lakes.deployment(
        tmp_path_factory.mktemp("new_york"),
        ["city", "rest"],
        poi=poi,
        mobility={"sources": {"flows": flows}, "minimum_people": K},
    )
    states = geopandas.read_parquet(DATA / "usa" / "states.parquet", filters=[("state", "==", "36")])
    shapes = [part for shape in states.geometry for part in getattr(shape, "geoms", [shape])]
    cells = {h3.str_to_int(cell) for shape in shapes for cell in h3.geo_to_cells(shape, lakes.RESOLUTION)}
    tracts = geopandas.read_parquet(
        DATA / "usa" / "tracts.parquet",
        columns=["geoid", "geometry"],
        filters=[("county_fips", ">=", "36"), ("county_fips", "<", "37")],
    )
    tracts = tracts[~tracts.geometry.is_empty]
    points = tracts.geometry.representative_point()
    homes = np.asarray(coordinates_to_cells(points.y.to_numpy(), points.x.to_numpy(), lakes.RESOLUTION)).tolist()
    cells |= set(homes)
    city = {cell for cell in cells if lakes.centre(cell)[0] > -74.3 and lakes.centre(cell)[1] < 41}
    for region, members in (("city", city), ("rest", cells - city)):
        lakes.write_grid(lake, region, list(members))
        zones = {zone: {cell: 1.0} for zone, cell in zip(tracts["geoid"], homes, strict=True) if cell in members}
        lakes.write_zones(lake, region, {"tracts": zones})
    return lake


def test_flows_keep_their_mass_and_their_k(lake):
    total = float(np.sum(pq.read_table(FLOWS, columns=["commuters"])["commuters"].to_numpy()))
    movements = build_movements(lake).counts
    results = [build_mobility_edges(lake, region).counts for region in ("city", "rest")]
    assert movements["flows_rows_read"] == 618_316
    spread = sum(counts[part] for counts in results for part in ("flows_weight", "flows_self_loop_weight"))
    assert spread == pytest.approx(movements["flows_flows_weight"], rel=1e-9)
    mass = spread + movements["flows_flows_below_k_weight"] + movements["flows_rows_without_zone_weight"]
    assert mass == pytest.approx(total, rel=1e-9)
    assert movements["flows_rows_without_zone_weight"] < 0.02 * total
    for region in ("city", "rest"):
        outcome = check_mobility_privacy(lake, region)
        assert outcome.passed, outcome.message
        assert outcome.numbers["edges"] > 5_000


def test_the_graph_covers_the_state(lake):
    build_movements(lake)
    for region in ("city", "rest"):
        build_mobility_edges(lake, region)
    result = build_mobility_graph(lake)
    graph = open_graph(lake.store.bundle("mobility_graph"))
    assert 3_000 < graph.nodes < 4_500
    assert graph.weight.sum(dtype=float) == pytest.approx(result.counts["total_weight"])
    # the heaviest edges leave from where most people live
    out = np.add.reduceat(np.append(graph.weight, 0), graph.indptr[:-1]) * (np.diff(graph.indptr) > 0)
    lon, lat = lakes.centre(int(graph.cells[np.argmax(out)]))
    assert (lon, lat) == pytest.approx((-73.9, 40.7), abs=0.3)
    assert graph.connected().sum() > 1_000


def test_pois_with_and_without_points_are_all_accounted_for(lake):
    counts = build_poi_points(lake).counts
    results = {region: build_poi_aggregates(lake, region).counts for region in ("city", "rest")}
    assert counts["points_read"] == 28_715 + 3_735
    assert 82 + 900 < counts["points_without_position"] < 82 + 1_300
    dropped = ("without_position", "out_of_range", "swapped_suspected", "outside", "duplicate_id")
    kept = sum(result["points_in_region"] for result in results.values())
    assert kept + sum(counts[f"points_{reason}"] for reason in dropped) == counts["points_read"]
    assert kept > 0.95 * (counts["points_read"] - counts["points_without_position"])
    tables = [lake.store.read(TableRef("poi_aggregates", region), ["poi_count"]) for region in results]
    assert sum(table["poi_count"].to_numpy().sum() for table in tables) == kept
