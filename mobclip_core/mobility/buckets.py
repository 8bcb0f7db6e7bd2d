"""Visits and trips of people, gathered into edges in bounded memory.

Belongs here: one pass that locates rows and spreads them over buckets by person, and one that turns each bucket into
edges by region of origin. Does not belong here: which edges leave the step (see `movements`).

Time grows with the rows, memory does not: a bucket holds all rows of its people, about `BUCKET_ROWS` of them, so that
movements and distinct people are counted bucket by bucket, whatever file a row lies in. Which bucket a person is in
changes no result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from mobclip_core.crosswalk import require_usable_positions
from mobclip_core.deployment import Count
from mobclip_core.mobility.locating import Located, Locator
from mobclip_core.mobility.spreading import MOST_FILES, Spreader
from mobclip_core.profile import Files, MobilityConfig, Visits
from mobclip_core.sources.origin_destination import TripReading
from mobclip_core.sources.tables import SourceColumn, create_source_view, reading, source_columns, source_files
from mobclip_core.sql import sql_text
from mobclip_core.tally import Tally
from mobclip_core.workers import ordered_map

BUCKET_ROWS = 4_000_000
"""Rows of a bucket, about: some hundred MiB while they are sorted."""
_BATCH_ROWS = 262_144
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


@dataclass(frozen=True)
class Gathering:
    """What all sources of a step share.

    Args:
        connection: The step's session, with `cell_regions` (cell, region: number of the region) registered.
        threads: Threads that locate rows.
        locator: The grid.
        regions: Number of regions.
        config: The profile's mobility.
        folder: A folder for temporary files, on a disk with room for the rows.
    """

    connection: duckdb.DuckDBPyConnection
    threads: int
    locator: Locator
    regions: int
    config: MobilityConfig
    folder: Path

    def bound_pairs(self, with_person: bool) -> int:
        """Create `mobility_bounded` from `mobility_pairs`; returns the movements that the bounds leave out."""
        noise = self.config.noise
        if noise is None or not with_person:
            self.connection.execute(sql_text("mobility_all_pairs"))
            return 0
        self.connection.execute(
            sql_text("mobility_bounded_pairs"),
            {
                "max_edges": noise.max_edges_per_person,
                "max_movements": noise.max_movements_per_person,
                "self_loops": self.config.self_loops,
            },
        )
        kept = dict(self.connection.execute(sql_text("mobility_movement_counts")).fetchall()).get("kept", 0)
        [(bounded,)] = self.connection.execute(sql_text("mobility_bounded_counts")).fetchall()
        return int(kept - bounded)


def gather_visits(gathering: Gathering, source: Visits) -> tuple[dict[str, Count], Spreader]:
    """Turn visits into edges.

    Args:
        gathering: What all sources share.
        source: The source.

    Returns:
        Counts, and the edges of all buckets (region, src, dst, movements, people), spread by number of the region.

    Raises:
        SourceError: The source is missing, unreadable, lacks a column or has mostly swapped positions.
    """
    connection = gathering.connection
    columns = {
        "person": _plainest(connection, source.file, source.person),
        "time": _plainest(connection, source.file, source.time, time=True),
        "lon": SourceColumn(source.lon, "DOUBLE"),
        "lat": SourceColumn(source.lat, "DOUBLE"),
    }
    read = create_source_view(connection, "mobility_source", source.file, columns, verify=False)
    reader = partial(connection.execute, sql_text("mobility_visit_rows"))
    rows, buckets = _spread(gathering, source.file, read["rows"], reader, gathering.locator.visits)
    _require_usable(source.file, [source.lon, source.lat], rows)
    parameters = {"window_hours": source.window_hours}
    movements, edges = _gather(gathering, buckets, sql_text("mobility_visit_pairs"), parameters, with_person=True)
    # a visit is known to be there twice among its person's visits, not when the row is read
    twice = {"inside": movements.get("duplicate", 0), "outside": movements.get("duplicate_outside", 0)}
    statuses = ("inside", "outside", "without_person", "without_time", "without_position", "swapped")
    counts = _row_counts(read, rows, statuses) | {"rows_duplicate": sum(twice.values())}
    counts |= {f"rows_{status}": rows.counts[status] - number for status, number in twice.items()}
    return counts | _movement_counts(movements, ("kept", "after_window", "leaving")), edges


def gather_trips(gathering: Gathering, file: Files, trips: TripReading) -> tuple[dict[str, Count], Spreader]:
    """Turn trips into edges; arguments, result and errors as of `gather_visits`."""
    connection, columns = gathering.connection, dict(trips.columns)
    with_person = "person" in columns
    if with_person:
        columns["person"] = _plainest(connection, file, columns["person"].source)
    read = create_source_view(connection, "mobility_source", file, columns, verify=False)
    reader = partial(connection.execute, sql_text("mobility_trip_rows"), {"with_person": with_person})
    judge = partial(gathering.locator.trips, with_person=with_person)
    rows, buckets = _spread(gathering, file, read["rows"], reader, judge)
    _require_usable(file, [column.source for name, column in columns.items() if name != "person"], rows)
    movements, edges = _gather(gathering, buckets, sql_text("mobility_trip_pairs"), {}, with_person=with_person)
    statuses = ("inside", "outside", "without_person", "without_position", "swapped")
    return _row_counts(read, rows, statuses) | _movement_counts(movements, ("kept",)), edges


def _plainest(connection: duckdb.DuckDBPyConnection, file: Files, column: str, *, time: bool = False) -> SourceColumn:
    """A column in the type that costs least: people as numbers where they are, times without a zone as they are."""
    # times with an offset are the instants they say, those without one are UTC
    general = "TIMESTAMP WITH TIME ZONE" if time else "VARCHAR"
    found = {source_columns(connection, name).get(column, "") for name in source_files(file)}
    if time:
        plain = all(kind.startswith("TIMESTAMP") and "ZONE" not in kind for kind in found)
        return SourceColumn(column, "TIMESTAMP" if plain else general)
    return SourceColumn(column, "BIGINT" if found <= set(_INTEGERS) else general)


def _spread(
    gathering: Gathering,
    file: Files,
    rows: int,
    execute: Callable[[], duckdb.DuckDBPyConnection],
    judge: Callable[[pa.RecordBatch], Located],
) -> tuple[Tally, Spreader]:
    """Locate the rows of `mobility_source` and spread those that can be used over buckets."""
    number = min(max(-(-rows // BUCKET_ROWS), 1), MOST_FILES)
    found = Tally()
    with Spreader(gathering.folder / "buckets", number) as buckets, reading(file):
        batches = execute().to_arrow_reader(_BATCH_ROWS)
        for located in ordered_map(judge, batches, gathering.threads, in_flight=2 * gathering.threads):
            found.add(located.tally)
            buckets.add(located.batch, (located.spread % np.uint64(number)).astype(np.uint16))
    return found, buckets


def _gather(
    gathering: Gathering, buckets: Spreader, statement: str, parameters: Mapping[str, object], *, with_person: bool
) -> tuple[dict[str, int], Spreader]:
    """Movements by status, and the edges of all buckets."""
    connection = gathering.connection
    movements: dict[str, int] = {}
    number = min(gathering.regions, MOST_FILES)
    with Spreader(gathering.folder / "edges", number) as edges:
        for i in range(buckets.number):
            with buckets.reading(i) as rows:
                if rows is None:
                    continue
                connection.register("mobility_bucket", rows)
                connection.execute(statement, parameters)
                connection.unregister("mobility_bucket")
            buckets.forget(i)
            for status, moved in connection.execute(sql_text("mobility_movement_counts")).fetchall():
                movements[status] = movements.get(status, 0) + moved
            beyond = gathering.bound_pairs(with_person)
            movements["over_bounds"] = movements.get("over_bounds", 0) + beyond
            found = connection.execute(sql_text("mobility_bucket_edges"), {"with_person": with_person})
            for batch in found.to_arrow_reader(_BATCH_ROWS):
                edges.add(batch, (batch["region"].to_numpy() % number).astype(np.uint16))
    return movements, edges


def _row_counts(read: dict[str, int], tally: Tally, statuses: Sequence[str]) -> dict[str, Count]:
    counts: dict[str, Count] = {f"rows_{name}": number for name, number in read.items() if name != "rows"}
    counts["rows_read"] = read["rows"]
    return counts | {f"rows_{status}": tally.counts[status] for status in statuses}


def _movement_counts(movements: dict[str, int], statuses: Sequence[str]) -> dict[str, Count]:
    counts: dict[str, Count] = {f"movements_{status}": movements.get(status, 0) for status in statuses}
    over = movements.get("over_bounds", 0)
    return counts | ({"movements_over_bounds": over} if over else {})


def _require_usable(file: Files, columns: Sequence[str], tally: Tally) -> None:
    statuses = {status: (number, tally.first_rows.get(status, [])) for status, number in tally.counts.items()}
    for status in ("without_person", "without_time"):
        statuses.pop(status, None)
    missing = statuses.pop("without_position", None)
    if missing is not None and not statuses:
        statuses["unreadable"] = missing
    require_usable_positions(source_files(file), columns, statuses)
