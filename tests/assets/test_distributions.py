"""The distribution checks in Dagster, on tables written by hand: every evaluation is a run of its own."""

import json
import shutil
from pathlib import Path

import dagster as dg
import h3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import yaml

from mobclip_assets.build import build_defs
from mobclip_assets.distributions import CHECK_NAME, last_good
from mobclip_assets.making import AssetMaker, Code
from mobclip_assets.materialize import plan_stages, wanted_assets
from mobclip_assets.partitions import make_regions
from mobclip_assets.resources import DeploymentResource
from mobclip_core.contracts import CONTRACTS
from mobclip_core.demo.config import TINY
from mobclip_core.deployment import Deployment, StepResult
from mobclip_core.profile import load_profile
from mobclip_core.store import TableRef
from mobclip_core.vectors import vector_column

REGIONS = ["east", "west"]
KEY = dg.AssetCheckKey(dg.AssetKey("poi_aggregates"), CHECK_NAME)


def write(profile: Path, region: str, share: float = 1.0) -> None:
    """The POIs of a region, or a share of them."""
    counts = np.round(np.linspace(0, 40, 60) * share).reshape(-1, 1)
    table = pa.table(
        {
            "cell": pa.array(range(60), pa.uint64()),
            "poi_count": pa.array(counts[:, 0]),
            "counts": vector_column(counts.astype(np.float32)),
            "text_vector": vector_column(np.ones((60, 8), dtype=np.float32)),
        }
    )
    Deployment.open(str(profile)).store.write(TableRef("poi_aggregates", region), table)


def make_profile(folder: Path, **quality) -> Path:
    path = folder / "two.yaml"
    sections = {
        "name": "two",
        "storage": str(folder / "lake"),
        "regions": {"file": "regions.parquet", "key_column": "region", "keys": REGIONS},
        "zones": {"tracts": {"file": "tracts.parquet", "id_column": "geoid"}},
        "census": {
            "zones": "tracts",
            "file": "census.parquet",
            "id_column": "geoid",
            "population": "people",
            "histogram": [{"column": "people"}],
        },
        "poi": {"categories": ["shop"]},
        "imagery": {"file": "image.tif"},
        "quality": quality,
    }
    path.write_text(yaml.safe_dump(sections))
    for region in REGIONS:
        write(path, region)
    return path


def poi_aggregates(deployment: Deployment, region: str) -> StepResult:
    """The table that was written by hand, written again."""
    ref = TableRef("poi_aggregates", region)
    return StepResult(deployment.store.write(ref, deployment.store.read(ref)))


def evaluate(profile: Path, instance: dg.DagsterInstance, region: str, accept: bool = False) -> dg.AssetCheckEvaluation:
    """Materialise the region, with its checks."""
    loaded = load_profile(str(profile))
    regions = make_regions(loaded)
    make = AssetMaker(loaded, regions, lambda _: {})
    result = dg.materialize(
        [make.regional(group="features", kinds=set(), deps=[], code=Code([]))(poi_aggregates)],
        instance=instance,
        partition_key=region,
        resources={"deployment": DeploymentResource(profile=str(profile))},
        run_config={"ops": {"poi_aggregates": {"config": {"accept": accept}}}} if accept else None,
        raise_on_error=False,
    )
    [evaluation] = [each for each in result.get_asset_check_evaluations() if each.check_name == CHECK_NAME]
    assert evaluation.partition == region
    assert result.success == (evaluation.passed or evaluation.severity == dg.AssetCheckSeverity.WARN)
    return evaluation


def test_every_table_has_the_check(tmp_path):
    graph = build_defs(str(make_profile(tmp_path))).resolve_asset_graph()
    for name, contract in CONTRACTS.items():
        check = graph.get(dg.AssetCheckKey(dg.AssetKey(name), CHECK_NAME))
        assert not check.blocking
        assert "accept: true" in check.description
        assert (check.partitions_def is not None) == contract.partitioned


def test_a_change_is_told_until_it_is_accepted(tmp_path):
    profile = make_profile(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        for region in REGIONS:
            first = evaluate(profile, instance, region)
            assert first.passed
            assert "60 rows are the baseline: no earlier one passed" in first.description
        unchanged = evaluate(profile, instance, "east")
        assert unchanged.passed
        assert unchanged.metadata["changes_over_limit"].value == 0
        write(profile, "east", 0.5)
        for _ in range(2):
            # the baseline is the last that passed, not the last
            halved = evaluate(profile, instance, "east")
            assert not halved.passed
            assert halved.severity == dg.AssetCheckSeverity.WARN
            assert "poi_count: total 1,200.0 -> " in halved.description
            assert "limit 10.0%" in halved.description
            assert "accept: true" in halved.description
            assert "**`poi_count`**" in halved.metadata["what changed"].value
        # another partition has a baseline of its own
        assert evaluate(profile, instance, "west").passed
        accepted = evaluate(profile, instance, "east", accept=True)
        assert accepted.passed
        assert "accepted as the new baseline: " in accepted.description
        after = evaluate(profile, instance, "east")
        assert after.passed
        assert "within their limits" in after.description
        history = instance.event_log_storage.get_asset_check_execution_history(KEY, limit=20)
        shown = [(record.partition, record.status.value) for record in reversed(history)]
        assert shown == [
            ("east", "SUCCEEDED"),
            ("west", "SUCCEEDED"),
            ("east", "SUCCEEDED"),
            ("east", "FAILED"),
            ("east", "FAILED"),
            ("west", "SUCCEEDED"),
            ("east", "SUCCEEDED"),
            ("east", "SUCCEEDED"),
        ]
        sizes = [len(json.dumps(record.evaluation.metadata["statistics"].value)) for record in history]
        assert max(sizes) < 20_000
        assert last_good(instance, KEY, "nowhere") is None


def test_limits_of_the_profile_let_a_change_pass(tmp_path):
    limits = {"total": 1, "zeros": 1, "drift": 1, "shift": None}
    profile = make_profile(tmp_path, tables={"poi_aggregates": limits})
    with dg.DagsterInstance.ephemeral() as instance:
        evaluate(profile, instance, "east")
        write(profile, "east", 0.5)
        assert evaluate(profile, instance, "east").passed


def test_the_severity_error_blocks(tmp_path):
    profile = make_profile(tmp_path, tables={"poi_aggregates": {"severity": "error"}})
    graph = build_defs(str(profile)).resolve_asset_graph()
    assert graph.get(KEY).blocking
    assert not graph.get(dg.AssetCheckKey(dg.AssetKey("regions"), CHECK_NAME)).blocking
    with dg.DagsterInstance.ephemeral() as instance:
        evaluate(profile, instance, "east")
        write(profile, "east", 0.5)
        halved = evaluate(profile, instance, "east")
        assert not halved.passed
        assert halved.severity == dg.AssetCheckSeverity.ERROR


def test_a_summary_of_another_version_is_not_compared(tmp_path, monkeypatch):
    profile = make_profile(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        evaluate(profile, instance, "east")
        for module in ("statistics", "distribution"):
            monkeypatch.setattr(f"mobclip_core.quality.{module}.VERSION", 99)
        write(profile, "east", 0.5)
        later = evaluate(profile, instance, "east")
        assert later.passed
        assert "summed up by another version" in later.description


@pytest.mark.slow
def test_a_source_that_loses_half_of_a_regions_rows_is_told_in_that_region_only(tiny_profile, tiny_world, tmp_path):
    """On the generated country: unchanged it passes; then half of one region's POIs go."""
    world = Path(shutil.copytree(tiny_world, tmp_path / "world"))
    profile = tiny_profile(world)
    definitions = build_defs(str(profile))
    job, graph = definitions.resolve_implicit_global_asset_job_def(), definitions.resolve_asset_graph()

    def outcomes(instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
        for stage in plan_stages(graph, wanted_assets(graph, ["*poi_aggregates"])):
            for region in TINY.region_keys if stage.regional else [None]:
                assets = list(stage.assets)
                assert job.execute_in_process(instance=instance, partition_key=region, asset_selection=assets).success
        history = instance.event_log_storage.get_asset_check_execution_history(KEY, limit=len(TINY.region_keys))
        return {record.partition: record.evaluation for record in history}

    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            assert all(found.passed for found in outcomes(instance).values())
        first = TINY.region_keys[0]
        store = Deployment.open(str(profile)).store
        before = store.read(TableRef("poi_aggregates", first))
        _drop_half(world, store.read(TableRef("grid_cells", first)))
        after = outcomes(instance)
    assert {region: found.passed for region, found in after.items()} == {r: r != first for r in TINY.region_keys}
    assert "poi_count: total" in after[first].description
    assert sum(before["poi_count"].to_pylist()) > 0


def _drop_half(world: Path, grid: pa.Table) -> None:
    """Remove every second POI that lies in a cell of a region."""
    cells = set(grid["cell"].to_pylist())
    points = pq.read_table(world / "poi.parquet")
    resolution = h3.get_resolution(h3.int_to_str(next(iter(cells))))
    places = shapely.from_wkb(points["geometry"].to_pylist(), on_invalid="ignore")
    inside = np.array(
        [
            np.isfinite(lon + lat) and h3.str_to_int(h3.latlng_to_cell(lat, lon, resolution)) in cells
            for lon, lat in zip(shapely.get_x(places), shapely.get_y(places), strict=True)
        ]
    )
    dropped = inside & (np.cumsum(inside) % 2 == 0)
    assert dropped.sum() > 50
    pq.write_table(points.filter(pa.array(~dropped)), world / "poi.parquet")
