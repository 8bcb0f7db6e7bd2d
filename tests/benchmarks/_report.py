"""What every benchmark shares: timing and the line of JSON."""

import json
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self


def _times(work: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of several calls."""
    return statistics.median(_times(work, repeats))


def best_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The best wall time of several calls after a first one."""
    work()
    return min(_times(work, repeats))


class PeakMemory:
    """Peak resident memory of this process inside a `with` block, read every few milliseconds: `mib` afterwards."""

    def __enter__(self) -> Self:
        self.mib, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        page = resource.getpagesize() / 2**20
        while True:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            self.mib = max(self.mib, resident)
            if self._done.wait(0.003):
                return

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def report(
    benchmark: str,
    value: float | Mapping[str, float],
    unit: str,
    *,
    n: int,
    baseline: float | None,
    floor_ratio: float | None = None,
    **extra: object,
) -> None:
    """Print the result: `ratio` is ours over the baseline for rates, so that bigger is better.

    A value of several numbers has no ratio. `extra` are more keys, or take the place of one: `peak_mib` where a child
    process did the work.
    """
    line = {
        "benchmark": benchmark,
        "value": value,
        "unit": unit,
        "baseline": baseline,
        "ratio": None if baseline is None or isinstance(value, Mapping) else value / baseline,
        "floor_ratio": floor_ratio,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "device": f"cpu {platform.machine()}",
        "n": n,
    } | extra
    print(json.dumps(line))
