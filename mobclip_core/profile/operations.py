"""Settings of operation: when things are made again, what is watched, who is told.

Belongs here: schedules, freshness and alerts of a deployment. Does not belong here: where runs are executed, which is
the Dagster instance's (see `dagster_home`).
"""

import re
import zoneinfo
from typing import Annotated

from pydantic import AfterValidator, Field

from mobclip_core.profile.base import Settings

_FIELDS = 5
_CRON = re.compile(r"[\d*/,\-A-Za-z#L?]+")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


def _known_zone(name: str) -> str:
    if name not in zoneinfo.available_timezones():
        raise ValueError(f"no time zone {name!r}; expected one like Europe/Madrid")
    return name


def _cron(text: str) -> str:
    fields = text.split()
    if len(fields) != _FIELDS or not all(_CRON.fullmatch(field) for field in fields):
        raise ValueError(f"{text!r} is no cron schedule; expected five fields, as in '0 2 * * 0' (Sundays at two)")
    return text


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an environment variable; secrets do not stand in a profile")
    return name


Cron = Annotated[str, AfterValidator(_cron)]
VariableName = Annotated[str, AfterValidator(_variable)]


class EmailConfig(Settings):
    """Alerts by e-mail, through an SMTP server.

    Args:
        to: Addresses.
        sender: Address that they come from, which is also the login.
        password_variable: Environment variable with the password.
        host: SMTP server.
        port: Its port.
    """

    to: Annotated[list[str], Field(min_length=1)]
    sender: str
    password_variable: VariableName
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 465


class AlertsConfig(Settings):
    """Who is told of failed runs, and of partitions that stay failed.

    Args:
        webhook_variable: Environment variable with the URL that a message is posted to as JSON, `{"text": ...}`, which
            Slack, Mattermost and Teams read.
        email: Mails beside it.
    """

    webhook_variable: VariableName | None = None
    email: EmailConfig | None = None


class OperationsConfig(Settings):
    """When things are made again by themselves. The sensors are off until they are turned on in the UI.

    Args:
        timezone: Of the schedules.
        refresh_seconds: How often the sources and what was made of them are looked at.
        retrain: When the encoder is trained again, once the features of all regions stand.
        rebuild: When the features of all regions are made again, changed or not.
        failed_hours: How long a partition may stay failed before someone is told.
        fresh_days: Age from which the embeddings count as too old; None watches no age.
        alerts: Who is told.
    """

    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    refresh_seconds: Annotated[int, Field(ge=30)] = 300
    retrain: Cron | None = None
    rebuild: Cron | None = None
    failed_hours: Annotated[float, Field(gt=0)] = 6.0
    fresh_days: Annotated[float, Field(gt=0)] | None = None
    alerts: AlertsConfig = AlertsConfig()
