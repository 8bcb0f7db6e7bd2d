import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from mobclip_assets.build import build_defs
from mobclip_assets.jobs import make_jobs
from mobclip_assets.materialize import plan_stages, wanted_assets
from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import ProfileError

ROOT = Path(__file__).resolve().parents[2]
REGIONAL = {
    "grid_cells",
    "zone_cells",
    "poi_aggregates",
    "imagery_patches",
    "imagery_features",
    "census_features",
    "mobility_edges",
    "embeddings",
}
WHOLE = {
    "regions",
    "imagery_encoder",
    "poi_points",
    "movements",
    "mobility_graph",
    "node_embeddings",
    "encoder",
    "encoder_variants",
    "location_encoder",
    "geobench_labels",
    "geobench_scores",
    "scaling_law",
    "catalog",
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_defs("demo")


@pytest.fixture(scope="module")
def graph(definitions):
    return definitions.resolve_asset_graph()


def names(keys) -> set[str]:
    return {key.to_user_string() for key in keys}


def test_the_assets_of_the_design_are_there_with_their_partitions(graph):
    regional = {key for key in graph.materializable_asset_keys if graph.get(key).partitions_def is not None}
    assert names(regional) == REGIONAL
    assert names(graph.materializable_asset_keys - regional) == WHOLE


def test_all_regional_assets_share_one_partitions_object(definitions):
    found = {id(asset.partitions_def) for asset in definitions.assets if getattr(asset, "partitions_def", None)}
    assert len(found) == 1


def test_every_asset_says_what_it_is(graph):
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.code_version, key
        assert node.group_name != "default", key


def test_every_table_shows_its_contract_as_schema_and_check(definitions, graph):
    for name, contract in CONTRACTS.items():
        key = dg.AssetKey(name)
        schema = graph.get(key).metadata["dagster/column_schema"]
        schema = getattr(schema, "value", schema)
        assert [column.name for column in schema.columns] == [column.name for column in contract.columns]
        check = graph.get(dg.AssetCheckKey(key, "contract"))
        assert check.blocking


def test_lineage_begins_at_the_raw_files(graph):
    parents = names(graph.get(dg.AssetKey("census_features")).parent_keys)
    assert parents == {"grid_cells", "zone_cells", "source/census"}
    assert graph.get(dg.AssetKey(["source", "census"])).metadata["file"].value.endswith("census.parquet")


def test_stages_never_need_another_region_of_their_own_stage(graph):
    stages = plan_stages(graph, wanted_assets(graph, []))
    place = {key: i for i, stage in enumerate(stages) for key in stage.assets}
    assert graph.materializable_asset_keys - set(place) == {dg.AssetKey("scaling_law")}
    for key, i in place.items():
        for parent in graph.get(key).parent_keys & set(place):
            mapping = graph.get(key).partition_mappings.get(parent)
            crosses = graph.get(parent).partitions_def is not graph.get(key).partitions_def
            if isinstance(mapping, dg.AllPartitionMapping) or crosses:
                assert place[parent] < i, f"{key} needs all of {parent}"
            else:
                assert place[parent] <= i
    assert all(len({graph.get(key).partitions_def is None for key in stage.assets}) == 1 for stage in stages)


def test_the_regions_of_a_job_can_run_in_any_order(graph):
    """A backfill of a job runs its regions side by side: none may need another region's part of the same job."""
    for job in make_jobs():
        keys = job.selection.resolve(graph)
        for key in keys:
            for parent in graph.get(key).parent_keys & keys:
                mapping = graph.get(key).partition_mappings.get(parent)
                assert not isinstance(mapping, dg.AllPartitionMapping) or graph.get(parent).partitions_def is None, (
                    f"{job.name}: {key} needs all of {parent}"
                )


def test_selection_in_dagsters_syntax(graph):
    assert names(wanted_assets(graph, ["group:census"])) == {"census_features"}
    assert names(wanted_assets(graph, ["scaling_law"])) == {"scaling_law"}
    assert names(wanted_assets(graph, ["geobench_labels+"])) == {
        "geobench_labels",
        "geobench_scores",
        "scaling_law",
        "location_encoder",
        "catalog",
    }
    stages = plan_stages(graph, wanted_assets(graph, ["census_features"]))
    assert [names(stage.assets) for stage in stages] == [{"census_features"}]
    assert stages[0].title == "census_features"


def test_a_bad_profile_stops_loading_with_its_file_and_key(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("name: broken\ngrid: {resolution: 19}\n")
    with pytest.raises(ProfileError, match=r"(?s)broken\.yaml.*grid\.resolution: found 19"):
        build_defs(str(path))


def test_loading_does_not_import_heavy_libraries():
    heavy = ("torch", "geopandas", "sklearn", "lightgbm", "timm", "rasterio", "matplotlib")
    code = f"import sys, mobclip_assets.definitions; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_core_never_imports_dagster():
    code = (
        "import importlib, pkgutil, sys, mobclip_core\n"
        "for m in pkgutil.walk_packages(mobclip_core.__path__, 'mobclip_core.'): importlib.import_module(m.name)\n"
        "print(len([m for m in sys.modules if m.startswith('mobclip_core.')]), 'dagster' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded, dagster = done.stdout.split()
    assert int(loaded) > 30
    assert dagster == "False"


@pytest.mark.slow
def test_dagster_validates_the_code_location(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    program = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [program, "definitions", "validate"], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "All code locations passed validation" in done.stderr + done.stdout
