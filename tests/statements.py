"""Running one SQL statement on tables made by hand."""

from collections.abc import Sequence
from typing import Any

import duckdb

from mobclip_core.sql import sql_text


def table(connection: duckdb.DuckDBPyConnection, name: str, rows: Sequence[Sequence[Any]], columns: str) -> None:
    """Create (or replace) a table; `columns` is their SQL declaration."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
    if rows:
        connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def result(connection: duckdb.DuckDBPyConnection, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Run `sql/<name>.sql` and fetch what it returns."""
    return connection.execute(sql_text(name), parameters).fetchall()
