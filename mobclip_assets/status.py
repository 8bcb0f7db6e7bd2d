"""Status: what the lake holds and whether it is up to date.

Belongs here: asking Dagster for the state of each asset and region. Does not belong here: deciding what to do about it.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import StaleStatus
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from mobclip_assets.materialize import is_on_request
from mobclip_assets.standing import Standing, last_materialization
from mobclip_core.deployment import Deployment

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
        return asdict(self)


def read_status(instance: dg.DagsterInstance, graph: AssetGraph, deployment: Deployment) -> list[Row]:
    """The state of every asset and region, in dependency order; what is made on request if it was asked for.

    Args:
        instance: Dagster instance of the profile.
        graph: Dagster's asset graph.
        deployment: Profile and lake.
    """
    standing = Standing(instance, graph, deployment)
    rows = []
    for key in graph.toposorted_asset_keys:
        if key not in graph.materializable_asset_keys:
            continue
        partitions = graph.get(key).partitions_def
        regions = [None] if partitions is None else partitions.get_partition_keys()
        failed = failed_regions(instance, key, partitions)
        for region in regions:
            state = "failed" if region in failed else _STATES[standing.state(key, region)]
            if state == "missing" and is_on_request(graph, key):
                continue
            rows.append(_row(instance, key, region, state))
    return rows


def failed_regions(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: dg.PartitionsDefinition[str] | None
) -> set[str | None]:
    """Regions (None for an asset without partitions) whose last run failed before it wrote."""
    if partitions is not None:
        status = get_and_update_asset_status_cache_value(instance, key, partitions)
        if status is None:
            return set()
        return set(status.deserialize_failed_partition_subsets(partitions).get_partition_keys())
    record = next(iter(instance.get_asset_records([key])), None)
    if record is None:
        return set()
    entry, last_run = record.asset_entry, record.asset_entry.last_run_id
    if last_run is None:
        return set()
    written_by = entry.last_materialization_record.run_id if entry.last_materialization_record else None
    run = instance.get_run_by_id(last_run)
    return {None} if run is not None and run.is_failure and written_by != run.run_id else set()


def _row(instance: dg.DagsterInstance, key: dg.AssetKey, region: str | None, state: str) -> Row:
    name = key.to_user_string()
    record = last_materialization(instance, key, region)
    if record is None or record.asset_materialization is None:
        return Row(name, region, state, None, None, None, None)
    materialization = record.asset_materialization
    metadata: dict[str, Any] = {k: entry.value for k, entry in materialization.metadata.items()}
    when = datetime.fromtimestamp(record.timestamp, UTC).isoformat(timespec="seconds")
    version = (materialization.tags or {}).get("dagster/data_version")
    return Row(name, region, state, metadata.get("dagster/row_count"), metadata.get("bytes"), version, when)
