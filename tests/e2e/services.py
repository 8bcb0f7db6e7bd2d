"""A deployment as a team runs it: PostgreSQL, Dagster's web server and daemon, each a process of its own.

Belongs here: starting, killing and asking them. Does not belong here: what the tests do with them.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
import yaml

ROOT = Path(__file__).resolve().parents[2]
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
_PATIENCE = 120.0


class NotAnsweredError(Exception):
    """The web server answered that it could not."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def need_postgres() -> None:
    """Skip where Debian's PostgreSQL is not installed."""
    if not _POSTGRES:
        pytest.skip("no PostgreSQL: apt-get install postgresql")


def wait_until(what: str, ready: Any, patience: float = _PATIENCE) -> Any:
    """Ask again until there is an answer that counts as true; gives it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        # no answer, or an answer that tells of a database that is away
        with contextlib.suppress(requests.RequestException, NotAnsweredError):
            if found := ready():
                return found
        time.sleep(0.3)
    raise TimeoutError(f"{what}: nothing after {patience:.0f} s")


class Postgres:
    """A cluster of its own on a free port, owned by a user that is not root."""

    def __init__(self) -> None:
        need_postgres()
        self._bin = _POSTGRES[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "dagster", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://dagster@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, after a kill too: it recovers from its log."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "-w", "start")

    def kill(self) -> None:
        """SIGKILL to the server and all that serves its clients."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
        for each in [pid, *map(int, found.stdout.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        wait_until("the end of PostgreSQL", lambda: not Path(f"/proc/{pid}").exists())

    def stop(self) -> None:
        """Stop it and remove what it wrote."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        # pg_ctl leaves a server behind that would hold a pipe open
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [*user, str(self._bin / program), *arguments], stdout=said, stderr=said, cwd="/", check=False
            )
            said.seek(0)
            assert done.returncode == 0, said.read().decode()


class Team:
    """The processes of a deployment, on the instance that `dagster_home/team` ships.

    Args:
        home: DAGSTER_HOME.
        profile: The profile served.
        postgres: Where its events lie.
    """

    def __init__(self, home: Path, profile: Path, postgres: Postgres) -> None:
        self.home, self.profile, self.postgres = home, profile, postgres
        home.mkdir(parents=True, exist_ok=True)
        settings = yaml.safe_load((ROOT / "dagster_home" / "team" / "dagster.yaml").read_text())
        # a test does not wait for minutes to see a dead worker
        settings["run_monitoring"] |= {"poll_interval_seconds": 5, "start_timeout_seconds": 60}
        settings["run_monitoring"]["free_slots_after_run_end_seconds"] = 5
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        self.port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        variables = {
            "DAGSTER_HOME": str(self.home),
            "MOBCLIP_PROFILE": str(self.profile),
            "MOBCLIP_POSTGRES_URL": self.postgres.url,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **variables}

    def start(self, name: str) -> None:
        """Start `web` or `daemon`."""
        workspace = ["-w", str(ROOT / "workspace.yaml")]
        commands = {
            "web": ["dagster-webserver", "-h", "127.0.0.1", "-p", str(self.port), *workspace],
            "daemon": ["dagster-daemon", "run", *workspace],
        }
        program, *arguments = commands[name]
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *arguments],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if name == "web":
            wait_until("the web server", lambda: requests.get(f"{self.url}/server_info", timeout=5).ok)

    def kill(self, name: str) -> None:
        """SIGKILL to a process and all that it started."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all of them."""
        for name in list(self._processes):
            self.kill(name)

    def kill_worker(self, random: np.random.Generator) -> None:
        """SIGKILL to one of the processes that a run has now, of its steps or its own; waits for one to be there."""
        chosen = random.choice(wait_until("a process of a run", self._workers))
        with contextlib.suppress(psutil.NoSuchProcess):
            chosen.kill()

    def _workers(self) -> list[psutil.Process]:
        """Processes that Python's multiprocessing started for the code server: runs and their steps."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("DAGSTER_HOME") == str(self.home)
                if ours and any("multiprocessing" in part for part in process.cmdline()):
                    found.append(process)
        return found

    def supervise(self) -> None:
        """Start again what has ended, as systemd or Kubernetes would."""
        for name in ("web", "daemon"):
            process = self._processes.get(name)
            if process is None or process.poll() is not None:
                self._processes.pop(name, None)
                self.start(name)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self, name: str, lines: int = 40) -> str:
        """The end of what a process said."""
        return "\n".join((self.home / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data that the web server answers a GraphQL query with."""
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        if not answer.ok or "errors" in answer.json():
            raise NotAnsweredError(answer.text[:2000])
        found = answer.json()
        return dict(found["data"])

    def _do(self, mutation: str, expected: str, **variables: Any) -> dict[str, Any]:
        """What a mutation, named `done`, gives; it has to be of the type expected."""
        found = self.ask(mutation, **variables)["done"]
        assert found["__typename"] == expected, found
        return dict(found)

    def backfill(self, assets: list[str], regions: list[str]) -> str:
        """Launch a backfill of some assets and regions as the UI does; gives its id."""
        parameters = {
            "assetSelection": [{"path": name.split("/")} for name in assets],
            "partitionNames": regions,
            "title": "test",
        }
        found = self._do(
            "mutation($p: LaunchBackfillParams!) { done: launchPartitionBackfill(backfillParams: $p) { __typename "
            "... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            "LaunchBackfillSuccess",
            p=parameters,
        )
        return str(found["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        """REQUESTED, COMPLETED_SUCCESS, COMPLETED_FAILED, ..."""
        found = self.ask(
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }",
            id=backfill,
        )
        return str(found["partitionBackfillOrError"]["status"])

    def finished(self, backfill: str, patience: float = 300.0) -> str:
        """Wait for the end of a backfill; gives its last status."""

        def ended() -> str | None:
            self.supervise()
            status = self.backfill_status(backfill)
            return status if status.startswith(("COMPLETED", "FAILED", "CANCELED")) else None

        return str(wait_until(f"the end of backfill {backfill}", ended, patience))

    def runs(self, backfill: str) -> dict[str, tuple[str, str]]:
        """The runs of a backfill: id and status by region, of the newest run of each."""
        found = self.ask(
            "query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId status "
            "tags { key value } } } } }",
            filter={"tags": [{"key": "dagster/backfill", "value": backfill}]},
        )
        newest: dict[str, tuple[str, str]] = {}
        for run in found["runsOrError"]["results"]:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            newest.setdefault(tags["dagster/partition"], (run["runId"], run["status"]))
        return newest

    def newest_run(self, asset: str, region: str) -> str:
        """Wait for a run of an asset's partition that has not ended; gives its id."""

        def started() -> str | None:
            runs = self._runs_under_way(tags=[{"key": "dagster/partition", "value": region}])
            return next((run["runId"] for run in runs if {"path": [asset]} in run["assetSelection"]), None)

        return str(wait_until(f"a run of {asset}[{region}]", started))

    @contextlib.contextmanager
    def turned_on(self, sensor: str) -> Iterator[None]:
        """A sensor is on for as long as the block."""
        selector = {
            "repositoryLocationName": "mobclip",
            "repositoryName": "__repository__",
            "sensorName": sensor,
        }
        found = self._do(
            "mutation($s: SensorSelector!) { done: startSensor(sensorSelector: $s) { __typename "
            "... on Sensor { sensorState { id status } } ... on PythonError { message } } }",
            "Sensor",
            s=selector,
        )
        assert found["sensorState"]["status"] == "RUNNING"
        try:
            yield
        finally:
            self._do(
                "mutation($id: String!) { done: stopSensor(id: $id) { __typename ... on PythonError { message } } }",
                "StopSensorMutationResult",
                id=found["sensorState"]["id"],
            )

    def all_runs_ended(self, patience: float = 300.0) -> None:
        """Wait until no run is queued or under way."""
        wait_until("the end of all runs", lambda: not self._runs_under_way(), patience)

    def _runs_under_way(self, **chosen: Any) -> list[dict[str, Any]]:
        """The newest run that has not ended, if there is one: its id and assets.

        Args:
            chosen: More of GraphQL's `RunsFilter`.
        """
        found = self.ask(
            "query($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 1) { ... on Runs { results { runId "
            "assetSelection { path } } } } }",
            filter={"statuses": ["QUEUED", "NOT_STARTED", "STARTING", "STARTED"], **chosen},
        )
        return list(found["runsOrError"]["results"])

    def re_execute(self, run: str) -> str:
        """Start a run again from what failed in it; gives the id of the new run."""
        found = self._do(
            "mutation($p: ReexecutionParams!) { done: launchRunReexecution(reexecutionParams: $p) { __typename "
            "... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            "LaunchRunSuccess",
            p={"parentRunId": run, "strategy": "FROM_FAILURE"},
        )
        return str(found["run"]["runId"])

    def run_finished(self, run: str, patience: float = 300.0) -> str:
        """Wait for the end of a run; gives its status."""

        def ended() -> str | None:
            found = self.ask("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run)
            status = str(found["runOrError"]["status"])
            return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

        return str(wait_until(f"the end of run {run}", ended, patience))

    def steps(self, run: str) -> set[str]:
        """The steps that a run executed."""
        found = self.ask("query($id: ID!) { runOrError(runId: $id) { ... on Run { stepStats { stepKey } } } }", id=run)
        return {step["stepKey"] for step in found["runOrError"]["stepStats"]}


@contextlib.contextmanager
def team(home: Path, profile: Path) -> Iterator[Team]:
    """PostgreSQL, web server and daemon for as long as the block."""
    postgres = Postgres()
    try:
        served = Team(home, profile, postgres)
        try:
            served.start("web")
            served.start("daemon")
            yield served
        finally:
            served.stop()
    finally:
        postgres.stop()
