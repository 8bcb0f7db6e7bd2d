"""Checks in the step: a table that breaks a rule does not take the place of the one that is there."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from mobclip_assets import checks
from mobclip_assets.making import AssetMaker, Code
from mobclip_assets.partitions import make_regions
from mobclip_assets.resources import DeploymentResource
from mobclip_core.deployment import CheckOutcome, Deployment, StepResult
from mobclip_core.profile import load_profile
from mobclip_core.store import TableRef
from tests.lake import edges

KEY = dg.AssetKey("mobility_edges")
REGION = "norvik"


@pytest.fixture
def profile(tiny_profile) -> Path:
    return tiny_profile(quality={"tables": {"mobility_edges": {"severity": "error"}}})


def make(profile: Path, instance: dg.DagsterInstance, table: pa.Table, **config) -> dg.ExecuteInProcessResult:
    """Materialise the edges of a region: a table made by hand."""

    def mobility_edges(deployment: Deployment, region: str) -> StepResult:
        return StepResult(deployment.store.write(TableRef("mobility_edges", region), table))

    loaded = load_profile(str(profile))
    maker = AssetMaker(loaded, make_regions(loaded), lambda _: {})
    return dg.materialize(
        [maker.regional(group="mobility", kinds=set(), deps=[], code=Code([]))(mobility_edges)],
        instance=instance,
        partition_key=REGION,
        resources={"deployment": DeploymentResource(profile=str(profile))},
        run_config={"ops": {"mobility_edges": {"config": config}}},
        raise_on_error=False,
    )


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.error.cause.message


def test_good_data_are_put_in_place_and_their_checks_are_about_them(profile):
    store = Deployment.open(str(profile)).store
    with dg.DagsterInstance.ephemeral() as instance:
        result = make(profile, instance, edges(5))
        assert result.success
        assert evaluations(result) == {"contract": True, "k_anonymous": True, "distribution": True}
        [made] = instance.fetch_materializations(KEY, limit=1).records
        for each in result.get_asset_check_evaluations():
            assert each.partition == REGION
            assert each.target_materialization_data.storage_id == made.storage_id
    assert store.read(TableRef("mobility_edges", REGION)).num_rows == 5


def test_a_broken_rule_keeps_what_was_there_and_makes_no_baseline(profile, monkeypatch):
    ref = TableRef("mobility_edges", REGION)
    store = Deployment.open(str(profile)).store
    with dg.DagsterInstance.ephemeral() as instance:
        make(profile, instance, edges(5))
        before = store.data_version(ref)
        few = lambda deployment, _: CheckOutcome(  # noqa: E731
            deployment.store.read(ref).num_rows == 5, "an edge of 1 person", {}
        )
        rule = checks.Rule("k_anonymous", "", few)
        monkeypatch.setitem(checks._JOINING, "mobility_edges", [rule])
        result = make(profile, instance, edges(50))
        assert not result.success
        # what comes after the broken rule is not evaluated: its numbers are nobody's baseline
        assert evaluations(result) == {"contract": True, "k_anonymous": False}
        told = failure(result)
        assert f"mobility_edges[{REGION}]" in told
        assert "k_anonymous: an edge of 1 person" in told
        assert "what was there before stays" in told
        assert len(instance.fetch_materializations(KEY, limit=9).records) == 1
        [record] = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(KEY, "k_anonymous"), limit=1
        )
        assert record.status == AssetCheckExecutionRecordStatus.FAILED
    assert store.data_version(ref) == before
    assert [Path(path).name for path in store.fs.find(store.root)] == ["part.parquet"]


def test_a_blocking_change_of_the_distribution_keeps_what_was_there_until_it_is_accepted(profile):
    ref = TableRef("mobility_edges", REGION)
    store = Deployment.open(str(profile)).store
    changed = edges(5)
    column = changed.column_names.index("weight")
    changed = changed.set_column(column, "weight", pc.multiply(changed["weight"], 3.0))
    with dg.DagsterInstance.ephemeral() as instance:
        make(profile, instance, edges(5))
        before = store.data_version(ref)
        result = make(profile, instance, changed)
        assert not result.success
        assert evaluations(result)["distribution"] is False
        assert "accept: true" in failure(result)
        assert store.data_version(ref) == before
        assert make(profile, instance, changed, accept=True).success
    assert store.read(ref).equals(changed)


def test_a_bundle_can_be_made_in_a_run_of_one_region(profile):
    """As a backfill of both does."""
    called = []

    def movements(deployment: Deployment) -> StepResult:
        called.append(deployment.profile.name)
        with deployment.store.write_bundle("movements", written := []) as folder:
            (folder / "a").write_text("a")
        return StepResult(written[0])

    loaded = load_profile(str(profile))
    keys = make_regions(loaded)
    maker = AssetMaker(loaded, keys, lambda _: {})
    whole = maker.whole(group="mobility", kinds=set(), deps=[], code=Code([]))(movements)

    @dg.asset(partitions_def=keys, deps=[whole])
    def after() -> None:
        pass

    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"deployment": DeploymentResource(profile=str(profile))}
        assert dg.materialize([whole, after], instance=instance, partition_key=REGION, resources=resources).success
    assert called == [loaded.name]
