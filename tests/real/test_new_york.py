"""New York State from its raw files to scores, as `mobclip materialize --profile new_york` builds it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from mobclip_assets.cli import app
from mobclip_core.deployment import Deployment
from mobclip_core.profile import PROFILES_DIR, load_profile
from mobclip_core.vectors import matrix_of
from tests.building import materialize

PROFILE = load_profile("new_york")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(PROFILE.census.file).is_file(), reason=f"no real data: {PROFILE.census.file} (set MOBCLIP_DATA)"
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new_york")
    text = (PROFILES_DIR / "new_york.yaml").read_text()
    text = text.replace("../../../shared/data", str(Path(PROFILE.census.file).parents[1]))
    # variants, other splits and few labels take longer than all the rest; they are tested on the demo country
    profile = yaml.safe_load(text)
    profile["evaluation"] |= {"variants": [], "splits": ["spatial"], "few_shot": []}
    return materialize(folder, yaml.safe_dump(profile))


def test_every_cell_of_the_state_is_embedded(built):
    store = Deployment.open(str(built)).store
    grid, table = store.read_all("grid_cells"), store.read_all("embeddings")
    assert 3_300 < grid.num_rows < 3_450
    assert set(table["cell"].to_pylist()) == set(grid["cell"].to_pylist())
    vectors = matrix_of(table["vector"])
    assert vectors.shape == (grid.num_rows, 128)
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == len(vectors)
    assert len(table["encoder"].unique()) == 1


def test_people_of_the_cells_are_the_people_of_the_source(built):
    """Against the file itself: New York's tracts that have a polygon; ACS has no NaN in New York's population."""
    profile = Deployment.open(str(built)).profile
    acs = pq.read_table(profile.census.file, columns=["geoid", "total_population"])
    polygons = pq.read_table(profile.zones["tracts"].file, columns=["geoid", "county_fips"])
    here = polygons.filter(pc.starts_with(polygons["county_fips"], "36"))["geoid"]
    source = pc.sum(pc.cast(acs.filter(pc.is_in(acs["geoid"], here))["total_population"], "double")).as_py()
    people = Deployment.open(str(built)).store.read_all("census_features", ["population"])["population"]
    assert pc.sum(people).as_py() == pytest.approx(source, rel=1e-6)


def test_ten_tasks_are_scored_beside_baselines(built):
    rows = json.loads(CliRunner().invoke(app, ["scores", "--profile", str(built), "--json"]).stdout)
    assert {row["task"] for row in rows} == set(PROFILE.tasks)
    assert len(PROFILE.tasks) == 10

    def mean(method):
        chosen = [r["r2"] for r in rows if (r["method"], r["split"], r["probe"]) == (method, "spatial", "ridge")]
        return float(np.mean(chosen))

    assert mean("embeddings") > max(mean("coordinates"), mean("raw_features"), mean("mobility"))
