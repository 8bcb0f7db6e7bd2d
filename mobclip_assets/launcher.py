"""The run launcher of a deployment on one machine: Dagster's own, and it sees when the process of a run is gone.

Belongs here: telling run monitoring whether a run's process lives. Does not belong here: what is done about it (Dagster
fails the run, gives its slots back and starts it again, as `dagster.yaml` says).

Dagster's launcher is told of a dead process by the code server that started it. Where both die, as they do when a
machine restarts, the run would count as started for ever.
"""

import psutil
from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

_CLOCKS_DIFFER_SECONDS = 2.0


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs as processes of this machine, on which the daemon runs too, and knows whether they live."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks for each started run."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process that said it runs the run is there still."""
        started = self._process(run.run_id)
        if started is None:
            # monitoring would fail a run of unknown health: it is left to its time limit
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process has said that it runs the run")
        pid, when = started
        if _lives(pid, when):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"process {pid} is gone: killed, or the machine restarted")

    def _process(self, run_id: str) -> tuple[int, float] | None:
        """Its number and when it said that it had started, in seconds since 1970."""
        for entry in self._instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
            event = entry.dagster_event
            # steps have processes of their own
            if event is None or event.step_key is not None:
                continue
            pid = event.engine_event_data.metadata.get("pid")
            if pid is not None:
                return int(str(pid.value)), entry.timestamp
        return None


def _lives(pid: int, when: float) -> bool:
    try:
        process = psutil.Process(pid)
        # numbers are given again
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= when + _CLOCKS_DIFFER_SECONDS
    except psutil.NoSuchProcess:
        return False
