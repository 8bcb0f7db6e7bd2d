"""DuckDB sessions and the SQL files.

Belongs here: loading a statement of `sql/`, opening the in-memory session that a step queries Parquet through, the H3
function inside SQL. Does not belong here: SQL text (it lives in `sql/`, one statement a file, with a header that names
what it reads and writes).
"""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import ARROW, SPECIAL
from duckdb.sqltypes import DOUBLE, INTEGER, UBIGINT

from mobclip_core.bulk_cells import cells_of_points
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


def points_to_cells(lon: np.ndarray, lat: np.ndarray, resolution: int) -> pa.Array:
    """H3 cells of points.

    Args:
        lon: Longitudes in degrees, shape (n,).
        lat: Latitudes in degrees, shape (n,).
        resolution: H3 resolution.

    Returns:
        uint64 array of length n; null where a coordinate is not finite or out of range.
    """
    cells = cells_of_points(np.asarray(lon, dtype=float), np.asarray(lat, dtype=float), resolution)
    return pa.array(cells, mask=cells == 0)


def _point_to_cell(lon: pa.ChunkedArray, lat: pa.ChunkedArray, resolution: pa.ChunkedArray) -> pa.Array:
    if not len(lon):
        return pa.array([], pa.uint64())
    x = pc.cast(lon, pa.float64()).to_numpy()
    y = pc.cast(lat, pa.float64()).to_numpy()
    return points_to_cells(x, y, int(resolution[0].as_py()))


@contextlib.contextmanager
def session(limits: DuckDBConfig | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB of this step's own, with a memory limit and a spill directory that goes away with it.

    SQL may call `point_to_cell(lon, lat, resolution)`: UBIGINT, null where a coordinate is not valid.
    """
    limits = limits or DuckDBConfig()
    with tempfile.TemporaryDirectory(prefix="mobclip-duckdb-", dir=limits.spill_directory) as spill:
        connection = duckdb.connect(
            ":memory:",
            config={"memory_limit": limits.memory_limit, "threads": limits.threads, "temp_directory": spill},
        )
        try:
            # naive times are UTC whatever the machine's zone
            connection.execute("SET TimeZone = 'UTC'")
            connection.create_function(
                "point_to_cell", _point_to_cell, [DOUBLE, DOUBLE, INTEGER], UBIGINT, type=ARROW, null_handling=SPECIAL
            )
            yield connection
        finally:
            connection.close()
