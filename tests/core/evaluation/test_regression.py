import numpy as np
import pytest

from mobclip_core.evaluation.regression import compare, summary
from mobclip_core.evaluation.scores import build_geobench_scores


def scores(values, labels="v1", split="spatial", width=0.05):
    tasks = {f"T{i:02d}": {"r2": v, "r2_low": v - width, "r2_high": v + width} for i, v in enumerate(values)}
    return {"split": split, "labels": labels, "encoder": "e", "tasks": tasks}


BEFORE = np.linspace(0.3, 0.9, 11)


def test_the_first_scores_pass():
    found = compare(scores(BEFORE), None)
    assert found.outcome.passed
    assert found.statistics["tasks"]["T00"]["r2"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (np.zeros(11), True),
        (np.full(11, 0.02), True),
        (np.full(11, -0.01), False),
        # up here, down there, on the whole a little less
        (np.tile([-0.02, 0.018], 6)[:11], True),
        # one task lost, the others as they were
        (np.r_[-0.3, np.zeros(10)], True),
    ],
)
def test_worse_is_what_the_signed_ranks_say(change, passes):
    found = compare(scores(BEFORE + change), scores(BEFORE), "Monday")
    assert found.outcome.passed == passes
    assert found.table.count("\n") == 12
    assert found.outcome.numbers["change"] == pytest.approx(change.mean())
    if not passes:
        assert found.outcome.message.startswith(
            "worse than the last encoder that passed: mean R2 0.590, 0.600 at Monday"
        )
        accepted = compare(scores(BEFORE + change), scores(BEFORE), "Monday", accept=True)
        assert accepted.outcome.passed
        assert accepted.outcome.message.startswith("accepted: ")


def test_few_tasks_are_judged_by_their_intervals():
    assert compare(scores(BEFORE[:3] - 0.03), scores(BEFORE[:3])).outcome.passed
    assert not compare(scores(BEFORE[:3] - 0.06), scores(BEFORE[:3])).outcome.passed


def test_other_labels_splits_or_tasks_are_not_compared():
    worse = BEFORE - 0.2
    assert compare(scores(worse, labels="v2"), scores(BEFORE), "Monday").outcome.passed
    assert "not compared" in compare(scores(worse, split="random"), scores(BEFORE), "Monday").outcome.message
    other = scores(worse)
    other["tasks"] = {f"X{name}": found for name, found in other["tasks"].items()}
    assert compare(other, scores(BEFORE)).outcome.passed


def test_the_summary_is_of_the_embeddings_by_ridge_on_blocks(world):
    world.features()
    world.label({"POP": (world.cells, world.population)})
    options = {"title": "T", "source": "s", "unit": "u", "label": {"kind": "raster", "file": "label.tif"}}
    deployment = world.deployment({"POP": options}, seeds=[0, 1], block_resolution=4)
    result = build_geobench_scores(deployment)
    found = summary(deployment)
    assert (found["split"], list(found["tasks"])) == ("spatial", ["POP"])
    assert found["tasks"]["POP"]["r2"] == pytest.approx(result.counts["mean_r2_spatial"])
    assert found["tasks"]["POP"]["r2_low"] <= found["tasks"]["POP"]["r2"] <= found["tasks"]["POP"]["r2_high"]
