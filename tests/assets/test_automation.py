"""Sensors and schedules, on an ephemeral instance and states written by hand."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.data_version import StaleStatus

from mobclip_assets import alerts, automation
from mobclip_assets.build import build_defs
from mobclip_core.errors import MobclipError
from mobclip_core.profile import AlertsConfig, load_profile

OPERATIONS = """
operations:
  timezone: Europe/Madrid
  retrain: "0 2 * * 0"
  rebuild: "0 3 1 * *"
  failed_hours: 2
  alerts: { webhook_variable: TEST_WEBHOOK }
"""


@pytest.fixture
def definitions(make_profile):
    return build_defs(str(make_profile(OPERATIONS)))


@pytest.fixture
def make_profile(tmp_path):
    from .test_distributions import make_profile

    def made(more):
        path = make_profile(tmp_path)
        path.write_text(path.read_text() + more)
        return path

    return made


@pytest.fixture
def states(monkeypatch):
    """States by `asset` or `asset[region]`; fresh where none is given."""
    found = {}

    class Standing:
        def __init__(self, *_):
            pass

        def good_state(self, key, region):
            name = key.to_user_string()
            return found.get(f"{name}[{region}]", found.get(name, StaleStatus.FRESH))

        def version(self, key, region):
            return str(found.get((key.to_user_string(), region), "1"))

    monkeypatch.setattr(automation, "Standing", Standing)
    monkeypatch.setattr(automation, "observe_sources", lambda *_: [])
    return found


def tick(definitions, name, instance, cursor=None):
    sensor = next(sensor for sensor in definitions.sensors if sensor.name == name)
    context = dg.build_sensor_context(instance, cursor, repository_def=definitions.get_repository_def())
    return sensor.evaluate_tick(context)


def test_everything_is_off_until_it_is_turned_on(definitions):
    assert {sensor.name for sensor in definitions.sensors} == {
        "refresh",
        "retrain_when_complete",
        "nothing_stays_failed",
        "webhook_on_failure",
    }
    every = [*definitions.sensors, *definitions.schedules]
    assert {each.default_status.value for each in every} == {"STOPPED"}
    assert {schedule.execution_timezone for schedule in definitions.schedules} == {"Europe/Madrid"}


def test_a_profile_without_operations_refreshes_and_watches(make_profile):
    found = build_defs(str(make_profile("")))
    assert {sensor.name for sensor in found.sensors} == {"refresh", "nothing_stays_failed"}
    assert not found.schedules


def test_one_run_a_changed_region_and_none_twice(definitions, states):
    with dg.DagsterInstance.ephemeral() as instance:
        assert tick(definitions, "refresh", instance).skip_message == "all stands"
        states["census_features[east]"] = StaleStatus.STALE
        first = tick(definitions, "refresh", instance).run_requests
        assert [(run.partition_key, [k.to_user_string() for k in run.asset_selection]) for run in first] == [
            ("east", ["census_features"])
        ]
        assert first[0].tags[automation.REGION_TAG] == "east"
        again = tick(definitions, "refresh", instance).run_requests
        assert [run.run_key for run in again] == [run.run_key for run in first], "Dagster starts a key once"
        states["zone_cells", "east"] = "2"
        changed = tick(definitions, "refresh", instance).run_requests
        assert changed[0].run_key != first[0].run_key


def test_a_region_under_way_is_left_alone(definitions, states):
    states |= {"embeddings[east]": StaleStatus.STALE, "embeddings[west]": StaleStatus.STALE}
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def("embed")
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "east"})
        found = tick(definitions, "refresh", instance).run_requests
        assert [run.partition_key for run in found] == ["west"]


def test_a_retraining_waits_for_all_regions_and_fires_once(definitions, states, monkeypatch):
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)  # a Sunday

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return now.astimezone(tz)

    monkeypatch.setattr(automation, "datetime", Clock)
    with dg.DagsterInstance.ephemeral() as instance:
        begun = tick(definitions, "retrain_when_complete", instance)
        assert not begun.run_requests
        now += timedelta(days=3)
        assert "turned on after it" in tick(definitions, "retrain_when_complete", instance, begun.cursor).skip_message
        now += timedelta(days=5)
        states["imagery_features[west]"] = StaleStatus.STALE
        waiting = tick(definitions, "retrain_when_complete", instance, begun.cursor)
        assert "waits for imagery_features[west]" in waiting.skip_message
        assert "2026-03-08T02:00:00+01:00" in waiting.skip_message
        del states["imagery_features[west]"]
        fired = tick(definitions, "retrain_when_complete", instance, begun.cursor)
        assert [run.run_key for run in fired.run_requests] == ["retrain:2026-03-08T02:00:00+01:00"]
        assert fired.cursor != begun.cursor
        assert not tick(definitions, "retrain_when_complete", instance, fired.cursor).run_requests


def test_the_rebuild_is_one_run_a_region(definitions):
    [schedule] = definitions.schedules
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 3, 1, 2, tzinfo=UTC),
            repository_def=definitions.get_repository_def(),
        )
        requests = schedule.evaluate_tick(context).run_requests
    assert [run.partition_key for run in requests] == ["east", "west"]
    assert len({run.run_key for run in requests}) == 2


def test_of_what_stays_failed_one_is_told_once(definitions, monkeypatch):
    told, failed = [], ["embeddings[east]"]
    monkeypatch.setattr(alerts, "failed_partitions", lambda *_: failed)
    monkeypatch.setattr(alerts, "post", lambda _, text: told.append(text))
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(definitions, "nothing_stays_failed", instance)
        assert not told
        assert first.skip_message == "failed: embeddings[east]"
        old = {name: {**record, "since": record["since"] - 7300} for name, record in json.loads(first.cursor).items()}
        second = tick(definitions, "nothing_stays_failed", instance, json.dumps(old))
        assert told == ["two: failed for 2 hours: embeddings[east]"]
        third = tick(definitions, "nothing_stays_failed", instance, second.cursor)
        assert len(told) == 1
        failed.clear()
        assert json.loads(tick(definitions, "nothing_stays_failed", instance, third.cursor).cursor) == {}


def test_an_alert_is_posted_and_its_address_stays_secret(web_hook):
    url, received = web_hook
    config = AlertsConfig(webhook_variable="TEST_WEBHOOK")
    alerts.post(config, "it failed", {"TEST_WEBHOOK": url})
    assert received == [{"text": "it failed"}]
    with pytest.raises(MobclipError, match="TEST_WEBHOOK, which is not set"):
        alerts.post(config, "it failed", {})
    with pytest.raises(MobclipError, match="the server answered 404") as caught:
        alerts.post(config, "it failed", {"TEST_WEBHOOK": f"{url}/secret"})
    assert "secret" not in str(caught.value)
    with pytest.raises(MobclipError, match="ConnectionError") as caught:
        alerts.post(config, "it failed", {"TEST_WEBHOOK": "http://127.0.0.1:9/secret"})
    assert "secret" not in str(caught.value)
    alerts.post(AlertsConfig(), "nobody listens")


@pytest.fixture
def web_hook():
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    received = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/hook":
                received.append(json.loads(body))
            self.send_response(200 if self.path == "/hook" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", received
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("timezone: Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("retrain: every sunday", "no cron schedule"),
        ('alerts: { webhook_variable: "https://hooks.example/secret" }', "no name of an environment variable"),
    ],
)
def test_options_that_cannot_be_are_answered(make_profile, option, message):
    from mobclip_core.errors import ProfileError

    with pytest.raises(ProfileError, match=message):
        load_profile(str(make_profile(f"\noperations: {{ {option} }}\n")))
