"""The lake: the only code that knows paths.

Belongs here: where a table or bundle lies, atomic writes, reads, data versions. Does not belong here: what a table
means (see `contracts`) or how it is computed.

Layout under the root, which is any fsspec URL::

    <table>/part.parquet                   a table without partitions
    <table>/region=<key>/part.parquet      a partitioned table
    <bundle>/<version>/...                 files that belong together (arrays, checkpoints), never changed once written
    <bundle>/current.json                  which version is the good one
    catalog.duckdb                         views over all of it
    cache/<folder>/<sha-256>.parquet       what was dear to compute and can be computed again; may be deleted

A write goes aside and is then renamed (one PUT on object stores), so that a reader or a killed process sees the old
partition or the new one, never half of one.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mobclip_core.contract_batches import BatchedCheck
from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import ContractError, MissingTableError, MobclipError
from mobclip_core.row_groups import RowGroupWriter

_REGION_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VERSION = re.compile(r"[0-9a-f]{64}")
_ROW_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class TableRef:
    """The name of a table, a partition of one, or a bundle.

    Args:
        table: Name of the table or bundle.
        region: Partition key, or None where the table has no partitions.
    """

    table: str
    region: str | None = None

    def __post_init__(self) -> None:
        if self.region is not None and (not _REGION_KEY.fullmatch(self.region) or ".." in self.region):
            raise MobclipError(
                f"region key {self.region!r} is not usable as a directory name; "
                "use up to 64 letters, digits, '_', '-', '.', starting with a letter or digit"
            )

    def __str__(self) -> str:
        return self.table if self.region is None else f"{self.table}[{self.region}]"


@dataclass(frozen=True)
class Written:
    """What a write left behind.

    Args:
        ref: What was written.
        rows: Rows of the table; 0 for a bundle.
        bytes: Size on disk.
        data_version: SHA-256 of the content, hexadecimal.
    """

    ref: TableRef
    rows: int
    bytes: int
    data_version: str


class Store:
    """A lake at a root URL.

    Args:
        root: Local path or any fsspec URL (`s3://bucket/prefix`, `memory://x`, ...).
    """

    def __init__(self, root: str) -> None:
        # other processes write to the lake too: a cached listing would hide what they wrote
        self.fs, self.root = fsspec.core.url_to_fs(root, use_listings_cache=False)
        self.root = self.root.rstrip("/")
        self.url = root.rstrip("/")
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    # ---- where things lie ----

    def path(self, ref: TableRef) -> str:
        """Path of a table or partition inside the store's file system."""
        contract = CONTRACTS[ref.table]
        if contract.partitioned != (ref.region is not None):
            expected = "a region" if contract.partitioned else "no region"
            raise MobclipError(f"{ref}: the table {ref.table} takes {expected}")
        part = f"/region={ref.region}" if ref.region is not None else ""
        return f"{self.root}/{ref.table}{part}/part.parquet"

    @property
    def catalog_path(self) -> Path:
        """Local path of the published DuckDB catalog (a working copy where the store is remote)."""
        if self.is_local:
            return Path(self.root) / "catalog.duckdb"
        return self._cache_dir() / "catalog.duckdb"

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

    def external(self, path: str) -> str:
        """A path of this store as other programs name it: an absolute path, or a URL with its protocol."""
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    # ---- tables ----

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
            return Written(ref, check.rows, aside.stat().st_size, _file_sha256(aside))

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

    # ---- bundles ----

    @contextlib.contextmanager
    def write_bundle(self, name: str, result: list[Written], keep: int = 3) -> Iterator[Path]:
        """Write files that belong together, atomically.

        Yields a local directory to write into. When the block ends without an error the directory becomes the
        bundle's current version, named by its content; `result` then receives one `Written`. The last `keep` versions
        stay.
        """
        scratch = self._scratch(name)
        try:
            yield scratch
            files = sorted(path for path in scratch.rglob("*") if path.is_file())
            digest = hashlib.sha256()
            for path in files:
                digest.update(path.relative_to(scratch).as_posix().encode())
                digest.update(_file_sha256(path).encode())
            version = digest.hexdigest()
            size = sum(path.stat().st_size for path in files)
            target = f"{self.root}/{name}/{version}"
            if not self.is_local:
                # also where the version is there: a process killed while it uploaded may have left half of it
                self.fs.put(f"{scratch}/", f"{target}/", recursive=True)
            elif not self.fs.exists(target):
                scratch.rename(target)
            self._put(f"{self.root}/{name}/current.json", json.dumps({"version": version, "bytes": size}).encode())
            self._forget_old_versions(name, version, keep)
            result.append(Written(TableRef(name), 0, size, version))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def bundle(self, name: str) -> Path:
        """Local directory with the current version of a bundle (downloaded once where the store is remote).

        Raises:
            MissingTableError: If it has not been materialised.
        """
        version = str(self._current(name)["version"])
        remote = f"{self.root}/{name}/{version}"
        if self.is_local:
            return Path(remote)
        local = self._cache_dir() / name / version
        if not local.exists():
            aside = local.with_name(f".aside-{uuid.uuid4().hex}")
            aside.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get(f"{remote}/", f"{aside}/", recursive=True)
            # another process may have fetched the same version meanwhile
            with contextlib.suppress(OSError):
                aside.rename(local)
            shutil.rmtree(aside, ignore_errors=True)
        return local

    def written(self, name: str) -> Written:
        """What was written of a bundle last.

        Raises:
            MissingTableError: If it has not been materialised.
        """
        current = self._current(name)
        return Written(TableRef(name), 0, int(current["bytes"]), str(current["version"]))

    def bundle_versions(self, name: str) -> dict[str, datetime]:
        """Versions of a bundle that are there, the newest first, and when each was written (UTC).

        An object store has no folders with times: the newest file of a version counts.
        """
        written: dict[str, datetime] = {}
        for path, entry in self.fs.find(f"{self.root}/{name}", detail=True).items():
            version = path.removeprefix(f"{self.root}/{name}/").split("/")[0]
            if _VERSION.fullmatch(version):
                when = self.fs.modified(path) if self.is_local else entry.get("LastModified") or self.fs.modified(path)
                when = when if when.tzinfo else when.replace(tzinfo=UTC)
                written[version] = max(when, written.get(version, when))
        return dict(sorted(written.items(), key=lambda item: item[1], reverse=True))

    def use_bundle(self, name: str, version: str) -> Written:
        """Make an earlier version of a bundle, one of `bundle_versions`, the current one.

        Raises:
            MissingTableError: If that version is not there.
        """
        if version not in self.bundle_versions(name):
            raise MissingTableError(f"{self.url}/{name} has no version {version}")
        folder = f"{self.root}/{name}/{version}"
        size = int(self.fs.du(folder))
        self._put(f"{self.root}/{name}/current.json", json.dumps({"version": version, "bytes": size}).encode())
        return Written(TableRef(name), 0, size, version)

    def remove_bundle(self, name: str) -> None:
        """Remove all versions of a bundle; nothing happens where there is none."""
        if self.fs.exists(f"{self.root}/{name}"):
            self.fs.rm(f"{self.root}/{name}", recursive=True)
        if not self.is_local:
            shutil.rmtree(self._cache_dir() / name, ignore_errors=True)

    def bundle_file(self, name: str, file: str) -> str:
        """Path or URL of one file of a bundle's current version, for DuckDB's `read_parquet`; nothing is downloaded.

        Raises:
            MissingTableError: If the bundle has not been materialised.
        """
        return self.external(f"{self.root}/{name}/{self._current(name)['version']}/{file}")

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

    def publish(self, name: str, content: bytes) -> str:
        """Write a file for readers outside the graph at the root of the lake, atomically; returns its path or URL."""
        path = f"{self.root}/{name}"
        self._put(path, content)
        return self.external(path)

    def cached(self, folder: str) -> list[str]:
        """Paths of the files of a cache folder inside the store's file system, sorted."""
        return sorted(str(path) for path in self.fs.glob(f"{self.root}/cache/{folder}/*.parquet"))

    def cache(self, folder: str, content: bytes | pa.Buffer) -> str:
        """Add a Parquet file to a cache folder, named by its content, atomically; returns its path."""
        path = f"{self.root}/cache/{folder}/{hashlib.sha256(content).hexdigest()}.parquet"
        self._put(path, content)
        return path

    # ---- inside ----

    def _current(self, name: str) -> dict[str, Any]:
        try:
            with self.fs.open(f"{self.root}/{name}/current.json", "rb") as file:
                return dict(json.load(file))
        except FileNotFoundError as error:
            place = f"{self.url}/{name}"
            raise MissingTableError(f"{name} is not materialised yet ({place}); materialise it first") from error

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

    def _put(self, path: str, content: bytes | pa.Buffer) -> None:
        if not self.is_local:
            # an object store shows an object only when its upload is complete
            with self.fs.open(path, "wb") as file:
                file.write(content)
            return
        with self._replacing(path) as aside:
            aside.write_bytes(content)

    @contextlib.contextmanager
    def _replacing(self, path: str) -> Iterator[Path]:
        """Yield a local path to write to; when the block ends without an error the file takes the place of `path`."""
        if self.is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            aside = Path(path).with_name(f".aside-{uuid.uuid4().hex}")
        else:
            # closing a remote file that was half written would publish it: it is uploaded when it is whole
            aside = Path(tempfile.gettempdir()) / f".aside-{uuid.uuid4().hex}"
        try:
            yield aside
            if self.is_local:
                with aside.open("rb+") as file:
                    os.fsync(file.fileno())
                aside.replace(path)
            else:
                self.fs.put_file(str(aside), path)
        finally:
            aside.unlink(missing_ok=True)

    def _scratch(self, name: str) -> Path:
        """A new local directory on the same file system as the bundle, so that it can be renamed into place."""
        if not self.is_local:
            return Path(tempfile.mkdtemp(prefix=".aside-"))
        scratch = Path(self.root) / name / f".aside-{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        return scratch

    def _forget_old_versions(self, name: str, version: str, keep: int = 3) -> None:
        """Keep the newest versions so that a reader in the middle of one is not cut off."""
        listed = [entry for entry in self.fs.ls(f"{self.root}/{name}", detail=True) if entry["type"] == "directory"]
        named = {entry["name"].rstrip("/").split("/")[-1]: entry for entry in listed}
        others = [entry for key, entry in named.items() if _VERSION.fullmatch(key) and key != version]
        others.sort(key=lambda entry: str(entry.get("mtime", entry.get("LastModified", ""))), reverse=True)
        for entry in others[keep - 1 :]:
            self.fs.rm(entry["name"], recursive=True)

    def _cache_dir(self) -> Path:
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        cache = Path(tempfile.gettempdir()) / "mobclip-cache" / digest
        cache.mkdir(parents=True, exist_ok=True)
        return cache


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
