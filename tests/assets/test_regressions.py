"""The check that keeps a worse encoder from being published, on scores written by hand: every evaluation is a run."""

import dagster as dg
import numpy as np
import pytest

from mobclip_assets.build import build_defs
from mobclip_assets.regressions import CHECK_NAME, make_regression_check
from mobclip_assets.resources import DeploymentResource
from mobclip_core.contracts import GEOBENCH_LABELS
from mobclip_core.deployment import Deployment
from mobclip_core.evaluation.scores import scores_table
from mobclip_core.store import TableRef

from .test_distributions import make_profile

KEY = dg.AssetCheckKey(dg.AssetKey("geobench_scores"), CHECK_NAME)


def write(profile, values):
    rows = [
        {
            "profile": "two",
            "task": f"T{i}",
            "method": "embeddings",
            "probe": "ridge",
            "split": "spatial",
            "seed": 0,
            "n": 50,
            "n_test": 50,
            "r2": r2,
            "r2_low": r2 - 0.1,
            "r2_high": r2 + 0.1,
            "leak": False,
            "encoder": "e",
            "label_version": "l",
            "input_version": "i",
            "resampled": [r2, r2],
        }
        for i, r2 in enumerate(values)
    ]
    store = Deployment.open(str(profile)).store
    store.write(TableRef("geobench_labels"), GEOBENCH_LABELS.schema().empty_table())
    store.write(TableRef("geobench_scores"), scores_table(rows, Deployment.open(str(profile)).profile))


def evaluate(profile, instance, accept=False):
    made = []

    @dg.asset
    def geobench_scores() -> None:
        pass

    @dg.asset(deps=[geobench_scores])
    def catalog() -> None:
        made.append("catalog")

    result = dg.materialize(
        [geobench_scores, catalog, make_regression_check()],
        instance=instance,
        resources={"deployment": DeploymentResource(profile=str(profile))},
        run_config={"ops": {"geobench_scores_not_worse": {"config": {"accept": accept}}}} if accept else None,
        raise_on_error=False,
    )
    [evaluation] = result.get_asset_check_evaluations()
    assert bool(made) == evaluation.passed
    return evaluation


def test_a_worse_encoder_is_not_published_until_it_is_accepted(tmp_path):
    profile = make_profile(tmp_path)
    good = np.linspace(0.4, 0.8, 8)
    with dg.DagsterInstance.ephemeral() as instance:
        write(profile, good)
        assert evaluate(profile, instance).passed
        write(profile, good - 0.03)
        for _ in range(2):
            # the last that passed counts, not the last
            worse = evaluate(profile, instance)
            assert not worse.passed
            assert "worse than the last encoder that passed" in worse.description
            assert worse.metadata["change"].value == pytest.approx(-0.03)
        assert evaluate(profile, instance, accept=True).passed
        assert evaluate(profile, instance).passed


def test_the_graph_has_the_check_and_it_blocks(tmp_path):
    check = build_defs(str(make_profile(tmp_path))).resolve_asset_graph().get(KEY)
    assert check.blocking
    assert "accept: true" in check.description
