import math

import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.errors import PrivacyError
from mobclip_core.mobility import movements
from mobclip_core.mobility.edges import build_mobility_edges, check_mobility_privacy
from mobclip_core.mobility.movements import build_movements
from mobclip_core.mobility.noise import Calibration, add_noise, calibrate
from mobclip_core.mobility.privacy import Report
from mobclip_core.profile import Noise
from mobclip_core.store import TableRef
from tests.mobility_worlds import (
    A,
    B,
    C,
    flows_world,
    parquet,
    trips,
    trips_table,
    visits,
    visits_table,
    visits_world,
    world,
)

NOISE = {"epsilon": 1.0, "max_movements_per_person": 20, "max_edges_per_person": 10}


def test_laplace_noise_follows_from_the_bounds():
    found = calibrate(Noise(**NOISE), 5, bounded=True)
    # half of epsilon for each count: 10 edges / 0.5, 20 movements / 0.5
    assert (found.people_scale, found.weight_scale) == pytest.approx((20, 40), rel=1e-6)
    # an edge of k people passes with a probability below delta / edges: the upper tail of a Laplace distribution
    over = found.threshold - 5
    assert math.exp(-over / found.people_scale) <= 1e-6 / 10 < math.exp(-(over - 30) / found.people_scale)
    one = calibrate(Noise(**NOISE), 5, bounded=False)
    assert (one.people_scale, one.weight_scale) == pytest.approx((2, 2), rel=1e-6)
    # nobody is on more edges than they have movements
    few = calibrate(Noise(**NOISE | {"max_movements_per_person": 3}), 5, bounded=True)
    assert few.people_scale == pytest.approx(6, rel=1e-6)


def test_gaussian_noise_grows_with_the_root_of_the_edges():
    scales = []
    for edges in (4, 16):
        noise = Noise(**NOISE | {"mechanism": "gaussian", "max_edges_per_person": edges})
        found = calibrate(noise, 5, bounded=True)
        scales.append(found.people_scale)
        # below the classical bound sqrt(2 ln(1.25 / delta)) x sensitivity / epsilon, above a third of it
        classical = math.sqrt(2 * math.log(1.25 / 2.5e-7)) * math.sqrt(edges) / 0.5
        assert classical / 3 < found.people_scale < classical * 1.05
        assert found.threshold > 5 + 4 * found.people_scale
    assert scales[1] / scales[0] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_noise_is_fresh_centred_and_of_its_scale(mechanism):
    n = 4_000
    exact = pa.table({"edge": range(n), "people": [1000.0] * n, "weight": [3000.0] * n})
    calibration = Calibration(mechanism, 3.0, 20.0, 5)
    first, second = (add_noise(exact, calibration) for _ in range(2))
    assert first.num_rows == n
    assert first["edge"].to_pylist() == list(range(n))
    assert first["people"].to_pylist() != second["people"].to_pylist()
    for name, scale, value in (("people", 3.0, 1000), ("weight", 20.0, 3000)):
        found = first[name].to_numpy()
        deviation = scale * (math.sqrt(2) if mechanism == "laplace" else 1)
        assert found.mean() == pytest.approx(value, abs=6 * deviation / math.sqrt(n))
        assert found.std() == pytest.approx(deviation, rel=0.15)
        assert (found == np.round(found)).all()


def test_what_does_not_pass_the_threshold_is_not_there():
    exact = pa.table({"edge": range(500), "people": [50.0] * 500, "weight": [1.0] * 500})
    noisy = add_noise(exact, Calibration("laplace", 5.0, 10.0, 50))
    assert 150 < noisy.num_rows < 350
    assert min(noisy["people"].to_pylist()) >= 50
    assert min(noisy["weight"].to_pylist()) == 1
    assert add_noise(exact, Calibration("laplace", 1.0, 1.0, 500)).num_rows == 0
    empty = exact.slice(0, 0)
    assert add_noise(empty, Calibration("laplace", 1.0, 1.0, 5)) is empty


def crowd(people):
    """People who go from A to B and back once, and one who does so every hour."""
    rows = [(f"p{i}", hour, cell) for i in range(people) for hour, cell in ((0, A), (1, B), (2, A))]
    return rows + [("often", hour, (A, B)[hour % 2]) for hour in range(200)]


def test_noisy_visits_keep_k_and_bound_what_one_person_adds(tmp_path):
    noise = NOISE | {"epsilon": 1.0, "max_movements_per_person": 2, "max_edges_per_person": 2}
    lake = visits_world(tmp_path, crowd(400), minimum_people=5, noise=noise)
    result = build_movements(lake)
    # the one of 199 movements keeps two
    assert result.counts["v_movements_over_bounds"] == 197
    assert result.counts["v_weight"] == 802
    assert result.counts["v_below_threshold"] == 0
    build_mobility_edges(lake, "here")
    edges = lake.store.read(TableRef("mobility_edges", "here")).to_pylist()
    assert [(row["src"], row["dst"]) for row in edges] == sorted([(A, B), (B, A)])
    for row in edges:
        assert row["people"] == pytest.approx(401, abs=80)
        assert row["weight"] == pytest.approx(401, abs=80)
    assert check_mobility_privacy(lake, "here").passed
    assert build_movements(lake).written.data_version != result.written.data_version
    text = result.markdown["Suppressed"]
    assert "v: discrete laplace noise, scale 4 on people and 4 on movements" in text


def test_edges_of_few_people_do_not_pass_the_noise(tmp_path):
    lake = visits_world(tmp_path, crowd(6), minimum_people=5, noise=NOISE)
    counts = build_movements(lake).counts
    assert (counts["v_edges"], counts["v_below_threshold"]) == (2, 2)
    build_mobility_edges(lake, "here")
    assert lake.store.read(TableRef("mobility_edges", "here")).num_rows == 0


def test_noise_on_trips_without_people_and_on_flows(tmp_path):
    file = parquet(tmp_path, trips_table([(None, A, B)] * 300 + [(None, A, C)] * 5), "trips.parquet")
    rows = [("01", "09", 500.4), ("02", "09", 5.0), ("02", "01", 2.0)]
    lake = flows_world(tmp_path, rows, minimum_people=5, extra=trips(file), noise=NOISE | {"epsilon": 4.0})
    counts = build_movements(lake).counts
    assert (counts["t_edges"], counts["t_below_threshold"]) == (2, 1)
    assert (counts["f_flows"], counts["f_flows_below_k"], counts["f_below_threshold"]) == (2, 1, 1)
    build_mobility_edges(lake, "here")
    edges = lake.store.read(TableRef("mobility_edges", "here")).to_pylist()
    total = sum(row["weight"] for row in edges)
    assert total == pytest.approx(800, abs=20)
    # whole numbers from the flow, spread over cells
    assert {row["people"] == round(row["people"]) for row in edges} == {True}


def test_people_between_zones_are_bounded_too(tmp_path):
    rows = [("a", "b", f"p{i}") for i in range(200)] + [("a", "b", "often")] * 50 + [("b", "a", "often")] * 50
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(3)]
    file = parquet(tmp_path, pa.table(columns, ["o", "d", "who"]))
    source = {"kind": "zone_trips", "file": file, "zones": "blocks", "origin": "o", "destination": "d", "person": "who"}
    lake = flows_world(tmp_path, [("01", "02", 1.0)], minimum_people=1, extra={"z": source}, noise=NOISE)
    from tests import lake as lakes

    lakes.write_zones(
        lake, "here", {"blocks": {"a": {A: 1.0}, "b": {B: 1.0}}, "tracts": {"01": {A: 1.0}, "02": {B: 1.0}}}
    )
    counts = build_movements(lake).counts
    assert counts["z_movements_over_bounds"] == 80
    assert counts["z_flows_weight"] + counts["z_flows_below_k_weight"] == 220


def test_nothing_is_published_where_a_statement_lets_too_few_people_through(tmp_path, monkeypatch):
    lake = visits_world(tmp_path, crowd(3), minimum_people=5)
    text = movements.sql_text
    broken = {
        "mobility_judged": text("mobility_judged").replace("people < $minimum_people", "people < 0 * $minimum_people")
    }
    monkeypatch.setattr(movements, "sql_text", lambda name: broken.get(name, text(name)))
    with pytest.raises(PrivacyError, match=r"region=here/part\.parquet: 2 of 2 rows come from fewer than 5 people"):
        build_movements(lake)
    assert not lake.store.exists(TableRef("movements"))


def test_the_report_names_source_and_region(tmp_path):
    one_person = [("p", hour, (A, B)[hour % 2]) for hour in range(10)]
    many = [(w, hour, cell) for w in "xyz" for hour, cell in ((0, B), (1, C))]
    lake = visits_world(tmp_path, one_person + many, minimum_people=3)
    text = build_movements(lake).markdown["Suppressed"]
    # kept: 1 edge of 3 movements; below k: 2 edges of 9 movements
    assert "| v | here | 1 | 3.0 | 2 | 9.0 | 0.0 | 0 |" in text
    report = Report()
    for i in range(302):
        report.add_edges("v", f"r{i}", [("kept", 1, 1.0)])
    assert report.markdown().endswith("2 more rows are not shown.")


@pytest.mark.parametrize(
    "change", [{"epsilon": 0}, {"delta": 1}, {"max_edges_per_person": 0}, {"mechanism": "home-made"}]
)
def test_noise_settings_have_ranges(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Noise(**NOISE | change)


def test_two_noisy_sources_add_up(tmp_path):
    trip_file = parquet(tmp_path, trips_table([(None, A, B)] * 300), "trips.parquet")
    visit_file = parquet(tmp_path, visits_table(crowd(400)))
    lake = world(tmp_path, visits(visit_file) | trips(trip_file), 5, noise=NOISE | {"epsilon": 8.0})
    build_movements(lake)
    build_mobility_edges(lake, "here")
    edges = {(r["src"], r["dst"]): r for r in lake.store.read(TableRef("mobility_edges", "here")).to_pylist()}
    assert edges[A, B]["weight"] == pytest.approx(700, abs=60)
    assert edges[A, B]["people"] == pytest.approx(300, abs=60)
