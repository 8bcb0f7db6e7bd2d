from pathlib import Path

import pytest

from mobclip_assets import versions
from mobclip_assets.versions import code_version
from mobclip_core.profile import GridConfig


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "step.py").write_text('"""A step."""\n\n\ndef run():\n    """Run."""\n    return 1  # one\n')
    (tmp_path / "step_one.sql").write_text("-- reads: a\n-- writes: b\nSELECT 1;\n")
    monkeypatch.setattr(versions, "_CORE", tmp_path)
    monkeypatch.setattr(versions, "SQL_PLACES", (tmp_path,))
    return tmp_path


def version(settings=()):
    return code_version(["step"], ["step_"], settings)


def test_comments_docstrings_and_layout_do_not_count(code):
    before = version()
    (code / "step.py").write_text('"""Another text."""\ndef run():\n    return 1\n')
    (code / "step_one.sql").write_text("-- another text\nSELECT\n  1;\n")
    assert version() == before


def test_code_sql_and_settings_count(code):
    seen = {version(), version([GridConfig()]), version([GridConfig(resolution=7)]), version([None])}
    (code / "step.py").write_text("def run():\n    return 2\n")
    seen.add(version())
    (code / "step_one.sql").write_text("SELECT 2;\n")
    seen.add(version())
    assert len(seen) == 6


def test_a_package_counts_with_all_its_modules(code):
    package = code / "many"
    package.mkdir()
    (package / "a.py").write_text("A = 1\n")
    before = code_version(["many"], [], [])
    (package / "b.py").write_text("B = 1\n")
    assert code_version(["many"], [], []) != before
