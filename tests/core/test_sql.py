import datetime as dt

import duckdb
import h3
import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.profile import DuckDBConfig
from mobclip_core.sql import points_to_cells, session, sql_text


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


def test_point_to_cell_agrees_with_h3_and_is_null_where_it_cannot_be():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 3000), rng.uniform(-90, 90, 3000)
    expected = [h3.str_to_int(h3.latlng_to_cell(y, x, 6)) for x, y in zip(lon, lat, strict=True)]
    lon = np.concatenate([lon, [np.nan, np.inf, 0, 181, 0, 180]])
    lat = np.concatenate([lat, [0, 0, -np.inf, 0, 90.5, 90]])
    expected += [None] * 5 + [h3.str_to_int(h3.latlng_to_cell(90, 180, 6))]
    with session() as connection:
        connection.register("points", pa.table({"row": range(len(lon)), "lon": lon, "lat": lat}))
        cells = connection.execute("SELECT point_to_cell(lon, lat, 6) FROM points ORDER BY row").fetchall()
        assert [cell for (cell,) in cells] == expected
        assert connection.execute(
            "SELECT point_to_cell(NULL, 1, 6), point_to_cell(lon, NULL, 6) FROM points LIMIT 1"
        ).fetchall() == [(None, None)]
        assert connection.execute("SELECT point_to_cell(lon, lat, 6) FROM points WHERE false").fetchall() == []


def test_points_to_cells_takes_the_resolution():
    cells = points_to_cells(np.array([-74.0]), np.array([40.7]), 9)
    assert cells.to_pylist() == [h3.str_to_int(h3.latlng_to_cell(40.7, -74.0, 9))]
