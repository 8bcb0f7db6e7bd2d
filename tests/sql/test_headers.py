import re
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).parents[2]
STATEMENTS = sorted((ROOT / "sql").glob("*.sql"))
IDS = [path.stem for path in STATEMENTS]


def header_and_body(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    size = next(i for i, line in enumerate(lines) if not line.startswith("--"))
    return lines[:size], "\n".join(lines[size:])


def test_there_are_statements():
    assert STATEMENTS


@pytest.mark.parametrize("path", STATEMENTS, ids=IDS)
def test_the_header_says_what_the_statement_does_reads_and_writes(path):
    header, body = header_and_body(path)
    assert len(header) >= 3
    assert not re.match(r"-- (reads|writes|parameters):", header[0]), "the first line says what the statement does"
    for word in ("reads", "writes"):
        assert sum(line.startswith(f"-- {word}: ") for line in header) == 1, word
    text = "\n".join(header)
    for parameter in set(re.findall(r"\$([a-z_]+)", body)):
        assert f"${parameter}" in text, f"the header does not name ${parameter}"


@pytest.mark.parametrize("path", STATEMENTS, ids=IDS)
def test_a_file_is_one_statement(path):
    text = path.read_text(encoding="utf-8")
    if "{view}" in text:  # views take no bound parameters: a template for str.format
        text = text.format(view="v", files="'f'", partitioned="true")
    assert len(duckdb.extract_statements(text)) == 1


@pytest.mark.parametrize("path", STATEMENTS, ids=IDS)
def test_the_statement_is_used_by_the_library(path):
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "mobclip_core").rglob("*.py"))
    assert f'sql_text("{path.stem}")' in code


@pytest.mark.parametrize("path", STATEMENTS, ids=IDS)
def test_the_statement_has_a_test_of_its_own(path):
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "sql").glob("test_*.py"))
    assert f'"{path.stem}"' in tests
