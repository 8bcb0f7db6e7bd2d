"""What Dagster costs: the part of the demo's wall time that is not inside functions of `mobclip_core`.

    python -m tests.benchmarks.overhead

The demo country is generated, then `mobclip materialize` builds all of it in one fresh process, imports included. Every
few milliseconds a thread looks at the main thread's stack: time with a frame of `mobclip_core` on it is the core's.
`value` is the rest over the whole.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.benchmarks._report import report

_CORE = "mobclip_core"
_EVERY_SECONDS = 0.005


class CoreTime:
    """Seconds of the main thread with the core on its stack: `core`, and those that were looked at: `seen`."""

    def __init__(self) -> None:
        self.core = self.seen = 0.0
        self._main = threading.main_thread().ident
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        last = time.perf_counter()
        while not self._done.wait(_EVERY_SECONDS):
            frame = sys._current_frames().get(self._main)
            inside = False
            while frame is not None and not inside:
                inside = str(frame.f_globals.get("__name__", "")).startswith(_CORE)
                frame = frame.f_back
            now = time.perf_counter()
            # a step that holds the interpreter's lock delays the look at it, and counts whole
            self.seen += now - last
            self.core += (now - last) * inside
            last = now

    def stop(self) -> None:
        """Look no longer."""
        self._done.set()
        self._thread.join()


def build(profile: Path) -> None:
    """Build in this process; print the line."""
    watched = CoreTime()
    from mobclip_assets.cli import app

    app(["materialize", "--profile", str(profile)], standalone_mode=False)
    wall = time.time() - psutil.Process().create_time()
    watched.stop()
    report("overhead", 1 - watched.core / wall, "of the wall time", n=6, baseline=None, wall=wall, core=watched.core)


def main() -> None:
    """Generate the country here, build it in a process of its own."""
    from tests.benchmarks.refresh import demo_profile

    with tempfile.TemporaryDirectory() as folder:
        profile = demo_profile(Path(folder))
        subprocess.run([sys.executable, "-m", "tests.benchmarks.overhead", str(profile)], check=True, env=os.environ)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        build(Path(sys.argv[1]))
    else:
        main()
