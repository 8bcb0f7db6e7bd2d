import numpy as np
import pytest

from mobclip_core.evaluation import score_plots
from tests.core.test_plots import pixels, share_of


def score(task, method, r2, split="random"):
    return {"task": task, "method": method, "split": split, "r2": r2, "r2_low": r2 - 0.1, "r2_high": r2 + 0.1}


def test_score_bars_grow_with_the_score():
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    low, high = (pixels(score_plots.score_bars([score("POP", "embeddings", r2)], "t")) for r2 in (0.2, 0.6))
    assert share_of(low, blue) > 0.01
    # the axis ends a little above the highest bar, so compare two bars in one picture
    both = pixels(score_plots.score_bars([score("POP", "embeddings", 0.8), score("POP", "coordinates", 0.2)], "t"))
    orange = np.array([0xE6, 0x9F, 0x00]) / 255
    assert share_of(both, blue) == pytest.approx(4 * share_of(both, orange), rel=0.25)
    assert high.shape == low.shape


def test_score_bars_average_repeats_and_survive_gaps():
    repeated = [score("POP", "embeddings", 0.4), score("POP", "embeddings", 0.6)]
    assert score_plots.score_bars(repeated, "t") == score_plots.score_bars([score("POP", "embeddings", 0.5)], "t")
    gaps = [score("POP", "embeddings", 0.4), score("ELE", "coordinates", -7.0), score("POP", "pca_128", 0.1, "spatial")]
    assert pixels(score_plots.score_bars(gaps, "t")).std() > 0
    assert pixels(score_plots.score_bars([], "t")).size


def test_a_rank_diagram_shows_which_methods_are_alike():
    ranks = np.array([1.2, 1.9, 4.0, 4.4])
    names = ["embeddings", "raw_features", "poi", "coordinates"]
    apart, alike = (score_plots.rank_diagram(names, ranks, critical, "Ranks") for critical in (0.1, 1.0))
    assert pixels(apart).size
    assert apart != alike
    assert score_plots._alike(ranks, 1.0) == [(0, 1), (2, 3)]
    assert score_plots._alike(ranks, 0.1) == []
    assert score_plots._alike(ranks, 2.9) == [(0, 2), (1, 3)]


def test_curves_of_few_labels():
    means = np.array([[0.1, -3.0], [0.4, 0.2], [0.6, 0.5]])
    assert pixels(score_plots.few_label_curves([1, 5, 20], ["embeddings", "raw_features"], means, "Few")).std() > 0
