"""Points as Arrow batches: the one form that every reader of POIs gives.

Belongs here: the form, and streaming a statement's rows in it. Does not belong here: any particular source.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from mobclip_core.errors import SourceError
from mobclip_core.sources.tables import first_line, reading

POINT_COLUMNS = ("source_row", "id", "name", "category", "filled", "lon", "lat", "wkb", "dropped")
"""Columns of every batch: `filled` says that there is something where the position should be, well formed or not;
`wkb` is read where `lon` and `lat` are null; `dropped` names the reader's reason to leave a row out, or is null."""


@dataclass(frozen=True)
class PointSource:
    """An opened source of points.

    Args:
        files: Its files.
        position: The columns that hold the positions, for messages.
        batches: The rows; to be read once.
        counts: What opening it counted.
        has_id: Whether rows have identifiers.
        has_name: Whether rows have names.
        prepare: Turns a batch into one with `POINT_COLUMNS`; runs in threads.
    """

    files: Sequence[str]
    position: Sequence[str]
    batches: Iterator[pa.RecordBatch]
    counts: Mapping[str, int]
    has_id: bool
    has_name: bool
    prepare: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None


def query_batches(
    connection: duckdb.DuckDBPyConnection,
    statement: str,
    parameters: Mapping[str, Any],
    files: Sequence[str],
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of a statement.

    Args:
        connection: The session; busy until the last row is read.
        statement: A query.
        parameters: Its parameters.
        files: What it reads, for messages.
        batch_rows: Rows of a batch.

    Raises:
        SourceError: A file turns out to be damaged.
    """
    try:
        with reading(list(files)):
            yield from connection.execute(statement, parameters).to_arrow_reader(batch_rows)
    except (pa.ArrowException, OSError) as error:
        # what DuckDB finds while it streams comes through Arrow
        raise SourceError(
            list(files),
            f"cannot be read to its end: {first_line(error)}",
            hint="the file may be truncated; fetch it again",
        ) from error
