"""Run monitoring learns that the process of a run is gone."""

import os
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.base import WorkerStatus

from mobclip_assets.launcher import WatchedRunLauncher, _lives
from mobclip_core.profile import PROFILES_DIR


@pytest.fixture
def instance(tmp_path):
    overrides = {"run_launcher": {"module": "mobclip_assets.launcher", "class": "WatchedRunLauncher"}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as found:
        assert isinstance(found.run_launcher, WatchedRunLauncher)
        yield found


def started(instance: dg.DagsterInstance, pid: int) -> dg.DagsterRun:
    """A run whose process said that it runs it."""

    @dg.job
    def nothing() -> None:
        pass

    run = instance.create_run_for_job(nothing)
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


def health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerStatus:
    assert instance.run_launcher.supports_check_run_worker_health
    return instance.run_launcher.check_run_worker_health(run).status


def test_a_living_process_is_seen(instance):
    assert health(instance, started(instance, os.getpid())) == WorkerStatus.RUNNING


def test_a_dead_process_is_seen_and_so_is_one_that_got_its_number_later(instance):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    run = started(instance, process.pid)
    assert health(instance, run) == WorkerStatus.RUNNING
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    # its parent has not asked for it yet
    assert health(instance, run) == WorkerStatus.NOT_FOUND
    process.wait()
    assert health(instance, run) == WorkerStatus.NOT_FOUND
    # a process that began after the run's own had spoken
    assert not _lives(os.getpid(), when=0.0)
    result = instance.run_launcher.check_run_worker_health(run)
    assert str(process.pid) in str(result.msg)


def test_a_run_that_no_process_spoke_for_is_left_alone(instance):
    @dg.job
    def nothing() -> None:
        pass

    assert health(instance, instance.create_run_for_job(nothing)) == WorkerStatus.RUNNING


def test_the_process_of_a_run_from_the_command_line_is_known(instance):
    @dg.job
    def nothing() -> None:
        pass

    run = instance.get_run_by_id(nothing.execute_in_process(instance=instance).run_id)
    assert instance.run_launcher._process(run.run_id)[0] == os.getpid()


@pytest.mark.parametrize("name", [".", "team"])
def test_instances_of_one_machine_use_it(name, monkeypatch):
    monkeypatch.setenv("MOBCLIP_POSTGRES_URL", "postgresql://nobody@nowhere/nothing")
    launcher = InstanceRef.from_dir(str(PROFILES_DIR.parent / name)).run_launcher_data
    assert launcher.class_name == "WatchedRunLauncher"
