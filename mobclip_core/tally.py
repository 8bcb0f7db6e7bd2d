"""What became of the rows of a source.

Belongs here: counting rows by status while batches are judged by threads. Does not belong here: the statuses.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

_FIRST_ROWS = 5


@dataclass
class Tally:
    """Rows by status, and the first of each, for messages.

    Args:
        counts: Rows by status; a status without rows is not there.
        first_rows: The first source rows of each status whose rows were given.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first_rows: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Add the rows of another batch; the order of batches does not matter."""
        self.counts.update(other.counts)
        for status, rows in other.first_rows.items():
            self.first_rows[status] = sorted(self.first_rows.get(status, []) + rows)[:_FIRST_ROWS]

    def note(self, status: str, rows: np.ndarray) -> None:
        """Count source rows, shape (n,), under a status that has none yet, and remember the first ones."""
        if len(rows):
            self.counts[status] += len(rows)
            self.first_rows[status] = np.sort(rows)[:_FIRST_ROWS].tolist()

    def claim(self, status: str, free: np.ndarray, found: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Give a status to those rows found that are still free, and take them out of `free`.

        Args:
            status: The status; it must have no rows yet.
            free: Rows without a status, bool, shape (n,); changed in place.
            found: Rows that the status would suit, bool, shape (n,).
            rows: Numbers of the rows in the source, shape (n,); without them no first rows are remembered.
        """
        mine = free & found
        free &= ~mine
        if rows is not None:
            self.note(status, rows[mine])
        elif mine.any():
            self.counts[status] += int(np.count_nonzero(mine))
