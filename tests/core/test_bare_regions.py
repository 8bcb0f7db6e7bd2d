"""Regions that have nothing to give, through every step from the raw files to the scores."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from mobclip_core.areal import build_zone_cells
from mobclip_core.catalog import write_catalog
from mobclip_core.census import build_census_features, check_census_totals
from mobclip_core.demo.config import TINY
from mobclip_core.demo.generate import generate_demo
from mobclip_core.deployment import Deployment, StepResult
from mobclip_core.encoder.building import build_encoder
from mobclip_core.encoder.embedding import build_embeddings, check_one_encoder
from mobclip_core.encoder.line import build_node_embeddings
from mobclip_core.encoder.variants import build_encoder_variants
from mobclip_core.evaluation.labels import build_geobench_labels
from mobclip_core.evaluation.scores import build_geobench_scores
from mobclip_core.grid import build_grid_cells, build_regions
from mobclip_core.imagery.steps import build_imagery_encoder, build_imagery_features, build_imagery_patches
from mobclip_core.mobility.edges import build_mobility_edges, check_mobility_privacy
from mobclip_core.mobility.graph import build_mobility_graph
from mobclip_core.mobility.movements import build_movements
from mobclip_core.poi import build_poi_aggregates
from mobclip_core.poi_points import build_poi_points
from mobclip_core.preview import first_rows
from mobclip_core.sql import session
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of

pytestmark = pytest.mark.slow

BARE = "atoll"
"""Cells at sea, beyond every raster: no zones, no POIs, no visits."""
CELLLESS = "rock"
"""A polygon so small that no cell is covered enough to be kept."""
REGIONAL = {
    "grid_cells": build_grid_cells,
    "zone_cells": build_zone_cells,
    "census_features": build_census_features,
    "poi_aggregates": build_poi_aggregates,
    "imagery_patches": build_imagery_patches,
    "imagery_features": build_imagery_features,
    "mobility_edges": build_mobility_edges,
}


@pytest.fixture
def country(tiny_profile, tmp_path) -> Deployment:
    """The tiny country with two more regions, far out at sea."""
    world = tmp_path / "world"
    generate_demo(world, TINY)
    regions = gpd.read_parquet(world / "regions.parquet")
    west, south, *_ = regions.total_bounds
    islands = [shapely.Point(west - 3, south - 3).buffer(0.15), shapely.Point(west - 5, south).buffer(1e-3)]
    names = [BARE, CELLLESS]
    more = gpd.GeoDataFrame({"region": names, "name": names}, geometry=islands, crs=regions.crs)
    gpd.GeoDataFrame(pd.concat([regions, more])).to_parquet(world / "regions.parquet")
    return Deployment.open(str(tiny_profile(world, regions={"keys": [CELLLESS, *TINY.region_keys, BARE]})))


def test_bare_regions_are_embedded_and_hold_nobody_up(country):
    keys = country.profile.regions.region_keys
    build_regions(country)
    results: dict[tuple[str, str], StepResult] = {}
    for name, step in REGIONAL.items():
        if name == "imagery_patches":
            build_imagery_encoder(country)
        if name == "poi_aggregates":
            points = build_poi_points(country)
        if name == "mobility_edges":
            build_movements(country)
        results |= {(name, key): step(country, key) for key in keys}
    graph, nodes = build_mobility_graph(country), build_node_embeddings(country)
    build_encoder(country)
    build_encoder_variants(country)
    results |= {("embeddings", key): build_embeddings(country, key) for key in keys}
    build_geobench_labels(country)
    scores = build_geobench_scores(country)

    for name in (*REGIONAL, "embeddings"):
        assert results[name, CELLLESS].written.rows == 0, name
        assert first_rows(country.store, TableRef(name, CELLLESS)).count("\n") == 1
        assert not results[name, CELLLESS].pictures, name
    for key in (BARE, CELLLESS):
        for check in (check_census_totals, check_mobility_privacy, check_one_encoder):
            assert check(country, key).passed

    assert results["grid_cells", CELLLESS].counts["dropped_low_coverage"] >= 1
    cells = results["grid_cells", BARE].written.rows
    assert cells > 5
    assert results["zone_cells", BARE].counts["census_zones_zones"] == 0
    assert results["census_features", BARE].counts["cells_with_census"] == 0
    assert results["poi_aggregates", BARE].counts["cells_with_poi"] == 0
    assert points.counts["points_inside"] > 5_000
    assert results["imagery_patches", BARE].counts["cells_without_imagery"] == cells
    assert results["imagery_features", BARE].counts["cells_without_imagery"] == cells
    assert results["mobility_edges", BARE].counts["edges"] == 0
    assert graph.counts["isolated_nodes"] == nodes.counts["isolated_nodes"] >= cells

    embeddings = country.store.read(TableRef("embeddings", BARE))
    vectors = matrix_of(embeddings["vector"])
    assert len(vectors) == cells
    assert np.isfinite(vectors).all()
    assert (np.linalg.norm(vectors, axis=1) > 0).all()
    for modality in ("mobility", "poi", "imagery", "census"):
        assert not any(embeddings[f"has_{modality}"].to_pylist())
    assert scores.counts["tasks_scored"] >= 9
    with session() as connection:
        assert write_catalog(connection, country.store)["embeddings"] == graph.counts["nodes"]
