"""The lake: tables by name and region, in the files that `lake_files` describes.

Belongs here: where a table lies, writing and reading it, data versions, the catalog's place. Does not belong here: what
a table means (see `contracts`) or how it is computed.
"""

import contextlib
import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mobclip_core.bundles import BundleStore
from mobclip_core.contract_batches import BatchedCheck
from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import ContractError, MissingTableError, MobclipError
from mobclip_core.lake_files import TableRef, Written, file_sha256
from mobclip_core.row_groups import RowGroupWriter

__all__ = ["Store", "TableRef", "Written"]

_ROW_GROUP_ROWS = 65_536


class Store(BundleStore):
    """A lake at a root URL: its tables, and its bundles.

    Args:
        root: Local path or any fsspec URL (`s3://bucket/prefix`, `memory://x`, ...).
    """

    def path(self, ref: TableRef) -> str:
        """Path of a table or partition inside the store's file system."""
        contract = CONTRACTS[ref.table]
        if contract.partitioned != (ref.region is not None):
            expected = "a region" if contract.partitioned else "no region"
            raise MobclipError(f"{ref}: the table {ref.table} takes {expected}")
        part = f"/region={ref.region}" if ref.region is not None else ""
        return f"{self.root}/{ref.table}{part}/part.parquet"

    def exists(self, ref: TableRef) -> bool:
        """Whether a table, partition or bundle is there."""
        if ref.table in CONTRACTS:
            return bool(self.fs.exists(self.path(ref)))
        return bool(self.fs.exists(f"{self.root}/{ref.table}/current.json"))

    def regions(self, table: str) -> list[str]:
        """Keys of the partitions that are there, sorted."""
        if self.is_local:
            # a fraction of the time of fsspec's walk, where there are a thousand
            folders = Path(self.root, table).glob("region=*")
            return sorted(
                folder.name.removeprefix("region=") for folder in folders if (folder / "part.parquet").exists()
            )
        found = self.fs.glob(f"{self.root}/{table}/region=*/part.parquet")
        return sorted(path.split("/region=")[-1].split("/")[0] for path in found)

    def scan(self, table: str, regions: Sequence[str] | None = None) -> list[str]:
        """Paths or URLs of the Parquet files of a table, for DuckDB's `read_parquet`, in region order.

        Where the store is remote, the DuckDB connection needs `register_filesystem(store.fs)` to open them.

        Args:
            table: Name of the table.
            regions: Only these partitions; all that are there if None.

        Raises:
            MissingTableError: If a partition asked for, or every partition, is missing.
        """
        if not CONTRACTS[table].partitioned:
            refs = [TableRef(table)]
        else:
            refs = [TableRef(table, region) for region in (self.regions(table) if regions is None else regions)]
        missing = [str(ref) for ref in refs if not self.exists(ref)]
        if missing or not refs:
            raise MissingTableError(f"not materialised yet: {', '.join(missing) or table}; materialise it first")
        return [self.external(self.path(ref)) for ref in refs]

    def write(self, ref: TableRef, table: pa.Table) -> Written:
        """Check a table against its contract and write it atomically.

        Raises:
            ContractError: If the table breaks its contract; what was there before stays.
        """
        CONTRACTS[ref.table].validate(table, ref.region or "whole table")
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
        content = sink.getvalue()
        self._put(self.path(ref), content)
        return Written(ref, table.num_rows, content.size, hashlib.sha256(content).hexdigest())

    def write_batches(
        self, ref: TableRef, batches: Iterable[pa.Table], row_group_rows: int = _ROW_GROUP_ROWS
    ) -> Written:
        """Write a table that comes in batches and is never whole in memory, checked and atomically.

        The file depends on the rows and on `row_group_rows`, not on how the batches were cut.

        Args:
            ref: The table or partition.
            batches: At least one, in the order of the key; an empty one states the schema of an empty table.
            row_group_rows: Rows that are written, and can be read, at a time.

        Raises:
            ContractError: If a batch breaks the contract; what was there before stays.
        """
        check = BatchedCheck(CONTRACTS[ref.table])

        def checked(group: pa.Table) -> None:
            check.validate(group, ref.region or "whole table")

        with self._replacing(self.path(ref)) as aside:
            with RowGroupWriter(aside, row_group_rows, str(ref), checked) as writer:
                for batch in batches:
                    writer.write(batch)
            return Written(ref, check.rows, aside.stat().st_size, file_sha256(aside))

    def read(self, ref: TableRef, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table or partition.

        Raises:
            MissingTableError: If it has not been materialised.
            ContractError: If the file is truncated or not Parquet.
        """
        with self._opened(ref) as file:
            return pq.read_table(file, columns=list(columns) if columns is not None else None)

    def row_groups(self, ref: TableRef) -> tuple[int, pa.Schema]:
        """How many row groups the file of a table or partition has, and its schema; errors as of `read`."""
        with self._opened(ref) as file:
            parquet = pq.ParquetFile(file)
            return parquet.num_row_groups, parquet.schema_arrow

    def read_row_group(self, ref: TableRef, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one row group: what was written at a time; errors as of `read`."""
        with self._opened(ref) as file:
            # Arrow's own threads would compete with those that read other row groups
            parquet = pq.ParquetFile(file)
            return parquet.read_row_group(number, list(columns) if columns is not None else None, use_threads=False)

    def read_batches(self, ref: TableRef, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read a table or partition row group by row group; errors as of `read`."""
        for number in range(self.row_groups(ref)[0]):
            yield self.read_row_group(ref, number, columns)

    def read_all(
        self, table: str, columns: Sequence[str] | None = None, regions: Sequence[str] | None = None
    ) -> pa.Table:
        """Read all partitions of a table (or those of `regions`), one after the other in region order."""
        names = self.regions(table) if regions is None else list(regions)
        if not names:
            raise MissingTableError(f"no partition of {table} is materialised yet; materialise it first")
        return pa.concat_tables([self.read(TableRef(table, name), columns) for name in names])

    def data_version(self, ref: TableRef) -> str:
        """SHA-256 of a table file's content, or the version of a bundle."""
        if ref.table not in CONTRACTS:
            return str(self._current(ref.table)["version"])
        digest = hashlib.sha256()
        with self.fs.open(self.path(ref), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @property
    def catalog_path(self) -> Path:
        """Local path of the published DuckDB catalog (a working copy where the store is remote)."""
        if self.is_local:
            return Path(self.root) / "catalog.duckdb"
        return self._cache_dir() / "catalog.duckdb"

    @contextlib.contextmanager
    def writing_catalog(self) -> Iterator[Path]:
        """Yield a path for a new catalog; when the block ends without an error it replaces the published one."""
        self.catalog_path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.catalog_path.with_name(f".aside-{uuid.uuid4().hex}.duckdb")
        try:
            yield aside
            if not self.is_local:
                self.publish("catalog.duckdb", aside.read_bytes())
            aside.replace(self.catalog_path)
        finally:
            aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _opened(self, ref: TableRef) -> Iterator[Any]:
        path = self.path(ref)
        try:
            with self.fs.open(path, "rb") as file:
                yield file
        except FileNotFoundError as error:
            raise MissingTableError(f"{ref} is not materialised yet ({path}); materialise it first") from error
        except (pa.ArrowException, OSError) as error:
            raise ContractError(f"{ref}: {path} cannot be read ({error}); materialise it again") from error
