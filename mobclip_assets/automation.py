"""Automation: what starts runs by itself.

Belongs here: the sensors that refresh and retrain, and the schedule of a full rebuild. Does not belong here: the plan
of a refresh (see `refreshing`), jobs (see `jobs`), telling people (see `alerts`).

All are off until they are turned on in the UI: a deployment begins with a first build by hand.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import StaleStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._utils.schedules import get_latest_completed_cron_tick

from mobclip_assets.refreshing import RETRAINED, Wanted, plan_refresh, regions_of
from mobclip_assets.standing import Standing, observe_sources
from mobclip_core.deployment import Deployment
from mobclip_core.errors import listed
from mobclip_core.profile import OperationsConfig, Profile
from mobclip_core.store import TableRef

REGION_TAG = "mobclip/region"
"""Tag of the runs of the refresh: their region, or `all`."""

_ALL = "all"
_SHOWN = 5
_EVERYTHING = dg.AssetSelection.all()


def make_sensors(profile: Profile, profile_file: str) -> list[dg.SensorDefinition]:
    """The sensors of a deployment.

    Args:
        profile: The profile.
        profile_file: Its name or path, read afresh at each tick.
    """
    sensors = [_refresh_sensor(profile.operations, profile_file)]
    if profile.operations.retrain is not None:
        sensors.append(_retrain_sensor(profile.operations, profile.operations.retrain, profile_file))
    return sensors


def make_schedules(profile: Profile, regions: dg.StaticPartitionsDefinition) -> list[dg.ScheduleDefinition]:
    """The schedule of the full rebuild, where the profile has one."""
    operations = profile.operations
    if operations.rebuild is None:
        return []

    @dg.schedule(
        name="rebuild",
        cron_schedule=operations.rebuild,
        execution_timezone=operations.timezone,
        job_name="refresh_region",
        description="The features of every region again, changed or not, and their vectors.",
    )
    def rebuild(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        tick = context.scheduled_execution_time.isoformat()
        for region in regions.get_partition_keys():
            yield dg.RunRequest(run_key=f"rebuild:{tick}:{region}", partition_key=region)

    return [rebuild]


def _refresh_sensor(operations: OperationsConfig, profile_file: str) -> dg.SensorDefinition:
    @dg.sensor(
        name="refresh",
        target=_EVERYTHING,
        minimum_interval_seconds=operations.refresh_seconds,
        description=(
            "Looks whether source files, code or settings changed, and makes again what was made of the old ones: one "
            "run a region, with the encoder frozen. After a retraining it embeds every region, scores and publishes. "
            "A run that failed is not started again until its inputs change: mend the cause and re-execute it."
        ),
    )
    def refresh(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        deployment = Deployment.open(profile_file)
        observe_sources(context.instance, deployment.profile)
        graph = _graph(context)
        standing = Standing(context.instance, graph, deployment)
        regions = deployment.profile.regions.region_keys
        busy = _busy(context.instance)
        wanted = [run for run in plan_refresh(graph, standing.good_state, regions) if (run.region or _ALL) not in busy]
        if not wanted:
            return dg.SkipReason(f"nothing to do now; {len(busy)} runs under way" if busy else "all stands")
        return dg.SensorResult([_request(run, standing, graph) for run in wanted])

    return refresh


def _retrain_sensor(operations: OperationsConfig, cron: str, profile_file: str) -> dg.SensorDefinition:
    @dg.sensor(
        name="retrain_when_complete",
        job_name="retrain",
        minimum_interval_seconds=operations.refresh_seconds,
        description=(
            f"After {cron} ({operations.timezone}) trains the encoder again, once, as soon as what it is trained from "
            "stands in every region. (Dagster's on_cron would start at the first region.)"
        ),
    )
    def retrain_when_complete(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        due = get_latest_completed_cron_tick(cron, datetime.now(UTC), operations.timezone).isoformat()
        if context.cursor is None:
            # turned on for the first time: the tick before that is nobody's
            return dg.SensorResult(skip_reason=f"waits for the tick after {due}", cursor=due)
        if context.cursor == due:
            return dg.SkipReason(f"trained for the tick of {due}, or turned on after it")
        deployment = Deployment.open(profile_file)
        graph = _graph(context)
        standing = Standing(context.instance, graph, deployment)
        missing = [
            str(TableRef(parent.to_user_string(), region))
            for parent, region in _trained_from(graph)
            if standing.good_state(parent, region) != StaleStatus.FRESH
        ]
        if missing:
            return dg.SkipReason(f"due since {due}; waits for {listed(missing, _SHOWN)}")
        return dg.SensorResult([dg.RunRequest(run_key=f"retrain:{due}")], cursor=due)

    return retrain_when_complete


def _trained_from(graph: AssetGraph) -> list[tuple[dg.AssetKey, str | None]]:
    """The partitions that the retrained assets are made of, but for one another."""
    retrained = {dg.AssetKey(name) for name in RETRAINED}
    found = [
        (parent, region)
        for key in sorted(retrained)
        for parent in sorted(graph.get(key).parent_keys - retrained)
        for region in regions_of(graph, key, parent, None)
    ]
    return list(dict.fromkeys(found))


def _request(run: Wanted, standing: Standing, graph: AssetGraph) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run.run_key(standing.version, graph),
        partition_key=run.region,
        asset_selection=list(run.assets),
        tags={REGION_TAG: run.region or _ALL},
    )


def _busy(instance: dg.DagsterInstance) -> set[str]:
    """Regions (and `all`) that a run is under way for, started by whomever."""
    found = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES))):
        found.add(run.tags.get(REGION_TAG) or run.tags.get("dagster/partition") or _ALL)
    return found


def _graph(context: dg.SensorEvaluationContext) -> AssetGraph:
    assert context.repository_def is not None
    return context.repository_def.asset_graph
