"""Every error that a person is meant to read.

Belongs here: exception classes whose message names the place (file, key, column, rows) and the way out.
Does not belong here: handling; a step that raises one of these has written nothing.
"""

from collections.abc import Sequence


class MobclipError(Exception):
    """Base of all errors raised on purpose by this project."""


class ProfileError(MobclipError):
    """A profile file cannot be read or a value in it is not what was expected."""


FILE_BITS = 40
"""Rows of a source of several files are numbered: number of the file << 40 | 0-based row in that file."""


def shown_file(file: str) -> str:
    """A path or URL for people: what may be a secret in it (a login, the query of a signed link) is left out."""
    scheme, separator, rest = file.partition("://")
    if not separator:
        return file
    place, *query = rest.split("?", 1)
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" + ("?..." if query else "")


def listed(names: Sequence[str], most: int) -> str:
    """Names for people: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class SourceError(MobclipError):
    """A source file is missing, unreadable, or does not hold what the profile says it holds.

    Args:
        file: Path or URL of the file; of all files of a source where the fault is not that of one.
        problem: What is wrong, in one sentence.
        column: The column concerned, if one is.
        rows: Numbers of the first offending rows (0-based, in file order; see `FILE_BITS` for several files).
        hint: What the reader can do about it.
    """

    def __init__(
        self,
        file: str | Sequence[str],
        problem: str,
        *,
        column: str | None = None,
        rows: Sequence[int] = (),
        hint: str | None = None,
    ) -> None:
        files = [file] if isinstance(file, str) else list(file)
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self.file = shown_file(files[0]) + more
        self.column = column
        self.rows = tuple(int(row) for row in rows)
        for name in files:
            # what a library says of the file may repeat its address
            problem = problem.replace(name, shown_file(name))
        parts = [f"{self.file}: {problem}"]
        if column is not None:
            parts.append(f"column: {column}")
        if self.rows:
            parts.append("first rows: " + ", ".join(_row_name(files, row) for row in self.rows[:5]))
        if hint:
            parts.append(f"way out: {hint}")
        super().__init__("; ".join(parts))


def _row_name(files: Sequence[str], row: int) -> str:
    number, row = row >> FILE_BITS, row & ((1 << FILE_BITS) - 1)
    return f"{row} of {shown_file(files[number])}" if len(files) > 1 and number < len(files) else str(row)


class ContractError(MobclipError):
    """A table about to be written, or just read, violates its contract."""


class CheckFailedError(MobclipError):
    """A blocking check of a table did not pass; what was there before stays."""


class PrivacyError(MobclipError):
    """What is about to be published breaks the profile's privacy policy; nothing was published."""


class MissingTableError(MobclipError):
    """A step needs a table or a partition that has not been materialised."""


class FingerprintError(MobclipError):
    """Embeddings of different encoders would be mixed."""


class TrainingError(MobclipError):
    """A process that trains the encoder together with others ended before its work was done."""
