"""Starting the processes that train together.

Belongs here: processes on this machine (torchrun's agent), workers of a Ray cluster (Ray Train), and what is said when
one of them dies. Does not belong here: what the processes do together (see `ranks`), what they train (see `training`).

On several machines without Ray: `torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:PORT -m
mobclip_core.encoder.launch PROFILE` on each of them, with the lake at a URL that all reach.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from mobclip_core.encoder.device import resolve_device
from mobclip_core.errors import TrainingError

if TYPE_CHECKING:
    from mobclip_core.deployment import Deployment
    from mobclip_core.profile import Profile
    from mobclip_core.store import Store

Member = Callable[["Deployment"], object]

_LONGEST_WAIT = timedelta(minutes=30)
"""For a rank that reads its inputs, say, while the others are ready."""

_NOTES_OF_RAY = "encoder_ray"
"""Folder of the lake."""


def train_together(member: Member, deployment: "Deployment") -> None:
    """Run a function in as many processes as the profile's `encoder.processes` says, and wait for all.

    Args:
        member: What each process runs, inside `torch.distributed`'s default group; importable by name.
        deployment: Opened again in each process.

    Raises:
        TrainingError: If a process ends before its work is done: names its rank and what ended it. The others are
            stopped.
    """
    encoder = deployment.profile.encoder
    arguments = (member, deployment.profile, deployment.store.url, encoder.processes)
    if encoder.launcher == "ray":
        _on_ray(arguments, encoder.processes, resolve_device(encoder.device).type == "cuda", deployment.store)
    else:
        _on_this_machine(arguments, encoder.processes)


def _on_this_machine(arguments: tuple[object, ...], processes: int) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # the agent's own folders would stay behind in the system's temporary one
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="encoder",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            start_method="spawn",
            max_restarts=0,
            monitor_interval=0.5,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, _run)(*arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise TrainingError(_said(rank, processes, failure.exitcode, str(failure.message))) from None


def _said(rank: int, processes: int, exitcode: int, message: str) -> str:
    how = f"was ended by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"failed: {message}"
    return (
        f"encoder: process {rank} of {processes} {how}; the others were stopped. Materialise encoder again: it goes on "
        "from the last checkpoint"
    )


def _on_ray(arguments: tuple[object, ...], processes: int, use_gpu: bool, store: "Store") -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        lambda: _work(*arguments),  # type: ignore[arg-type]
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=use_gpu),
        # Ray wants a place that all of its nodes reach, and leaves its own notes there
        run_config=RunConfig(storage_path=f"{store.url}/{_NOTES_OF_RAY}"),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise TrainingError(
            f"encoder: a Ray worker failed: {error}. Materialise encoder again: it goes on from the last checkpoint"
        ) from error
    finally:
        store.remove_bundle(_NOTES_OF_RAY)


def _run(member: Member, profile: "Profile", root: str, processes: int) -> None:
    """One process on this machine, or of torchrun."""
    cuda = resolve_device(profile.encoder.device).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_LONGEST_WAIT)
    try:
        _work(member, profile, root, processes)
    finally:
        dist.destroy_process_group()


def _work(member: Member, profile: "Profile", root: str, processes: int) -> None:
    from mobclip_core.deployment import Deployment
    from mobclip_core.store import Store

    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))
    member(Deployment(profile, Store(root)))


def main() -> None:
    """What torchrun starts: train the encoder of a profile together with the other processes."""
    from mobclip_core.deployment import Deployment
    from mobclip_core.encoder.building import train_encoder

    deployment = Deployment.open(sys.argv[1])
    _run(train_encoder, deployment.profile, deployment.store.url, int(os.environ["WORLD_SIZE"]))


if __name__ == "__main__":
    main()
