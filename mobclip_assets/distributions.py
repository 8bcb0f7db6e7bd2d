"""Asset checks of distributions: has a table changed more than it should since it was last good?

Belongs here: reading the last good summary from Dagster's history of the check, and keeping the new one there. Does not
belong here: summing up and comparing (see `mobclip_core.quality`), the other checks (see `checks`).

The baseline is the summary in the newest evaluation of the check, on the same partition, that passed. So a change that
was warned of is told again until it is gone or accepted.
"""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from mobclip_assets.metadata import numbers
from mobclip_core.deployment import Deployment
from mobclip_core.profile import QualityConfig
from mobclip_core.quality import Baseline, DistributionOutcome, check_distribution
from mobclip_core.store import TableRef
from mobclip_core.table_contract import TableContract

CHECK_NAME = "distribution"
STATISTICS = "statistics"


class AcceptConfig(dg.Config):
    """Run config of what is compared with the last that passed.

    Args:
        accept: The change is meant: pass, and take what is there now for the baseline.
    """

    accept: bool = False


def distribution_spec(
    contract: TableContract, quality: QualityConfig, partitions: dg.PartitionsDefinition[str] | None
) -> dg.AssetCheckSpec:
    """The check of a table as Dagster knows it.

    Args:
        contract: The table.
        quality: Limits of the profile; a table whose severity is `error` blocks what comes after.
        partitions: Those of the table.
    """
    return dg.AssetCheckSpec(
        CHECK_NAME,
        asset=contract.name,
        description=(
            "Rows, nulls, zeros, totals and distributions by column, against the last materialisation of the same "
            "partition that passed; the first one passes. A deliberate change: `mobclip materialize --accept`, or "
            "materialise again from the launchpad (shift-click on Materialize) with "
            f"`ops: {{{contract.name}: {{config: {{accept: true}}}}}}`, "
            f"or set limits under `quality.tables.{contract.name}` in the profile."
        ),
        blocking=quality.limits_of(contract.name).severity == "error",
        partitions_def=partitions,
    )


def distribution_check(
    deployment: Deployment, ref: TableRef, instance: dg.DagsterInstance, *, accept: bool
) -> dg.AssetCheckResult:
    """Compare a table or partition with the last good one.

    Args:
        deployment: Profile and lake.
        ref: The table or partition.
        instance: Where the last good summary is kept.
        accept: Pass, and take what is there now for the baseline.
    """
    baseline = last_good(instance, dg.AssetCheckKey(dg.AssetKey(ref.table), CHECK_NAME), ref.region)
    return _result(check_distribution(deployment, ref, baseline, accept=accept))


def last_good(instance: dg.DagsterInstance, key: dg.AssetCheckKey, region: str | None) -> Baseline | None:
    """The summary in the newest evaluation of a check on a partition that passed."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        key,
        limit=1,
        status={AssetCheckExecutionRecordStatus.SUCCEEDED},
        partition_filter=PartitionKeyFilter(key=region),
    )
    evaluation = records[0].evaluation if records else None
    if evaluation is None:
        return None
    statistics = evaluation.metadata[STATISTICS].value
    when = datetime.fromtimestamp(records[0].create_timestamp, UTC).strftime("%Y-%m-%d %H:%M UTC")
    assert isinstance(statistics, dict)
    return Baseline(statistics, when)


def _result(found: DistributionOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=CHECK_NAME,
        passed=found.outcome.passed,
        description=found.outcome.message,
        severity=dg.AssetCheckSeverity.ERROR if found.blocks else dg.AssetCheckSeverity.WARN,
        metadata={
            "what changed": dg.MetadataValue.md(found.table),
            **numbers(found.outcome.numbers),
            STATISTICS: dg.MetadataValue.json(found.statistics),
        },
    )
