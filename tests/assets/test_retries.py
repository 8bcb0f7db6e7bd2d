"""Steps try again what passes by itself, and nothing else."""

import dagster as dg
import pytest

from mobclip_assets import making
from mobclip_assets.execution import Execution
from mobclip_assets.making import AssetMaker, Code, freshness
from mobclip_assets.partitions import make_regions
from mobclip_assets.resources import DeploymentResource
from mobclip_core.deployment import StepResult
from mobclip_core.errors import ContractError, SourceError
from mobclip_core.profile import load_profile
from mobclip_core.store import TableRef, Written

from .test_distributions import make_profile


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Materialise an asset whose step fails as it is told; gives success and the number of tries."""
    monkeypatch.setattr(making, "_FIRST_WAIT_SECONDS", 0.01)
    file = make_profile(tmp_path)
    profile = load_profile(str(file))
    make = AssetMaker(profile, make_regions(profile), lambda _: Execution().op_tags(profile, None))

    def materialised(*failures):
        tries = []

        @make.whole(group="g", kinds={"duckdb"}, deps=[], code=Code([]))
        def something(deployment) -> StepResult:
            """Something."""
            tries.append(1)
            if len(tries) <= len(failures):
                raise failures[len(tries) - 1]
            return StepResult(Written(TableRef("something"), 0, 1, "v1"))

        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                [something],
                instance=instance,
                resources={"deployment": DeploymentResource(profile=str(file))},
                raise_on_error=False,
            )
        return result.success, len(tries)

    return materialised


def lost():
    error = SourceError("s3://bucket/file.parquet", "cannot be read")
    error.__cause__ = ConnectionResetError("lost")
    return error


def test_a_lost_connection_is_tried_again(run):
    assert run(lost(), lost()) == (True, 3)


def test_not_for_ever(run):
    assert run(*[lost()] * 9) == (False, 4)


def test_bad_data_and_a_full_disk_are_not(run):
    assert run(ContractError("broken")) == (False, 1)
    assert run(OSError(28, "No space left on device")) == (False, 1)


def test_the_age_that_is_watched_is_the_profile_s(tmp_path):
    file = make_profile(tmp_path)
    assert freshness(load_profile(str(file))) is None
    file.write_text(file.read_text() + "\noperations: { fresh_days: 8 }\n")
    assert freshness(load_profile(str(file))).fail_window.days == 8
