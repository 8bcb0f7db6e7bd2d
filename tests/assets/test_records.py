"""What is stale, over more regions than Dagster's own resolver looks at."""

import dagster as dg
import numpy as np
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG, CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContext

from mobclip_assets.records import Records, States

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


def state(instance, asset, region, graph=GRAPH):
    return States(instance, graph, Records(instance, graph)).state(asset.key, region)


class Loading(LoadingContext):
    def __init__(self, instance):
        self.found, self.cache = instance, {}

    @property
    def instance(self):
        return self.found

    @property
    def loaders(self):
        return self.cache


def by_dagster(instance, asset, region, graph=GRAPH):
    return CachingStaleStatusResolver(instance, graph, Loading(instance)).get_status(asset.key, region)


def test_records_say_what_was_materialised(template):
    record = Records(template, GRAPH).last(features.key, REGIONS[5])
    assert (record.data_version, record.numbers) == ("a", {"rows": 7})
    assert Records(template, GRAPH).last(vectors.key, REGIONS[5]) is None
    assert Records(template, GRAPH).last(joined.key, None).data_version == "b"


def test_where_nothing_changed_it_agrees_with_dagster(template):
    for asset in ASSETS:
        for region in [None] if asset is joined else REGIONS[:5]:
            assert state(template, asset, region) == by_dagster(template, asset, region)
    assert state(template, edges, REGIONS[0]) == StaleStatus.FRESH


def test_one_of_many_regions_makes_what_is_made_of_all_of_them_stale(template):
    tell(template, features, REGIONS[149], "a")
    assert state(template, joined, None) == StaleStatus.FRESH  # told again, the same
    tell(template, features, REGIONS[149], "changed")
    assert state(template, joined, None) == StaleStatus.STALE
    assert state(template, edges, REGIONS[0]) == StaleStatus.STALE
    assert state(template, vectors, REGIONS[0]) == StaleStatus.FRESH
    # what Dagster's own does not see, which is why there is another
    assert by_dagster(template, joined, None) == StaleStatus.FRESH


FEW = dg.StaticPartitionsDefinition(["x", "y", "z"])


def country(code: str = "1"):
    """Four assets over three regions and a source; the code version of two of them."""

    def make(name, deps, partitioned=True):
        @dg.asset(name=name, deps=deps, partitions_def=FEW if partitioned else None, code_version=code)
        def made(context: dg.AssetExecutionContext):
            return dg.MaterializeResult(data_version=dg.DataVersion(NEXT["version"]))

        return made

    @dg.observable_source_asset
    def raw():
        return dg.DataVersion("0")

    a = make("a", [raw])
    b = make("b", [a], partitioned=False)
    c = make("c", [a, b])
    d = make("d", [dg.AssetDep(a, partition_mapping=dg.AllPartitionMapping()), "raw"])
    return [raw, a, b, c, d]


NEXT = {"version": "0"}
HAPPENS = ["raw", "a", "b", "c", "d", "told"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_whatever_happened_it_says_what_dagster_says(seed):
    """All made once, then changes at random; a new version of the code at every second seed."""
    random = np.random.default_rng(seed)
    raw, *assets = country()
    by_name = {asset.key.to_user_string(): asset for asset in assets}
    happened = [("raw", "x", "0"), *((name, region, "0") for name in "abcd" for region in "xyz")]
    happened += [tuple(random.choice(choices) for choices in (HAPPENS, list("xyz"), list("12"))) for _ in range(8)]
    with dg.instance_for_test() as instance:
        for name, region, version in happened:
            NEXT["version"] = str(version)
            if name == "raw":
                instance.report_runless_asset_event(dg.AssetObservation("raw", tags={DATA_VERSION_TAG: str(version)}))
            elif name == "told":
                tell(instance, by_name["a"], str(region), str(version))
            else:
                key = None if name == "b" else str(region)
                chosen = [by_name[name]]
                assert dg.materialize([raw, *assets], instance=instance, selection=chosen, partition_key=key).success
        raw, *assets = country("2" if seed % 2 else "1")
        graph = dg.Definitions(assets=[raw, *assets]).resolve_asset_graph()
        found = {}
        for asset in assets:
            for region in [None] if asset.key.to_user_string() == "b" else "xyz":
                found[asset.key, region] = state(instance, asset, region, graph)
                assert found[asset.key, region] == by_dagster(instance, asset, region, graph), (asset.key, region)
        assert StaleStatus.STALE in found.values()


def test_what_was_made_of_nothing_is_stale_when_there_is_something(template):
    """Dagster's own takes what has come since for what was there."""
    raw, *assets = country()
    vectors_alone = assets[3]
    with dg.instance_for_test() as instance:
        for asset in (vectors_alone, assets[0]):
            chosen = {"selection": [asset], "partition_key": "x"}
            assert dg.materialize([raw, *assets], instance=instance, **chosen).success
        graph = dg.Definitions(assets=[raw, *assets]).resolve_asset_graph()
        assert state(instance, vectors_alone, "x", graph) == StaleStatus.STALE
