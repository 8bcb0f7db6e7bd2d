"""InfoNCE tile by tile against dense logits: peak memory, time, and that both are the same number.

The value is the tiled loss's peak memory above what the process held before; `ratio` is the dense one's over it.
"""

import argparse
import multiprocessing
import resource
import time

import torch
from torch.nn.functional import cross_entropy, normalize

from mobclip_core.encoder.tiled import tiled_info_nce
from tests.benchmarks._report import report

D, TEMPERATURE = 128, 0.2


def dense(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE with a matrix of all pairs."""
    logits = normalize(a) @ normalize(b).T / TEMPERATURE
    labels = torch.arange(len(a))
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def measured(kind: str, rows: int) -> dict[str, float]:
    """Loss, seconds (forward and backward, the better of two) and peak memory of one way, in a process of its own."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(rows, D, generator=generator, requires_grad=True) for _ in range(2))
    # what torch sets up at its first product is no part of it
    dense(a[:256], b[:256]).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(2):
        a.grad = b.grad = None
        started = time.perf_counter()
        loss = dense(a, b) if kind == "dense" else tiled_info_nce(a, b, TEMPERATURE, half=kind == "bf16")
        loss.backward()
        seconds.append(time.perf_counter() - started)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    slope = float(a.grad.double().square().sum().sqrt())
    return {"loss": float(loss.detach()), "seconds": min(seconds), "mib": max(peak, 0.1), "gradient_norm": slope}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a batch of 4,096")
    rows = 4096 if parser.parse_args().quick else 20_480
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        plain = pool.apply(measured, ("dense", rows))
        tiled = pool.apply(measured, ("tiled", rows))
        double = pool.apply(measured, ("tiled", 2 * rows))
        bf16 = pool.apply(measured, ("bf16", rows))
    report(
        "tiled_loss",
        tiled["mib"],
        "MiB",
        n=rows,
        baseline=plain["mib"],
        ratio=plain["mib"] / tiled["mib"],
        seconds=tiled["seconds"],
        dense_seconds=plain["seconds"],
        time_ratio=plain["seconds"] / tiled["seconds"],
        mib_at_twice_the_batch=double["mib"],
        bf16_seconds=bf16["seconds"],
        bf16_time_ratio=plain["seconds"] / bf16["seconds"],
        loss_difference=abs(tiled["loss"] / plain["loss"] - 1),
        gradient_difference=abs(tiled["gradient_norm"] / plain["gradient_norm"] - 1),
        bf16_loss_difference=abs(bf16["loss"] / plain["loss"] - 1),
    )


if __name__ == "__main__":
    main()
