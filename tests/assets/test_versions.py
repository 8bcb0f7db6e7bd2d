"""Code versions: what makes an asset new, and what does not."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mobclip_assets import versions
from mobclip_assets.build import build_defs
from mobclip_assets.versions import code_version
from mobclip_core.profile import GridConfig
from mobclip_core.sql import SQL_PLACES


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "step.py").write_text(
        '"""A step."""\n\n\ndef run():\n    """Run."""\n    return sql_text("step_one")  # one\n'
    )
    (tmp_path / "step_one.sql").write_text("-- reads: a\n-- writes: b\nSELECT 1;\n")
    monkeypatch.setattr(versions, "_CORE", tmp_path)
    monkeypatch.setattr(versions, "SQL_PLACES", (tmp_path,))
    return tmp_path


def version(settings=()):
    return code_version(["step"], ["step"], settings)


def test_comments_docstrings_and_layout_do_not_count(code):
    before = version()
    (code / "step.py").write_text('"""Another text."""\ndef run():\n    return sql_text("step_one")\n')
    (code / "step_one.sql").write_text("-- another text\nSELECT\n  1;\n")
    assert version() == before


def test_code_sql_and_settings_count(code):
    seen = {version(), version([GridConfig()]), version([GridConfig(resolution=7)]), version([None])}
    (code / "step.py").write_text('def run():\n    return sql_text("step_one"), 2\n')
    seen.add(version())
    (code / "step_one.sql").write_text("SELECT 2;\n")
    seen.add(version())
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f(None)", "f('None')"),
        ("f(1, 2)", "f(12)"),
        ("f([1], 2)", "f([1, 2])"),
        ("f(a.b)", "f(a['b'])"),
        ("f('a b')", "f('a', 'b')"),
        ("def f(): pass", "async def f(): pass"),
        ("def f(a, b=1): 'text'; return a", "def f(a, b=1): return 'text'; return a"),
    ],
)
def test_what_means_something_else_has_another_version(code, one, other):
    versions_found = set()
    for source in (one, other):
        (code / "step.py").write_text(source)
        versions_found.add(code_version(["step"], [], []))
    assert len(versions_found) == 2


def test_a_package_counts_with_all_its_modules(code):
    package = code / "many"
    package.mkdir()
    (package / "a.py").write_text("A = 1\n")
    before = code_version(["many"], [], [])
    (package / "b.py").write_text("B = 1\n")
    assert code_version(["many"], [], []) != before


ENCODED = {"encoder", "encoder_variants", "embeddings", "location_encoder", "geobench_scores", "scaling_law", "catalog"}
JOINED = {"mobility_graph", "node_embeddings", *ENCODED}
CHANGED = {
    "census_cells": {"census_features"},
    "census_zones": {"census_features"},
    "poi_gather": {"poi_points"},
    "poi_overture_rows": {"poi_points"},
    "poi_zone_items": {"poi_aggregates"},
    "poi_texts": {"poi_aggregates"},
    # the crosswalk in SQL: counts by zone and flows by zone are spread by it
    "zone_shares": {"poi_aggregates", "mobility_edges"},
    "mobility_visit_pairs": {"movements"},
    "mobility_flow_candidates": {"mobility_edges"},
    "mobility_judged": {"movements", "mobility_edges"},
    "catalog_view": {"catalog"},
}
MADE_OF = {
    "census_features": {"poi_aggregates", "mobility_edges", "geobench_labels", *JOINED},
    "poi_points": {"poi_aggregates", *ENCODED},
    "poi_aggregates": ENCODED,
    "movements": {"mobility_edges", *JOINED},
    "mobility_edges": JOINED,
    "catalog": set(),
}


def graph_of(place: Path, monkeypatch: pytest.MonkeyPatch) -> AssetGraph:
    monkeypatch.setattr(versions, "SQL_PLACES", (place,))
    return build_defs("demo").resolve_asset_graph()


def all_versions(graph: AssetGraph) -> dict[str, str]:
    return {key.to_user_string(): graph.get(key).code_version for key in graph.materializable_asset_keys}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_statement_makes_exactly_its_assets_and_their_descendants_stale(name, tmp_path, monkeypatch):
    place = tmp_path / "sql"
    shutil.copytree(SQL_PLACES[0] if SQL_PLACES[0].is_dir() else SQL_PLACES[1], place)
    before = all_versions(graph_of(place, monkeypatch))
    file = place / f"{name}.sql"
    text = file.read_text()
    file.write_text(f"-- another comment\n{text}")
    assert all_versions(graph_of(place, monkeypatch)) == before
    file.write_text(text.rstrip().rstrip(";") + " LIMIT 1;\n")
    graph = graph_of(place, monkeypatch)
    changed = {asset for asset, version in all_versions(graph).items() if version != before[asset]}
    assert changed == CHANGED[name]
    keys = [dg.AssetKey(asset) for asset in changed]
    stale = {key.to_user_string() for key in dg.AssetSelection.assets(*keys).downstream().resolve(graph)}
    assert stale == changed.union(*(MADE_OF[asset] for asset in changed))


@pytest.mark.slow
def test_every_statement_belongs_to_an_asset(tmp_path, monkeypatch):
    """Or a change of it would go unseen."""
    place = tmp_path / "sql"
    shutil.copytree(SQL_PLACES[0] if SQL_PLACES[0].is_dir() else SQL_PLACES[1], place)
    before = all_versions(graph_of(place, monkeypatch))
    for file in sorted(place.glob("*.sql")):
        text = file.read_text()
        file.write_text(text.rstrip().rstrip(";") + " LIMIT 1;\n")
        assert all_versions(graph_of(place, monkeypatch)) != before, file.name
        file.write_text(text)
