"""Making assets: the decorators that every asset module uses.

Belongs here: what all assets share (partitions, owners, contracts as schema, code version, turning a step's result into
a materialisation). Does not belong here: any particular asset.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import dagster as dg
from pydantic import BaseModel

from mobclip_assets.checks import TableChecks, blocking
from mobclip_assets.distributions import AcceptConfig
from mobclip_assets.metadata import pictures_metadata, result_metadata, table_schema
from mobclip_assets.resources import DeploymentResource
from mobclip_assets.versions import code_version
from mobclip_core.contracts import CONTRACTS, ON_REQUEST
from mobclip_core.deployment import Deployment, StepResult
from mobclip_core.errors import CheckFailedError
from mobclip_core.profile import Profile
from mobclip_core.staging import staged
from mobclip_core.transient import is_transient

GPU_POOL = "gpu"
"""Pool of the steps that use a GPU where there is one."""

ON_REQUEST_TAG = "mobclip/on_request"
"""Tag of the assets that are made only when they are asked for by name."""

_WATCHED = ("embeddings",)
"""Assets whose age is watched, beside the catalog."""

_RETRIES = 3
_FIRST_WAIT_SECONDS = 5.0

RegionalStep = Callable[[Deployment, str], StepResult]
GlobalStep = Callable[[Deployment], StepResult]
Called = Callable[[dg.AssetExecutionContext, Deployment], StepResult]
Tags = Mapping[str, Any]
Done = TypeVar("Done")
Dep = str | dg.AssetKey | dg.AssetDep


@dataclass(frozen=True)
class Code:
    """What an asset's code version is made of; see `versions.code_version`.

    Args:
        modules: Modules of `mobclip_core`.
        sql_of: Modules whose SQL statements the step runs.
        settings: Parts of the profile.
    """

    modules: Sequence[str]
    sql_of: Sequence[str] = ()
    settings: Sequence[BaseModel | None] = ()


@dataclass(frozen=True)
class AssetMaker:
    """Makes Dagster assets of steps.

    Args:
        profile: The profile served.
        regions: The one REGIONS object.
        op_tags: Tags of a step for the executor, by the step's pool.
    """

    profile: Profile
    regions: dg.StaticPartitionsDefinition
    op_tags: Callable[[str | None], Tags]

    def regional(
        self, *, group: str, kinds: set[str], deps: Sequence[Dep], code: Code, pool: str | None = None
    ) -> Callable[[RegionalStep], dg.AssetsDefinition]:
        """Decorate a step that makes one partition: `step(deployment, region)`."""

        def decorate(step: RegionalStep) -> dg.AssetsDefinition:
            return self._asset(step, self.regions, group, kinds, deps, code, pool)

        return decorate

    def whole(
        self,
        *,
        group: str,
        kinds: set[str],
        deps: Sequence[Dep],
        code: Code,
        pool: str | None = None,
    ) -> Callable[[GlobalStep], dg.AssetsDefinition]:
        """Decorate a step that makes the whole of an asset: `step(deployment)`."""

        def decorate(step: GlobalStep) -> dg.AssetsDefinition:
            return self._asset(step, None, group, kinds, deps, code, pool)

        return decorate

    def _asset(
        self,
        step: Callable[..., StepResult],
        partitions: dg.PartitionsDefinition[str] | None,
        group: str,
        kinds: set[str],
        deps: Sequence[Dep],
        code: Code,
        pool: str | None,
    ) -> dg.AssetsDefinition:
        name = step.__name__
        contract = CONTRACTS.get(name)

        def called(context: dg.AssetExecutionContext, deployment: Deployment) -> StepResult:
            # a run of one region may hold assets without partitions
            return step(deployment) if partitions is None else step(deployment, context.partition_key)

        checks = TableChecks(name, self.profile.quality) if contract else None
        return dg.asset(
            _table_compute(called, checks, partitions is not None) if checks else _bundle_compute(called),
            name=name,
            description=inspect.cleandoc(step.__doc__ or "")
            + (f"\n\nOne row: {contract.description}" if contract else ""),
            partitions_def=partitions,
            group_name=group,
            kinds=kinds,
            deps=deps,
            owners=self.profile.owners,
            code_version=code_version(code.modules, code.sql_of, code.settings),
            pool=pool,
            freshness_policy=freshness(self.profile) if name in _WATCHED else None,
            tags={ON_REQUEST_TAG: "true"} if name in ON_REQUEST else None,
            op_tags=self.op_tags(pool),
            metadata={"dagster/column_schema": table_schema(contract)} if contract else None,
            check_specs=checks.specs(self.regions) if checks else None,
        )


def freshness(profile: Profile) -> dg.FreshnessPolicy | None:
    """The age from which what is published counts as too old, None where the profile watches none."""
    days = profile.operations.fresh_days
    return None if days is None else dg.FreshnessPolicy.time_window(fail_window=timedelta(days=days))


def _table_compute(step: Called, checks: TableChecks, regional: bool) -> Callable[..., object]:
    """Makes a table or partition; it takes the place of the old one when it has passed its blocking checks."""

    def compute(
        context: dg.AssetExecutionContext, config: AcceptConfig, deployment: DeploymentResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetObservation | dg.AssetCheckResult]:  # type: ignore[type-arg]
        opened = deployment.open()
        with staged(opened.store) as store:
            aside = replace(opened, store=store)
            result = _trying(context, lambda: step(context, aside))
            ref = result.written.ref
            found = checks.results(aside, ref, context.instance, accept=config.accept)
            if bad := blocking(found):
                yield from found
                told = "; ".join(f"{check.check_name}: {check.description}" for check in bad)
                raise CheckFailedError(f"{ref}: {told}; what was there before stays")
            _trying(context, store.put_in_place)
        # before the checks, so that they are known to be about it
        if regional and result.pictures:
            # beside the materialisation, and shown with it: what reads the newest of a thousand regions reads no maps
            yield _materialise(opened, replace(result, pictures={}))
            yield dg.AssetObservation(
                context.asset_key, partition=context.partition_key, metadata=pictures_metadata(result.pictures)
            )
        else:
            yield _materialise(opened, result)
        yield from found

    return compute


def _bundle_compute(step: Called) -> Callable[..., object]:
    def compute(context: dg.AssetExecutionContext, deployment: DeploymentResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        opened = deployment.open()
        return _materialise(opened, _trying(context, lambda: step(context, opened)))

    return compute


def _trying(context: dg.AssetExecutionContext, work: Callable[[], Done]) -> Done:
    """Do the work; where it failed for a reason that passes by itself, ask Dagster to try again after a while."""
    try:
        return work()
    except Exception as error:
        if not is_transient(error):
            raise
        context.log.warning("trying again later: %s: %s", type(error).__name__, error)
        wait = _FIRST_WAIT_SECONDS * 2**context.retry_number
        raise dg.RetryRequested(max_retries=_RETRIES, seconds_to_wait=wait) from error


def _materialise(deployment: Deployment, result: StepResult) -> dg.MaterializeResult:  # type: ignore[type-arg]
    return dg.MaterializeResult(
        metadata=result_metadata(deployment, result), data_version=dg.DataVersion(result.written.data_version)
    )
