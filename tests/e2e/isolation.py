"""Ray without a network: it listens on every interface without authentication, so it gets the loopback alone.

Belongs here: the namespaces that tests start Ray in. Does not belong here: what they run there.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# with a process namespace of its own, whatever Ray leaves behind ends with it
_ISOLATED = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")


def need_a_namespace(*modules: str) -> None:
    """Skip where a module is missing, or this machine gives no namespace."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module}: install mobclip[ray]; Ray's job server comes with ray[default]")
    probe = [*_ISOLATED, "ip link set lo up"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no network namespace to start Ray in")


def run_isolated(module: str, argument: Path, environment: Mapping[str, str], timeout: float) -> None:
    """`python -m module argument` in namespaces of its own; the end of what it said where it fails."""
    # paths of sockets may not be long
    sockets = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    settings = {"RAY_TMPDIR": sockets, "RAY_USAGE_STATS_ENABLED": "0"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = f'ip link set lo up && exec "{sys.executable}" -m {module} "{argument}"'
    try:
        done = subprocess.run(
            [*_ISOLATED, command],
            env={**os.environ, **environment, **settings, "PATH": path},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-4000:]
