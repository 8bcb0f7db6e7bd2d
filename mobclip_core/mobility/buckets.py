"""Visits and trips of people, gathered into edges in bounded memory.

Belongs here: one pass that locates rows and spreads them over buckets by person, and one that turns each bucket into
edges by region of origin. Does not belong here: which edges leave the step (see `movements`).

Time grows with the rows, memory does not: a bucket holds all rows of its people, about `BUCKET_ROWS` of them, so that
movements and distinct people are counted bucket by bucket, whatever file a row lies in. Which bucket a person is in
changes no result.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mobclip_core.crosswalk import require_usable_positions
from mobclip_core.deployment import Count
from mobclip_core.profile import Files, MobilityConfig, Visits
from mobclip_core.sources.origin_destination import TripReading
from mobclip_core.sources.tables import SourceColumn, create_source_view, reading, source_files
from mobclip_core.sql import sql_text

BUCKET_ROWS = 4_000_000
"""Rows of a bucket, about: some hundred MiB while they are sorted."""
_MOST_BUCKETS = 4_000
_TIME = "TIMESTAMP WITH TIME ZONE"
"""DuckDB type of times: with an offset they are the instants they say, without one they are UTC."""
_UNUSABLE = -1

_Rows = dict[str, tuple[int, list[int]]]
"""What became of source rows -> rows, first rows."""


@dataclass(frozen=True)
class Gathering:
    """What all sources of a step share.

    Args:
        connection: The step's session, with `grid` registered.
        resolution: H3 resolution of the grid.
        config: The profile's mobility.
        folder: A folder for temporary files, on a disk with room for the rows.
        bucket_rows: Rows of a bucket.
    """

    connection: duckdb.DuckDBPyConnection
    resolution: int
    config: MobilityConfig
    folder: Path
    bucket_rows: int = BUCKET_ROWS

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


def gather_visits(gathering: Gathering, source: Visits) -> tuple[dict[str, Count], Path]:
    """Turn visits into edges.

    Args:
        gathering: What all sources share.
        source: The source.

    Returns:
        Counts, and the folder with the edges of all buckets, a folder `region=<key>` for each region of origin.

    Raises:
        SourceError: The source is missing, unreadable, lacks a column or has mostly swapped positions.
    """
    columns = {
        "person": SourceColumn(source.person, "VARCHAR"),
        "time": SourceColumn(source.time, _TIME),
        "lon": SourceColumn(source.lon, "DOUBLE"),
        "lat": SourceColumn(source.lat, "DOUBLE"),
    }
    read = create_source_view(gathering.connection, "mobility_source", source.file, columns, verify=False)
    rows, buckets = _spread(gathering, sql_text("mobility_visits"), source.file, read["rows"], {})
    _require_usable(source.file, [source.lon, source.lat], rows)
    movements: dict[str, int] = {}
    edges = gathering.folder / "edges"
    for bucket in buckets:
        parameters = {"files": f"{bucket}/*.parquet", "window_hours": source.window_hours}
        gathering.connection.execute(sql_text("mobility_visit_pairs"), parameters)
        _add_bucket(gathering, bucket, edges, movements, with_person=True)
    # a visit is known to be there twice among its person's visits, not when the row is read
    twice = {"inside": movements.get("duplicate", 0), "outside": movements.get("duplicate_outside", 0)}
    statuses = ("inside", "outside", "without_person", "without_time", "without_position", "swapped")
    counts = _row_counts(read, rows, statuses) | {"rows_duplicate": sum(twice.values())}
    counts |= {f"rows_{status}": rows.get(status, (0, []))[0] - number for status, number in twice.items()}
    return counts | _movement_counts(movements, ("kept", "after_window", "leaving")), edges


def gather_trips(gathering: Gathering, file: Files, trips: TripReading) -> tuple[dict[str, Count], Path]:
    """Turn trips into edges; arguments, result and errors as of `gather_visits`."""
    with_person = "person" in trips.columns
    read = create_source_view(gathering.connection, "mobility_source", file, trips.columns, verify=False)
    rows, buckets = _spread(gathering, sql_text("mobility_trips"), file, read["rows"], {"with_person": with_person})
    positions = [column.source for name, column in trips.columns.items() if name != "person"]
    _require_usable(file, positions, rows)
    movements: dict[str, int] = {}
    edges = gathering.folder / "edges"
    for bucket in buckets:
        gathering.connection.execute(sql_text("mobility_trip_pairs"), {"files": f"{bucket}/*.parquet"})
        _add_bucket(gathering, bucket, edges, movements, with_person=with_person)
    statuses = ("inside", "outside", "without_person", "without_position", "swapped")
    return _row_counts(read, rows, statuses) | _movement_counts(movements, ("kept",)), edges


def _spread(
    gathering: Gathering, statement: str, file: Files, rows: int, parameters: dict[str, object]
) -> tuple[_Rows, Iterator[Path]]:
    """Locate the rows of `mobility_source` and spread them over buckets, which are then given one by one."""
    folder = gathering.folder / "buckets"
    number = min(max(-(-rows // gathering.bucket_rows), 1), _MOST_BUCKETS)
    parameters = {**parameters, "resolution": gathering.resolution, "buckets": number, "folder": str(folder)}
    with reading(file):
        gathering.connection.execute(statement, parameters)
    if not any(folder.glob("bucket=*/*.parquet")):
        return {}, iter(())
    found = gathering.connection.execute(sql_text("mobility_row_counts"), {"files": f"{folder}/*/*.parquet"}).fetchall()
    statuses = {status: (count, first or []) for status, count, first in found}
    return statuses, (bucket for i in range(number) if (bucket := folder / f"bucket={i}").is_dir())


def _add_bucket(
    gathering: Gathering, bucket: Path, edges: Path, movements: dict[str, int], *, with_person: bool
) -> None:
    """Write the edges of the bucket in `mobility_pairs`, add its counts, and free its disk space."""
    connection = gathering.connection
    for status, number in connection.execute(sql_text("mobility_movement_counts")).fetchall():
        movements[status] = movements.get(status, 0) + number
    beyond = gathering.bound_pairs(with_person)
    movements["over_bounds"] = movements.get("over_bounds", 0) + beyond
    connection.execute(sql_text("mobility_bucket_edges"), {"with_person": with_person, "folder": str(edges)})
    shutil.rmtree(bucket)


def _row_counts(read: dict[str, int], rows: _Rows, statuses: Sequence[str]) -> dict[str, Count]:
    counts: dict[str, Count] = {f"rows_{name}": number for name, number in read.items() if name != "rows"}
    counts["rows_read"] = read["rows"]
    return counts | {f"rows_{status}": rows.get(status, (0, []))[0] for status in statuses}


def _movement_counts(movements: dict[str, int], statuses: Sequence[str]) -> dict[str, Count]:
    counts: dict[str, Count] = {f"movements_{status}": movements.get(status, 0) for status in statuses}
    over = movements.get("over_bounds", 0)
    return counts | ({"movements_over_bounds": over} if over else {})


def _require_usable(file: Files, columns: Sequence[str], rows: _Rows) -> None:
    statuses = {status: rows[status] for status in rows if status not in ("without_person", "without_time")}
    missing = statuses.pop("without_position", None)
    if missing is not None and not statuses:
        statuses["unreadable"] = missing
    require_usable_positions(source_files(file), columns, statuses)
