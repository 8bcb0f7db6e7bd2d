import itertools
from collections import defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.mobility import buckets, movements
from mobclip_core.mobility.edges import build_mobility_edges, check_mobility_privacy
from mobclip_core.mobility.movements import build_movements
from mobclip_core.store import TableRef
from tests import lake as lakes
from tests.mobility_worlds import (
    CELLS,
    FAR,
    HERE,
    A,
    B,
    C,
    X,
    Y,
    edges_of,
    parquet,
    trips,
    trips_table,
    visits,
    visits_table,
    visits_world,
    world,
)


def test_consecutive_visits_become_edges(tmp_path):
    rows = [("p", 0, A), ("p", 1, B), ("p", 2, A), ("p", 3, B), ("q", 0, B), ("q", 5, X), ("r", 0, A), ("r", 1, B)]
    lake = visits_world(tmp_path, rows)
    counts, edges = edges_of(lake)
    # p: A-B, B-A, A-B; q: B-X; r: A-B
    assert edges == {(A, B): (3, 2), (B, A): (1, 1), (B, X): (1, 1)}
    assert counts["v_rows_read"] == 8
    assert counts["v_movements_kept"] == 5
    assert counts["here_edges"] == counts["v_edges"] == 3
    assert counts["here_total_weight"] == counts["v_weight"] == 5
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
    build_movements(lake)
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
        build_movements(lake)
    assert not lake.store.exists(TableRef("movements"))


def test_visits_without_any_position_are_an_error(tmp_path):
    lake = visits_world(tmp_path, [("p", 0, (None, None)), ("p", 1, (None, 1.0))])
    with pytest.raises(SourceError, match="2 of 2 positions cannot be read"):
        build_movements(lake)


def test_truncated_parquet_leaves_the_last_good_partition(tmp_path):
    lake = visits_world(tmp_path, [("p", hour, CELLS[hour % 7]) for hour in range(200)])
    version = build_movements(lake).written.data_version
    path = tmp_path / "source.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SourceError, match="truncated"):
        build_movements(lake)
    assert lake.store.data_version(TableRef("movements")) == version


def test_a_missing_grid_is_named(tmp_path):
    lake = lakes.deployment(tmp_path, ["here"])
    with pytest.raises(MissingTableError, match="grid_cells is not materialised yet in any region"):
        build_movements(lake)


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
            if h2 - h1 <= window and FAR not in (c1, c2) and c1 != c2:
                people[c1, c2].append(person)
    return {edge: (len(p), len(set(p))) for edge, p in people.items()}


@settings(max_examples=15, deadline=None)
@given(VISITS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_random_visits_match_a_plain_reference_and_keep_k_in_any_order(tmp_path_factory, rows, k, random):
    folder = tmp_path_factory.mktemp("visits")
    lake = visits_world(folder, rows, minimum_people=k, window_hours=10)
    counts, edges = edges_of(lake)
    expected = reference_edges(rows, 10)
    assert edges == {edge: found for edge, found in expected.items() if found[1] >= k and edge[0] in HERE}
    assert counts["v_weight"] + counts["v_below_k_weight"] == sum(weight for weight, _ in expected.values())
    outcome = check_mobility_privacy(lake, "here")
    assert outcome.passed
    assert outcome.numbers.get("smallest_group_people", k) >= k
    version = lake.store.data_version(TableRef("movements"))
    random.shuffle(rows)
    lake = visits_world(folder, rows, minimum_people=k, window_hours=10)
    assert build_movements(lake).written.data_version == version


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


def test_trips_count_people_where_the_source_has_them(tmp_path):
    rows = [("p", A, B), ("p", A, B), ("q", A, B), ("p", B, X), ("p", X, A), (None, A, B)]
    file = parquet(tmp_path, trips_table(rows))
    counts, edges = edges_of(world(tmp_path, trips(file, person="who")))
    assert edges == {(A, B): (3, 2), (B, X): (1, 1)}
    assert (counts["t_rows_inside"], counts["t_rows_without_person"]) == (5, 1)
    counts, edges = edges_of(world(tmp_path, trips(file)))
    assert edges[A, B] == (4, 4)


def test_bad_trips_are_counted(tmp_path):
    lon, lat = lakes.centre(A)
    rows = [("p", A, B), ("p", A, FAR), ("p", FAR, B), ("p", (None, lat), B), ("p", A, (lat, lon)), ("p", A, A)]
    counts, edges = edges_of(world(tmp_path, trips(parquet(tmp_path, trips_table(rows)))))
    assert edges == {(A, B): (1, 1)}
    expected = {"read": 6, "inside": 2, "outside": 2, "without_position": 1, "swapped": 1}
    assert {key: counts[f"t_rows_{key}"] for key in expected} == expected
    assert counts["t_self_loop_weight"] == 1


def test_mostly_swapped_trips_are_an_error(tmp_path):
    file = parquet(tmp_path, trips_table([("p", A, B), ("p", B, C)]))
    swapped = {"origin_lon": "y1", "origin_lat": "x1", "destination_lon": "y2", "destination_lat": "x2"}
    with pytest.raises(SourceError, match=r"swapped.*y1 and x1 and y2 and x2"):
        build_movements(world(tmp_path, trips(file, **swapped)))


# ---- bytes and buckets ----


def contents(bundle):
    """Every file of a bundle and its bytes."""
    return {str(path.relative_to(bundle)): path.read_bytes() for path in sorted(bundle.rglob("*")) if path.is_file()}


@settings(max_examples=8, deadline=None)
@given(VISITS, st.integers(1, 5), st.integers(1, 7), st.randoms(use_true_random=False))
def test_neither_files_nor_rows_nor_buckets_change_a_byte(tmp_path_factory, rows, files, bucket_rows, random):
    folder = tmp_path_factory.mktemp("files")
    trip_rows = [(who, A, cell) for who, _, cell in rows]
    bundles, counts = [], []
    for turn in range(2):
        for old in folder.glob("*_*.parquet"):
            old.unlink()
        for i in range(files if turn else 1):
            # every row is in one file: first all in one, then dealt out
            parquet(folder, visits_table(rows[i::files] if turn else rows), f"visits_{9 - i}.parquet")
            parquet(folder, trips_table(trip_rows[i::files] if turn else trip_rows), f"trips_{9 - i}.parquet")
        sources = visits(f"{folder}/visits_*.parquet") | trips(f"{folder}/trips_*.parquet", person="who")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(buckets, "BUCKET_ROWS", bucket_rows if turn else 10**9)
            patch.setattr(movements, "SLICE_ROWS", bucket_rows if turn else 10**9)
            lake = world(folder, sources, 2)
            counts.append(build_movements(lake).counts)
        bundles.append(contents(lake.store.bundle("movements")))
        order = list(zip(rows, trip_rows, strict=True))
        random.shuffle(order)
        rows, trip_rows = [row for row, _ in order], [row for _, row in order]
    assert bundles[0] == bundles[1]
    assert counts[0] == counts[1]
    assert sorted(bundles[0]) == [f"region={r}/{f}.parquet" for r in ("here", "there") for f in ("part", "zones")]


def test_people_are_numbers_or_text(tmp_path):
    rows = [(str(who), hour, cell) for who in range(1, 4) for hour, cell in ((0, A), (1, B))]
    table = visits_table(rows)
    versions = []
    for who in (table["who"], table["who"].cast(pa.int32()), table["who"].cast(pa.float64())):
        lake = world(tmp_path, visits(parquet(tmp_path, table.set_column(0, "who", who))))
        versions.append(build_movements(lake).written.data_version)
    assert len(set(versions)) == 1


def test_people_with_one_hash_are_still_two(tmp_path, monkeypatch):
    """All people in one bucket, as if their hashes were the same."""
    text = buckets.sql_text
    monkeypatch.setattr(buckets, "sql_text", lambda name: text(name).replace("hash(person)", "hash(0)"))
    monkeypatch.setattr(buckets, "BUCKET_ROWS", 2)
    rows = [(w, hour, cell) for w in "abcde" for hour, cell in ((0, A), (1, B))]
    assert edges_of(visits_world(tmp_path, rows))[1] == {(A, B): (5, 5)}


def test_damage_in_the_middle_of_a_file_is_an_error(tmp_path):
    rows = [(f"p{i % 50}", i / 60, CELLS[i % 7]) for i in range(30_000)]
    lake = visits_world(tmp_path, rows)
    path = tmp_path / "source.parquet"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 400 : middle + 400] = b"\xff" * 800
    path.write_bytes(bytes(content))
    with pytest.raises(SourceError, match=r"source\.parquet: cannot be read to its end"):
        build_movements(lake)
    assert not lake.store.exists(TableRef("movements"))


def test_a_region_whose_grid_came_later_asks_for_movements(tmp_path):
    lake = visits_world(tmp_path, [("p", 0, A), ("p", 1, B)])
    grid = lake.store.path(TableRef("grid_cells", "there"))
    lake.store.fs.mv(grid, f"{tmp_path}/aside.parquet")
    build_movements(lake)
    with pytest.raises(MissingTableError, match=r"grid_cells\[there\]; materialise movements again"):
        build_mobility_edges(lake, "there")
    build_mobility_edges(lake, "here")


def test_an_empty_source_gives_empty_files(tmp_path):
    lake = world(tmp_path, visits(parquet(tmp_path, visits_table([]))))
    assert edges_of(lake)[1] == {}
    file = lake.store.bundle_file("movements", "region=here/part.parquet")
    assert pq.read_table(file).schema.names == ["src", "dst", "weight", "people"]


def test_rows_are_written_in_groups_of_one_size(tmp_path, monkeypatch):
    monkeypatch.setattr(movements, "_BATCH_ROWS", 3)
    rows = [
        (f"p{i}", hour, cell)
        for i, (a, b) in enumerate(itertools.permutations(HERE, 2))
        for hour, cell in ((0, a), (1, b))
    ]
    lake = visits_world(tmp_path, rows)
    assert len(edges_of(lake)[1]) == 12
    file = pq.ParquetFile(lake.store.bundle_file("movements", "region=here/part.parquet"))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3] * 4
