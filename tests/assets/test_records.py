"""What is stale, over more regions than Dagster's own resolver looks at."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG, CachingStaleStatusResolver, StaleStatus

from mobclip_assets.records import Records, Resolver, _Loading

REGIONS = [f"r{i:03}" for i in range(150)]
PARTS = dg.StaticPartitionsDefinition(REGIONS)


@dg.asset(partitions_def=PARTS, code_version="1")
def features():
    """Of a region."""
    return dg.MaterializeResult(metadata={"rows": 7, "name": "x"}, data_version=dg.DataVersion("a"))


@dg.asset(deps=[features], code_version="1")
def joined():
    """Of all regions."""
    return dg.MaterializeResult(data_version=dg.DataVersion("b"))


@dg.asset(deps=[joined, features], partitions_def=PARTS, code_version="1")
def vectors():
    """Of a region."""
    return dg.MaterializeResult(data_version=dg.DataVersion("c"))


@dg.asset(
    deps=[dg.AssetDep(features, partition_mapping=dg.AllPartitionMapping())], partitions_def=PARTS, code_version="1"
)
def edges():
    """Of a region, made of all regions."""
    return dg.MaterializeResult(data_version=dg.DataVersion("d"))


ASSETS = [features, joined, vectors, edges]
GRAPH = dg.Definitions(assets=ASSETS).resolve_asset_graph()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with an instance whose every partition is made."""
    folder = tmp_path_factory.mktemp("instance")
    with dg.instance_for_test(temp_dir=str(folder)) as instance:
        for region in REGIONS:
            tell(instance, features, region, "a")
        assert dg.materialize([joined, features], instance=instance, selection=[joined]).success
        for region in REGIONS[:3]:
            for asset in (vectors, edges):
                assert dg.materialize(ASSETS, instance=instance, selection=[asset], partition_key=region).success
        yield instance


def tell(instance, asset, region, version):
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset.key, partition=region, metadata={"rows": 7, "name": "x"}, tags={DATA_VERSION_TAG: version}
        )
    )


def state(instance, asset, region):
    return Resolver(instance, GRAPH, Records(instance, GRAPH)).get_status(asset.key, region)


def test_records_say_what_was_materialised(template):
    record = Records(template, GRAPH).last(features.key, REGIONS[5])
    assert (record.data_version, record.numbers) == ("a", {"rows": 7})
    assert Records(template, GRAPH).last(vectors.key, REGIONS[5]) is None
    assert Records(template, GRAPH).last(joined.key, None).data_version == "b"


def test_where_nothing_changed_it_agrees_with_dagster(template):
    dagster = CachingStaleStatusResolver(template, GRAPH, _Loading(template))
    for asset in ASSETS:
        for region in [None] if asset is joined else REGIONS[:5]:
            assert state(template, asset, region) == dagster.get_status(asset.key, region), (asset.key, region)
    assert state(template, edges, REGIONS[0]) == StaleStatus.FRESH


def test_one_of_many_regions_makes_what_is_made_of_all_of_them_stale(template):
    tell(template, features, REGIONS[149], "a")
    assert state(template, joined, None) == StaleStatus.FRESH  # told again, the same
    tell(template, features, REGIONS[149], "changed")
    assert state(template, joined, None) == StaleStatus.STALE
    assert state(template, edges, REGIONS[0]) == StaleStatus.STALE
    assert state(template, vectors, REGIONS[0]) == StaleStatus.FRESH
    # what Dagster's own does not see, which is why there is another
    assert CachingStaleStatusResolver(template, GRAPH, _Loading(template)).get_status(joined.key) == StaleStatus.FRESH
