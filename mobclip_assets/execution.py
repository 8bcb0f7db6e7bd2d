"""Execution: what runs the steps of a launched run.

Belongs here: the choice between processes of this machine, jobs of a Ray cluster and pods of a Kubernetes cluster, and
what a step asks the cluster for. Does not belong here: deciding when or where a step runs; that is the work of Dagster,
Ray and Kubernetes.

The choice is a deployment's, not a profile's, so environment variables make it, each time the code location is loaded:

    MOBCLIP_EXECUTOR   `multiprocess` (default), `ray` or `kubernetes`
    MOBCLIP_RAY_CPUS   CPUs that a step asks Ray for (default 1)
    MOBCLIP_RAY_GPUS   GPUs that a step of the GPU pool asks Ray for (default 0: the cluster has none)
    MOBCLIP_K8S_CPUS   CPUs that a step's pod asks for (default 1)
    MOBCLIP_K8S_GPUS   GPUs that the pod of a step of the GPU pool asks for, a whole number (default 0)
    MOBCLIP_K8S_GPU_NODES   labels of the nodes with GPUs, `key=value,key=value` (default: any node)
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import dagster as dg
from pydantic import ByteSize, TypeAdapter, ValidationError

from mobclip_assets.making import GPU_POOL
from mobclip_core.errors import MobclipError
from mobclip_core.profile import Profile
from mobclip_core.profile.loading import profile_variables

RAY_TAG = "dagster-ray/config"
"""Tag that dagster-ray reads a step's requests from."""
K8S_TAG = "dagster-k8s/config"
"""Tag that dagster-k8s reads a step's pod from; other executors pass over it without a word."""
_GPU_RESOURCE = "nvidia.com/gpu"
_KINDS = ("multiprocess", "ray", "kubernetes")

# a Ray job does not inherit the environment of the process that submits it; credentials are not in this list, since
# whoever may look at the cluster sees the variables of its jobs: nodes have credentials of their own
_FORWARDED = (
    "MOBCLIP_EXECUTOR",
    "MOBCLIP_RAY_CPUS",
    "MOBCLIP_RAY_GPUS",
    "MOBCLIP_PROFILE",
    "DAGSTER_HOME",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)

# a fresh interpreter for every step would spend most of its time importing
_MULTIPROCESS = dg.multi_or_in_process_executor.configured(
    {
        "multiprocess": {
            "max_concurrent": 2,
            "start_method": {"forkserver": {"preload_modules": ["mobclip_assets.definitions"]}},
        }
    }
)


@dataclass(frozen=True)
class Execution:
    """What runs the steps.

    Args:
        kind: `multiprocess` (processes of this machine), `ray` (jobs of a Ray cluster) or `kubernetes` (pods).
        cpus: CPUs that each step asks the cluster for.
        gpus: GPUs that a step of the GPU pool asks the cluster for; none with 0.
        gpu_nodes: Labels of the nodes that pods with GPUs are to run on.
    """

    kind: Literal["multiprocess", "ray", "kubernetes"] = "multiprocess"
    cpus: float = 1.0
    gpus: float = 0.0
    gpu_nodes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Execution":
        """Read the variables named at the top of this module.

        Raises:
            MobclipError: Naming the variable whose value is not one of those expected.
        """
        kind = environment.get("MOBCLIP_EXECUTOR") or "multiprocess"
        if kind == "multiprocess":
            return cls()
        if kind not in _KINDS:
            raise MobclipError(f"MOBCLIP_EXECUTOR is {kind!r}; expected {', '.join(_KINDS)}")
        prefix = "MOBCLIP_RAY" if kind == "ray" else "MOBCLIP_K8S"
        # without CPUs Ray would run every step on the head node
        cpus = _number(environment, f"{prefix}_CPUS", 1.0, "a number greater than 0")
        if not cpus:
            raise MobclipError(f"{prefix}_CPUS is 0; expected a number greater than 0")
        gpus = _number(environment, f"{prefix}_GPUS", 0.0, "a number of 0 or more")
        if kind == "ray":
            return cls("ray", cpus, gpus)
        if gpus != int(gpus):
            raise MobclipError(f"{prefix}_GPUS is {gpus:g}; expected a whole number: pods do not share a GPU")
        return cls("kubernetes", cpus, gpus, _labels(environment.get("MOBCLIP_K8S_GPU_NODES") or ""))

    def executor(self, profile_file: str) -> dg.ExecutorDefinition:
        """The executor of every job.

        Args:
            profile_file: Path of the profile's YAML file; Ray's steps are given the variables that it refers to.
        """
        if self.kind == "ray":
            from dagster_ray import ray_executor

            names = [*_FORWARDED, *profile_variables(profile_file)]
            return ray_executor.configured({"ray": {"num_cpus": self.cpus, "env_vars": list(dict.fromkeys(names))}})
        if self.kind == "kubernetes":
            from dagster_k8s import k8s_job_executor

            # image, environment and secrets come from the launcher of the instance
            return k8s_job_executor
        return _MULTIPROCESS

    def op_tags(self, profile: Profile, pool: str | None) -> dict[str, Any]:
        """Tags that tell the cluster what a step takes: a GPU for the GPU pool, and the memory its DuckDB may fill.

        Args:
            profile: The profile served.
            pool: The step's pool.
        """
        memory = memory_bytes(profile.duckdb.memory_limit)
        gpus = self.gpus if pool == GPU_POOL else 0
        if self.kind == "ray":
            request: dict[str, Any] = {"memory": memory} if memory is not None else {}
            request |= {"num_gpus": gpus} if gpus else {}
            return {RAY_TAG: request} if request else {}
        if self.kind == "kubernetes":
            return {K8S_TAG: self._pod(memory, int(gpus))}
        return {}

    def _pod(self, memory: int | None, gpus: int) -> dict[str, Any]:
        requests = {"cpu": f"{self.cpus:g}"} | ({"memory": str(memory)} if memory is not None else {})
        resources: dict[str, Any] = {"requests": requests}
        pod: dict[str, Any] = {"container_config": {"resources": resources}}
        if gpus:
            # a GPU is asked for as a limit; nodes with GPUs often take no other pods
            resources["limits"] = {_GPU_RESOURCE: str(gpus)}
            pod["pod_spec_config"] = {
                "node_selector": dict(self.gpu_nodes),
                "tolerations": [{"key": _GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
            }
        return pod


def _labels(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(key.strip() and separator for key, separator, _ in pairs):
        raise MobclipError(f"MOBCLIP_K8S_GPU_NODES is {text!r}; expected labels like cloud.example/gpu=l4,zone=a")
    return {key.strip(): value.strip() for key, _, value in pairs}


def memory_bytes(limit: str) -> int | None:
    """A DuckDB size such as `3GB` in bytes; None for a share of the memory (`80%`) and for no size at all."""
    if "%" in limit:
        return None
    try:
        return int(TypeAdapter(ByteSize).validate_python(limit))
    except ValidationError:
        return None


def _number(environment: Mapping[str, str], name: str, default: float, expected: str) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise MobclipError(f"{name} is {text!r}; expected {expected}")
    return value
