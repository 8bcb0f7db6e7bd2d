"""Judging points in batches: the cell of each, and what becomes of those that lie in none.

Belongs here: what is done to a batch, free of the global interpreter lock where it costs time. Does not belong here:
where batches come from and go to (see `poi_points`).
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.bulk_cells import CellNumbers, Positions, wkb_positions
from mobclip_core.errors import MobclipError
from mobclip_core.tally import Tally

MAX_CATEGORIES = 1_000_000
"""A source with more categories names an identifier or a text as its category."""

_CODE_BITS = np.uint64(32)
_COUNTERS = 1 << 26


class CategoryCodes:
    """Numbers for the categories of all sources, given as they turn up; shared by threads.

    The numbers depend on the order of the rows, so they must not reach anything that is written.
    """

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {}
        self._lock = threading.Lock()

    def of(self, categories: Sequence[str | None]) -> np.ndarray:
        """The numbers of distinct categories.

        Returns:
            uint64, shape (n,).

        Raises:
            MobclipError: More than `MAX_CATEGORIES` categories.
        """
        with self._lock:
            found = [self._codes.setdefault(category, len(self._codes)) for category in categories]
            if len(self._codes) > MAX_CATEGORIES:
                raise MobclipError(
                    f"more than {MAX_CATEGORIES} different categories, such as {categories[-1]!r}: "
                    "name the column that holds a category in the profile, not an identifier or a text"
                )
        return np.array(found, dtype=np.uint64)

    def table(self, known: Sequence[str]) -> pa.Table:
        """The categories so far.

        Args:
            known: The profile's categories, the one for the unknown last.

        Returns:
            Columns code, category, position (in the order of `known`), known, rank (place in the order by position and
            category).
        """
        position = {category: i for i, category in enumerate(known)}
        order = sorted(self._codes, key=lambda c: (position.get(c or "", len(known) - 1), c is not None, c or ""))
        rank = {category: i for i, category in enumerate(order)}
        return pa.table(
            {
                "code": pa.array(self._codes.values(), pa.uint64()),
                "rank": pa.array([rank[c] for c in self._codes], pa.int32()),
                "category": pa.array(self._codes, pa.string()),
                "position": pa.array([position.get(c or "", len(known) - 1) for c in self._codes], pa.int32()),
                "known": pa.array([c in position for c in self._codes], pa.bool_()),
            }
        )


@dataclass
class Located:
    """A judged batch.

    Args:
        batch: The points inside a region, see `Locator.schema`.
        rows: Rows of the batch before.
        tally: Rows by status: `inside`, `outside`, `swapped`, `out_of_range`, `without_position` (of which
            `unreadable` have something else in its place), and the reader's reasons to drop rows.
        dropped: The reader's reasons that occur.
    """

    batch: pa.RecordBatch
    rows: int = 0
    tally: Tally = field(default_factory=Tally)
    dropped: set[str] = field(default_factory=set)

    def add(self, other: "Located") -> None:
        """Add the counts of another batch."""
        self.rows += other.rows
        self.tally.add(other.tally)
        self.dropped |= other.dropped


class Locator:
    """Turns batches of points of one source into cells and categories.

    Args:
        cells: The cells of all regions, uint64, shape (n,).
        resolution: Their resolution.
        codes: Numbers of categories.
        aliases: Source category -> category of the profile.
        category: Category of rows without one.
    """

    def __init__(
        self,
        cells: np.ndarray,
        resolution: int,
        codes: CategoryCodes,
        aliases: Mapping[str, str],
        category: str | None,
    ) -> None:
        self.codes = codes
        self.cells = len(cells)
        self._numbers = CellNumbers(cells, resolution)
        self._aliases, self._category = aliases, category

    @staticmethod
    def schema(*, with_id: bool, with_name: bool) -> pa.Schema:
        """Columns of located points: `key` (number of the cell << 32 | number of the category), and what is asked."""
        fields = [pa.field("key", pa.uint64())]
        if with_id or with_name:
            fields.append(pa.field("name", pa.string()))
        if with_id:
            fields += [pa.field("id", pa.string()), pa.field("lon", pa.float64()), pa.field("lat", pa.float64())]
        return pa.schema(fields)

    def locate(self, batch: pa.RecordBatch, schema: pa.Schema) -> Located:
        """Judge a batch of points.

        A point lies inside when its cell is one of the grid. Of the others, one without two finite coordinates is
        `without_position`; `swapped`, where longitude and latitude exchanged would hit a cell; `out_of_range`, beyond
        180 or 90 degrees; else `outside`.

        Args:
            batch: Columns `point_batches.POINT_COLUMNS`.
            schema: Columns wanted, see `schema`.
        """
        found = Located(batch, batch.num_rows)
        batch = self._without_dropped(batch, found)
        lon, lat = _coordinates(batch)
        at = self._numbers.locate(lon, lat)
        inside = int(np.count_nonzero(at.inside))
        found.tally.counts["inside"] = inside
        if inside < batch.num_rows:
            _judge_others(batch, lon, lat, at, found.tally)
        key = (at.number.astype(np.uint64) << _CODE_BITS) | self._category_codes(batch["category"])
        made = {"key": pa.array(key), "lon": pa.array(lon), "lat": pa.array(lat)}
        columns = [made[name] if name in made else batch[name] for name in schema.names]
        found.batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        if inside < batch.num_rows:
            found.batch = found.batch.filter(pa.array(at.inside))
        return found

    def _without_dropped(self, batch: pa.RecordBatch, found: Located) -> pa.RecordBatch:
        dropped = batch["dropped"]
        if dropped.null_count == len(dropped):
            return batch
        for reason, count in zip(*dropped.drop_null().value_counts().flatten(), strict=True):
            found.tally.counts[reason.as_py()] += count.as_py()
            found.dropped.add(reason.as_py())
        return batch.filter(dropped.is_null())

    def _category_codes(self, categories: pa.Array) -> np.ndarray:
        if isinstance(categories, pa.DictionaryArray) and (categories.null_count or categories.dictionary.null_count):
            categories = categories.cast(pa.string())
        encoded = categories
        if not isinstance(categories, pa.DictionaryArray):
            encoded = pc.dictionary_encode(categories, null_encoding="encode")
        words = [
            self._category if word is None else self._aliases.get(word, word) for word in encoded.dictionary.to_pylist()
        ]
        return self.codes.of(words)[encoded.indices.to_numpy()] if words else np.zeros(0, dtype=np.uint64)


class KeyCounter:
    """Counts points without a name by cell and category: an array of counters is much faster than a table of groups.

    Args:
        cells: Number of cells.
        counters: Number of counters; categories that come when they are used up are left to others.
    """

    def __init__(self, cells: int, counters: int = _COUNTERS) -> None:
        self._codes = max(1, counters // (cells + 1))
        # memory of counters that are never touched is never taken
        self._counts = np.zeros((cells + 1) * self._codes, dtype=np.uint32)

    def take(self, keys: np.ndarray) -> np.ndarray:
        """Count keys, see `Locator.schema`; returns those that have no counter.

        Args:
            keys: uint64, shape (n,).
        """
        code = (keys & np.uint64((1 << 32) - 1)).astype(np.int64)
        own = code < self._codes
        left = np.zeros(0, dtype=np.uint64)
        if not own.all():
            left, keys, code = keys[~own], keys[own], code[own]
        place = (keys >> _CODE_BITS).astype(np.int64) * self._codes + code
        np.add.at(self._counts, place, np.ones(len(place), dtype=np.uint32))
        return left

    def table(self) -> pa.Table:
        """Columns key, name (null) and points, for the counters above 0."""
        place = np.flatnonzero(self._counts)
        number, code = np.divmod(place.astype(np.uint64), np.uint64(self._codes))
        return pa.table(
            {
                "key": pa.array((number << _CODE_BITS) | code),
                "name": pa.nulls(len(place), pa.string()),
                "points": pa.array(self._counts[place].astype(np.int64)),
            }
        )


def _judge_others(batch: pa.RecordBatch, lon: np.ndarray, lat: np.ndarray, at: Positions, tally: Tally) -> None:
    """Give a status to the points that lie in no cell of the grid."""
    others = ~at.inside
    rows, lon, lat, swapped = (values[others] for values in (batch["source_row"].to_numpy(), lon, lat, at.swapped))
    filled = batch["filled"].to_numpy(zero_copy_only=False)[others]
    has = np.isfinite(lon) & np.isfinite(lat)
    beyond = has & ~swapped & ((np.abs(lon) > 180) | (np.abs(lat) > 90))
    tally.note("without_position", rows[~has])
    tally.counts["unreadable"] = int(np.count_nonzero(~has & filled))
    tally.note("swapped", rows[swapped])
    tally.note("out_of_range", rows[beyond])
    tally.note("outside", rows[has & ~swapped & ~beyond])


def _coordinates(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes, float64 of shape (n,); NaN where there is none."""
    lon, lat = (batch[name].to_numpy(zero_copy_only=False) for name in ("lon", "lat"))
    wkb = batch["wkb"]
    if wkb.null_count < len(wkb):
        x, y = wkb_positions(wkb)
        lon, lat = np.where(np.isnan(lon), x, lon), np.where(np.isnan(lat), y, lat)
    return lon, lat
