"""The lake may lie at any fsspec URL: every step on a lake in memory, beside one on disk."""

import duckdb
import fsspec
import pytest

from mobclip_core.areal import build_zone_cells
from mobclip_core.catalog import country_map, write_catalog
from mobclip_core.census import build_census_features
from mobclip_core.demo.config import TINY
from mobclip_core.deployment import Deployment
from mobclip_core.encoder.building import build_encoder
from mobclip_core.encoder.distil import build_location_encoder
from mobclip_core.encoder.embedding import build_embeddings
from mobclip_core.encoder.line import build_node_embeddings
from mobclip_core.encoder.variants import build_encoder_variants
from mobclip_core.evaluation.labels import build_geobench_labels
from mobclip_core.evaluation.scores import build_geobench_scores
from mobclip_core.grid import build_grid_cells, build_regions
from mobclip_core.imagery.steps import build_imagery_encoder, build_imagery_features, build_imagery_patches
from mobclip_core.mobility.edges import build_mobility_edges
from mobclip_core.mobility.graph import build_mobility_graph
from mobclip_core.mobility.movements import build_movements
from mobclip_core.poi import build_poi_aggregates
from mobclip_core.poi_points import build_poi_points

pytestmark = pytest.mark.slow

STAGES = (
    ((build_regions, build_imagery_encoder), False),
    ((build_grid_cells, build_zone_cells, build_census_features), True),
    ((build_poi_points,), False),
    ((build_imagery_patches, build_imagery_features, build_poi_aggregates), True),
    ((build_movements,), False),
    ((build_mobility_edges,), True),
    ((build_mobility_graph, build_node_embeddings, build_encoder, build_encoder_variants), False),
    ((build_embeddings,), True),
    ((build_geobench_labels, build_geobench_scores, build_location_encoder), False),
)


def build_all(deployment: Deployment) -> dict[str, str]:
    """Data version of everything written."""
    versions = {}
    for steps, regional in STAGES:
        for step in steps:
            for region in TINY.region_keys if regional else [None]:
                written = (step(deployment, region) if regional else step(deployment)).written
                versions[str(written.ref)] = written.data_version
    return versions


def test_a_lake_in_memory_holds_what_a_lake_on_disk_holds(tiny_profile):
    path = tiny_profile()
    on_disk = Deployment.open(str(path))
    text = path.read_text()
    path.write_text(text.replace(f"storage: {on_disk.store.url}", "storage: memory://country"))
    in_memory = Deployment.open(str(path))
    assert (on_disk.store.is_local, in_memory.store.is_local) == (True, False)
    assert build_all(in_memory) == build_all(on_disk)

    rows = {}
    for store in (on_disk.store, in_memory.store):
        with store.writing_catalog() as aside, duckdb.connect(str(aside)) as connection:
            rows[store.url] = write_catalog(connection, store)
    assert rows[on_disk.store.url] == rows["memory://country"]
    assert country_map(in_memory.store, in_memory.profile) == country_map(on_disk.store, on_disk.profile)
    fsspec.filesystem("memory").rm("/country", recursive=True)
