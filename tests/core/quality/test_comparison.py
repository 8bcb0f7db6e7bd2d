import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.profile import QualityConfig, QualityLimits
from mobclip_core.quality import compare
from mobclip_core.quality.comparison import changes_table, distance, summary_table
from mobclip_core.quality.statistics import STEPS, _quantiles

LIMITS = QualityLimits()


def summary(rows=100, **columns):
    return {"version": 1, "rows": rows, "columns": columns}


def over(before, now, limits=LIMITS) -> list[str]:
    return [str(change) for change in compare(before, now, limits) if change.is_over]


def test_halved_rows_are_told_with_the_numbers():
    assert over(summary(1000), summary(500)) == ["rows 1,000 -> 500 (-50.0%, limit 10.0%)"]
    assert over(summary(1000), summary(905)) == []
    assert over(summary(1000), summary(500), QualityLimits(rows=0.5)) == []
    assert over(summary(1000), summary(500), QualityLimits(rows=None)) == []


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"nulls": 0.0}, {"nulls": 0.02}, "x: nulls 0.0% -> 2.0% (+2.0% points, limit 1.0% points)"),
        ({"zeros": 0.5}, {"zeros": 0.25}, "x: zeros 50.0% -> 25.0% (-25.0% points, limit 5.0% points)"),
        ({"total": 12345.0}, {"total": 24690.0}, "x: total 12,345.0 -> 24,690.0 (+100.0%, limit 10.0%)"),
        ({"total": 0.0}, {"total": 0.5}, "x: total 0 -> 0.5 (+from nothing, limit 10.0%)"),
        ({"quantiles": [1.0] * 41}, {"quantiles": [2.0] * 41}, "x: drift 1 -> 2 (100.0%, limit 10.0%)"),
        (
            {"mean": [1.0, 5.0], "deviation": [2.0, 1.0]},
            {"mean": [1.1, 6.0], "deviation": [2.0, 2.0]},
            "x: shift 5 -> 6 (0.5 deviations, limit 0.25 deviations)",
        ),
    ],
)
def test_each_measure_is_told_with_its_numbers(before, now, told):
    assert over(summary(x=before), summary(x=now)) == [told]
    assert over(summary(x=before), summary(x=before)) == []
    none = QualityLimits(rows=None, nulls=None, zeros=None, total=None, drift=None, shift=None)
    assert compare(summary(x=before), summary(x=now), none) == []


def test_dimensions_that_do_not_vary_are_compared_by_value():
    before = {"mean": [0.0, 2.0], "deviation": [0.0, 0.0]}
    assert over(summary(x=before), summary(x=before)) == []
    [told] = over(summary(x=before), summary(x={"mean": [0.0, 1.0], "deviation": [0.0, 0.0]}))
    assert "0.5 deviations" in told


def test_what_only_one_summary_has_is_not_compared():
    before = summary(old={"nulls": 0.0}, v={"mean": [1.0], "deviation": [1.0]}, s={"nulls": 0.0})
    now = summary(new={"nulls": 1.0}, v={"mean": [1.0, 9.0], "deviation": [1.0, 1.0]}, s={"nulls": 0.0, "zeros": 1.0})
    assert over(before, now) == []


def test_distance_of_a_known_shift():
    values = np.random.default_rng(0).normal(size=100_000)
    here = _quantiles(values)
    assert distance(here, here) == 0.0
    # of two normal distributions one deviation apart: 2 * Phi(1/2) - 1
    assert distance(here, _quantiles(values + 1)) == pytest.approx(0.3829, abs=0.02)
    assert distance(here, _quantiles(values + 10)) == pytest.approx(1.0, abs=1 / STEPS)
    # half of the values became zero
    half = values.copy()
    half[:50_000] = 0
    assert distance(here, _quantiles(half)) == pytest.approx(0.25, abs=0.03)


def test_distance_to_nothing():
    assert distance([], []) == 0.0
    assert distance([1.0], []) == distance([], [1.0]) == 1.0


@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=50),
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=50),
)
def test_distance_is_a_symmetric_share(a, b):
    qa, qb = _quantiles(np.array(a)), _quantiles(np.array(b))
    assert distance(qa, qa) == 0.0
    assert 0.0 <= distance(qa, qb) <= 1.0
    assert distance(qa, qb) == pytest.approx(distance(qb, qa))
    exact = max(abs(np.mean(np.array(a) <= x) - np.mean(np.array(b) <= x)) for x in [*a, *b])
    # interpolation and the step of the quantiles
    assert distance(qa, qb) == pytest.approx(exact, abs=2.5 / STEPS + 1 / len(a) + 1 / len(b))


def test_the_table_shows_the_largest_first_and_counts_the_rest():
    many = {f"c{i:03}": {"nulls": 0.0} for i in range(100)}
    more = {f"c{i:03}": {"nulls": i / 1000} for i in range(100)}
    text = changes_table(compare(summary(**many), summary(**more), LIMITS))
    lines = text.splitlines()
    assert lines[2] == "| **`c099`** | **nulls** | **0.0%** | **9.9%** | **+9.9% points** | **1.0% points** |"
    assert "39 smaller changes are not shown" in text
    assert "2 measures did not change" in text


def test_the_summary_shows_every_column():
    text = summary_table(
        summary(x={"nulls": 0.5, "zeros": 0.0, "total": 7.0, "quantiles": [1.0, 2.0, 3.0]}, y={"nulls": 0})
    )
    assert "| `x` | 50.0% | 0.0% | 7 | 1 | 2 | 3 |" in text
    assert "| `y` | 0.0% |  |  |  |  |  |" in text


def test_limits_of_a_table_replace_those_of_all():
    quality = QualityConfig.model_validate(
        {"limits": {"rows": 0.5, "shift": 1.0}, "tables": {"regions": {"rows": None, "severity": "error"}}}
    )
    assert quality.limits_of("regions") == QualityLimits(rows=None, shift=1.0, severity="error")
    assert quality.limits_of("grid_cells") == QualityLimits(rows=0.5, shift=1.0)
    # trained again, an encoder has new axes
    assert quality.limits_of("embeddings") == QualityLimits(rows=0.5, shift=None)
    own = QualityConfig.model_validate({"tables": {"embeddings": {"shift": 2.0}}})
    assert own.limits_of("embeddings").shift == 2.0
    with pytest.raises(ValueError, match="no tables \\['nowhere'\\]"):
        QualityConfig.model_validate({"tables": {"nowhere": {}}})
