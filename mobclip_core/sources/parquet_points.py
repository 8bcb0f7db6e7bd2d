"""Points of Parquet files with plain columns, read by Arrow alone: several times as fast as through SQL.

Belongs here: which tables can be read so, and doing it. Does not belong here: anything that has to be parsed or
converted (see `points`).
"""

from collections.abc import Iterator, Mapping, Sequence

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mobclip_core.errors import FILE_BITS, SourceError
from mobclip_core.sources.remote import is_remote, reaching
from mobclip_core.sources.tables import PARQUET_SUFFIXES, SourceColumn, file_suffix, first_line

_NUMBERS = ("DOUBLE", "FLOAT")


def is_plain(files: Sequence[str], columns: Mapping[str, SourceColumn], present: Mapping[str, str]) -> bool:
    """Whether a source is Parquet with longitudes and latitudes as floats and everything else as text.

    Args:
        files: Its files.
        columns: `lon`, `lat`, and what there is of `id`, `name` and `category` -> the columns of the files.
        present: Columns of the files -> DuckDB type.
    """
    if {"lon", "lat"} - set(columns) or any(file_suffix(file) not in PARQUET_SUFFIXES for file in files):
        return False
    return all(
        present[column.source] in (_NUMBERS if name in ("lon", "lat") else ("VARCHAR",))
        for name, column in columns.items()
    )


def parquet_batches(
    files: Sequence[str], columns: Mapping[str, SourceColumn], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Read the columns of plain files as they are, with `source_row`; `prepare` makes points of the batches.

    Args:
        files: The files.
        columns: See `is_plain`.
        batch_rows: Rows of a batch.

    Raises:
        SourceError: Naming the file that is damaged.
    """
    names = [column.source for column in columns.values()]
    repeated = [columns["category"].source] if "category" in columns else []
    for number, file in enumerate(files):
        start = number << FILE_BITS
        try:
            with reaching(file), fsspec.open(file, "rb") as opened:
                # Arrow reads a local file faster by its path
                parquet = pq.ParquetFile(opened if is_remote(file) else file, read_dictionary=repeated)
                for batch in parquet.iter_batches(batch_rows, columns=sorted(set(names))):
                    rows = pa.array(np.arange(start, start + batch.num_rows))
                    yield pa.RecordBatch.from_arrays(
                        [rows, *(batch[name] for name in names)], names=["source_row", *columns]
                    )
                    start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                file,
                f"cannot be read to its end: {first_line(error)}",
                hint="the file may be truncated; fetch it again",
            ) from error


def prepare(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of `parquet_batches` with `point_batches.POINT_COLUMNS`; empty texts become null."""
    lon, lat = (batch[name].cast(pa.float64()) for name in ("lon", "lat"))
    made = {
        "source_row": batch["source_row"],
        "filled": pc.or_(lon.is_valid(), lat.is_valid()),
        "lon": lon,
        "lat": lat,
        "wkb": pa.nulls(batch.num_rows, pa.binary()),
        "dropped": pa.nulls(batch.num_rows, pa.string()),
    }
    for name in ("id", "name", "category"):
        present = name in batch.schema.names
        made[name] = _text(batch[name]) if present else pa.nulls(batch.num_rows, pa.string())
    return pa.RecordBatch.from_pydict(made)


def _text(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(values.indices, _text(values.dictionary))
    trimmed = pc.utf8_trim(values.cast(pa.string()), " ")
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)
