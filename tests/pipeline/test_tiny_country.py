"""The whole graph on a generated country of some 200 cells, through the command line, with Dagster's own storage."""

import json
import re
import shutil
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from mobclip_assets.cli import app
from mobclip_core.demo.config import TINY
from mobclip_core.deployment import Deployment
from mobclip_core.store import Store, TableRef

pytestmark = pytest.mark.slow
ELEVEN = {"POP", "CRI", "COS", "NTL", "ELE", "FOR", "EDU", "ELD", "HSR", "HOU", "ENE"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("MOBCLIP_PROFILE", "demo")
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def states(profile: Path) -> dict[tuple[str, str | None], dict]:
    code, out, _ = run("status", "--profile", profile, "--json")
    assert code == 0
    return {(row["asset"], row["region"]): row for row in json.loads(out)}


def test_from_raw_files_to_scores(tiny_profile, home):
    profile = tiny_profile()
    assert {row["state"] for row in states(profile).values()} == {"missing"}
    code, _, err = run("materialize", "--profile", profile)
    assert code == 0, err
    # where there is no terminal, each run is a line
    assert re.search(rf"^\d+/\d+ \d+ s {TINY.region_keys[1]}: grid_cells", err, re.MULTILINE), err
    _everything_is_fresh(profile)
    _scores_cover_the_eleven_tasks(profile)
    _catalog_answers_in_sql(profile)
    _the_same_inputs_give_the_same_bytes(profile)
    _a_bad_file_stops_its_regions_only(profile)


def _everything_is_fresh(profile: Path) -> None:
    rows = states(profile)
    assert {row["state"] for row in rows.values()} == {"fresh"}
    assert len(rows) == 12 + 8 * TINY.regions
    grid = sum(rows["grid_cells", region]["rows"] for region in TINY.region_keys)
    assert grid == sum(rows["embeddings", region]["rows"] for region in TINY.region_keys) > 150
    code, out, _ = run("status", "--profile", profile)
    assert code == 0
    assert "geobench_scores" in out


def _scores_cover_the_eleven_tasks(profile: Path) -> None:
    code, out, _ = run("scores", "--profile", profile, "--json")
    rows = json.loads(out)
    assert code == 0
    wanted = {"profile", "task", "method", "probe", "split", "seed", "n", "r2", "r2_low", "r2_high", "leak"}
    assert wanted <= set(rows[0])
    # a country of 12 counties and 6 cities leaves out the cities' task, and says so
    assert {row["task"] for row in rows} >= ELEVEN - {"ENE"}
    assert {row["method"] for row in rows} >= {"embeddings", "coordinates", "raw_features"}
    assert {row["split"] for row in rows} == {"random", "spatial", "region"}
    code, out, _ = run("scores", "--profile", profile, "--json", "--few-labels")
    assert "random_20%" in {row["split"] for row in json.loads(out)}
    code, out, _ = run("scores", "--profile", profile)
    assert code == 0
    assert "mean" in out


def _catalog_answers_in_sql(profile: Path) -> None:
    store = Deployment.open(str(profile)).store
    with duckdb.connect(str(store.catalog_path), read_only=True) as connection:
        views = {
            row[0] for row in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        }
        assert {"grid_cells", "embeddings", "geobench_scores", "regions"} <= views
        joined = connection.execute(
            "SELECT g.region, count(*), any_value(len(e.vector)) FROM grid_cells g JOIN embeddings e USING (cell) "
            "GROUP BY 1 ORDER BY 1"
        ).fetchall()
        comment = connection.execute("SELECT comment FROM duckdb_views() WHERE view_name = 'embeddings'").fetchone()
    assert [row[0] for row in joined] == sorted(TINY.region_keys)
    assert all(row[2] == 16 for row in joined)
    assert comment is not None
    assert comment[0] == "The product: one vector for one cell."


def _the_same_inputs_give_the_same_bytes(profile: Path) -> None:
    before = {key: row["data_version"] for key, row in states(profile).items() if key[0] != "catalog"}
    code, _, err = run("materialize", "--profile", profile, "--force")
    assert code == 0, err
    after = {key: row["data_version"] for key, row in states(profile).items() if key[0] != "catalog"}
    assert after == before
    assert {row["state"] for row in states(profile).values()} == {"fresh"}


def _a_bad_file_stops_its_regions_only(profile: Path) -> None:
    """A census file that loses a column fails census_features; what was there before stands."""
    store = Deployment.open(str(profile)).store
    before = store.read(TableRef("census_features", TINY.region_keys[0]))
    text = profile.read_text()
    profile.write_text(text.replace("population: population", "population: inhabitants"))
    code, _, err = run(
        "materialize", "--profile", profile, "--select", "census_features", "--region", TINY.region_keys[0]
    )
    assert code == 1
    assert "no column 'inhabitants'" in err
    assert "census.parquet" in err
    rows = states(profile)
    assert rows["census_features", TINY.region_keys[0]]["state"] == "failed"
    assert rows["census_features", TINY.region_keys[1]]["state"] in ("fresh", "stale")
    assert store.read(TableRef("census_features", TINY.region_keys[0])).equals(before)
    profile.write_text(text)


def test_one_region_that_fails_does_not_stop_the_others(tiny_profile):
    """The first region's grid cannot be read: the other regions' features are made, training does not start."""
    profile = tiny_profile()
    assert run("materialize", "--profile", profile, "--select", "regions", "--select", "grid_cells")[0] == 0
    first, second = TINY.region_keys[:2]
    store = Deployment.open(str(profile)).store
    path = Path(store.path(TableRef("grid_cells", first)))
    path.write_bytes(path.read_bytes()[:200])
    code, _, err = run(
        "materialize",
        "--profile",
        profile,
        "--select",
        "zone_cells",
        "--select",
        "census_features",
        "--select",
        "encoder",
    )
    assert code == 1
    assert "ContractError: grid_cells" in err
    assert f"region={first}" in err
    assert "materialize it again" in err or "materialise it again" in err
    rows = states(profile)
    assert rows["census_features", second]["state"] == "fresh"
    assert rows["census_features", first]["state"] in ("failed", "missing")
    assert rows["encoder", None]["state"] == "missing"


def test_a_mixed_lake_is_refused_by_the_scores(tiny_profile, tiny_world):
    """Embeddings of an older encoder in one region: scoring stops and says which; all of the older one are fine."""
    profile = tiny_profile()
    assert run("materialize", "--profile", profile)[0] == 0
    store = Deployment.open(str(profile)).store
    region = TINY.region_keys[0]
    path = Path(store.path(TableRef("embeddings", region)))
    old = path.with_name("old")
    shutil.copy(path, old)
    text = profile.read_text()
    profile.write_text(text.replace("max_epochs: 5", "max_epochs: 4"))
    assert run("materialize", "--profile", profile, "--select", "encoder", "--select", "embeddings")[0] == 0
    shutil.move(old, path)
    code, _, err = run("materialize", "--profile", profile, "--select", "geobench_scores")
    assert code == 1
    assert "encoder" in err
    _back_to_the_earlier_encoder(profile, store, path.read_bytes())


def _back_to_the_earlier_encoder(profile: Path, store: Store, vectors: bytes) -> None:
    code, out, _ = run("encoders", "--profile", profile, "--json")
    newer, older = json.loads(out)
    assert code == 0
    assert (newer["used"], older["used"]) == (True, False)
    assert older["version"][:16] in run("encoders", "--profile", profile)[1]
    code, _, err = run("use-encoder", "nothing", "--profile", profile)
    assert code == 2
    assert older["version"] in err
    assert run("use-encoder", older["version"][:10], "--profile", profile)[0] == 0
    assert store.data_version(TableRef("encoder")) == older["version"]
    state = {key: row["state"] for key, row in states(profile).items()}
    assert [state["embeddings", region] for region in TINY.region_keys] == ["stale"] * TINY.regions
    code, _, err = run("materialize", "--profile", profile, "--select", "embeddings", "--select", "geobench_scores")
    assert code == 0, err
    first = TINY.region_keys[0]
    assert Path(store.path(TableRef("embeddings", first))).read_bytes() == vectors
    state = {key: row["state"] for key, row in states(profile).items()}
    assert [state["embeddings", region] for region in TINY.region_keys] == ["fresh"] * TINY.regions


def test_unknown_regions_and_profiles_are_named(tiny_profile):
    code, _, err = run("materialize", "--profile", tiny_profile(), "--region", "atlantis")
    assert code == 2
    assert "atlantis" in err
    assert TINY.region_keys[0] in err
    code, _, err = run("status", "--profile", "nowhere")
    assert code == 2
    assert "demo" in err


def test_demo_data_is_written_once(tmp_path, monkeypatch):
    from mobclip_core.demo import generate

    made = []
    monkeypatch.setattr(generate, "ensure_demo", lambda folder: made.append(folder) or len(made) == 1)
    assert "wrote" in run("demo-data", "--folder", tmp_path / "raw")[2]
    assert "kept" in run("demo-data", "--folder", tmp_path / "raw")[2]
