"""A lake seen by a step that has not yet been approved: what it writes lies aside until it is put in place.

Belongs here: writing tables aside, reading them there, putting them in place or dropping them. Does not belong here:
what approves a table (see `contracts` and the `check_*` functions), nor bundles, whose versions never replace each
other's files.
"""

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from mobclip_core.store import Store, TableRef, Written

_ASIDE = (".staged-", ".aside-")
_ABANDONED = timedelta(days=2)


class StagedStore(Store):
    """The lake of a store, with tables of its own aside: they are read here and by nobody else.

    Args:
        store: The lake.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.url)
        self._aside: dict[TableRef, str] = {}

    def path(self, ref: TableRef) -> str:
        """Path of a table or partition: aside where this store wrote it."""
        return self._aside.get(ref) or super().path(ref)

    def write(self, ref: TableRef, table: pa.Table) -> Written:
        """Check a table against its contract and write it aside; errors as of `Store.write`."""
        self._lay_aside(ref)
        return super().write(ref, table)

    def write_batches(self, ref: TableRef, batches: Iterable[pa.Table], *arguments: int, **options: int) -> Written:
        """Write a table that comes in batches aside; arguments and errors as of `Store.write_batches`."""
        self._lay_aside(ref)
        return super().write_batches(ref, batches, *arguments, **options)

    def put_in_place(self) -> None:
        """Let what was written aside take the place of what was there, each table at once."""
        for ref, aside in list(self._aside.items()):
            # a rename; on an object store a copy of the whole object, which readers see when it is complete
            self.fs.mv(aside, super().path(ref))
            del self._aside[ref]

    def drop(self) -> None:
        """Remove what lies aside."""
        for aside in self._aside.values():
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(aside)
        self._aside.clear()

    def _lay_aside(self, ref: TableRef) -> None:
        folder = super().path(ref).rsplit("/", 1)[0]
        self._remove_abandoned(folder)
        self._aside.setdefault(ref, f"{folder}/.staged-{uuid.uuid4().hex}.parquet")

    def _remove_abandoned(self, folder: str) -> None:
        """Remove what killed processes left aside, once it is old enough to be nobody's work."""
        if not self.fs.exists(folder):
            return
        for path in self.fs.ls(folder, detail=False):
            if path.rsplit("/", 1)[-1].startswith(_ASIDE):
                # another process may remove it too
                with contextlib.suppress(FileNotFoundError):
                    if datetime.now(UTC) - self.fs.modified(path).astimezone(UTC) > _ABANDONED:
                        self.fs.rm_file(path)


@contextlib.contextmanager
def staged(store: Store) -> Iterator[StagedStore]:
    """A staged store for a block; what was not put in place at its end is removed."""
    found = StagedStore(store)
    try:
        yield found
    finally:
        found.drop()
