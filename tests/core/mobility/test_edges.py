import datetime as dt
import itertools
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.mobility.edges import build_mobility_edges, check_mobility_privacy
from mobclip_core.store import TableRef
from tests import lake as lakes

CELLS = lakes.disk(40.7, -74.0, 1)  # 7 cells
A, B, C, D = HERE = CELLS[:4]
X, Y, Z = THERE = CELLS[4:]
FAR = lakes.disk(45.0, -74.0, 0)[0]  # a cell of no region
START = dt.datetime(2024, 1, 1)


def world(folder, sources, minimum_people=1, **mobility):
    lake = lakes.deployment(
        folder, ["here", "there"], mobility={"sources": sources, "minimum_people": minimum_people} | mobility
    )
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    return lake


def edges_of(lake, region="here"):
    result = build_mobility_edges(lake, region)
    table = lake.store.read(TableRef("mobility_edges", region))
    rows = table.to_pylist()
    return result.counts, {(r["src"], r["dst"]): (r["weight"], r["people"]) for r in rows}


def parquet(folder, table, name="source.parquet"):
    pq.write_table(table, folder / name)
    return str(folder / name)


# ---- visits ----


def visits_table(rows):
    """Rows of (person, hour, cell or (lon, lat))."""
    places = [lakes.centre(p) if isinstance(p, int) else p for _, _, p in rows]
    times = [None if h is None else START + dt.timedelta(hours=h) for _, h, _ in rows]
    return pa.table(
        {
            "who": pa.array([None if w is None else str(w) for w, _, _ in rows], pa.string()),
            "when": pa.array(times, pa.timestamp("us")),
            "lon": pa.array([p[0] for p in places], pa.float64()),
            "lat": pa.array([p[1] for p in places], pa.float64()),
        }
    )


def visits(file, **more):
    return {"v": {"kind": "visits", "file": file, "person": "who", "time": "when", "lon": "lon", "lat": "lat"} | more}


def visits_world(folder, rows, minimum_people=1, window_hours=24.0, **mobility):
    file = parquet(folder, visits_table(rows))
    return world(folder, visits(file, window_hours=window_hours), minimum_people, **mobility)


def test_consecutive_visits_become_edges(tmp_path):
    rows = [("p", 0, A), ("p", 1, B), ("p", 2, A), ("p", 3, B), ("q", 0, B), ("q", 5, X), ("r", 0, A), ("r", 1, B)]
    lake = visits_world(tmp_path, rows)
    counts, edges = edges_of(lake)
    # p: A-B, B-A, A-B; q: B-X; r: A-B
    assert edges == {(A, B): (3, 2), (B, A): (1, 1), (B, X): (1, 1)}
    assert counts["v_rows_read"] == 8
    assert counts["v_movements_kept"] == 5
    assert counts["edges"] == counts["v_edges"] == 3
    assert counts["total_weight"] == counts["v_weight"] == 5
    assert edges_of(lake, "there")[1] == {}


def test_an_edge_belongs_to_the_region_of_its_origin(tmp_path):
    lake = visits_world(tmp_path, [("p", 0, A), ("p", 1, X), ("p", 2, A)])
    assert edges_of(lake)[1] == {(A, X): (1, 1)}
    assert edges_of(lake, "there")[1] == {(X, A): (1, 1)}


def test_the_window_is_inclusive(tmp_path):
    rows = [("p", 0, A), ("p", 2, B), ("p", 4.001, C)]
    counts, edges = edges_of(visits_world(tmp_path, rows, window_hours=2))
    assert edges == {(A, B): (1, 1)}
    assert counts["v_movements_after_window"] == 1


def test_a_visit_outside_all_regions_breaks_the_chain(tmp_path):
    counts, edges = edges_of(visits_world(tmp_path, [("p", 0, A), ("p", 1, FAR), ("p", 2, B), ("p", 3, C)]))
    assert edges == {(B, C): (1, 1)}
    assert counts["v_rows_outside"] == 1
    assert counts["v_movements_leaving"] == 1


def test_bad_visits_are_counted_and_left_out(tmp_path):
    lon, lat = lakes.centre(A)
    rows = [
        ("p", 0, A),
        ("p", 0, A),  # duplicate
        (None, 1, A),
        ("p", None, B),
        ("p", 1, (float("nan"), lat)),
        ("p", 1, (lon, float("inf"))),
        ("p", 1, (None, lat)),
        ("p", 1, (lon, 91.0)),
        ("p", 1, (lat, lon)),  # swapped
        ("p", 2, B),
        ("p", 3, C),
    ]
    counts, edges = edges_of(visits_world(tmp_path, rows, self_loops=True))
    assert edges == {(A, B): (1, 1), (B, C): (1, 1)}
    expected = {
        "v_rows_read": 11,
        "v_rows_inside": 3,
        "v_rows_duplicate": 1,
        "v_rows_without_person": 1,
        "v_rows_without_time": 1,
        "v_rows_without_position": 4,
        "v_rows_swapped": 1,
        "v_rows_outside": 0,
    }
    assert {key: counts[key] for key in expected} == expected
    assert sum(n for key, n in expected.items() if key != "v_rows_read") == 11


def test_self_loops_follow_the_profile(tmp_path):
    rows = [("p", 0, A), ("p", 1, A), ("p", 2, B)]
    counts, edges = edges_of(visits_world(tmp_path, rows))
    assert edges == {(A, B): (1, 1)}
    assert (counts["v_self_loop_edges"], counts["v_self_loop_weight"]) == (1, 1)
    counts, edges = edges_of(visits_world(tmp_path, rows, self_loops=True))
    assert edges == {(A, A): (1, 1), (A, B): (1, 1)}
    assert counts["v_self_loop_edges"] == 0


def test_edges_of_fewer_than_k_distinct_people_are_dropped(tmp_path):
    one_person_often = [("p", hour, (A, B)[hour % 2]) for hour in range(10)]  # A-B five times, B-A four times
    three_people = [(w, hour, cell) for w in "xyz" for hour, cell in ((0, B), (1, C))]
    counts, edges = edges_of(visits_world(tmp_path, one_person_often + three_people, minimum_people=3))
    assert edges == {(B, C): (3, 3)}
    assert (counts["v_below_k_edges"], counts["v_below_k_weight"]) == (2, 9)


def test_a_region_without_mobility_has_an_empty_table(tmp_path):
    lake = visits_world(tmp_path, [("p", 0, X), ("p", 1, Y)])
    result = build_mobility_edges(lake, "here")
    table = lake.store.read(TableRef("mobility_edges", "here"))
    assert table.num_rows == 0
    assert table.schema.names == ["src", "dst", "weight", "people"]
    assert result.counts["total_weight"] == 0
    assert check_mobility_privacy(lake, "here").passed


def test_no_sources_and_no_cells_give_empty_tables(tmp_path):
    lake = world(tmp_path, {})
    assert edges_of(lake)[1] == {}
    lake = visits_world(tmp_path, [("p", 0, A), ("p", 1, B)])
    lakes.write_grid(lake, "there", [])
    assert edges_of(lake, "there")[1] == {}


def test_times_as_text_and_times_with_offsets(tmp_path):
    (lon_a, lat_a), (lon_b, lat_b) = lakes.centre(A), lakes.centre(B)
    path = tmp_path / "visits.csv"
    lines = ["\ufeffwho,when,lon,lat"]
    # in UTC: A at 10:00, B at 10:30
    lines += [f"p,2024-01-01T10:30:00Z,{lon_b},{lat_b}", f"p,2024-01-01T12:00:00+02:00,{lon_a},{lat_a}"]
    lines += [f"q,2024-01-01 10:00:00,{lon_a},{lat_a}", f"q,2024-01-01 10:30:00,{lon_b},{lat_b}"]
    lines += [f"q,2024-01-02 {10 + i}:00:00,{lon_b},{lat_b}" for i in range(9)] + [f"q,soon,{lon_a},{lat_a}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    counts, edges = edges_of(world(tmp_path, visits(str(path), window_hours=1)))
    assert edges == {(A, B): (2, 2)}
    assert counts["v_rows_unreadable_time"] == counts["v_rows_without_time"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "/no/such.parquet"}, "no such file"),
        ({"time": "timestamp"}, "no column 'timestamp'"),
        ({"time": "who"}, "cannot be read as TIMESTAMP.*column: who.*rows: 0"),
        ({"lon": "when"}, "cannot be read as DOUBLE.*column: when"),
        ({"lon": "lat", "lat": "lon"}, "swapped.*lat and lon"),
    ],
)
def test_bad_visit_sources(tmp_path, change, message):
    file = parquet(tmp_path, visits_table([("p", 0, A), ("p", 1, B)]))
    lake = world(tmp_path, visits(file, **change) if "file" not in change else visits(change["file"]))
    with pytest.raises(SourceError, match=message):
        build_mobility_edges(lake, "here")
    assert not lake.store.exists(TableRef("mobility_edges", "here"))


def test_visits_without_any_position_are_an_error(tmp_path):
    lake = visits_world(tmp_path, [("p", 0, (None, None)), ("p", 1, (None, 1.0))])
    with pytest.raises(SourceError, match="2 of 2 positions cannot be read"):
        build_mobility_edges(lake, "here")


def test_truncated_parquet_leaves_the_last_good_partition(tmp_path):
    lake = visits_world(tmp_path, [("p", hour, CELLS[hour % 7]) for hour in range(200)])
    version = build_mobility_edges(lake, "here").written.data_version
    path = tmp_path / "source.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SourceError, match="truncated"):
        build_mobility_edges(lake, "here")
    assert lake.store.data_version(TableRef("mobility_edges", "here")) == version


def test_a_missing_grid_is_named(tmp_path):
    lake = lakes.deployment(tmp_path, ["here"])
    with pytest.raises(MissingTableError, match=r"grid_cells\[here\]"):
        build_mobility_edges(lake, "here")


VISITS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 60), st.sampled_from([*HERE, X, FAR])), min_size=1, max_size=60
)


def reference_edges(rows, window):
    """Consecutive visits in plain Python."""
    by_person = defaultdict(set)
    for person, hour, cell in rows:
        by_person[person].add((hour, cell))
    people = defaultdict(list)
    for person, stops in by_person.items():
        for (h1, c1), (h2, c2) in itertools.pairwise(sorted(stops)):
            if h2 - h1 <= window and c1 in HERE and c2 != FAR and c1 != c2:
                people[c1, c2].append(person)
    return {edge: (len(p), len(set(p))) for edge, p in people.items()}


@settings(max_examples=15, deadline=None)
@given(VISITS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_random_visits_match_a_plain_reference_and_keep_k_in_any_order(tmp_path_factory, rows, k, random):
    folder = tmp_path_factory.mktemp("visits")
    lake = visits_world(folder, rows, minimum_people=k, window_hours=10)
    counts, edges = edges_of(lake)
    expected = reference_edges(rows, 10)
    assert edges == {edge: found for edge, found in expected.items() if found[1] >= k}
    assert counts["v_weight"] + counts["v_below_k_weight"] == sum(weight for weight, _ in expected.values())
    outcome = check_mobility_privacy(lake, "here")
    assert outcome.passed
    assert outcome.numbers.get("smallest_group_people", k) >= k
    version = lake.store.data_version(TableRef("mobility_edges", "here"))
    random.shuffle(rows)
    lake = visits_world(folder, rows, minimum_people=k, window_hours=10)
    assert build_mobility_edges(lake, "here").written.data_version == version


def test_the_privacy_check_finds_small_groups(tmp_path):
    lake = world(tmp_path, {}, minimum_people=5)
    edges = {"src": [A, A], "dst": [B, C], "weight": [9.0, 9.0], "people": [5.0, 4.0]}
    table = pa.table(edges).cast(
        pa.schema([("src", "uint64"), ("dst", "uint64"), ("weight", "double"), ("people", "double")])
    )
    lake.store.write(TableRef("mobility_edges", "here"), table)
    outcome = check_mobility_privacy(lake, "here")
    assert not outcome.passed
    assert outcome.message == "1 of 2 edges come from fewer than 5 people"
    assert outcome.numbers["smallest_group_people"] == 4


# ---- trips ----


def trips_table(rows):
    """Rows of (person, origin, destination), places as cells or (lon, lat)."""
    ends = [[lakes.centre(p) if isinstance(p, int) else p for p in row[1:]] for row in rows]
    return pa.table(
        {
            "who": pa.array([row[0] for row in rows], pa.string()),
            "x1": pa.array([o[0] for o, _ in ends], pa.float64()),
            "y1": pa.array([o[1] for o, _ in ends], pa.float64()),
            "x2": pa.array([d[0] for _, d in ends], pa.float64()),
            "y2": pa.array([d[1] for _, d in ends], pa.float64()),
        }
    )


def trips(file, **more):
    ends = {"origin_lon": "x1", "origin_lat": "y1", "destination_lon": "x2", "destination_lat": "y2"}
    return {"t": {"kind": "trips", "file": file} | ends | more}


def test_trips_count_people_where_the_source_has_them(tmp_path):
    rows = [("p", A, B), ("p", A, B), ("q", A, B), ("p", B, X), ("p", X, A), (None, A, B)]
    file = parquet(tmp_path, trips_table(rows))
    counts, edges = edges_of(world(tmp_path, trips(file, person="who")))
    assert edges == {(A, B): (3, 2), (B, X): (1, 1)}
    assert (counts["t_rows_inside"], counts["t_rows_other_region"], counts["t_rows_without_person"]) == (4, 1, 1)
    counts, edges = edges_of(world(tmp_path, trips(file)))
    assert edges[A, B] == (4, 4)


def test_bad_trips_are_counted(tmp_path):
    lon, lat = lakes.centre(A)
    rows = [("p", A, B), ("p", A, FAR), ("p", FAR, B), ("p", (None, lat), B), ("p", A, (lat, lon)), ("p", A, A)]
    counts, edges = edges_of(world(tmp_path, trips(parquet(tmp_path, trips_table(rows)))))
    assert edges == {(A, B): (1, 1)}
    expected = {"read": 6, "inside": 2, "outside": 2, "without_position": 1, "swapped": 1, "other_region": 0}
    assert {key: counts[f"t_rows_{key}"] for key in expected} == expected
    assert counts["t_self_loop_weight"] == 1


def test_mostly_swapped_trips_are_an_error(tmp_path):
    file = parquet(tmp_path, trips_table([("p", A, B), ("p", B, C)]))
    swapped = {"origin_lon": "y1", "origin_lat": "x1", "destination_lon": "y2", "destination_lat": "x2"}
    with pytest.raises(SourceError, match=r"swapped.*y1 and x1 and y2 and x2"):
        build_mobility_edges(world(tmp_path, trips(file, **swapped)), "here")


# ---- flows ----


def flows_world(folder, rows, minimum_people=1, zones="tracts", extra=None, **mobility):
    columns = {"o": [r[0] for r in rows], "d": [r[1] for r in rows], "n": [r[2] for r in rows]}
    table = pa.table(columns, schema=pa.schema([("o", pa.string()), ("d", pa.string()), ("n", pa.float64())]))
    source = {"kind": "flows", "file": parquet(folder, table, "flows.parquet"), "zones": zones}
    source |= {"origin": "o", "destination": "d", "count": "n"}
    lake = world(folder, {"f": source} | (extra or {}), minimum_people, **mobility)
    here = {"01": {A: 0.25, B: 0.75}, "02": {B: 1.0}}
    there = {"09": {X: 0.5, Y: 0.5}}
    lakes.write_zones(lake, "here", {"tracts": here, "blocks": {"b": {A: 0.5, B: 0.5}, "c": {C: 1.0}}})
    lakes.write_zones(lake, "there", {"tracts": there})
    return lake


def test_flows_spread_over_the_cells_of_both_zones(tmp_path):
    lake = flows_world(tmp_path, [("01", "09", 8.0), ("02", "09", 2.0), ("09", "02", 3.0)])
    counts, edges = edges_of(lake)
    # 01 to 09: 8 x (1/4, 3/4) x (1/2, 1/2); 02 to 09: 2 x 1 x (1/2, 1/2), in the same edges from B
    assert edges == {(A, X): (1, 8), (A, Y): (1, 8), (B, X): (4, 2), (B, Y): (4, 2)}
    assert counts["f_rows_inside"] == 2
    assert counts["f_rows_inside_weight"] == counts["total_weight"] == 10
    assert counts["f_rows_other_region_weight"] == 3
    assert edges_of(lake, "there")[1] == {(X, B): (1.5, 3), (Y, B): (1.5, 3)}


def test_k_applies_to_the_zone_to_zone_flow(tmp_path):
    counts, edges = edges_of(flows_world(tmp_path, [("01", "09", 8.0), ("02", "09", 2.0)], minimum_people=5))
    assert edges == {(A, X): (1, 8), (A, Y): (1, 8), (B, X): (3, 8), (B, Y): (3, 8)}
    assert (counts["f_flows"], counts["f_flows_below_k"], counts["f_flows_below_k_weight"]) == (2, 1, 2)


def test_rows_of_one_pair_add_up_but_vouch_for_the_larger_only(tmp_path):
    rows = [("01", "09", 4.0), ("01", "09", 4.0)]
    counts, edges = edges_of(flows_world(tmp_path, rows, minimum_people=5))
    assert edges == {}
    assert counts["f_rows_repeated"] == 1
    assert edges_of(flows_world(tmp_path, rows, minimum_people=4))[1][A, X] == (1, 4)


def test_flows_within_a_zone_follow_self_loops_by_cell(tmp_path):
    counts, edges = edges_of(flows_world(tmp_path, [("01", "01", 16.0)]))
    assert edges == {(A, B): (3, 16), (B, A): (3, 16)}
    assert counts["f_self_loop_weight"] == 10
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
        build_mobility_edges(flows_world(tmp_path, [("1", "9", 8.0)]), "here")


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
    assert counts["total_weight"] == counts["f_weight"] + counts["v_weight"] == 8


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
        both = [build_mobility_edges(lake, region) for region in ("here", "there")]
        versions.append([result.written.data_version for result in both])
    assert versions[0] == versions[1]
    parts = ("f_weight", "f_self_loop_weight", "f_flows_below_k_weight")
    mass = sum(result.counts[part] for result in both for part in parts) + both[0].counts["f_rows_without_zone_weight"]
    assert mass == pytest.approx(sum(n for _, _, n in rows), rel=1e-9, abs=1e-9)
    people = np.concatenate(
        [lake.store.read(TableRef("mobility_edges", r))["people"].to_numpy() for r in ("here", "there")]
    )
    assert not (people < k).any()
