"""The instance of a Ray cluster as shipped: it loads, and says what keeps a cluster safe and from standing still."""

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from mobclip_assets.execution import Execution
from mobclip_core.profile import PROFILES_DIR

FOLDER = PROFILES_DIR.parent / "ray"


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> InstanceRef:
    pytest.importorskip("dagster_ray")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    monkeypatch.setenv("MOBCLIP_POSTGRES_URL", "postgresql://somewhere")
    return InstanceRef.from_dir(str(FOLDER))


def test_runs_are_jobs_of_the_cluster_that_the_environment_names(instance):
    from dagster_ray import RayRunLauncher

    launcher = instance.run_launcher
    assert isinstance(launcher, RayRunLauncher)
    assert launcher.address == "http://head:8265"
    # what watches over a run must not take the CPUs that its steps wait for
    assert launcher.num_cpus is None


def test_jobs_are_given_settings_and_no_secrets(instance):
    forwarded = set(instance.run_launcher.env_vars)
    assert {"DAGSTER_HOME", "MOBCLIP_PROFILE", "MOBCLIP_EXECUTOR"} <= forwarded
    assert not [name for name in forwarded if any(word in name for word in ("KEY", "SECRET", "TOKEN", "POSTGRES"))]


def test_a_lost_node_is_no_end_and_bad_data_no_reason_to_repeat(instance):
    assert instance.settings["run_retries"] == {
        "enabled": True,
        "max_retries": 2,
        "retry_on_asset_or_op_failure": False,
    }
    assert instance.settings["run_monitoring"]["enabled"]


def test_storage_is_shared_by_the_nodes(instance):
    assert instance.storage_data.class_name == "DagsterPostgresStorage"
    assert instance.compute_log_manager.__class__.__name__ == "NoOpComputeLogManager"


def test_the_file_turns_ray_s_authentication_on_and_names_variables_that_exist():
    text = (FOLDER / "dagster.yaml").read_text()
    assert "RAY_AUTH_MODE=token" in text
    for line in ("MOBCLIP_EXECUTOR=ray", "MOBCLIP_RAY_CPUS=1", "MOBCLIP_RAY_GPUS=1"):
        assert line in text
    chosen = Execution.from_environment({"MOBCLIP_EXECUTOR": "ray", "MOBCLIP_RAY_CPUS": "1", "MOBCLIP_RAY_GPUS": "1"})
    assert chosen == Execution("ray", cpus=1, gpus=1)
    assert yaml.safe_load(text)["concurrency"]["runs"]["max_concurrent_runs"] > 1
