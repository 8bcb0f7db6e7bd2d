"""The plan of a refresh, over the graph of the demo country and states written by hand."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import StaleStatus
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_assets.build import build_defs
from mobclip_assets.refreshing import RETRAINED, Wanted, plan_refresh, regions_of

REGIONS = ["norvik", "aldmoor", "brenta", "calden", "solmar", "estvale"]


@pytest.fixture(scope="module")
def graph():
    return build_defs("demo").resolve_asset_graph()


def state_of(**states):
    """Fresh but for what is named: `asset` or `asset__region`."""

    def state(key, region):
        name = key.to_user_string()
        return states.get(f"{name}__{region}", states.get(name, StaleStatus.FRESH))

    return state


def planned(graph, **states):
    found = plan_refresh(graph, state_of(**states), REGIONS)
    return {run.region: [key.to_user_string() for key in run.assets] for run in found}


def test_when_all_stands_there_is_nothing_to_do(graph):
    assert planned(graph) == {}


def test_a_regions_features_are_made_again_with_its_vectors_and_nothing_else_yet(graph):
    assert planned(graph, census_features__brenta=StaleStatus.STALE, embeddings__brenta=StaleStatus.STALE) == {
        "brenta": ["census_features", "embeddings"]
    }


def test_what_needs_all_regions_waits_for_them(graph):
    stale = {
        "embeddings__brenta": StaleStatus.STALE,
        "geobench_scores": StaleStatus.STALE,
        "catalog": StaleStatus.STALE,
    }
    assert planned(graph, **stale) == {"brenta": ["embeddings"]}
    del stale["embeddings__brenta"]
    assert planned(graph, **stale) == {None: ["geobench_scores", "catalog"]}


def test_the_encoder_is_never_part_of_a_refresh_but_what_is_made_of_it_is(graph):
    stale = dict.fromkeys(RETRAINED, StaleStatus.STALE)
    assert planned(graph, **stale) == {}
    found = planned(graph, embeddings=StaleStatus.STALE, **stale)
    assert found == {region: ["embeddings"] for region in REGIONS}
    # there is none yet
    assert planned(graph, embeddings=StaleStatus.MISSING, encoder=StaleStatus.MISSING) == {}


def test_an_empty_lake_is_built_up_to_the_encoder(graph):
    every = StaleStatus.MISSING
    names = [key.to_user_string() for key in graph.materializable_asset_keys]
    states, steps = dict.fromkeys(names, every), []
    for _ in range(10):
        found = plan_refresh(graph, state_of(**states), REGIONS)
        if not found:
            break
        steps.append({run.region: [key.to_user_string() for key in run.assets] for run in found})
        for run in found:
            for key in run.assets:
                states[f"{key.to_user_string()}__{run.region}"] = StaleStatus.FRESH
    assert steps[0] == {None: ["imagery_encoder", "regions"]} or steps[0] == {None: ["regions", "imagery_encoder"]}
    made = {name for step in steps for assets in step.values() for name in assets}
    assert made >= {"mobility_edges", "census_features", "imagery_features", "poi_aggregates", "geobench_labels"}
    assert not made & {*RETRAINED, "embeddings", "geobench_scores", "catalog", "scaling_law"}


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_no_run_needs_what_another_of_the_plan_makes_and_nothing_waits_for_ever(graph, data):
    every = [
        f"{key.to_user_string()}__{region}"
        for key in sorted(graph.materializable_asset_keys)
        if key.to_user_string() not in (*RETRAINED, "scaling_law")
        for region in ([None] if graph.get(key).partitions_def is None else REGIONS)
    ]
    stale = data.draw(st.sets(st.sampled_from(every)))
    found = plan_refresh(graph, state_of(**dict.fromkeys(stale, StaleStatus.STALE)), REGIONS)
    made = {(key, run.region) for run in found for key in run.assets}
    assert {f"{key.to_user_string()}__{region}" for key, region in made} <= stale
    assert bool(found) == bool(stale)
    for run in found:
        for place, key in enumerate(run.assets):
            for parent in graph.get(key).parent_keys & graph.materializable_asset_keys:
                for region in regions_of(graph, key, parent, run.region):
                    if (parent, region) in made:
                        assert region == run.region
                        assert parent in run.assets[:place]


def test_a_runs_key_follows_its_inputs_and_its_code(graph):
    run = Wanted((dg.AssetKey("census_features"), dg.AssetKey("embeddings")), "brenta")
    versions = {}

    def version(key, region):
        return versions.get((key.to_user_string(), region), "1")

    first = run.run_key(version, graph)
    assert run.run_key(version, graph) == first
    assert Wanted(run.assets, "norvik").run_key(version, graph) != first
    versions["census_features", "brenta"] = "2"
    assert run.run_key(version, graph) == first, "made in the run itself"
    versions["zone_cells", "norvik"] = "2"
    assert run.run_key(version, graph) == first, "another region"
    versions["zone_cells", "brenta"] = "2"
    second = run.run_key(version, graph)
    assert second != first
    versions["encoder", None] = "2"
    assert run.run_key(version, graph) != second
