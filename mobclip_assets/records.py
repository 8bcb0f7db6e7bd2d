"""Dagster's records read an asset at a time, for deployments with hundreds of regions.

Belongs here: the newest materialisation of every partition, and Dagster's stale-status resolver on top of it. Does not
belong here: what follows from a state (see `standing`).

A record is read from the event's JSON as it lies in the event log: Dagster's own reader makes objects of every entry of
its metadata, ten times the work, and a deployment of a thousand regions has some eight thousand newest events.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import (
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_DATA_VERSION,
    CachingStaleStatusResolver,
    DataProvenance,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.events import DagsterEventType
from dagster._core.loader import LoadingContext
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

_AT_ONCE = 500


@dataclass(frozen=True)
class Record:
    """A materialisation.

    Args:
        storage_id: Number of the event in the log.
        timestamp: Seconds since 1970, UTC.
        run_id: The run that made it.
        tags: Versions of the data, of the code and of what it was made of, by Dagster's names.
        numbers: Metadata that are whole numbers.
    """

    storage_id: int
    timestamp: float
    run_id: str
    tags: Mapping[str, str]
    numbers: Mapping[str, int]

    @property
    def data_version(self) -> str | None:
        """Version of the content."""
        return self.tags.get(DATA_VERSION_TAG)

    @classmethod
    def read(cls, storage_id: int, event: str) -> "Record":
        """Read an event's JSON."""
        entry = json.loads(event)
        made = entry["dagster_event"]["event_specific_data"]["materialization"]
        numbers = {
            item["label"]: item["entry_data"]["value"]
            for item in made["metadata_entries"]
            if item["entry_data"]["__class__"] == "IntMetadataEntryData"
        }
        return cls(storage_id, entry["timestamp"], entry["run_id"], made.get("tags") or {}, numbers)


class _Loading(LoadingContext):
    """What Dagster's stale-status resolver loads records through."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[type, tuple[object, object]] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        """The instance read."""
        return self._instance

    @property
    def loaders(self) -> dict[type, tuple[object, object]]:  # type: ignore[override]
        """Dagster's loaders by type."""
        return self._loaders


class Records:
    """The newest materialisations of an instance, each asset's read when it is first asked for.

    Args:
        instance: Dagster instance of the profile.
        graph: Dagster's asset graph.
    """

    def __init__(self, instance: dg.DagsterInstance, graph: AssetGraph) -> None:
        storage: Any = instance.event_log_storage
        # an instance's configuration may wrap its storage
        self._storage: SqlEventLogStorage = getattr(storage, "_storage", storage)
        self._graph = graph
        self._found: dict[dg.AssetKey, dict[str | None, Record]] = {}
        self._ids: dict[dg.AssetKey, tuple[list[int], list[str]]] = {}

    def last(self, key: dg.AssetKey, region: str | None) -> Record | None:
        """The newest materialisation of an asset or of one of its partitions."""
        if key not in self._found:
            self._found[key] = self._read(key)
        return self._found[key].get(region)

    def after(self, key: dg.AssetKey, cursor: int) -> Sequence[str]:
        """Partitions of an asset with a materialisation that came after another event.

        Args:
            key: A partitioned asset.
            cursor: Storage id of that event.
        """
        if key not in self._ids:
            self.last(key, None)
            pairs = sorted((record.storage_id, str(region)) for region, record in self._found[key].items())
            self._ids[key] = [number for number, _ in pairs], [region for _, region in pairs]
        numbers, regions = self._ids[key]
        return regions[bisect_right(numbers, cursor) :]

    def _read(self, key: dg.AssetKey) -> dict[str | None, Record]:
        regions: dict[int, str | None]
        if self._graph.get(key).partitions_def is None:
            newest = next(iter(self._storage.fetch_materializations(key, limit=1).records), None)
            regions = {} if newest is None else {newest.storage_id: None}
        else:
            found = self._storage.get_latest_storage_id_by_partition(key, DagsterEventType.ASSET_MATERIALIZATION)
            regions = {number: region for region, number in found.items()}
        numbers = sorted(regions)
        records: dict[str | None, Record] = {}
        table = SqlEventLogStorageTable
        with self._storage.index_connection() as connection:
            for start in range(0, len(numbers), _AT_ONCE):
                some = numbers[start : start + _AT_ONCE]
                for number, event in connection.execute(
                    sa.select(table.c.id, table.c.event).where(table.c.id.in_(some))
                ):
                    records[regions[number]] = Record.read(number, event)
        return records


class Resolver(CachingStaleStatusResolver):
    """Dagster's resolver of stale partitions, on `Records`.

    Dagster's own asks the database several times for every partition, and does not look at all at what an asset is made
    of where that is a hundred partitions or more.

    Args:
        instance: Dagster instance of the profile.
        graph: Dagster's asset graph.
        records: The records.
    """

    def __init__(self, instance: dg.DagsterInstance, graph: AssetGraph, records: Records) -> None:
        super().__init__(instance, graph, _Loading(instance))
        self._records = records

    def _get_latest_data_version_record(self, key: AssetKeyPartitionKey) -> Any:
        # of what is made here Dagster's methods ask only for the time
        if self.asset_graph.get(key.asset_key).is_external:
            return super()._get_latest_data_version_record(key=key)
        return self._records.last(key.asset_key, key.partition_key)

    def _get_current_data_version(self, *, key: AssetKeyPartitionKey) -> dg.DataVersion:
        if self.asset_graph.get(key.asset_key).is_external:
            return super()._get_current_data_version(key=key)
        record = self._records.last(key.asset_key, key.partition_key)
        if record is None:
            return NULL_DATA_VERSION
        return DEFAULT_DATA_VERSION if record.data_version is None else dg.DataVersion(record.data_version)

    def _get_current_data_provenance(self, *, key: AssetKeyPartitionKey) -> DataProvenance | None:
        if self.asset_graph.get(key.asset_key).is_external:
            return super()._get_current_data_provenance(key=key)
        record = self._records.last(key.asset_key, key.partition_key)
        return None if record is None else DataProvenance.from_tags(record.tags)

    def _is_dep_updated(self, provenance: DataProvenance, dep_key: AssetKeyPartitionKey) -> bool:
        if dep_key.partition_key is not None:
            cursor = provenance.input_storage_ids[dep_key.asset_key]
            newest = self._records.last(dep_key.asset_key, dep_key.partition_key)
            if cursor is not None and newest is not None and newest.storage_id <= cursor:
                return False
        return super()._is_dep_updated(provenance, dep_key)

    def _get_partition_dependencies(self, *, key: AssetKeyPartitionKey) -> Sequence[AssetKeyPartitionKey]:
        """Partitions that an asset's partition is made of; of many that have not changed since, one."""
        provenance = self._get_current_data_provenance(key=key)
        found = []
        for parent in self.asset_graph.get(key.asset_key).parent_keys:
            if not self.asset_graph.get(parent).is_partitioned:
                found.append(AssetKeyPartitionKey(parent, None))
                continue
            mapped = self.asset_graph.get_parent_partition_keys_for_child(key.partition_key, parent, key.asset_key)
            regions = list(mapped.partitions_subset.get_partition_keys())
            cursor = provenance.input_storage_ids.get(parent) if provenance else None
            if cursor is not None and len(regions) > 1:
                changed = set(self._records.after(parent, cursor))
                regions = [region for region in regions if region in changed] or regions[:1]
            found += [AssetKeyPartitionKey(parent, region) for region in regions]
        return found
