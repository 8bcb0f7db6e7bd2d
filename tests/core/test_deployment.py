from pathlib import Path

import pyarrow as pa
import pytest

from mobclip_core.contracts import REGIONS
from mobclip_core.deployment import CheckOutcome, Deployment, StepResult
from mobclip_core.errors import ProfileError
from mobclip_core.store import TableRef

PROFILE = """
name: small
regions: {{ file: r.parquet, key_column: k, keys: [a] }}
zones: {{ z: {{ file: z.parquet, id_column: id }} }}
census: {{ zones: z, file: c.parquet, id_column: id, population: p, histogram: [{{ column: m }}] }}
poi: {{ categories: [shop] }}
imagery: {{ file: i.tif }}
{storage}
"""


def regions():
    row = {"region": ["a"], "name": ["A"], "geometry": [b"\x00"], "area_km2": [1.0], "source_features": [1]}
    return pa.table(row, schema=REGIONS.schema())


def opened(tmp_path, storage):
    path = tmp_path / "small.yaml"
    path.write_text(PROFILE.format(storage=storage))
    return Deployment.open(str(path))


def test_the_lake_lies_where_the_profile_says(tmp_path):
    deployment = opened(tmp_path, "storage: lake")
    written = deployment.store.write(TableRef("regions"), regions())
    assert Path(deployment.store.path(TableRef("regions"))).is_relative_to(tmp_path / "lake")
    assert Path(deployment.store.path(TableRef("regions"))).stat().st_size == written.bytes
    assert StepResult(written).counts == {}


def test_without_storage_the_lake_is_beside_the_profiles_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("mobclip_core.deployment.PROFILES_DIR", tmp_path / "home" / "profiles")
    deployment = opened(tmp_path, "")
    assert deployment.store.root == str(tmp_path / "home" / "lake" / "small")
    assert Path(deployment.store.root).is_dir()


def test_the_storage_root_may_be_any_url(tmp_path):
    deployment = opened(tmp_path, "storage: memory://test_deployment")
    deployment.store.write(TableRef("regions"), regions())
    assert deployment.store.read(TableRef("regions")).num_rows == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "small.yaml"]


def test_a_deployment_with_a_wrong_profile_makes_no_lake(tmp_path):
    with pytest.raises(ProfileError):
        opened(tmp_path, "storage: lake\nunknown: 1")
    assert not (tmp_path / "lake").exists()


def test_a_check_outcome_says_what_it_found():
    outcome = CheckOutcome(False, "totals differ", {"difference": 3.0})
    assert not outcome.passed
    assert outcome.numbers["difference"] == 3.0
