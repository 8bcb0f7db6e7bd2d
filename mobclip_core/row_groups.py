"""Writing Parquet files whose bytes depend on their rows alone.

Belongs here: cutting rows that come in batches of any size into row groups of one size. Does not belong here: where a
file lies and how it takes the place of another (see `store`), what is in it.
"""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from mobclip_core.errors import ContractError


class RowGroupWriter:
    """Writes a Parquet file in row groups of one size, zstd-compressed; the last one may be smaller.

    As a context manager it closes the file at the end of the block.

    Args:
        path: The file.
        rows: Rows of a group: what is in memory while writing, and what can be read at a time.
        name: What the file holds, for messages.
        check: Called with each group before it is written.
    """

    def __init__(self, path: Path, rows: int, name: str = "", check: Callable[[pa.Table], None] | None = None) -> None:
        self._path, self._rows, self._name, self._check = path, rows, name or str(path), check
        self._waiting: list[pa.Table] = []
        self._count = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.close()

    def write(self, batch: pa.Table) -> None:
        """Add rows; an empty batch states the schema of a table that may stay empty.

        Raises:
            ContractError: If the batch's schema is not that of those before.
        """
        if self._waiting and not batch.schema.equals(self._waiting[0].schema):
            raise ContractError(
                f"{self._name}: one batch has the columns\n{batch.schema}\nthose before\n{self._waiting[0].schema}"
            )
        self._waiting.append(batch)
        self._count += batch.num_rows
        if self._count < self._rows:
            return
        table = pa.concat_tables(self._waiting)
        whole = self._count - self._count % self._rows
        for start in range(0, whole, self._rows):
            self._write_group(table.slice(start, self._rows))
        self._waiting, self._count = [table.slice(whole)], self._count - whole

    def close(self) -> None:
        """Write what is left and close the file.

        Raises:
            ContractError: If there was no batch, not even an empty one.
        """
        if not self._waiting:
            raise ContractError(f"{self._name}: no batch was written, not even an empty one")
        if self._count or self._writer is None:
            self._write_group(pa.concat_tables(self._waiting))
        if self._writer is not None:
            self._writer.close()

    def _write_group(self, group: pa.Table) -> None:
        group = group.combine_chunks()
        if self._check is not None:
            self._check(group)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, group.schema, compression="zstd")
        self._writer.write_table(group, row_group_size=self._rows)
