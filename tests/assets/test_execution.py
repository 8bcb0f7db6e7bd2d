import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository

from mobclip_assets.build import build_defs
from mobclip_assets.execution import RAY_TAG, Execution, memory_bytes
from mobclip_assets.making import GPU_POOL
from mobclip_core.errors import MobclipError
from mobclip_core.profile.loading import profile_variables

ROOT = Path(__file__).resolve().parents[2]
GPU_STEPS = {"imagery_encoder", "imagery_features", "node_embeddings", "encoder"}


def requests(definitions: dg.Definitions) -> dict[str, dict]:
    """What each asset's step asks Ray for, in the job over all assets."""
    nodes = definitions.resolve_implicit_global_asset_job_def().nodes
    tags = {node.name: node.definition.tags for node in nodes}
    return {name: json.loads(found[RAY_TAG]) if RAY_TAG in found else {} for name, found in tags.items()}


def pools(definitions: dg.Definitions) -> set[str]:
    nodes = definitions.resolve_implicit_global_asset_job_def().nodes
    return {node.name for node in nodes if node.definition.pool == GPU_POOL}


def test_the_environment_chooses():
    assert Execution.from_environment({}) == Execution()
    assert Execution.from_environment({"MOBCLIP_EXECUTOR": "", "MOBCLIP_RAY_GPUS": ""}) == Execution()
    assert Execution.from_environment({"MOBCLIP_EXECUTOR": "multiprocess"}) == Execution()
    chosen = {"MOBCLIP_EXECUTOR": "ray", "MOBCLIP_RAY_CPUS": "4", "MOBCLIP_RAY_GPUS": "0.5"}
    assert Execution.from_environment(chosen) == Execution("ray", cpus=4, gpus=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOBCLIP_EXECUTOR", "dask"),
        ("MOBCLIP_RAY_CPUS", "0"),
        ("MOBCLIP_RAY_CPUS", "-1"),
        ("MOBCLIP_RAY_GPUS", "yes"),
        ("MOBCLIP_RAY_GPUS", "nan"),
        ("MOBCLIP_RAY_GPUS", "inf"),
    ],
)
def test_a_wrong_choice_is_named(name, value):
    with pytest.raises(MobclipError, match=rf"{name} is '?{value}'?; expected "):
        Execution.from_environment({"MOBCLIP_EXECUTOR": "ray", name: value})


def test_steps_of_the_gpu_pool_and_no_others_ask_ray_for_gpus():
    definitions = build_defs("demo", Execution("ray", gpus=1))
    asked = requests(definitions)
    assert {name for name, request in asked.items() if "num_gpus" in request} == pools(definitions) >= GPU_STEPS
    assert all(asked[name]["num_gpus"] == 1 for name in GPU_STEPS)


def test_a_cluster_without_gpus_is_asked_for_none():
    definitions = build_defs("demo", Execution("ray"))
    assert not any("num_gpus" in request for request in requests(definitions).values())


def test_steps_ask_for_the_memory_that_their_duckdb_may_fill():
    limit = yaml.safe_load((ROOT / "dagster_home/profiles/demo.yaml").read_text())["duckdb"]["memory_limit"]
    asked = requests(build_defs("demo", Execution("ray")))
    assert {asked[name]["memory"] for name in ("poi_aggregates", "mobility_edges")} == {memory_bytes(limit)}


def test_processes_of_one_machine_carry_no_requests():
    definitions = build_defs("demo")
    assert not any(requests(definitions).values())
    assert definitions.executor.name == "multi_or_in_process_executor"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("3GB", 3 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 500_000_000), ("80%", None), ("lots", None)],
)
def test_memory_limits_in_bytes(limit, expected):
    assert memory_bytes(limit) == expected


# ---- jobs of Ray, without a cluster ----


class JobServer:
    """Stands where Ray's client stands: runs what is submitted with the variables that a Ray job would have."""

    submitted: ClassVar[list[dict]] = []

    def __init__(self, address=None, **_):
        self.address = address

    def submit_job(self, *, entrypoint, submission_id, runtime_env, **request):
        self.submitted.append({"entrypoint": entrypoint, "env": runtime_env["env_vars"], **request})
        bare = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            entrypoint, shell=True, env=bare | runtime_env["env_vars"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def stop_job(self, submission_id):
        return True

    def get_job_status(self, submission_id):
        return "RUNNING"


@pytest.mark.slow
def test_a_step_finds_its_profile_and_files_in_the_variables_it_is_given(
    tiny_world, tiny_profile, tmp_path, monkeypatch
):
    """A Ray job does not inherit the submitter's environment: what is forwarded has to be enough for a step."""
    pytest.importorskip("dagster_ray")
    import ray.job_submission

    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", JobServer)
    monkeypatch.setattr(JobServer, "submitted", [])
    profile = tiny_profile()
    profile.write_text(profile.read_text().replace(str(tiny_world), "${TINY_WORLD}"))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    variables = {
        "DAGSTER_HOME": str(tmp_path),
        "MOBCLIP_PROFILE": str(profile),
        "MOBCLIP_EXECUTOR": "ray",
        "TINY_WORLD": str(tiny_world),
        "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert profile_variables(str(profile)) == ["TINY_WORLD"]
    job = ReconstructableRepository.for_file(__file__, "code_location").get_reconstructable_job("__ASSET_JOB")
    with (
        dg.DagsterInstance.get() as instance,
        dg.execute_job(job, instance=instance, asset_selection=[dg.AssetKey("regions")]) as result,
    ):
        assert result.success
    (regions,) = (s for s in JobServer.submitted if s["env"]["DAGSTER_RUN_STEP_KEY"] == "regions")
    assert (tmp_path / "lake" / "regions" / "part.parquet").exists()
    assert {name: regions["env"].get(name) for name in variables} == variables | {"AWS_SECRET_ACCESS_KEY": None}
    assert regions["entrypoint_num_cpus"] == 1
    assert not regions["entrypoint_num_gpus"]


def code_location() -> dg.Definitions:
    return build_defs(os.environ["MOBCLIP_PROFILE"], Execution.from_environment())
