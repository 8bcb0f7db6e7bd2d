"""Bundles: files that belong together, such as arrays or a checkpoint, written and replaced as one.

Belongs here: versions of a bundle and which of them is the good one. Does not belong here: tables (see `store`), how a
single file is written (see `lake_files`).
"""

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobclip_core.errors import MissingTableError
from mobclip_core.lake_files import LakeFiles, TableRef, Written, file_sha256

_VERSION = re.compile(r"[0-9a-f]{64}")


class BundleStore(LakeFiles):
    """The bundles of a lake; each has versions, named by their content, of which one is current."""

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
                digest.update(file_sha256(path).encode())
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

    def _current(self, name: str) -> dict[str, Any]:
        try:
            with self.fs.open(f"{self.root}/{name}/current.json", "rb") as file:
                return dict(json.load(file))
        except FileNotFoundError as error:
            place = f"{self.url}/{name}"
            raise MissingTableError(f"{name} is not materialised yet ({place}); materialise it first") from error

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
