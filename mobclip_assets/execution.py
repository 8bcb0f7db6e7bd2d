"""Execution: what runs the steps of a launched run.

Belongs here: the choice between processes of this machine and jobs of a Ray cluster, and what a step asks the cluster
for. Does not belong here: deciding when or where a step runs; that is the work of Dagster and Ray.

The choice is a deployment's, not a profile's, so environment variables make it, each time the code location is loaded:

    MOBCLIP_EXECUTOR   `multiprocess` (default) or `ray`
    MOBCLIP_RAY_CPUS   CPUs that a step asks Ray for (default 1)
    MOBCLIP_RAY_GPUS   GPUs that a step of the GPU pool asks Ray for (default 0: the cluster has none)
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import ByteSize, TypeAdapter, ValidationError

from mobclip_assets.making import GPU_POOL
from mobclip_core.errors import MobclipError
from mobclip_core.profile import Profile
from mobclip_core.profile.loading import profile_variables

RAY_TAG = "dagster-ray/config"
"""Tag that dagster-ray reads a step's requests from."""

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
        ray: Steps are jobs of a Ray cluster; else processes of this machine.
        cpus: CPUs that each step asks Ray for.
        gpus: GPUs that a step of the GPU pool asks Ray for; none with 0.
    """

    ray: bool = False
    cpus: float = 1.0
    gpus: float = 0.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Execution":
        """Read the variables named at the top of this module.

        Raises:
            MobclipError: Naming the variable whose value is not one of those expected.
        """
        kind = environment.get("MOBCLIP_EXECUTOR") or "multiprocess"
        if kind not in ("multiprocess", "ray"):
            raise MobclipError(f"MOBCLIP_EXECUTOR is {kind!r}; expected multiprocess or ray")
        # without CPUs Ray would run every step on the head node
        cpus = _number(environment, "MOBCLIP_RAY_CPUS", 1.0, "a number greater than 0")
        if not cpus:
            raise MobclipError("MOBCLIP_RAY_CPUS is 0; expected a number greater than 0")
        return cls(kind == "ray", cpus, _number(environment, "MOBCLIP_RAY_GPUS", 0.0, "a number of 0 or more"))

    def executor(self, profile_file: str) -> dg.ExecutorDefinition:
        """The executor of every job.

        Args:
            profile_file: Path of the profile's YAML file; Ray's steps are given the variables that it refers to.
        """
        if not self.ray:
            return _MULTIPROCESS
        from dagster_ray import ray_executor

        names = [*_FORWARDED, *profile_variables(profile_file)]
        return ray_executor.configured({"ray": {"num_cpus": self.cpus, "env_vars": list(dict.fromkeys(names))}})

    def op_tags(self, profile: Profile, pool: str | None) -> dict[str, Any]:
        """Tags that tell Ray what a step takes: a GPU for the GPU pool, and the memory its DuckDB may fill.

        Args:
            profile: The profile served.
            pool: The step's pool.
        """
        if not self.ray:
            return {}
        request: dict[str, Any] = {}
        memory = memory_bytes(profile.duckdb.memory_limit)
        if memory is not None:
            request["memory"] = memory
        if pool == GPU_POOL and self.gpus:
            request["num_gpus"] = self.gpus
        return {RAY_TAG: request} if request else {}


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
