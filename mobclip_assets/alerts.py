"""Alerts: telling people of what failed.

Belongs here: the hooks to a web address and to e-mail, and the standing watch over partitions that stay failed. Does
not belong here: what failed and why; that is in the UI, where an alert leads.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mobclip_assets.status import failed_regions
from mobclip_core.errors import MobclipError, listed
from mobclip_core.profile import AlertsConfig, Profile
from mobclip_core.store import TableRef

_SECONDS = 10
_SHOWN = 20


def make_alert_sensors(profile: Profile) -> list[dg.SensorDefinition]:
    """The sensors that tell of failed runs, and of partitions that stay failed."""
    operations = profile.operations
    sensors = [_standing_watch(profile)]
    if operations.alerts.webhook_variable is not None:
        sensors.append(_webhook_sensor(profile))
    if (email := operations.alerts.email) is not None:
        sensors.append(
            dg.make_email_on_run_failure_sensor(
                email_from=email.sender,
                email_password=os.environ.get(email.password_variable, ""),
                email_to=email.to,
                smtp_host=email.host,
                smtp_port=email.port,
                name="email_on_failure",
            )
        )
    return sensors


def post(alerts: AlertsConfig, text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Post a message to the web address of a profile; nothing happens where it has none.

    Raises:
        MobclipError: If the variable is not set or the server does not take the message; the address, which is a
            secret, is in neither message.
    """
    if alerts.webhook_variable is None:
        return
    url = environment.get(alerts.webhook_variable)
    if not url:
        raise MobclipError(f"operations.alerts names {alerts.webhook_variable}, which is not set")
    import requests  # every command would wait for it

    try:
        answer = requests.post(url, json={"text": text}, timeout=_SECONDS)
    except requests.RequestException as error:
        raise MobclipError(f"no alert was posted: {type(error).__name__} ({alerts.webhook_variable})") from None
    if not answer.ok:
        raise MobclipError(f"no alert was posted: the server answered {answer.status_code} ({alerts.webhook_variable})")


def _webhook_sensor(profile: Profile) -> dg.SensorDefinition:
    @dg.run_failure_sensor(name="webhook_on_failure", description="Posts a message for each run that fails.")
    def webhook_on_failure(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        region = run.tags.get("dagster/partition")
        steps = [event.step_key for event in context.get_step_failure_events() if event.step_key]
        where = f" for {region}" if region else ""
        what = ", ".join(steps) or context.failure_event.message
        post(profile.operations.alerts, f"{profile.name}: run {run.run_id[:8]} failed{where}: {what}")

    return webhook_on_failure


def _standing_watch(profile: Profile) -> dg.SensorDefinition:
    operations = profile.operations

    @dg.sensor(
        name="nothing_stays_failed",
        minimum_interval_seconds=max(operations.refresh_seconds, 300),
        description=(
            f"Watches that no partition stays failed for more than {operations.failed_hours:g} hours; tells once of "
            "each one that does."
        ),
    )
    def nothing_stays_failed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        assert context.repository_def is not None
        now = datetime.now(UTC).timestamp()
        seen = json.loads(context.cursor or "{}")
        failed = failed_partitions(context.instance, context.repository_def.asset_graph)
        since = {name: seen.get(name, {"since": now, "told": False}) for name in failed}
        late = [
            name
            for name, record in since.items()
            if not record["told"] and now - record["since"] >= 3600 * operations.failed_hours
        ]
        if late:
            shown = listed(late, _SHOWN)
            post(operations.alerts, f"{profile.name}: failed for {operations.failed_hours:g} hours: {shown}")
            since |= {name: {**since[name], "told": True} for name in late}
        reason = f"failed: {', '.join(failed[:_SHOWN])}" if failed else "no partition is failed"
        return dg.SensorResult(skip_reason=reason, cursor=json.dumps(since))

    return nothing_stays_failed


def failed_partitions(instance: dg.DagsterInstance, graph: AssetGraph) -> list[str]:
    """Names of the partitions whose last run failed before it wrote, `asset[region]`."""
    return [
        str(TableRef(key.to_user_string(), region))
        for key, failed in failed_regions(instance, graph).items()
        for region in sorted(failed, key=str)
    ]
