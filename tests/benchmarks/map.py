"""The map of 200,000 cells in Chromium with software rendering: milliseconds to the first picture, frames a second.

    python -m tests.benchmarks.map [--cells 200000] [--lake usa] [--quick]

Generated vectors and three layers. `value` is the time from the start of loading the file to the first picture;
`frames` how many pictures a second there are while the map is moved for five seconds.
"""

import shutil
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import sync_playwright

from mobclip_core.serving.map_page import Layer, map_page
from tests.benchmarks._report import report
from tests.benchmarks._serving import options_and_places

_SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_PAN = """async () => {
  const { map } = window.mobclip, view = { ...map.viewManager.getViewState("default-view") };
  let frames = 0;
  const end = performance.now() + 5000;
  while (performance.now() < end) {
    frames++;
    const drawn = new Promise((next) => { map.setProps({ onAfterRender: next }); });
    map.setProps({ initialViewState: { ...view, longitude: view.longitude + Math.sin(frames / 10) * 0.2 } });
    await drawn;
  }
  return frames / 5;
}"""


def main() -> None:
    """Run it."""
    options, places = options_and_places(__doc__, cells=200_000)
    layers = [Layer("T", f"layer {i}", np.random.default_rng(i).normal(size=len(places))) for i in range(3)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "map.html"
        path.write_bytes(map_page(places, "benchmark", layers))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_SOFTWARE)
        drawn, frames = [], []
        for _ in range(1 if options.quick else 3):
            page = browser.new_page(viewport={"width": 1300, "height": 850})
            page.set_default_timeout(120_000)
            page.goto(path.as_uri())
            page.wait_for_function("document.body.dataset.drawn && window.mobclip")
            drawn.append(float(page.evaluate("document.body.dataset.drawn")))
            frames.append(float(page.evaluate(_PAN)))
            page.close()
        browser.close()
        size = path.stat().st_size / 2**20
    report("map", median(drawn), "ms", n=len(places), baseline=None, frames=median(frames), mib=size)


if __name__ == "__main__":
    main()
