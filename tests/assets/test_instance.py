import os
from pathlib import Path

from mobclip_assets import instance


def test_each_profile_has_an_instance_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(instance, "_HOME", tmp_path)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    home = instance.instance_home("demo")
    assert home == tmp_path / "instances" / "demo"
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"
    assert instance.instance_home("demo") == home


def test_a_home_that_is_set_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("MOBCLIP_PROFILE", raising=False)
    assert instance.instance_home("demo") == tmp_path
    instance.enter_instance("demo")
    assert Path(os.environ["MOBCLIP_PROFILE"]).name == "demo.yaml"
    monkeypatch.delenv("MOBCLIP_PROFILE")
