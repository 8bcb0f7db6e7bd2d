"""The asset check that keeps a worse encoder from being published.

Belongs here: reading the scores that passed last from Dagster's history of the check, and keeping the new ones there.
Does not belong here: comparing them (see `mobclip_core.evaluation.regression`).
"""

import dagster as dg

from mobclip_assets.distributions import STATISTICS, AcceptConfig, last_good
from mobclip_assets.metadata import numbers
from mobclip_assets.resources import DeploymentResource

CHECK_NAME = "not_worse"
COMPARED = "geobench_scores"


def make_regression_check() -> dg.AssetChecksDefinition:
    """The check of `geobench_scores`; a failure stops what comes after."""
    key = dg.AssetCheckKey(dg.AssetKey(COMPARED), CHECK_NAME)

    def check(
        context: dg.AssetCheckExecutionContext, config: AcceptConfig, deployment: DeploymentResource
    ) -> dg.AssetCheckResult:
        from mobclip_core.evaluation.regression import compare, summary

        last = last_good(context.instance, key, None)
        before, when = (None, "") if last is None else (last.statistics, last.when)
        found = compare(summary(deployment.open()), before, when, accept=config.accept)
        return dg.AssetCheckResult(
            passed=found.outcome.passed,
            description=found.outcome.message,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                "by task": dg.MetadataValue.md(found.table),
                **numbers(found.outcome.numbers),
                STATISTICS: dg.MetadataValue.json(found.statistics),
            },
        )

    return dg.asset_check(
        asset=COMPARED,
        name=CHECK_NAME,
        description=(
            "The embeddings' scores are not significantly worse than the last that passed (signed ranks over tasks, "
            "5%). A change that is meant: `mobclip materialize --accept`, or materialise again from the launchpad with "
            f"`ops: {{{COMPARED}_{CHECK_NAME}: {{config: {{accept: true}}}}}}`."
        ),
        blocking=True,
    )(check)
