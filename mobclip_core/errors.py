"""Every error that a person is meant to read.

Belongs here: exception classes whose message names the place (file, key, column, rows) and the way out.
Does not belong here: handling; a step that raises one of these has written nothing.
"""

from collections.abc import Sequence


class MobclipError(Exception):
    """Base of all errors raised on purpose by this project."""


class ProfileError(MobclipError):
    """A profile file cannot be read or a value in it is not what was expected."""


class SourceError(MobclipError):
    """A source file is missing, unreadable, or does not hold what the profile says it holds.

    Args:
        file: Path or URL of the file.
        problem: What is wrong, in one sentence.
        column: The column concerned, if one is.
        rows: Numbers of the first offending rows (0-based, in file order).
        hint: What the reader can do about it.
    """

    def __init__(
        self, file: str, problem: str, *, column: str | None = None, rows: Sequence[int] = (), hint: str | None = None
    ) -> None:
        self.file = file
        self.column = column
        self.rows = tuple(int(row) for row in rows)
        parts = [f"{file}: {problem}"]
        if column is not None:
            parts.append(f"column: {column}")
        if self.rows:
            parts.append("first rows: " + ", ".join(str(row) for row in self.rows[:5]))
        if hint:
            parts.append(f"way out: {hint}")
        super().__init__("; ".join(parts))


class ContractError(MobclipError):
    """A table about to be written, or just read, violates its contract."""


class MissingTableError(MobclipError):
    """A step needs a table or a partition that has not been materialised."""


class FingerprintError(MobclipError):
    """Embeddings of different encoders would be mixed."""
