"""The wheel in an environment of its own: vectors are looked up without Dagster and torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import make_places, write_lake

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The programs of an environment with the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no package index: {made.stderr[-300:]}")
    [wheel] = folder.glob("mobclip-*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    constraints = ROOT / ".ci" / "constraints.txt"
    subprocess.run(
        [folder / "venv/bin/pip", "install", "--quiet", "--constraint", constraints, wheel], check=True, cwd=folder
    )
    return folder / "venv" / "bin"


def test_vectors_are_looked_up_with_what_serving_needs_alone(installed, tmp_path):
    places = make_places(rings=4)
    write_lake(places, tmp_path / "lake")

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [installed / arguments[0], *arguments[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    for name in ("dagster", "torch"):
        assert f"No module named '{name}'" in run("python", "-c", f"import {name}", code=1)
    where = ("--lake", "lake", "--lon", str(places.lon[7]), "--lat", str(places.lat[7]))
    answer = json.loads(run("mobclip", "lookup", *where, "--json"))
    assert answer["answers"][0]["vector"] == pytest.approx(places.vectors[7].tolist(), rel=1e-5)
    assert "similarity" in run("mobclip", "similar", *where)
    for name in ("a.parquet", "a.csv", "a.arrow", "a.safetensors", "a.fgb", "a.tif"):
        run("mobclip", "export", name, "--lake", "lake")
        assert (tmp_path / name).stat().st_size > 1000
    run("mobclip", "map", "--lake", "lake")
    assert b"deck.gl" in (tmp_path / "map.html").read_bytes()
    assert "pip install 'mobclip[build]'" in run("mobclip", "status", "--profile", "demo", code=2)
