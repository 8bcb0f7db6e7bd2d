"""Status: what the lake holds and whether it is up to date.

Belongs here: asking Dagster for the state of each asset and region. Does not belong here: deciding what to do about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import StaleStatus
from dagster._core.loader import LoadingContext
from dagster._core.storage.event_log.base import AssetRecord
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from mobclip_assets.materialize import is_on_request
from mobclip_assets.records import Record
from mobclip_assets.standing import Standing
from mobclip_core.deployment import Deployment

_NAMED = 5
_STATES = {StaleStatus.FRESH: "fresh", StaleStatus.STALE: "stale", StaleStatus.MISSING: "missing"}


@dataclass(frozen=True)
class Row:
    """The state of one asset in one region.

    Args:
        asset: Asset name.
        region: Region key, or None for an asset without partitions.
        state: `fresh`, `stale`, `missing` or `failed` (the last run failed; an older good one may stand).
        rows: Rows of the table.
        bytes: Size on disk.
        data_version: Version of the content.
        materialized_at: ISO 8601, UTC.
    """

    asset: str
    region: str | None
    state: str
    rows: int | None
    bytes: int | None
    data_version: str | None
    materialized_at: str | None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return dict(vars(self))


def read_status(instance: dg.DagsterInstance, graph: AssetGraph, deployment: Deployment) -> list[Row]:
    """The state of every asset and region, in dependency order; what is made on request if it was asked for.

    Args:
        instance: Dagster instance of the profile.
        graph: Dagster's asset graph.
        deployment: Profile and lake.
    """
    standing, failed = Standing(instance, graph, deployment), failed_regions(instance, graph)
    rows = []
    for key in graph.toposorted_asset_keys:
        if key not in graph.materializable_asset_keys:
            continue
        partitions = graph.get(key).partitions_def
        regions = [None] if partitions is None else partitions.get_partition_keys()
        for region in regions:
            state = "failed" if region in failed[key] else _STATES[standing.state(key, region)]
            if state == "missing" and is_on_request(graph, key):
                continue
            rows.append(_row(standing.records.last(key, region), key, region, state))
    return rows


def summarised(rows: Sequence[Row], most: int = 20) -> list[Row]:
    """For people: of an asset with more than `most` regions, one row a state, with sums and the newest time.

    Its region is a list of names where they are few, else how many they are.
    """
    found = []
    for _, of_asset in groupby(rows, lambda row: row.asset):
        group = list(of_asset)
        if len(group) <= most:
            found += group
            continue
        for state in dict.fromkeys(row.state for row in group):
            same = [row for row in group if row.state == state]
            names = [str(row.region) for row in same]
            found.append(
                Row(
                    asset=same[0].asset,
                    region=", ".join(names) if len(names) <= _NAMED else f"{len(names):,} regions",
                    state=state,
                    rows=sum(row.rows or 0 for row in same),
                    bytes=sum(row.bytes or 0 for row in same),
                    data_version=None,
                    materialized_at=max((row.materialized_at or "" for row in same), default=None),
                )
            )
    return found


def failed_regions(instance: dg.DagsterInstance, graph: AssetGraph) -> dict[dg.AssetKey, set[str | None]]:
    """Of every asset, the regions (None for an asset without partitions) whose last run failed before it wrote."""
    keys = [key for key in graph.toposorted_asset_keys if key in graph.materializable_asset_keys]
    loading = _Loading(instance)
    # one query for all
    records = dict(zip(keys, AssetRecord.blocking_get_many(loading, keys), strict=True))
    found: dict[dg.AssetKey, set[str | None]] = {}
    for key in keys:
        partitions = graph.get(key).partitions_def
        if partitions is None:
            found[key] = {None} if _failed(instance, records[key]) else set()
        else:
            status = get_and_update_asset_status_cache_value(instance, key, partitions, loading_context=loading)
            failed = None if status is None else status.deserialize_failed_partition_subsets(partitions)
            found[key] = set() if failed is None else set(failed.get_partition_keys())
    return found


class _Loading(LoadingContext):
    """What Dagster's reading of many records at once asks for."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[type, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[type, Any]:
        return self._loaders


def _failed(instance: dg.DagsterInstance, record: AssetRecord | None) -> bool:
    """Whether the last run of an asset without partitions failed before it wrote."""
    if record is None or record.asset_entry.last_run_id is None:
        return False
    written = record.asset_entry.last_materialization_record
    run = instance.get_run_by_id(record.asset_entry.last_run_id)
    return run is not None and run.is_failure and (written is None or written.run_id != run.run_id)


def _row(record: Record | None, key: dg.AssetKey, region: str | None, state: str) -> Row:
    name = key.to_user_string()
    if record is None:
        return Row(name, region, state, None, None, None, None)
    when = datetime.fromtimestamp(record.timestamp, UTC).isoformat(timespec="seconds")
    rows, size = (record.numbers.get(label) for label in ("dagster/row_count", "bytes"))
    return Row(name, region, state, rows, size, record.data_version, when)
