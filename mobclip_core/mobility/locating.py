"""Batches of visits and trips, judged and located.

Belongs here: the cell of each position, and what becomes of rows that cannot be used. Does not belong here: reading
batches and counting people (see `buckets`).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mobclip_core.bulk_cells import CellNumbers
from mobclip_core.tally import Tally


@dataclass(frozen=True)
class Located:
    """A judged batch.

    Args:
        tally: What became of its rows.
        batch: The rows that can be used.
        spread: Hash of what keeps them together, uint64, shape (rows of `batch`,).
    """

    tally: Tally
    batch: pa.RecordBatch
    spread: np.ndarray


class Locator:
    """Judges batches against a grid; threads may share it.

    Args:
        cells: The cells of all regions, uint64, shape (n,).
        resolution: Their resolution.
    """

    def __init__(self, cells: np.ndarray, resolution: int) -> None:
        self._numbers = CellNumbers(cells, resolution)

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
        at = self._numbers.locate(_floats(batch["lon"]), _floats(batch["lat"]))
        tally, free = Tally(), np.ones(batch.num_rows, dtype=bool)
        tally.claim("without_person", free, ~_valid(batch["person"]), source_row)
        tally.claim("without_time", free, ~_valid(batch["time_us"]), source_row)
        tally.claim("swapped", free, at.swapped, source_row)
        tally.claim("without_position", free, at.cell == 0, source_row)
        stops = free.copy()
        tally.claim("outside", free, ~at.inside)
        tally.claim("inside", free, at.inside)
        columns = {"cell": pa.array(at.cell), "inside": pa.array(at.inside)}
        return _kept(tally, batch, stops, ["person", "time_us"], columns)

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
        src, dst = (
            self._numbers.locate(_floats(batch[f"{end}_lon"]), _floats(batch[f"{end}_lat"]))
            for end in ("origin", "destination")
        )
        tally, free = Tally(), np.ones(batch.num_rows, dtype=bool)
        if with_person:
            tally.claim("without_person", free, ~_valid(batch["person"]), source_row)
        tally.claim("swapped", free, src.swapped | dst.swapped, source_row)
        tally.claim("without_position", free, (src.cell == 0) | (dst.cell == 0), source_row)
        tally.claim("outside", free, ~src.inside | ~dst.inside, source_row)
        good = free.copy()
        tally.claim("inside", free, good)
        return _kept(tally, batch, good, ["person"], {"src": pa.array(src.cell), "dst": pa.array(dst.cell)})


def _floats(column: pa.Array) -> np.ndarray:
    """Null becomes NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=float)


def _valid(column: pa.Array) -> np.ndarray:
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))


def _kept(
    tally: Tally, batch: pa.RecordBatch, good: np.ndarray, names: list[str], columns: dict[str, pa.Array]
) -> Located:
    found = pa.RecordBatch.from_pydict({name: batch[name] for name in names} | columns)
    spread = batch["spread"].to_numpy(zero_copy_only=False)
    if not good.all():
        found, spread = found.filter(pa.array(good)), spread[good]
    return Located(tally, found, spread)
