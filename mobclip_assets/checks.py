"""Asset checks: bad data must not go on, nor take the place of good data.

Belongs here: the contract of each table and the rules that join tables, evaluated in the step that makes the table,
before it is put in place. Does not belong here: the rules themselves (see `mobclip_core.contracts` and the `check_*`
functions of the core), changes from one materialisation to the next (see `distributions` and `regressions`).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

from mobclip_assets.distributions import distribution_check, distribution_spec
from mobclip_assets.metadata import numbers
from mobclip_core.contract_batches import BatchedCheck
from mobclip_core.contracts import CONTRACTS
from mobclip_core.deployment import CheckOutcome, Deployment
from mobclip_core.profile import QualityConfig
from mobclip_core.store import TableRef


@dataclass(frozen=True)
class Rule:
    """A blocking check of a table.

    Args:
        name: Name of the check.
        description: What it makes sure of, for people.
        outcome: The check, of a table or partition that may not be in place yet.
    """

    name: str
    description: str
    outcome: Callable[[Deployment, TableRef], CheckOutcome]

    def result(self, deployment: Deployment, ref: TableRef) -> dg.AssetCheckResult:
        """Evaluate it."""
        found = self.outcome(deployment, ref)
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=found.passed,
            description=found.message,
            metadata=numbers(found.numbers),
            severity=dg.AssetCheckSeverity.ERROR,
        )


@dataclass(frozen=True)
class TableChecks:
    """The checks of one table.

    Args:
        table: Its name.
        quality: Limits of the profile.
    """

    table: str
    quality: QualityConfig

    def specs(self, regions: dg.StaticPartitionsDefinition) -> list[dg.AssetCheckSpec]:
        """What Dagster knows of them, by partition where the table has partitions."""
        contract = CONTRACTS[self.table]
        partitions = regions if contract.partitioned else None
        with warnings.catch_warnings():
            # partitioned checks are marked as a preview in this version of Dagster, which is pinned exactly
            warnings.simplefilter("ignore", dg.PreviewWarning)
            rules = [
                dg.AssetCheckSpec(
                    rule.name,
                    asset=self.table,
                    description=rule.description,
                    blocking=True,
                    partitions_def=partitions,
                )
                for rule in _rules(self.table)
            ]
            return [*rules, distribution_spec(contract, self.quality, partitions)]

    def results(
        self, deployment: Deployment, ref: TableRef, instance: dg.DagsterInstance, *, accept: bool
    ) -> list[dg.AssetCheckResult]:
        """Evaluate them, up to the first rule that is broken: what breaks a rule is no baseline for anything.

        Args:
            deployment: Profile and lake, in which the table is already.
            ref: The table or partition.
            instance: Where the last good distribution is kept.
            accept: Whether a changed distribution is meant.
        """
        found = []
        for rule in _rules(self.table):
            found.append(rule.result(deployment, ref))
            if not found[-1].passed:
                return found
        return [*found, distribution_check(deployment, ref, instance, accept=accept)]


def blocking(results: Sequence[dg.AssetCheckResult]) -> list[dg.AssetCheckResult]:
    """Those that keep a table from being put in place."""
    return [each for each in results if not each.passed and each.severity == dg.AssetCheckSeverity.ERROR]


def _keeps_contract(deployment: Deployment, ref: TableRef) -> CheckOutcome:
    # row group by row group: a region's patches are not held in memory as a whole
    check = BatchedCheck(CONTRACTS[ref.table])
    found = [violation for batch in deployment.store.read_batches(ref) for violation in check.violations(batch)]
    message = "; ".join(str(violation) for violation in found) or f"{check.rows} rows keep the contract"
    return CheckOutcome(not found, message, {"rows": check.rows, "violations": len(found)})


def _of_region(ref: TableRef) -> str:
    assert ref.region is not None, ref
    return ref.region


def _census_totals(deployment: Deployment, ref: TableRef) -> CheckOutcome:
    from mobclip_core.census import check_census_totals

    return check_census_totals(deployment, _of_region(ref))


def _census_minimum_people(deployment: Deployment, ref: TableRef) -> CheckOutcome:
    from mobclip_core.census import check_minimum_people

    return check_minimum_people(deployment, _of_region(ref))


def _mobility_privacy(deployment: Deployment, ref: TableRef) -> CheckOutcome:
    from mobclip_core.mobility.edges import check_mobility_privacy

    return check_mobility_privacy(deployment, _of_region(ref))


def _poi_suppression(deployment: Deployment, ref: TableRef) -> CheckOutcome:
    from mobclip_core.poi import check_poi_suppression

    return check_poi_suppression(deployment, _of_region(ref))


def _one_encoder(deployment: Deployment, ref: TableRef) -> CheckOutcome:
    from mobclip_core.encoder.embedding import check_one_encoder

    return check_one_encoder(deployment, _of_region(ref))


_CONTRACT = Rule(
    "contract", "Columns, types, keys, order, ranges and nulls, read back from what was written.", _keeps_contract
)
_JOINING = {
    "census_features": [
        Rule(
            "totals_equal_source",
            "People of the region's cells equal those of its zones (or of the rasters over its cells) within 1e-6 "
            "relative, in total and by bin.",
            _census_totals,
        ),
        Rule(
            "minimum_people",
            "No cell with fewer people than the profile's minimum, but not none, shows who they are.",
            _census_minimum_people,
        ),
    ],
    "mobility_edges": [
        Rule(
            "k_anonymous",
            "No edge comes from fewer people than the profile's minimum.",
            _mobility_privacy,
        )
    ],
    "poi_aggregates": [
        Rule(
            "suppressed",
            "No number of POIs of one category in one cell is above 0 and below the profile's minimum.",
            _poi_suppression,
        )
    ],
    "embeddings": [
        Rule("one_encoder", "Every vector carries the fingerprint of the current encoder.", _one_encoder),
    ],
}


def _rules(table: str) -> list[Rule]:
    return [_CONTRACT, *_JOINING.get(table, [])]
