"""Partitions: the one REGIONS object.

Belongs here: the regions as Dagster partitions, and which of them an asset is made of. Every regional asset and check
takes this very object, because Dagster's identity mapping between partitions checks only their type. Does not belong
here: region geometry.
"""

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mobclip_core.profile import Profile


def make_regions(profile: Profile) -> dg.StaticPartitionsDefinition:
    """The partitions of a deployment: the region keys of its profile, in the profile's order."""
    return dg.StaticPartitionsDefinition(profile.regions.region_keys)


def all_regions(asset: str) -> dg.AssetDep:
    """A dependency on every region of an upstream asset."""
    return dg.AssetDep(asset, partition_mapping=dg.AllPartitionMapping())


def all_features() -> list[dg.AssetDep]:
    """Dependencies on the cells and the features of every region: what a training reads."""
    return [all_regions(name) for name in ("grid_cells", "poi_aggregates", "imagery_features", "census_features")]


def is_of_all_regions(graph: AssetGraph, key: dg.AssetKey, parent: dg.AssetKey) -> bool:
    """Whether an asset, or each partition of it, is made of every region of a parent that has regions."""
    if graph.get(parent).partitions_def is None:
        return False
    node = graph.get(key)
    return node.partitions_def is None or isinstance(node.partition_mappings.get(parent), dg.AllPartitionMapping)
