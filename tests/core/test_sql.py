import datetime as dt

import duckdb
import pytest

from mobclip_core.profile import DuckDBConfig
from mobclip_core.sql import session, sql_text


def test_sql_text_is_the_file():
    assert "CREATE OR REPLACE TEMP TABLE poi_counts" in sql_text("poi_counts")


def test_an_unknown_statement_is_named():
    with pytest.raises(FileNotFoundError, match=r"no_such_thing\.sql"):
        sql_text("no_such_thing")


def test_a_session_keeps_its_limits_and_its_clock():
    with session(DuckDBConfig(memory_limit="100MB", threads=1)) as connection:
        [(threads, memory, zone, spill)] = connection.execute(
            "SELECT current_setting('threads'), current_setting('memory_limit'), current_setting('TimeZone'), "
            "current_setting('temp_directory')"
        ).fetchall()
        assert (threads, memory, zone) == (1, "95.3 MiB", "UTC")
        time = connection.execute("SELECT '2024-07-01 12:00:00'::TIMESTAMPTZ::TIMESTAMP").fetchall()
        assert time == [(dt.datetime(2024, 7, 1, 12),)]
    from pathlib import Path

    assert not Path(spill).exists()
    with pytest.raises(duckdb.Error):
        connection.execute("SELECT 1")


def test_two_sessions_share_nothing():
    with session() as one, session() as two:
        one.execute("CREATE TABLE t AS SELECT 1 AS x")
        with pytest.raises(duckdb.CatalogException):
            two.execute("FROM t")
