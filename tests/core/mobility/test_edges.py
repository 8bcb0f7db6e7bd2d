import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.mobility.edges import build_mobility_edges
from mobclip_core.mobility.movements import build_movements
from mobclip_core.store import TableRef
from tests import lake as lakes
from tests.mobility_worlds import (
    HERE,
    THERE,
    A,
    B,
    C,
    D,
    X,
    Y,
    edges_of,
    flows_world,
    parquet,
    visits,
    visits_table,
    world,
)


def test_flows_spread_over_the_cells_of_both_zones(tmp_path):
    lake = flows_world(tmp_path, [("01", "09", 8.0), ("02", "09", 2.0), ("09", "02", 3.0)])
    counts, edges = edges_of(lake)
    # 01 to 09: 8 x (1/4, 3/4) x (1/2, 1/2); 02 to 09: 2 x 1 x (1/2, 1/2), in the same edges from B
    assert edges == {(A, X): (1, 8), (A, Y): (1, 8), (B, X): (4, 2), (B, Y): (4, 2)}
    assert counts["f_rows_inside"] == 3
    assert counts["f_rows_inside_weight"] == 13
    assert counts["here_total_weight"] == counts["here_f_weight"] == 10
    assert edges_of(lake, "there")[1] == {(X, B): (1.5, 3), (Y, B): (1.5, 3)}


def test_k_applies_to_the_zone_to_zone_flow(tmp_path):
    counts, edges = edges_of(flows_world(tmp_path, [("01", "09", 8.0), ("02", "09", 2.0)], minimum_people=5))
    assert edges == {(A, X): (1, 8), (A, Y): (1, 8), (B, X): (3, 8), (B, Y): (3, 8)}
    assert (counts["f_flows"], counts["f_flows_below_k"], counts["f_flows_below_k_weight"]) == (1, 1, 2)


def test_rows_of_one_pair_add_up_but_vouch_for_the_larger_only(tmp_path):
    rows = [("01", "09", 4.0), ("01", "09", 4.0)]
    counts, edges = edges_of(flows_world(tmp_path, rows, minimum_people=5))
    assert edges == {}
    assert counts["f_rows_repeated"] == 1
    assert edges_of(flows_world(tmp_path, rows, minimum_people=4))[1][A, X] == (1, 4)


def test_flows_within_a_zone_follow_self_loops_by_cell(tmp_path):
    counts, edges = edges_of(flows_world(tmp_path, [("01", "01", 16.0)]))
    assert edges == {(A, B): (3, 16), (B, A): (3, 16)}
    assert counts["here_f_self_loop_weight"] == 10
    edges = edges_of(flows_world(tmp_path, [("01", "01", 16.0)], self_loops=True))[1]
    assert edges == {(A, A): (1, 16), (A, B): (3, 16), (B, A): (3, 16), (B, B): (9, 16)}


def test_bad_flow_rows_are_counted_with_their_weight(tmp_path):
    rows = [("01", "09", 8.0), ("01", "77", 5.0), (None, "09", 1.0), ("01", "09", -1.0), ("01", "09", None)]
    rows += [("01", "09", float("nan")), ("01", "09", float("inf")), ("01", "02", 0.0)]
    counts, edges = edges_of(flows_world(tmp_path, rows))
    assert sum(weight for weight, _ in edges.values()) == 8
    expected = {"read": 8, "inside": 2, "without_zone": 2, "without_zone_weight": 6, "bad_count": 4}
    assert {key: counts[f"f_rows_{key}"] for key in expected} == expected


def test_flows_that_match_no_zone_are_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"flows\.parquet: no row matches a zone.*o and d.*'01'"):
        build_movements(flows_world(tmp_path, [("1", "9", 8.0)]))


def test_flows_of_another_layer_spread_by_population(tmp_path):
    lake = flows_world(tmp_path, [("b", "c", 10.0), ("c", "b", 10.0)], zones="blocks")
    lakes.write_census(lake, "here", {A: 300.0, B: 100.0, C: 0.0, D: 5.0})
    lakes.write_census(lake, "there", dict.fromkeys(THERE, 1.0))
    areas = dict(zip(HERE, lake.store.read(TableRef("grid_cells", "here"))["area_km2"].to_pylist(), strict=True))
    share = (300 / areas[A]) / (300 / areas[A] + 100 / areas[B])
    edges = edges_of(lake)[1]
    assert edges[A, C][0] == pytest.approx(10 * share)
    assert edges[B, C][0] == pytest.approx(10 * (1 - share))
    assert edges[C, A][0] == pytest.approx(10 * share)
    assert len(edges) == 4


def test_sources_add_up_and_keep_the_smallest_group(tmp_path):
    extra = visits(parquet(tmp_path, visits_table([(w, h, c) for w in "pq" for h, c in ((0, B), (1, X))])))
    counts, edges = edges_of(flows_world(tmp_path, [("02", "09", 6.0)], extra=extra))
    assert edges == {(B, X): (5, 2), (B, Y): (3, 6)}
    assert counts["here_total_weight"] == counts["here_f_weight"] + counts["v_weight"] == 8


@settings(max_examples=5, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["01", "02", "09", "77"]), st.sampled_from(["01", "02", "09"]), st.floats(0, 1e6)),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
    st.integers(1, 1000),
)
def test_the_mass_of_flows_is_kept_and_the_order_changes_no_byte(tmp_path_factory, rows, self_loops, k):
    folder = tmp_path_factory.mktemp("flows")
    rows = [*rows, ("01", "02", 1.0)]  # one row always matches
    versions = []
    for ordered in (rows, rows[::-1]):
        lake = flows_world(folder, ordered, minimum_people=k, self_loops=self_loops)
        movements = build_movements(lake)
        both = [build_mobility_edges(lake, region) for region in ("here", "there")]
        versions.append([result.written.data_version for result in (movements, *both)])
    assert versions[0] == versions[1]
    parts = ("f_weight", "f_self_loop_weight")
    mass = sum(result.counts.get(part, 0) for result in both for part in parts)
    mass += movements.counts["f_flows_below_k_weight"] + movements.counts["f_rows_without_zone_weight"]
    assert mass == pytest.approx(sum(n for _, _, n in rows), rel=1e-9, abs=1e-9)
    people = np.concatenate(
        [lake.store.read(TableRef("mobility_edges", r))["people"].to_numpy() for r in ("here", "there")]
    )
    assert not (people < k).any()


def test_movements_of_other_sources_ask_for_movements(tmp_path):
    lake = flows_world(tmp_path, [("01", "09", 8.0)])
    build_movements(lake)
    other = world(tmp_path, {})
    with pytest.raises(MissingTableError, match="made of other sources; materialise movements again"):
        build_mobility_edges(other, "here")


def test_flows_without_any_crosswalk_ask_for_it(tmp_path):
    lake = flows_world(tmp_path, [("01", "09", 8.0)])
    for region in ("here", "there"):
        lake.store.fs.rm(lake.store.path(TableRef("zone_cells", region)))
    with pytest.raises(MissingTableError, match="zone_cells is not materialised yet in any region"):
        build_movements(lake)


def test_a_region_reads_only_the_regions_that_its_flows_lead_to(tmp_path):
    lake = flows_world(tmp_path, [("01", "02", 8.0), ("09", "01", 2.0)])
    build_movements(lake)
    for table in ("zone_cells", "grid_cells"):
        lake.store.fs.rm(lake.store.path(TableRef(table, "there")))
    build_mobility_edges(lake, "here")
    with pytest.raises(MissingTableError, match="there"):
        build_mobility_edges(lake, "there")
