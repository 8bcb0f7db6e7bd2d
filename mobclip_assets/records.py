"""Dagster's records read an asset at a time, for deployments with hundreds of regions.

Belongs here: the newest materialisation of every partition, and what is stale by them. Does not belong here: what
follows from that (see `standing`).

A record is read from the event's JSON as it lies in the event log: Dagster's own reader makes objects of every entry of
its metadata, ten times the work, and a deployment of a thousand regions has some eight thousand newest events.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    INPUT_DATA_VERSION_TAG_PREFIX,
    NULL_DATA_VERSION,
    StaleStatus,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.events import DagsterEventType
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from pydantic_core import from_json

from mobclip_assets.partitions import is_of_all_regions

_AT_ONCE = 500
_NOTHING = "NULL"
_INPUT = f"{INPUT_DATA_VERSION_TAG_PREFIX}/"


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
        entry = from_json(event)
        made = entry["dagster_event"]["event_specific_data"]["materialization"]
        numbers = {
            item["label"]: item["entry_data"]["value"]
            for item in made["metadata_entries"]
            if item["entry_data"]["__class__"] == "IntMetadataEntryData"
        }
        return cls(storage_id, entry["timestamp"], entry["run_id"], made.get("tags") or {}, numbers)


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


class States:
    """Fresh, stale or missing, by the rules of Dagster's own resolver, on `Records`.

    Dagster's asks the database several times for every partition, and does not look at all at what an asset is made of
    where that is a hundred partitions or more. A partition is stale when its code has a new version, when it depends on
    other assets than it was made of, or when one of these has other data than then.

    Args:
        instance: Dagster instance of the profile.
        graph: Dagster's asset graph.
        records: The records.
    """

    def __init__(self, instance: dg.DagsterInstance, graph: AssetGraph, records: Records) -> None:
        self._instance, self._graph, self._records = instance, graph, records
        self._parents: dict[dg.AssetKey, list[_Parent]] = {}
        self._sources: dict[dg.AssetKey, str] = {}

    def version(self, key: dg.AssetKey, region: str | None) -> str:
        """The current data version of a partition or of a source; Dagster's word for none where there is none."""
        if self._graph.get(key).is_external:
            if key not in self._sources:
                last = next(iter(self._instance.fetch_observations(key, limit=1).records), None)
                found = None if last is None else extract_data_version_from_entry(last.event_log_entry)
                self._sources[key] = (found or DEFAULT_DATA_VERSION).value
            return self._sources[key]
        record = self._records.last(key, region)
        if record is None:
            return NULL_DATA_VERSION.value
        return record.data_version or DEFAULT_DATA_VERSION.value

    def state(self, key: dg.AssetKey, region: str | None) -> StaleStatus:
        """Of an asset without partitions, or of a partition."""
        record = self._records.last(key, region)
        if record is None:
            return StaleStatus.MISSING
        parents = self._parents_of(key)
        tags = record.tags
        if CODE_VERSION_TAG not in tags:
            # told from outside: only the times are known
            later = any(self._made_after(parent, region, record) for parent in parents)
            return StaleStatus.STALE if later else StaleStatus.FRESH
        made_of = sum(name.startswith(_INPUT) for name in tags)
        stale = (
            tags[CODE_VERSION_TAG] != self._graph.get(key).code_version
            or made_of != len(parents)
            or any(self._changed(parent, region, tags) for parent in parents)
        )
        return StaleStatus.STALE if stale else StaleStatus.FRESH

    def _parents_of(self, key: dg.AssetKey) -> list["_Parent"]:
        if key not in self._parents:
            self._parents[key] = [
                _Parent(
                    parent,
                    get_input_data_version_tag(parent),
                    get_input_event_pointer_tag(parent),
                    external=self._graph.get(parent).is_external,
                    regional=self._graph.get(parent).partitions_def is not None,
                    of_all=is_of_all_regions(self._graph, key, parent),
                )
                for parent in sorted(self._graph.get(key).parent_keys)
            ]
        return self._parents[key]

    def _changed(self, parent: "_Parent", region: str | None, tags: Mapping[str, str]) -> bool:
        """Whether a parent has other data than a materialisation was made of."""
        if parent.version_tag not in tags:
            return True
        if not parent.regional:
            return tags[parent.version_tag] != self.version(parent.key, None)
        pointer = tags.get(parent.pointer_tag, _NOTHING)
        # where there was nothing then, all that is there now is new (Dagster's own takes it for old)
        cursor = 0 if pointer == _NOTHING else int(pointer)
        return any(self._has_new_data(parent.key, one, cursor) for one in self._after(parent, region, cursor))

    def _after(self, parent: "_Parent", region: str | None, cursor: int) -> Sequence[str]:
        """Partitions of a parent, of those that a partition is made of, that were made again after an event."""
        if parent.of_all:
            return self._records.after(parent.key, cursor)
        newest = self._records.last(parent.key, region)
        return [str(region)] if newest is not None and newest.storage_id > cursor else []

    def _has_new_data(self, key: dg.AssetKey, region: str, cursor: int) -> bool:
        before = self._instance.get_latest_data_version_record(key, False, region, before_cursor=cursor + 1)
        found = None if before is None else extract_data_version_from_entry(before.event_log_entry)
        return (None if found is None else found.value) != self.version(key, region)

    def _made_after(self, parent: "_Parent", region: str | None, record: Record) -> bool:
        if parent.external:
            return False
        if parent.regional and parent.of_all:
            return bool(self._records.after(parent.key, record.storage_id))
        newest = self._records.last(parent.key, region if parent.regional else None)
        return newest is None or newest.storage_id > record.storage_id


@dataclass(frozen=True)
class _Parent:
    """What an asset is made of, and where a materialisation says which of it.

    Args:
        key: The parent.
        version_tag: Tag of the version of its data.
        pointer_tag: Tag of the newest event about it then.
        external: A source.
        regional: Whether it has partitions.
        of_all: Whether a partition is made of all of the parent's.
    """

    key: dg.AssetKey
    version_tag: str
    pointer_tag: str
    external: bool
    regional: bool
    of_all: bool
