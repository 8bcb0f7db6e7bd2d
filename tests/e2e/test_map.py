"""The map in a real browser."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from mobclip_core.serving.map_page import Layer, map_page
from tests.places import make_places

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
ARTEFACTS = Path(__file__).resolve().parents[2] / ".ci" / "artefacts"
SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE)
        yield found
        found.close()


def opened(browser, path):
    """A page, its requests to elsewhere and its errors."""
    page = browser.new_page(viewport={"width": 1300, "height": 850})
    page.set_default_timeout(60_000)
    said = []
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("data:", "blob:")) else 0
    )
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_function("document.body.dataset.drawn && window.mobclip")
    return page, said


def test_cells_are_drawn_and_a_click_tells_of_one(browser, tmp_path):
    places = make_places(rings=12, dimensions=16)
    values = np.arange(len(places), dtype=float)
    layers = [Layer("Crime", "label", values), Layer("Crime", "residual", values - values.mean(), diverging=True)]
    path = tmp_path / "map.html"
    path.write_bytes(map_page(places, "test", layers))
    page, said = opened(browser, path)
    page.mouse.click(815, 425)
    page.locator(".twin").first.wait_for()
    cell = int(page.locator("#details h2 code").inner_text(), 16)
    row = int(np.flatnonzero(places.cells == cell)[0])
    numbers = page.locator("#details").inner_text()
    assert places.regions[places.region[row]] in numbers
    assert re.search(rf"label\s+{row}\b", numbers)
    twins = [int(text, 16) for text in page.locator(".twin code").all_inner_texts()]
    # the page looks at 16 components of 8 bits: of the five nearest at least four
    assert len(set(twins) & set(places.similar(cell=cell, k=5).cells.tolist())) >= 4
    before = page.screenshot(clip={"x": 400, "y": 100, "width": 800, "height": 650})
    page.select_option("#colour", label="residual")
    page.select_option("#region", label="west")
    page.wait_for_timeout(1200)
    assert page.screenshot(clip={"x": 400, "y": 100, "width": 800, "height": 650}) != before
    twins = [int(text, 16) for text in page.locator(".twin code").all_inner_texts()]
    assert set(places.region[places.rows_of(np.array(twins, dtype=np.uint64))]) == {1}
    page.fill("#goto", f"{places.lon[5]}, {places.lat[5]}")
    page.keyboard.press("Enter")
    assert int(page.locator("#details h2 code").inner_text(), 16) == places.cells[5]
    page.fill("#goto", "0, 0")
    page.keyboard.press("Enter")
    assert page.locator("#error").inner_text() == "No cell there."
    assert said == [path.as_uri()]
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "map.png")
    page.close()


def test_a_country_of_a_cell_and_one_without_regions_to_choose_are_drawn(browser, tmp_path):
    places = dataclasses.replace(make_places(rings=0), regions=("only",), region=np.zeros(1, dtype=np.int64))
    path = tmp_path / "map.html"
    path.write_bytes(map_page(places, "one"))
    page, said = opened(browser, path)
    assert page.locator("#error").inner_text() == ""
    assert said == [path.as_uri()]
    page.close()
