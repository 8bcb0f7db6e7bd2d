"""What every benchmark shares: timing and the line of JSON."""

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of several calls."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def report(
    benchmark: str,
    value: float,
    unit: str,
    *,
    n: int,
    baseline: float | None,
    floor_ratio: float | None = None,
    **extra: object,
) -> None:
    """Print the result: `ratio` is ours over the baseline for rates, so that bigger is better.

    `extra` are more keys, or take the place of one: `peak_mib` where a child process did the work.
    """
    line = {
        "benchmark": benchmark,
        "value": value,
        "unit": unit,
        "baseline": baseline,
        "ratio": None if baseline is None else value / baseline,
        "floor_ratio": floor_ratio,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "device": f"cpu {platform.machine()}",
        "n": n,
    } | extra
    print(json.dumps(line))
