"""Asset checks: bad data must not go on.

Belongs here: one blocking contract check for each table, and the rules that join tables. Does not belong here: the
rules themselves (see `mobclip_core.contracts` and the `check_*` functions of the core), changes from one
materialisation to the next (see `distributions` and `regressions`).
"""

import warnings
from collections.abc import Callable

import dagster as dg

from mobclip_assets.distributions import make_distribution_checks
from mobclip_assets.metadata import numbers
from mobclip_assets.regressions import make_regression_check
from mobclip_assets.resources import DeploymentResource
from mobclip_core.contract_batches import BatchedCheck
from mobclip_core.contracts import CONTRACTS
from mobclip_core.deployment import CheckOutcome, Deployment
from mobclip_core.profile import QualityConfig
from mobclip_core.store import TableRef
from mobclip_core.table_contract import TableContract


def _result(outcome: CheckOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=outcome.passed,
        description=outcome.message,
        metadata=numbers(outcome.numbers),
        severity=dg.AssetCheckSeverity.ERROR,
    )


def _contract_outcome(deployment: Deployment, ref: TableRef) -> CheckOutcome:
    # row group by row group: a region's patches are not held in memory as a whole
    check = BatchedCheck(CONTRACTS[ref.table])
    found = [violation for batch in deployment.store.read_batches(ref) for violation in check.violations(batch)]
    message = "; ".join(str(violation) for violation in found) or f"{check.rows} rows keep the contract"
    return CheckOutcome(not found, message, {"rows": check.rows, "violations": len(found)})


def _contract_check(contract: TableContract, regions: dg.StaticPartitionsDefinition) -> dg.AssetChecksDefinition:
    def check(context: dg.AssetCheckExecutionContext, deployment: DeploymentResource) -> dg.AssetCheckResult:
        region = context.partition_key if contract.partitioned else None
        return _result(_contract_outcome(deployment.open(), TableRef(contract.name, region)))

    return dg.asset_check(
        asset=contract.name,
        name="contract",
        description="Columns, types, keys, order, ranges and nulls, read back from what was written.",
        blocking=True,
        partitions_def=regions if contract.partitioned else None,
    )(check)


def _regional_check(
    asset: str,
    name: str,
    description: str,
    rule: Callable[[Deployment, str], CheckOutcome],
    regions: dg.StaticPartitionsDefinition,
) -> dg.AssetChecksDefinition:
    def check(context: dg.AssetCheckExecutionContext, deployment: DeploymentResource) -> dg.AssetCheckResult:
        return _result(rule(deployment.open(), context.partition_key))

    return dg.asset_check(asset=asset, name=name, description=description, blocking=True, partitions_def=regions)(check)


def _census_totals(deployment: Deployment, region: str) -> CheckOutcome:
    from mobclip_core.census import check_census_totals

    return check_census_totals(deployment, region)


def _census_minimum_people(deployment: Deployment, region: str) -> CheckOutcome:
    from mobclip_core.census import check_minimum_people

    return check_minimum_people(deployment, region)


def _mobility_privacy(deployment: Deployment, region: str) -> CheckOutcome:
    from mobclip_core.mobility.edges import check_mobility_privacy

    return check_mobility_privacy(deployment, region)


def _poi_suppression(deployment: Deployment, region: str) -> CheckOutcome:
    from mobclip_core.poi import check_poi_suppression

    return check_poi_suppression(deployment, region)


def _one_encoder(deployment: Deployment, region: str) -> CheckOutcome:
    from mobclip_core.encoder.embedding import check_one_encoder

    return check_one_encoder(deployment, region)


def make_checks(regions: dg.StaticPartitionsDefinition, quality: QualityConfig) -> list[dg.AssetChecksDefinition]:
    """All asset checks of the deployment."""
    with warnings.catch_warnings():
        # partitioned checks are marked as a preview in this version of Dagster, which is pinned exactly
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [*_checks(regions), make_regression_check(), *make_distribution_checks(quality, regions)]


def _checks(regions: dg.StaticPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    return [
        *(_contract_check(contract, regions) for contract in CONTRACTS.values()),
        _regional_check(
            "census_features",
            "totals_equal_source",
            "People of the region's cells equal those of its zones (or of the rasters over its cells) within 1e-6 "
            "relative, in total and by bin.",
            _census_totals,
            regions,
        ),
        _regional_check(
            "census_features",
            "minimum_people",
            "No cell with fewer people than the profile's minimum, but not none, shows who they are.",
            _census_minimum_people,
            regions,
        ),
        _regional_check(
            "mobility_edges",
            "k_anonymous",
            "No edge comes from fewer people than the profile's minimum.",
            _mobility_privacy,
            regions,
        ),
        _regional_check(
            "poi_aggregates",
            "suppressed",
            "No number of POIs of one category in one cell is above 0 and below the profile's minimum.",
            _poi_suppression,
            regions,
        ),
        _regional_check(
            "embeddings",
            "one_encoder",
            "Every vector carries the fingerprint of the current encoder.",
            _one_encoder,
            regions,
        ),
    ]
