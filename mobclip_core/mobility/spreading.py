"""Rows spread over many temporary files by number, and read back number by number.

Belongs here: splitting batches, writing and reading Arrow streams. Does not belong here: what the rows mean
(see `buckets`).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

MOST_FILES = 256
"""Files open at once: well below what systems allow a process."""


class Spreader:
    """Writes rows to one file for each number, in any order. A context manager; files are read after its end.

    Args:
        folder: A new folder for the files.
        number: How many numbers, at most `MOST_FILES`.
    """

    def __init__(self, folder: Path, number: int) -> None:
        if not 1 <= number <= MOST_FILES:
            raise ValueError(f"{number} files asked for, 1 to {MOST_FILES} allowed")
        folder.mkdir(parents=True)
        self._folder, self.number = folder, number
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self._rows = np.zeros(number, dtype=np.int64)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, rows: pa.RecordBatch, numbers: np.ndarray) -> None:
        """Write rows.

        Args:
            rows: n rows; the columns of all batches are the same.
            numbers: Which file each row goes to, unsigned, shape (n,).
        """
        # 16 bits: numpy sorts them by radix
        order = np.argsort(numbers.astype(np.uint16), kind="stable")
        ordered = rows.take(pa.array(order))
        bounds = np.searchsorted(numbers[order], np.arange(self.number + 1))
        self._rows += np.diff(bounds)
        for i in np.flatnonzero(np.diff(bounds)):
            self._writer(int(i), rows.schema).write_batch(ordered.slice(bounds[i], bounds[i + 1] - bounds[i]))

    def _writer(self, i: int, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
        if i not in self._writers:
            sink = self._open.enter_context(pa.OSFile(str(self._path(i)), "wb"))
            self._writers[i] = self._open.enter_context(pa.ipc.new_stream(sink, schema))
        return self._writers[i]

    def _path(self, i: int) -> Path:
        return self._folder / f"{i}.arrow"

    @contextlib.contextmanager
    def reading(self, i: int) -> Iterator[pa.RecordBatchReader | None]:
        """The rows of one number, to be read once; None if there are none."""
        if not self._path(i).exists():
            yield None
            return
        # not memory-mapped: pages of a mapped file count as memory of this process
        with pa.OSFile(str(self._path(i)), "rb") as source, pa.ipc.open_stream(source) as stream:
            yield stream

    def rows(self, i: int) -> int:
        """How many rows one number has."""
        return int(self._rows[i])

    def forget(self, i: int) -> None:
        """Free the disk space of one number."""
        self._path(i).unlink(missing_ok=True)
