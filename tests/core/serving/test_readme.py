"""The README's examples of using the vectors run as they stand, on a small generated lake."""

import re
import shlex
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from typer.testing import CliRunner

from mobclip_assets.cli import app
from tests.places import make_places, write_lake

TEXT = (Path(__file__).resolve().parents[3] / "README.md").read_text()
SECTION = TEXT[TEXT.index("## Using the vectors") : TEXT.index("## Your own country")]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
COMMANDS = [text for text in re.findall(r"`([^`]*)`", SECTION) if text.startswith("mobclip ")]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    # around the first place that the examples ask for
    write_lake(make_places(lon=-38.7, lat=45.66, resolution=6, dimensions=128), folder)
    return folder


def test_python(lake):
    names: dict = {}
    for code in EXAMPLES:
        assert '"demo"' in code
        exec(code.replace('"demo"', repr(str(lake))), names)
    assert names["found"].vectors.shape == (len(names["places"]), 128)
    assert len(EXAMPLES) == 2
    assert names["serving"].open(str(lake)).lookup(lon=-38.7, lat=45.66).found.all()


def test_questions_of_the_table(lake):
    names = {"places": None}
    exec(f"from mobclip_core import serving\nplaces = serving.open({str(lake)!r})", names)
    places = names["places"]
    assert np.isfinite(places.aggregate([shapely.box(-38.8, 45.6, -38.6, 45.7)], "population").vectors).all()
    assert places.whole().found.all()
    assert len(places.similar(cell=int(places.cells[0]), k=10, regions=["east"]).cells) == 10


@pytest.mark.parametrize("command", COMMANDS)
def test_command_lines(lake, command, tmp_path, monkeypatch):
    if command.split()[1] == "map":
        pytest.importorskip("pydeck")
    monkeypatch.chdir(tmp_path)
    box = shapely.box(-38.8, 45.6, -38.6, 45.7)
    gpd.GeoDataFrame({"code": ["a"]}, geometry=[box], crs=4326).to_file("counties.gpkg")
    pd.DataFrame({"lon": [-38.7], "lat": [45.66]}).to_csv("points.csv", index=False)
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, [*words, "--lake", str(lake)])
    assert result.exit_code == 0, result.output
    if "--out" in words:
        assert Path(words[words.index("--out") + 1]).stat().st_size > 0


def test_every_command_is_shown():
    assert {command.split()[1] for command in COMMANDS} >= {"lookup", "aggregate", "similar", "export", "map"}
