"""The instances of a team and of a Kubernetes cluster as shipped: they load, and pods ask for what their steps need."""

import json
from pathlib import Path

import pytest
from dagster._core.instance.ref import InstanceRef

from mobclip_assets.build import build_defs
from mobclip_assets.execution import K8S_TAG, Execution
from mobclip_core.errors import MobclipError
from mobclip_core.profile import PROFILES_DIR

from .test_execution import GPU_STEPS, pools

HOME = PROFILES_DIR.parent
ENVIRONMENT = {
    "MOBCLIP_EXECUTOR": "kubernetes",
    "MOBCLIP_K8S_CPUS": "4",
    "MOBCLIP_K8S_GPUS": "1",
    "MOBCLIP_K8S_GPU_NODES": "cloud.example/accelerator=l4, zone=a",
}


def loaded(name: str, monkeypatch) -> InstanceRef:
    for variable in ("MOBCLIP_POSTGRES_URL", "MOBCLIP_K8S_NAMESPACE", "MOBCLIP_K8S_IMAGE"):
        monkeypatch.setenv(variable, f"value-of-{variable.lower()}")
    return InstanceRef.from_dir(str(HOME / name))


@pytest.mark.parametrize("name", ["team", "kubernetes", "ray"])
def test_shared_instances_keep_events_in_postgresql_and_give_slots_back(name, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    instance = loaded(name, monkeypatch)
    assert instance.storage_data.class_name == "DagsterPostgresStorage"
    assert instance.settings["run_monitoring"]["enabled"]
    assert instance.settings["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert instance.settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    text = (HOME / name / "dagster.yaml").read_text()
    assert "password@" not in text.replace("user:password@host", "")


@pytest.mark.parametrize("name", ["team", "kubernetes"])
def test_the_age_of_what_was_published_is_watched_and_ticks_are_not_kept_for_ever(name, monkeypatch):
    settings = loaded(name, monkeypatch).settings
    assert settings["freshness"]["enabled"]
    assert settings["retention"]["sensor"]["purge_after_days"]["skipped"] < 30


def pods() -> dict[str, dict]:
    """What each asset's step asks Kubernetes for."""
    definitions = build_defs("demo", Execution.from_environment(ENVIRONMENT))
    nodes = definitions.resolve_implicit_global_asset_job_def().nodes
    return {node.name: json.loads(node.definition.tags[K8S_TAG]) for node in nodes if K8S_TAG in node.definition.tags}


def test_steps_of_the_gpu_pool_and_no_others_ask_for_gpus_on_their_nodes():
    from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job, get_user_defined_k8s_config

    definitions = build_defs("demo", Execution.from_environment(ENVIRONMENT))
    with_gpus = pools(definitions)
    assert with_gpus >= GPU_STEPS
    config = DagsterK8sJobConfig(job_image="registry/mobclip:1", dagster_home="/opt/dagster/dagster_home")
    for node in definitions.resolve_implicit_global_asset_job_def().nodes:
        if K8S_TAG not in node.definition.tags:
            # checks and sources
            continue
        job = construct_dagster_k8s_job(
            config,
            args=["dagster", "api", "execute_step"],
            job_name="step",
            user_defined_k8s_config=get_user_defined_k8s_config(node.definition.tags),
        ).to_dict()
        pod = job["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert container["resources"]["requests"]["cpu"] == "4"
        assert int(container["resources"]["requests"]["memory"]) == 10**9
        limits = container["resources"]["limits"] or {}
        if node.name in with_gpus:
            assert limits == {"nvidia.com/gpu": "1"}
            assert pod["node_selector"] == {"cloud.example/accelerator": "l4", "zone": "a"}
            assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]
        else:
            assert "nvidia.com/gpu" not in limits
            assert not pod["node_selector"]


def test_steps_are_pods_and_the_launcher_has_names_of_secrets_alone(monkeypatch):
    definitions = build_defs("demo", Execution.from_environment(ENVIRONMENT))
    assert definitions.executor.name == "k8s"
    instance = loaded("kubernetes", monkeypatch)
    assert instance.run_launcher_data.class_name == "K8sRunLauncher"
    config = instance.run_launcher_data.config_dict
    assert config["env_secrets"] == ["mobclip"]
    assert "env_vars" not in config


def test_without_gpus_none_are_asked_for():
    definitions = build_defs("demo", Execution.from_environment({"MOBCLIP_EXECUTOR": "kubernetes"}))
    nodes = definitions.resolve_implicit_global_asset_job_def().nodes
    assert not any("nvidia" in node.definition.tags.get(K8S_TAG, "") for node in nodes)
    assert any(K8S_TAG in node.definition.tags for node in nodes)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MOBCLIP_K8S_GPUS", "0.5"), ("MOBCLIP_K8S_CPUS", "0"), ("MOBCLIP_K8S_GPU_NODES", "l4")],
)
def test_a_wrong_request_is_named(name, value):
    with pytest.raises(MobclipError, match=name):
        Execution.from_environment({**ENVIRONMENT, name: value})


def test_every_shipped_instance_is_loaded_by_a_test():
    shipped = {path.parent.name for path in Path(HOME).glob("*/dagster.yaml")}
    assert shipped == {"team", "kubernetes", "ray"}
