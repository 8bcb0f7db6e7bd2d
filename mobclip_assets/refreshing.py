"""What is to be made again: the partitions that no longer stand and can be made now, as runs.

Belongs here: the plan. Does not belong here: when it is looked at and started (see `automation`), what stands (see
`standing`).

The encoder and what it is trained from are left out: they are made by a retraining, and a refresh embeds with the
encoder that is there. (A condition like Dagster's `eager` on the encoder would train it at every region's update.)
"""

import hashlib
from collections.abc import Callable, Set
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import StaleStatus

from mobclip_assets.materialize import is_on_request
from mobclip_assets.partitions import is_of_all_regions

RETRAINED = ("mobility_graph", "node_embeddings", "encoder", "encoder_variants")
"""Assets of the job `retrain`."""

State = Callable[[dg.AssetKey, str | None], StaleStatus]


@dataclass(frozen=True)
class Wanted:
    """A run: assets in dependency order, of a region or of all.

    Args:
        assets: Keys.
        region: Region, None for assets without partitions.
    """

    assets: tuple[dg.AssetKey, ...]
    region: str | None

    def run_key(self, version: Callable[[dg.AssetKey, str | None], str], graph: AssetGraph) -> str:
        """A name of the run that is the same for the same inputs and code: what failed is not started again for ever.

        Args:
            version: The current version of a parent's data, by key and region.
            graph: Dagster's asset graph.
        """
        parts = [str(self.region)]
        for key in self.assets:
            node = graph.get(key)
            parts += [key.to_user_string(), str(node.code_version)]
            for parent in sorted(node.parent_keys - set(self.assets)):
                parts += [version(parent, region) for region in regions_of(graph, key, parent, self.region)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def regions_of(graph: AssetGraph, key: dg.AssetKey, parent: dg.AssetKey, region: str | None) -> list[str | None]:
    """The partitions of a parent that a partition of an asset is made of; [None] where the parent has none."""
    partitions = graph.get(parent).partitions_def
    if partitions is None:
        return [None]
    if is_of_all_regions(graph, key, parent):
        return list(partitions.get_partition_keys())
    return [region]


def plan_refresh(graph: AssetGraph, state: State, regions: list[str]) -> list[Wanted]:
    """The runs that can start now, so that in the end all stands: one for the assets of all, one for each region.

    A partition is in a run when it does not stand and everything that it is made of stands, or is made before it in the
    same run. What it is made of may be outdated where a retraining makes it, but not missing.

    Args:
        graph: Dagster's asset graph.
        state: Of a partition: fresh, stale or missing.
        regions: Region keys.
    """
    order = [
        key
        for key in graph.toposorted_asset_keys
        if key in graph.materializable_asset_keys
        and key.to_user_string() not in RETRAINED
        and not is_on_request(graph, key)
    ]
    waiting = {
        (key, region)
        for key in order
        for region in _own_regions(graph, key, regions)
        if state(key, region) != StaleStatus.FRESH
    }
    found = []
    for region in (None, *regions):
        chosen: list[dg.AssetKey] = []
        for key in order:
            if (key, region) in waiting and _can_be_made(graph, state, waiting, key, region, set(chosen)):
                chosen.append(key)
        if chosen:
            found.append(Wanted(tuple(chosen), region))
    return found


def _own_regions(graph: AssetGraph, key: dg.AssetKey, regions: list[str]) -> list[str | None]:
    return [None] if graph.get(key).partitions_def is None else [*regions]


def _can_be_made(
    graph: AssetGraph,
    state: State,
    waiting: Set[tuple[dg.AssetKey, str | None]],
    key: dg.AssetKey,
    region: str | None,
    before: set[dg.AssetKey],
) -> bool:
    for parent in graph.get(key).parent_keys:
        if parent not in graph.materializable_asset_keys:
            continue
        retrained = parent.to_user_string() in RETRAINED
        for part in regions_of(graph, key, parent, region):
            if parent in before and part == region:
                continue
            if (parent, part) in waiting or (retrained and state(parent, part) == StaleStatus.MISSING):
                return False
    return True
