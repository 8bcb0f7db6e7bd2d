"""The demo country as `make demo` builds it: the embeddings have to be worth more than what they were made of."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from mobclip_assets.cli import app
from mobclip_core.demo.generate import generate_demo
from mobclip_core.profile import PROFILES_DIR
from tests.building import materialize

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("demo")
    generate_demo(folder / "raw")
    text = (PROFILES_DIR / "demo.yaml").read_text().replace("${MOBCLIP_DEMO_DATA:-../demo_data}", str(folder / "raw"))
    profile = materialize(folder, text)
    shown = CliRunner().invoke(app, ["scores", "--profile", str(profile), "--json"])
    assert (folder / "lake" / "map.png").read_bytes().startswith(b"\x89PNG")
    written = CliRunner().invoke(app, ["report", "--profile", str(profile)])
    assert written.stdout.strip() == str(folder / "lake" / "report.html")
    assert "Ranks, spatial split" in (folder / "lake" / "report.html").read_text()
    return json.loads(shown.stdout)


def mean_r2(scores: list[dict], method: str, seed: int) -> float:
    chosen = [
        row["r2"]
        for row in scores
        if (row["method"], row["seed"], row["split"], row["probe"]) == (method, seed, "spatial", "ridge")
    ]
    assert len(chosen) == 11
    return float(np.mean(chosen))


@pytest.mark.parametrize(
    "baseline",
    ["coordinates", "spherical_harmonics", "poi", "imagery", "census", "mobility", "pca_128", "raw_features"],
)
def test_embeddings_beat_every_baseline_on_spatial_blocks(scores, baseline):
    seeds = sorted({row["seed"] for row in scores})
    assert len(seeds) == 5
    for seed in seeds:
        assert mean_r2(scores, "embeddings", seed) > mean_r2(scores, baseline, seed)


def test_all_eleven_tasks_and_all_splits_are_scored(scores):
    tasks = {"POP", "CRI", "COS", "NTL", "ELE", "FOR", "EDU", "ELD", "HSR", "HOU", "ENE"}
    assert {row["task"] for row in scores} == tasks
    assert {row["split"] for row in scores} == {"random", "spatial", "region"}
    assert all(row["r2_low"] <= row["r2_high"] <= 1 for row in scores)


def test_scores_from_inputs_that_hold_the_label_say_so(scores):
    leaks = {(row["task"], row["method"]) for row in scores if row["leak"]}
    assert ("POP", "census") in leaks
    assert ("POP", "embeddings") in leaks
    assert not any(method == "coordinates" for _, method in leaks)
