"""What stands: partitions that need not be made again.

Belongs here: asking Dagster's records whether a partition comes from the current code, settings, files and upstream
data and passed its blocking checks. Does not belong here: running anything (see `materialize`).
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import (
    DATA_VERSION_TAG,
    StaleStatus,
    extract_data_version_from_entry,
)
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from mobclip_assets.assets.sources import source_files, source_key, source_version
from mobclip_assets.records import Records, States
from mobclip_core.contracts import CONTRACTS
from mobclip_core.deployment import Deployment
from mobclip_core.profile import Profile
from mobclip_core.store import TableRef

CATALOG = "catalog"


def observe_sources(instance: dg.DagsterInstance, profile: Profile) -> list[dg.AssetKey]:
    """Record the state of the profile's raw files, so that what was made from older ones is stale.

    Args:
        instance: The instance that keeps the record.
        profile: The profile whose files are looked at (size, time of change or ETag; they are not read).

    Returns:
        The sources that changed, or were seen for the first time.
    """
    changed = []
    for name, files in source_files(profile).items():
        key = source_key(name)
        version = source_version(files)
        last = next(iter(instance.fetch_observations(key, limit=1).records), None)
        known = None if last is None else extract_data_version_from_entry(last.event_log_entry)
        if known != version:
            instance.report_runless_asset_event(dg.AssetObservation(key, tags={DATA_VERSION_TAG: version.value}))
            changed.append(key)
    return changed


class Standing:
    """Which partitions stand, as of the moment of asking for the first time.

    Args:
        instance: Dagster instance of the profile.
        graph: Dagster's asset graph.
        deployment: Profile and lake.
    """

    def __init__(self, instance: dg.DagsterInstance, graph: AssetGraph, deployment: Deployment) -> None:
        self._instance, self._graph, self._store = instance, graph, deployment.store
        self.records = Records(instance, graph)
        self._states = States(instance, graph, self.records)
        self._there: dict[str, set[str]] = {}

    def state(self, key: dg.AssetKey, region: str | None) -> StaleStatus:
        """Fresh, stale or missing; missing too where somebody removed the file."""
        state = self._states.state(key, region)
        if state == StaleStatus.MISSING or self._is_there(key.to_user_string(), region):
            return state
        return StaleStatus.MISSING

    def good_state(self, key: dg.AssetKey, region: str | None) -> StaleStatus:
        """The state, stale too where a blocking check did not pass: nothing is to be made of such a partition."""
        state = self.state(key, region)
        if state == StaleStatus.FRESH and not self._checks_passed(key, region):
            return StaleStatus.STALE
        return state

    def version(self, key: dg.AssetKey, region: str | None) -> str:
        """The current data version of a partition, or of a source; empty where there is none."""
        return self._states.version(key, region)

    def stands(self, key: dg.AssetKey, region: str | None) -> bool:
        """Whether the partition is fresh and every blocking check passed on the very materialisation that stands."""
        return self.good_state(key, region) == StaleStatus.FRESH

    def unfinished(self, assets: Sequence[dg.AssetKey], region: str | None) -> list[dg.AssetKey]:
        """Those of a stage's assets that do not stand, and all that depend on them within the stage.

        Args:
            assets: Asset keys in dependency order.
            region: Partition, or None.
        """
        wanted: list[dg.AssetKey] = []
        for key in assets:
            if self._graph.get(key).parent_keys & set(wanted) or not self.stands(key, region):
                wanted.append(key)
        return wanted

    def _is_there(self, name: str, region: str | None) -> bool:
        if name == CATALOG:
            return self._store.catalog_path.exists()
        if region is None or name not in CONTRACTS:
            # the name of an asset without a contract is that of its bundle
            return self._store.exists(TableRef(name))
        if name not in self._there:
            self._there[name] = set(self._store.regions(name))
        return region in self._there[name]

    def _checks_passed(self, key: dg.AssetKey, region: str | None) -> bool:
        checks = [c for c in self._graph.get_check_keys_for_assets({key}) if self._graph.get(c).blocking]
        partition = PartitionKeyFilter(key=region)
        found = self._instance.event_log_storage.get_latest_asset_check_execution_by_key(checks, partition)
        made = self.records.last(key, region)
        if made is None:
            return False
        for check in checks:
            record = found.get(check)
            if record is None or record.status != AssetCheckExecutionRecordStatus.SUCCEEDED:
                return False
            if record.run_id != made.run_id and _target(record) != made.storage_id:
                return False
        return True


def _target(record: AssetCheckExecutionRecord) -> int | None:
    """The materialisation that a check of a later run was about."""
    event = record.event.dagster_event if record.event is not None else None
    target = event.asset_check_evaluation_data.target_materialization_data if event is not None else None
    return None if target is None else target.storage_id
