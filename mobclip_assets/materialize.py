"""Materialising from the command line.

Belongs here: walking Dagster's own asset graph stage by stage and starting one Dagster run for each partition, in this
process; taking up what a killed command left. Does not belong here: scheduling, retries or parallel runs; that is the
daemon's work. Nor what need not be made again (see `standing`).
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster_shared.error import SerializableErrorInfo

from mobclip_assets.making import ON_REQUEST_TAG
from mobclip_assets.partitions import is_of_all_regions
from mobclip_assets.regressions import CHECK_NAME as NOT_WORSE
from mobclip_assets.regressions import COMPARED
from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import MobclipError

_OURS = f"{MobclipError.__module__}."
_RUN_TAGS = {"mobclip/command": "materialize"}
_LOCK = "materialize.lock"
_UNFINISHED = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""The terminal shows progress and the messages of failures; the full log of a run is in the UI."""


@dataclass(frozen=True)
class Stage:
    """Assets that can run in one run a partition, one after the other.

    Args:
        assets: Asset keys in dependency order.
        regional: Whether there is a run for each region, or one run.
    """

    assets: tuple[dg.AssetKey, ...]
    regional: bool

    @property
    def title(self) -> str:
        """The assets' names."""
        return ", ".join(key.to_user_string() for key in self.assets)


@dataclass(frozen=True)
class Failure:
    """A run that failed: its assets' stage, its region, and the message of each failed step."""

    stage: Stage
    region: str | None
    messages: tuple[str, ...]


def is_on_request(graph: AssetGraph, key: dg.AssetKey) -> bool:
    """Whether an asset is made only when it is asked for by name."""
    return ON_REQUEST_TAG in graph.get(key).tags


def _is_regional(graph: AssetGraph, key: dg.AssetKey) -> bool:
    return graph.get(key).partitions_def is not None


def _joins(graph: AssetGraph, key: dg.AssetKey, stage: set[dg.AssetKey], done: set[dg.AssetKey]) -> bool:
    """Whether an asset can join the run of a stage: it needs no other region's partition of the stage's assets."""
    for parent in graph.get(key).parent_keys:
        if parent in done:
            continue
        if parent not in stage or is_of_all_regions(graph, key, parent):
            return False
    return True


def plan_stages(graph: AssetGraph, wanted: set[dg.AssetKey]) -> list[Stage]:
    """Order assets into stages: as few as the dependencies between partitions allow.

    Args:
        graph: Dagster's asset graph.
        wanted: Keys to materialise; everything else counts as done.
    """
    order = [key for key in graph.toposorted_asset_keys if key in wanted]
    done = set(graph.get_all_asset_keys()) - wanted
    stages: list[Stage] = []
    while order:
        plans = [_next_stage(graph, order, done, regional) for regional in (False, True)]
        stage = next(plan for plan in plans if plan.assets)
        stages.append(stage)
        done |= set(stage.assets)
        order = [key for key in order if key not in done]
    return stages


def _next_stage(graph: AssetGraph, order: Sequence[dg.AssetKey], done: set[dg.AssetKey], regional: bool) -> Stage:
    chosen: list[dg.AssetKey] = []
    for key in order:
        if _is_regional(graph, key) == regional and _joins(graph, key, set(chosen), done):
            chosen.append(key)
    return Stage(tuple(chosen), regional)


@contextlib.contextmanager
def only_command(instance: dg.DagsterInstance, home: Path) -> Iterator[None]:
    """Make sure that no other `mobclip materialize` works on an instance, and close what a killed one left open.

    A killed process leaves its run as started for ever, and the run keeps its slot of a pool. Whoever holds the lock
    knows that such a run is dead: the system gives a dead process's lock back.

    Args:
        instance: The instance.
        home: Its folder, where the lock lies.

    Raises:
        MobclipError: If another process holds the lock.
    """
    with (home / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise MobclipError(
                f"another `mobclip materialize` (process {lock.read().strip()}) works on {home}; wait for it or stop it"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        unfinished = dg.RunsFilter(statuses=list(_UNFINISHED), tags=_RUN_TAGS)
        for run in instance.get_runs(unfinished):
            instance.report_run_failed(run, "the process that ran it was killed")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        yield


def run_stage(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    stage: Stage,
    regions: Sequence[str],
    started: Callable[[str | None], None],
    unfinished: Callable[[Stage, str | None], Sequence[dg.AssetKey]],
    accept: bool = False,
) -> Iterator[Failure | None]:
    """Run a stage, one Dagster run a region; yields after each region, None where nothing failed.

    Args:
        job: The implicit job over all assets.
        instance: The instance that records the runs.
        stage: What to run.
        regions: Partitions wanted.
        started: Called with the region when a run begins.
        unfinished: Which of the stage's assets to make for a region; there is no run where there are none.
        accept: What differs from before is meant: no check fails for it, and it is what is compared with from now on.
    """
    for region in regions if stage.regional else [None]:
        wanted = unfinished(stage, region)
        if not wanted:
            yield None
            continue
        started(region)
        result = job.execute_in_process(
            instance=instance,
            partition_key=region,
            asset_selection=list(wanted),
            raise_on_error=False,
            run_config={**_QUIET, "ops": _accepting(wanted)} if accept else _QUIET,
            tags=_RUN_TAGS,
        )
        yield None if result.success else Failure(stage, region, _messages(result))


def _accepting(assets: Sequence[dg.AssetKey]) -> dict[str, Any]:
    """Configuration of the steps that compare with what was there before."""
    steps = [key.to_user_string() for key in assets if key.to_user_string() in CONTRACTS]
    if COMPARED in steps:
        steps.append(f"{COMPARED}_{NOT_WORSE}")
    return {step: {"config": {"accept": True}} for step in steps}


def _messages(result: dg.ExecuteInProcessResult) -> tuple[str, ...]:
    found = [
        f"{event.step_key}: {_readable(event.step_failure_data.error)}"
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.error is not None
    ]
    return tuple(found) or ("a blocking check failed; its result is in the UI",)


def _readable(error: SerializableErrorInfo) -> str:
    """The message meant for people: that of the first error of ours in the chain of causes, else of the last cause."""
    while not error.message.startswith(_OURS) and error.cause is not None:
        error = error.cause
    return error.message.removeprefix(_OURS).strip()


def wanted_assets(graph: AssetGraph, selection: Sequence[str]) -> set[dg.AssetKey]:
    """Keys of the materialisable assets selected; for an empty selection all but those made on request.

    Args:
        graph: Dagster's asset graph.
        selection: Selection strings in Dagster's syntax, e.g. `poi_aggregates+` or `group:census`.
    """
    everything = graph.materializable_asset_keys
    if not selection:
        return {key for key in everything if not is_on_request(graph, key)}
    chosen: set[dg.AssetKey] = set()
    for text in selection:
        chosen |= dg.AssetSelection.from_string(text).resolve(graph)
    return chosen & set(everything)
