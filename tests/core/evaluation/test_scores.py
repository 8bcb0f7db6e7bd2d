import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import r2_score

from mobclip_core.contracts import GEOBENCH_LABELS
from mobclip_core.errors import ContractError
from mobclip_core.evaluation.scores import (
    bootstrap_draws,
    build_geobench_scores,
    r2_interval,
    read_scores,
    scores_markdown,
    unit_sets,
)


def plain_draws(n):
    return np.ones((1, n), dtype=np.float32)


def test_r2_golden_values():
    truth = np.array([[1.0], [2.0], [3.0], [4.0]])
    predicted = np.array([[1.5], [2.0], [2.0], [4.0]])
    r2, low, high = r2_interval(truth, predicted, np.arange(4), plain_draws(4))
    # residuals 0.25 + 0 + 1 + 0 over a spread of 5
    assert r2[0] == pytest.approx(0.75)
    assert low[0] == high[0] == pytest.approx(0.75)


def test_r2_equals_scikit_learn_on_every_resample():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 2)) + 1e4
    predicted = truth + rng.normal(size=(40, 2))
    group = rng.integers(0, 7, 40)
    _, group = np.unique(group, return_inverse=True)
    draws = bootstrap_draws(int(group.max()) + 1, 30, seed=1)
    r2, low, high = r2_interval(truth, predicted, group, draws)
    for target in range(2):
        assert r2[target] == pytest.approx(r2_score(truth[:, target], predicted[:, target]))
        resampled = []
        for draw in draws.astype(int):
            rows = np.repeat(np.arange(40), draw[group])
            resampled.append(r2_score(truth[rows, target], predicted[rows, target]))
        np.testing.assert_allclose([low[target], high[target]], np.percentile(resampled, [2.5, 97.5]))


def test_r2_of_labels_that_are_all_equal_is_zero():
    r2, low, high = r2_interval(np.full((3, 1), 5.0), np.zeros((3, 1)), np.arange(3), plain_draws(3))
    assert r2[0] == low[0] == high[0] == 0


def test_bootstrap_draws_repeat_and_add_up():
    draws = bootstrap_draws(12, 25, seed=3)
    assert draws.shape == (25, 12)
    assert (draws.sum(axis=1) == 12).all()
    np.testing.assert_array_equal(draws, bootstrap_draws(12, 25, seed=3))
    assert (draws != bootstrap_draws(12, 25, seed=4)).any()


def labels(rows):
    columns = [[row[i] for row in rows] for i in range(5)]
    task, unit, target, cells, weights = columns
    n = len(rows)
    table = pa.table(
        [task, unit, ["cell"] * n, target, target, [0.0] * n, [0.0] * n, cells, weights],
        names=GEOBENCH_LABELS.schema().names,
    )
    return table.cast(GEOBENCH_LABELS.schema())


def test_tasks_with_the_same_units_form_one_set():
    cells = np.array([10, 20, 30], dtype=np.uint64)
    rows = [(code, unit, value, [c], [1.0]) for code in "AB" for unit, value, c in (("u", 1.0, 10), ("v", 2.0, 30))]
    rows += [("C", "w", 5.0, [10, 20], [0.25, 0.75])]
    both, single = unit_sets(labels(rows), cells)
    assert both.tasks == ("A", "B")
    np.testing.assert_array_equal(both.targets, [[1, 1], [2, 2]])
    np.testing.assert_array_equal(both.weights.toarray(), [[1, 0, 0], [0, 0, 1]])
    assert single.tasks == ("C",)
    assert isinstance(single.weights, csr_array)
    np.testing.assert_array_equal(single.weights.toarray(), [[0.25, 0.75, 0]])
    assert single.centres.tolist() == [20]
    with pytest.raises(ContractError, match="labels of C refer to 1 cells that are not in the grid"):
        unit_sets(labels([("C", "w", 5.0, [10, 25], [0.5, 0.5])]), cells)


ROWS = [
    {
        "task": task,
        "method": method,
        "probe": "ridge",
        "split": "spatial",
        "seed": seed,
        "n": 50,
        "r2": r2,
        "leak": leak,
    }
    for task, method, seed, r2, leak in [
        ("POP", "embeddings", 0, 0.5, True),
        ("POP", "embeddings", 1, 0.7, True),
        ("POP", "coordinates", 0, 0.1, False),
        ("NTL", "embeddings", 0, 0.4, False),
        ("NTL", "coordinates", 0, -0.1, False),
    ]
]


def test_the_table_of_scores_averages_seeds_and_marks_leaks():
    assert scores_markdown(ROWS, "spatial").splitlines() == [
        "| task | n | embeddings | coordinates |",
        "| --- | ---: | ---: | ---: |",
        "| NTL | 50 | 0.400 | -0.100 |",
        "| POP | 50 | 0.600* | 0.100 |",
        "| **mean** | | **0.533** | **0.000** |",
    ]


# ---- the step ----


def tasks(*codes, overlaps=()):
    label = {"kind": "raster", "file": "label.tif"}
    options = {"title": "T", "source": "s", "unit": "u", "label": label, "overlaps": list(overlaps)}
    return dict.fromkeys(codes, options)


def score(world, labels, overlaps=(), **evaluation):
    world.label(labels)
    deployment = world.deployment(tasks(*labels, overlaps=overlaps), **evaluation)
    result = build_geobench_scores(deployment)
    return result, read_scores(deployment)


def mean_r2(rows, **wanted):
    found = [row["r2"] for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert found
    return np.mean(found)


def smooth(world, rng):
    """A label without any relation to the inputs but smooth in space: waves of 60 km in random directions."""
    phase = rng.uniform(0, 2 * np.pi, 8)
    angle = rng.uniform(0, 2 * np.pi, 8)
    xy = np.column_stack([(world.lon - 10) * 78, (world.lat - 45) * 111])
    waves = [np.cos((xy @ [np.cos(a), np.sin(a)]) * 2 * np.pi / 60 + p) for a, p in zip(angle, phase, strict=True)]
    return np.sum(waves, axis=0)


def test_scores_say_what_is_there_and_nothing_that_is_not(world):
    rng = np.random.default_rng(1)
    vectors = world.features()
    linear = vectors @ rng.normal(size=12)
    labels = {
        "LIN": (world.cells, linear),
        "NOI": (world.cells, rng.normal(size=len(world.cells))),
        "SHU": (world.cells, rng.permutation(linear)),
        "SMO": (world.cells, smooth(world, rng)),
    }
    evaluation = {"block_resolution": 4, "seeds": [0, 1], "small_sample": 100}
    result, rows = score(world, labels, lightgbm_methods=["embeddings", "coordinates"], **evaluation)
    for split in ("random", "spatial"):
        assert mean_r2(rows, task="LIN", method="embeddings", probe="ridge", split=split) > 0.99
        for task in ("NOI", "SHU"):
            for method in ("embeddings", "raw_features", "coordinates"):
                assert mean_r2(rows, task=task, method=method, probe="ridge", split=split) <= 0.02
                found = [
                    r
                    for r in rows
                    if (r["task"], r["method"], r["split"], r["probe"]) == (task, method, split, "ridge")
                ]
                assert all(row["r2_low"] <= 0 for row in found)
                assert all(-0.25 < row["r2"] <= row["r2_high"] + 1e-9 for row in found)
    # trees on coordinates remember neighbours: good among them, worthless where there are none
    assert mean_r2(rows, task="SMO", method="coordinates", probe="lightgbm", split="random") > 0.5
    assert mean_r2(rows, task="SMO", method="coordinates", probe="lightgbm", split="spatial") < 0.15
    assert mean_r2(rows, task="SMO", method="embeddings", probe="lightgbm", split="random") < 0.05
    assert result.counts["tasks_scored"] == 4
    assert {row["method"] for row in rows if row["probe"] == "lightgbm"} == {"embeddings", "coordinates"}
    # 9 methods of the ridge probe, 2 of trees, and the neighbours
    assert len(rows) == 4 * 2 * 2 * (9 + 2 + 1)
    # neighbours do so too, and find nothing in noise
    neighbours = {"method": "spatial_neighbours", "probe": "neighbours"}
    assert {row["probe"] for row in rows if row["method"] == "spatial_neighbours"} == {"neighbours"}
    assert mean_r2(rows, task="SMO", split="random", **neighbours) > 0.9
    assert mean_r2(rows, task="SMO", split="spatial", **neighbours) < 0.3
    assert mean_r2(rows, task="NOI", split="spatial", **neighbours) <= 0.02
    assert result.pictures["Scores"].startswith(b"\x89PNG")
    assert set(result.markdown) == {"R2, random split, ridge", "R2, spatial split, ridge"}
    assert result.markdown["R2, spatial split, ridge"].count("\n") == 6


def test_rows_have_the_keys_that_others_read_and_every_unit_is_tested_under_blocks(world):
    world.features()
    labels = {"POP": (world.cells, world.population)}
    _, rows = score(world, labels, overlaps=["census"], block_resolution=4, seeds=[3], small_sample=1000)
    wanted = {"profile", "task", "method", "probe", "split", "seed", "n", "r2", "r2_low", "r2_high", "leak"}
    assert wanted <= set(rows[0])
    assert {row["probe"] for row in rows} == {"ridge", "neighbours"}
    assert {(row["profile"], row["seed"], row["n"], row["n_test"]) for row in rows} == {
        ("tiny", 3, len(world.cells), len(world.cells))
    }
    leaks = {row["method"]: row["leak"] for row in rows}
    assert [m for m, leak in leaks.items() if leak] == ["census", "embeddings", "pca_128", "raw_features"]
    assert [m for m, leak in leaks.items() if not leak] == [
        "coordinates",
        "imagery",
        "mobility",
        "poi",
        "spatial_neighbours",
        "spherical_harmonics",
    ]


def test_a_random_split_of_a_large_sample_tests_a_fifth(world):
    world.features()
    labels = {"POP": (world.cells, world.population)}
    _, rows = score(world, labels, splits=["random"], probes=["ridge"], seeds=[0], small_sample=50)
    assert {row["n_test"] for row in rows} == {-(-len(world.cells) // 5)}


def test_tasks_that_cannot_be_scored_are_counted(world, caplog):
    world.features()
    labels = {
        "FEW": (world.cells[:9], np.arange(9.0)),
        "SAME": (world.cells[:30], np.ones(30)),
        "NEAR": (world.cells[:12], np.arange(12.0)),
    }
    result, rows = score(world, labels, block_resolution=0, seeds=[0])
    assert {row["task"] for row in rows} == {"NEAR"}
    assert {row["split"] for row in rows} == {"random"}
    assert result.counts["FEW_skipped_too_few_units"] == 9
    assert result.counts["SAME_skipped_constant_label"] == 30
    assert result.counts["NEAR_spatial_skipped_one_block"] == 12
    assert "FEW is not scored: too few units (9 units)" in caplog.text
    assert "no spatial split for NEAR" in caplog.text


def test_no_tasks_give_an_empty_table(world):
    world.features()
    result, rows = score(world, {})
    assert rows == []
    assert result.pictures == result.markdown == {}
    assert result.counts["tasks_scored"] == 0


def test_the_same_input_gives_the_same_bytes(world):
    world.features()
    labels = {"POP": (world.cells, world.population)}
    versions = {score(world, labels, seeds=[0], block_resolution=4)[0].written.data_version for _ in range(2)}
    assert len(versions) == 1
