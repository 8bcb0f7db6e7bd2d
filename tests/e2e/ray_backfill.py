"""A backfill on a Ray cluster of two nodes: `python -m tests.e2e.ray_backfill OUTPUT`.

Belongs here: what runs inside the network namespace of `test_ray`, where the ports that Ray opens reach nobody. Does
not belong here: what the result is compared with.

Writes JSON: the Dagster runs with their status, and Ray's jobs with the node that each ran on.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

JOB_SERVER = "http://127.0.0.1:8265"
WORKSPACE = Path(__file__).with_name("ray_workspace.yaml")
JOBS = {
    "cells": ("grid_cells", "zone_cells"),
    "features": ("census_features", "imagery_patches"),
}
"""Regional assets of two stages: a job needs all regions of the jobs before it. Each step is a process of its own that
loads the definitions, so that more of them would only take longer."""


def main(output: Path) -> None:
    """Start two nodes of one CPU and back-fill all regions."""
    from ray.cluster_utils import Cluster

    # the dashboard's process is the job server
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
    cluster.add_node(num_cpus=1)
    try:
        output.write_text(json.dumps(backfill()))
    finally:
        cluster.shutdown()


def backfill() -> dict[str, list[dict[str, str]]]:
    """Back-fill all regions through Dagster's command line, as a person would; returns what became of it."""
    from ray.job_submission import JobSubmissionClient

    dagster = Path(sys.executable).with_name("dagster")
    with dg.DagsterInstance.get() as instance:
        for job in JOBS:
            command = [dagster, "job", "backfill", "-w", WORKSPACE, "-j", job, "--all", "all", "--noprompt"]
            subprocess.run([str(part) for part in command], check=True)
            while not all(run.is_finished for run in instance.get_runs()):
                time.sleep(0.5)
        runs = [
            {"job": run.job_name, "region": run.tags["dagster/partition"], "status": run.status.value}
            for run in instance.get_runs()
        ]
    # the process of a job ends a little later than the step that it runs
    client = JobSubmissionClient(JOB_SERVER)
    while not all(job.status.is_terminal() for job in client.list_jobs()):
        time.sleep(0.5)
    submitted = [
        {
            "id": job.submission_id or "",
            "status": job.status.value,
            "node": job.driver_node_id or "",
            "step": (job.metadata or {}).get("dagster/op", ""),
            "message": job.message or "",
        }
        for job in client.list_jobs()
    ]
    return {"runs": runs, "jobs": submitted}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
