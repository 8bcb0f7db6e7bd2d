import numpy as np
import pytest

from mobclip_core.evaluation.comparison import (
    few_shot_markdown,
    few_shot_scores,
    holm,
    mean_scores,
    of_probe,
    rank,
    ranks_markdown,
)


def row(task, method, r2, split="spatial", probe="ridge", seed=0):
    return {"task": task, "method": method, "split": split, "probe": probe, "seed": seed, "r2": r2}


def table(scores, methods, split="spatial"):
    return [
        row(f"T{t}", method, float(scores[t, m]), split) for t in range(len(scores)) for m, method in enumerate(methods)
    ]


def test_golden_ranks_of_demsar():
    # Demsar 2006, table 6: AUC of C4.5 with four settings on 14 data sets
    scores = np.array(
        [
            [0.763, 0.768, 0.771, 0.798],
            [0.599, 0.591, 0.590, 0.569],
            [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657],
            [0.882, 0.888, 0.886, 0.898],
            [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685],
            [0.583, 0.583, 0.563, 0.625],
            [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000],
            [0.940, 0.962, 0.965, 0.962],
            [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.9751, 0.975],
            [0.957, 0.978, 0.946, 0.970],
        ]
    )
    methods = ["embeddings", "coordinates", "raw_features", "pca_128"]
    found = rank(table(scores, methods))
    by_name = dict(zip(found.methods, found.rank, strict=True))
    assert by_name["embeddings"] == pytest.approx(3.143, abs=0.001)
    assert by_name["coordinates"] == pytest.approx(2.000, abs=0.001)
    assert by_name["raw_features"] == pytest.approx(2.893, abs=0.001)
    assert by_name["pca_128"] == pytest.approx(1.964, abs=0.001)
    # q at 5% for four is 2.569: 2.569 * sqrt(4 * 5 / (6 * 14)) = 1.25
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    # 0.026 in the paper; scipy corrects for the ties
    assert 0.01 < found.friedman < 0.026
    assert found.methods[0] == "pca_128"
    assert found.tasks == 14


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])


def test_the_first_method_is_compared_with_every_other():
    scores = np.column_stack([np.linspace(0.5, 0.9, 8), np.linspace(0.4, 0.8, 8), np.linspace(0.5, 0.9, 8)])
    found = rank(table(scores, ["embeddings", "poi", "theirs"]))
    place = {name: i for i, name in enumerate(found.methods)}
    assert found.ahead[place["poi"]] == 8
    # eight of eight: 2 / 2^8, twice for two comparisons
    assert found.p[place["poi"]] == pytest.approx(2 * 2 / 256)
    assert found.p[place["theirs"]] == 1
    assert np.isnan(found.p[place["embeddings"]])
    text = ranks_markdown(found)
    assert "| poi | 3.00 | 0.600 | 8 of 8 | 0.016 |" in text
    assert "| embeddings | 1.50 | 0.700 |  | |" in text


def test_too_few_tasks_have_no_ranks_and_tasks_with_gaps_are_left_out():
    methods = ["embeddings", "poi"]
    rows = table(np.random.default_rng(0).random((5, 2)), methods)
    assert rank(rows) is not None
    assert rank(rows[:-1]) is None
    assert rank(table(np.random.default_rng(0).random((9, 1)), ["poi"])) is None
    assert rank([]) is None


def test_rows_of_a_probe_have_the_neighbours_beside_them_and_seeds_are_averaged():
    rows = [
        row("A", "poi", 0.2),
        row("A", "poi", 0.4, seed=1),
        row("A", "poi", 0.9, probe="lightgbm"),
        row("A", "spatial_neighbours", 0.1, probe="neighbours"),
        row("A", "poi", 0.7, split="random"),
    ]
    tasks, methods, scores = mean_scores(of_probe(rows, "spatial"))
    assert (tasks, methods) == (["A"], ["spatial_neighbours", "poi"])
    np.testing.assert_allclose(scores, [[0.1, 0.3]])


def test_few_labels_count_tasks_that_have_all_of_them():
    rows = [
        row(task, "poi", r2, split=split)
        for task, split, r2 in [
            ("A", "random_5%", 0.2),
            ("A", "random_20%", 0.4),
            ("B", "random_20%", 0.9),
            ("A", "random", 0.5),
        ]
    ]
    percentages, methods, means = few_shot_scores(rows)
    assert (percentages, methods) == ([5.0, 20.0], ["poi"])
    np.testing.assert_allclose(means, [[0.2], [0.4]])
    assert few_shot_markdown(rows).splitlines()[-1] == "| 20% | 0.400 |"
    assert few_shot_markdown(rows[-1:]) == ""
