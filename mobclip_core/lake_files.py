"""The files of a lake: where they lie and how they are written.

Belongs here: the root and its file system, writing a file atomically, what lies beside the tables (the cache, files for
readers outside the graph). Does not belong here: tables (see `store`), files that belong together (see `bundles`).

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
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow as pa

from mobclip_core.errors import MobclipError

_REGION_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


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


class LakeFiles:
    """The files under a root URL.

    Args:
        root: Local path or any fsspec URL (`s3://bucket/prefix`, `memory://x`, ...).
    """

    def __init__(self, root: str) -> None:
        # other processes write to the lake too: a cached listing would hide what they wrote
        self.fs, self.root = fsspec.core.url_to_fs(root, use_listings_cache=False)
        self.root = self.root.rstrip("/")
        self.url = root.rstrip("/")
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def external(self, path: str) -> str:
        """A path of this store as other programs name it: an absolute path, or a URL with its protocol."""
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

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

    def _cache_dir(self) -> Path:
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        cache = Path(tempfile.gettempdir()) / "mobclip-cache" / digest
        cache.mkdir(parents=True, exist_ok=True)
        return cache


def file_sha256(path: Path) -> str:
    """SHA-256 of a local file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
