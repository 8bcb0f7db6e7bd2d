"""Batches of visits and trips, judged and located.

Belongs here: the cell of each position, and what becomes of rows that cannot be used. Does not belong here: reading
batches and counting people (see `buckets`).
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mobclip_core.bulk_cells import CellNumbers, cells_of_points

_FIRST_ROWS = 5


@dataclass
class Rows:
    """What became of source rows.

    Args:
        counts: Rows by status.
        first: The first rows of each status that is not a good one.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: "Rows") -> None:
        """Add the rows of another batch."""
        self.counts.update(other.counts)
        for status, rows in other.first.items():
            self.first[status] = sorted(self.first.get(status, []) + rows)[:_FIRST_ROWS]

    def claim(self, status: str, free: np.ndarray, found: np.ndarray, source_row: np.ndarray | None = None) -> None:
        """Give a status to those rows found that are still free, and take them out of `free` (bool, shape (n,))."""
        mine = free & found
        number = int(mine.sum())
        if number:
            self.counts[status] += number
            free &= ~mine
            if source_row is not None:
                self.first[status] = np.sort(source_row[mine])[:_FIRST_ROWS].tolist()


@dataclass(frozen=True)
class Located:
    """A judged batch.

    Args:
        rows: What became of its rows.
        batch: The rows that can be used.
        spread: Hash of what keeps them together, uint64, shape (rows of `batch`,).
    """

    rows: Rows
    batch: pa.RecordBatch
    spread: np.ndarray


class Locator:
    """Judges batches against a grid; threads may share it.

    Args:
        cells: The cells of all regions, uint64, shape (n,).
        resolution: Their resolution.
    """

    def __init__(self, cells: np.ndarray, resolution: int) -> None:
        self._numbers, self._resolution = CellNumbers(cells, resolution), resolution

    def visits(self, batch: pa.RecordBatch) -> Located:
        """Judge visits.

        Every row gets one status: without_person, without_time, swapped (in no region, but longitude and latitude
        exchanged would be), without_position (missing, not finite or out of range), outside (in no region; still a
        stop between two visits) or inside.

        Args:
            batch: Columns of `sql/mobility_visit_rows.sql`.

        Returns:
            The stops: person, time_us, cell, inside.
        """
        source_row = batch["source_row"].to_numpy()
        cell, inside, swapped = self._locate(_floats(batch["lon"]), _floats(batch["lat"]))
        rows, free = Rows(), np.ones(batch.num_rows, dtype=bool)
        rows.claim("without_person", free, ~_valid(batch["person"]), source_row)
        rows.claim("without_time", free, ~_valid(batch["time_us"]), source_row)
        rows.claim("swapped", free, swapped, source_row)
        rows.claim("without_position", free, cell == 0, source_row)
        stops = free.copy()
        rows.claim("outside", free, ~inside)
        rows.claim("inside", free, inside)
        columns = {"cell": pa.array(cell), "inside": pa.array(inside)}
        return _kept(rows, batch, stops, ["person", "time_us"], columns)

    def trips(self, batch: pa.RecordBatch, *, with_person: bool) -> Located:
        """Judge trips.

        Every row gets one status: without_person (where the source has people), swapped (an end in no region, but its
        longitude and latitude exchanged would be), without_position (an end missing, not finite or out of range),
        outside (an end in no region) or inside.

        Args:
            batch: Columns of `sql/mobility_trip_rows.sql`.
            with_person: The source has people.

        Returns:
            The trips inside: person, src, dst.
        """
        source_row = batch["source_row"].to_numpy()
        ends = [
            self._locate(_floats(batch[f"{end}_lon"]), _floats(batch[f"{end}_lat"]))
            for end in ("origin", "destination")
        ]
        (src, src_inside, src_swapped), (dst, dst_inside, dst_swapped) = ends
        rows, free = Rows(), np.ones(batch.num_rows, dtype=bool)
        if with_person:
            rows.claim("without_person", free, ~_valid(batch["person"]), source_row)
        rows.claim("swapped", free, src_swapped | dst_swapped, source_row)
        rows.claim("without_position", free, (src == 0) | (dst == 0), source_row)
        rows.claim("outside", free, ~src_inside | ~dst_inside, source_row)
        good = free.copy()
        rows.claim("inside", free, good)
        return _kept(rows, batch, good, ["person"], {"src": pa.array(src), "dst": pa.array(dst)})

    def _locate(self, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cell (0 for none), whether it is in a region, and whether it would be if the numbers were exchanged."""
        cell = cells_of_points(lon, lat, self._resolution)
        inside = self._numbers.find(cell) > 0
        swapped = np.zeros(len(lon), dtype=bool)
        elsewhere = np.flatnonzero(~inside)
        if len(elsewhere):
            exchanged = cells_of_points(lat[elsewhere], lon[elsewhere], self._resolution)
            swapped[elsewhere] = self._numbers.find(exchanged) > 0
        return cell, inside, swapped


def _floats(column: pa.Array) -> np.ndarray:
    """Null becomes NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=float)


def _valid(column: pa.Array) -> np.ndarray:
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))


def _kept(
    rows: Rows, batch: pa.RecordBatch, good: np.ndarray, names: list[str], columns: dict[str, pa.Array]
) -> Located:
    found = pa.RecordBatch.from_pydict({name: batch[name] for name in names} | columns)
    spread = batch["spread"].to_numpy(zero_copy_only=False)
    if not good.all():
        found, spread = found.filter(pa.array(good)), spread[good]
    return Located(rows, found, spread)
