"""The whole graph with its raw files and its lake on an object store, beside folders of this machine."""

import pytest

from mobclip_core.demo.config import TINY
from mobclip_core.deployment import Deployment
from mobclip_core.store import TableRef
from tests.core.test_any_lake import build_all
from tests.servers import object_store

pytestmark = pytest.mark.slow


def test_a_country_on_an_object_store_equals_one_in_folders(tiny_world, tiny_profile):
    path = tiny_profile()
    local = Deployment.open(str(path))
    text = path.read_text()
    with object_store("nation") as store:
        store.upload(tiny_world, "nation/raw")
        path.write_text(text.replace(str(tiny_world), "s3://nation/raw").replace(local.store.url, "s3://nation/lake"))
        remote = Deployment.open(str(path))
        assert (remote.store.url, remote.store.is_local) == ("s3://nation/lake", False)
        assert str(tiny_world) not in path.read_text()
        assert build_all(remote) == build_all(local)
        for table in ("grid_cells", "embeddings"):
            refs = [TableRef(table, region) for region in TINY.region_keys]
            assert [_content(remote, ref) for ref in refs] == [_content(local, ref) for ref in refs]


def _content(deployment: Deployment, ref: TableRef) -> bytes:
    return deployment.store.fs.cat_file(deployment.store.path(ref))
