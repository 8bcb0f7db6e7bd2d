"""Vectors of strings, kept in the lake.

Belongs here: looking strings up by encoder and text, encoding the others, keeping what was encoded. Does not belong
here: encoding, and where the files lie (see `store`).

A shard is a Parquet file of the columns text and vector, sorted by text, never changed once written and named by its
content. Processes that encode the same strings at the same time write equal shards or overlapping ones; both are right,
since a string has one vector. A shard that cannot be read is passed over with a warning: its strings are encoded again.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mobclip_core.store import Store
from mobclip_core.text.strings import TextEncoder
from mobclip_core.vectors import matrix_of, vector_column

_LOG = logging.getLogger(__name__)
# a row group is what one look-up reads at least: 4 MB of 1,024 numbers
_ROW_GROUP_ROWS = 1024


@dataclass(frozen=True)
class _Group:
    """A row group of a shard: its first and last text, None where the file does not say (texts of over 4 kB)."""

    number: int
    first: str | None
    last: str | None

    def may_hold(self, first: str, last: str) -> bool:
        return (self.first is None or self.first <= last) and (self.last is None or first <= self.last)


class CachedTextEncoder:
    """A text encoder that encodes a string once for all regions and runs.

    The vectors are those of the encoder, bit for bit. An encode call with strings that the cache lacks adds one shard.

    Args:
        encoder: The encoder.
        store: The lake whose cache to use.

    Attributes:
        hits: Distinct strings found in the cache so far.
        misses: Distinct strings encoded so far.

    Shapes:
        **strings:** n -> **vectors:** float32 (n, dimensions)
    """

    def __init__(self, encoder: TextEncoder, store: Store) -> None:
        self._encoder, self._store = encoder, store
        self._folder = f"text_vectors/{encoder.fingerprint}"
        self._groups: dict[str, list[_Group]] = {}
        self._listed = False
        self.hits = 0
        self.misses = 0

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._encoder.dimensions

    @property
    def fingerprint(self) -> str:
        """Name of the encoder."""
        return self._encoder.fingerprint

    def encode(self, strings: Sequence[str]) -> np.ndarray:
        """Vectors of strings, from the cache where it has them.

        Args:
            strings: Any n strings; sorted ones are looked up in fewer pieces.

        Returns:
            float32, shape (n, dimensions).
        """
        if not len(strings):
            return np.zeros((0, self.dimensions), dtype=np.float32)
        distinct = pa.array(sorted(set(strings)), pa.string())
        vectors = np.zeros((len(distinct), self.dimensions), dtype=np.float32)
        found = self._look_up(distinct, vectors)
        missing = np.flatnonzero(~found)
        if len(missing):
            texts = distinct.take(pa.array(missing))
            vectors[missing] = self._encoder.encode(texts.to_pylist())
            self._keep(texts, vectors[missing])
        self.hits += int(found.sum())
        self.misses += len(missing)
        rows = pc.index_in(pa.array(strings, pa.string()), value_set=distinct).to_numpy()
        return np.asarray(vectors[rows])

    def _look_up(self, distinct: pa.Array, vectors: np.ndarray) -> np.ndarray:
        """Fill in the vectors of the strings that the cache has; returns which, shape (n,)."""
        found = np.zeros(len(distinct), dtype=bool)
        first, last = distinct[0].as_py(), distinct[-1].as_py()
        self._list()
        for path, groups in list(self._groups.items()):
            numbers = [group.number for group in groups if group.may_hold(first, last)]
            if not numbers or found.all():
                continue
            try:
                table = self._read(path, numbers)
            except (pa.ArrowException, OSError, ValueError) as error:
                self._pass_over(path, error)
                continue
            rows = pc.index_in(table["text"].combine_chunks(), value_set=distinct)
            known = pc.is_valid(rows)
            rows = rows.filter(known).to_numpy(zero_copy_only=False)
            vectors[rows] = matrix_of(table["vector"])[known.to_numpy(zero_copy_only=False)]
            found[rows] = True
        return found

    def _list(self) -> None:
        """Find the row groups of every readable shard, once: what others add later is encoded again at worst."""
        if not self._listed:
            for path in self._store.cached(self._folder):
                self._add(path)
            self._listed = True

    def _add(self, path: str) -> None:
        try:
            with self._store.fs.open(path, "rb") as file:
                metadata = pq.ParquetFile(file).metadata
                statistics = [metadata.row_group(i).column(0).statistics for i in range(metadata.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            self._pass_over(path, error)
            return
        self._groups[path] = [
            _Group(i, s.min, s.max) if s is not None and s.has_min_max else _Group(i, None, None)
            for i, s in enumerate(statistics)
        ]

    def _read(self, path: str, numbers: Sequence[int]) -> pa.Table:
        with self._store.fs.open(path, "rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read_row_groups(numbers)
        expected = pa.schema({"text": pa.string(), "vector": pa.list_(pa.float32(), self.dimensions)})
        if not table.schema.equals(expected):
            raise ValueError(f"columns are {table.schema}, expected {expected}")
        return table

    def _pass_over(self, path: str, error: Exception) -> None:
        _LOG.warning("cache: %s cannot be read (%s): its strings are encoded again; delete it", path, error)
        self._groups[path] = []

    def _keep(self, texts: pa.Array, vectors: np.ndarray) -> None:
        sink = pa.BufferOutputStream()
        table = pa.table({"text": texts, "vector": vector_column(vectors)})
        pq.write_table(
            table,
            sink,
            compression="zstd",
            use_dictionary=False,
            row_group_size=_ROW_GROUP_ROWS,
            write_page_checksum=True,
        )
        self._add(self._store.cache(self._folder, sink.getvalue()))
