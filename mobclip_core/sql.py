"""DuckDB sessions and the SQL files.

Belongs here: loading a statement of `sql/`, opening the in-memory session that a step queries Parquet through.
Does not belong here: SQL text (it lives in `sql/`, one statement a file, with a header that names
what it reads and writes).
"""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import duckdb

from mobclip_core.profile import DuckDBConfig

SQL_PLACES = (Path(__file__).parent / "sql_files", Path(__file__).resolve().parents[1] / "sql")


@cache
def sql_text(name: str) -> str:
    """The statement in `sql/<name>.sql`."""
    for place in SQL_PLACES:
        path = place / f"{name}.sql"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"no statement {name}.sql in {[str(place) for place in SQL_PLACES]}")


@contextlib.contextmanager
def session(limits: DuckDBConfig | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB of this step's own, with a memory limit and a spill directory that goes away with it."""
    limits = limits or DuckDBConfig()
    with tempfile.TemporaryDirectory(prefix="mobclip-duckdb-", dir=limits.spill_directory) as spill:
        connection = duckdb.connect(
            ":memory:",
            config={"memory_limit": limits.memory_limit, "threads": limits.threads, "temp_directory": spill},
        )
        try:
            # naive times are UTC whatever the machine's zone
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()
