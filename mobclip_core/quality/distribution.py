"""The check of a table against what it last was.

Belongs here: the decision, and what people read of it. Does not belong here: where the summary of the last good
materialisation comes from (the orchestrator keeps it).
"""

from dataclasses import dataclass

from mobclip_core.contracts import CONTRACTS
from mobclip_core.deployment import CheckOutcome, Deployment
from mobclip_core.quality.comparison import Change, changes_table, compare, summary_table
from mobclip_core.quality.statistics import VERSION, Statistics, table_statistics
from mobclip_core.store import TableRef


@dataclass(frozen=True)
class Baseline:
    """The last good state of a table.

    Args:
        statistics: Its summary.
        when: When it was summed up, for people.
    """

    statistics: Statistics
    when: str


@dataclass(frozen=True)
class DistributionOutcome:
    """What the check found.

    Args:
        outcome: Passed or not, the sentence and the numbers.
        statistics: Summary of the table as it is: the next baseline if the check passed.
        table: Markdown for people.
        blocks: Whether a failure is an error.
    """

    outcome: CheckOutcome
    statistics: Statistics
    table: str
    blocks: bool


def check_distribution(
    deployment: Deployment, ref: TableRef, baseline: Baseline | None, *, accept: bool = False
) -> DistributionOutcome:
    """Compare a table or partition with its last good state.

    It passes if no change is over its limit, if there is nothing to compare with, or if the change is accepted.

    Args:
        deployment: Profile and lake.
        ref: The table or partition.
        baseline: Its last good state, if there was one.
        accept: The change is meant: pass whatever changed.

    Raises:
        MissingTableError: If it is not materialised.
        ContractError: If its file cannot be read.
    """
    limits = deployment.profile.quality.limits_of(ref.table)
    statistics = table_statistics(
        CONTRACTS[ref.table], lambda columns: deployment.store.read_batches(ref, list(columns))
    )
    blocks = limits.severity == "error"
    rows = {"rows": int(statistics["rows"])}
    if baseline is None or baseline.statistics.get("version") != VERSION:
        why = "no earlier one passed" if baseline is None else "the last one was summed up by another version"
        outcome = CheckOutcome(True, f"{rows['rows']:,} rows are the baseline: {why}", {**rows})
        return DistributionOutcome(outcome, statistics, summary_table(statistics), blocks)
    changes = compare(baseline.statistics, statistics, limits)
    over = [change for change in changes if change.is_over]
    numbers = {
        **rows,
        "rows_before": int(baseline.statistics["rows"]),
        "changes_over_limit": len(over),
        "largest_drift": max((change.size for change in changes if change.measure == "drift"), default=0.0),
    }
    message = _message(ref, changes, over, baseline.when, accept)
    outcome = CheckOutcome(not over or accept, message, {**numbers})
    return DistributionOutcome(outcome, statistics, changes_table(changes), blocks)


def _message(ref: TableRef, changes: list[Change], over: list[Change], when: str, accept: bool) -> str:
    if not over:
        return f"{len(changes)} measures within their limits of {when}"
    told = "; ".join(str(change) for change in over[:3]) + (f"; and {len(over) - 3} more" if len(over) > 3 else "")
    if accept:
        return f"accepted as the new baseline: {told}; against {when}"
    return (
        f"{ref} changed more than its limits since {when}: {told}. If this is meant, materialise it again with "
        f"accept: true in the config of this check, or raise quality.tables.{ref.table} in the profile"
    )
