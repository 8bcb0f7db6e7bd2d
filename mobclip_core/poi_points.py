"""POIs as points, from raw files to one file a region: every point source is read once for the whole country.

Belongs here: the step that makes the bundle `poi_points`: judging every row, resolving repeated identifiers, gathering
equal points. Does not belong here: the readers (see `sources.points`), judging a batch (see `poi_locating`), counts by
zone and vectors (see `poi`).

The pipeline keeps both sides of a session busy: one session of DuckDB streams the rows of a source, threads turn
positions into cells, a second session gathers what comes out and spills what does not fit in memory. No decision
depends on the order of rows or files.
"""

import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from mobclip_core.bulk_cells import BATCH_ROWS
from mobclip_core.crosswalk import materialised_regions, require_usable_positions
from mobclip_core.deployment import Deployment, StepResult
from mobclip_core.errors import MissingTableError
from mobclip_core.poi_locating import CategoryCodes, KeyCounter, Located, Locator
from mobclip_core.profile import PoiPoints, PoiSource
from mobclip_core.row_groups import RowGroupWriter
from mobclip_core.sources.points import open_points
from mobclip_core.sql import session, sql_text
from mobclip_core.store import Written
from mobclip_core.workers import ordered_map

_LOG = logging.getLogger(__name__)
_ROW_GROUP_ROWS = 65_536
_LOG_ROWS = 10_000_000
_STATUSES = {
    "without_position": "points_without_position",
    "out_of_range": "points_out_of_range",
    "swapped": "points_swapped_suspected",
    "outside": "points_outside",
    "duplicate_id": "points_duplicate_id",
    "inside": "points_inside",
}
SCHEMA = pa.schema(
    [
        pa.field("cell", pa.uint64(), nullable=False),
        pa.field("category", pa.int32(), nullable=False),
        pa.field("known", pa.bool_(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("points", pa.int64(), nullable=False),
    ]
)
"""Columns of a region's file: POIs by cell, category (position in the profile's order), whether the profile knows the
category, and text "category: name"; sorted by cell, category and text's parts."""


def region_file(region: str) -> str:
    """Path of a region's file inside the bundle."""
    return f"region={region}/part.parquet"


def build_poi_points(deployment: Deployment) -> StepResult:
    """Read all point sources once and write the bundle `poi_points`: a file for each region whose grid is there.

    Reads `grid_cells` of all regions.

    Counts, over all sources (a table has them by source): every row read is in exactly one of `points_inside`,
    `points_outside` (in no region), `points_without_position`, `points_out_of_range`, `points_swapped_suspected`,
    `points_duplicate_id` and what a reader drops, such as `points_closed`.

    Raises:
        SourceError: A source is missing, unreadable, lacks a column, is not as its publisher says, or has no usable or
            mostly swapped positions.
        MissingTableError: No region's grid is materialised.
    """
    profile = deployment.profile
    regions = materialised_regions(deployment, "grid_cells")
    if not regions:
        raise MissingTableError("no partition of grid_cells is materialised yet; materialise it first")
    grids = [deployment.store.read_all("grid_cells", ["cell"], [region])["cell"].to_numpy() for region in regions]
    cells = np.concatenate([np.sort(grid) for grid in grids])
    codes = CategoryCodes()
    counts: dict[str, Counter[str]] = {}
    with session(profile.duckdb) as connection:
        connection.execute(sql_text("poi_gathered_table"))
        for name, points in profile.poi.points.items():
            _LOG.info("reading POIs of %s", name)
            locator = Locator(cells, profile.grid.resolution, codes, points.aliases, _one_category(points))
            counts[name] = _gather(connection, deployment, points, locator)
        if len(counts) > 1:
            connection.execute(sql_text("poi_regathered"))
        connection.register("poi_words", codes.table(profile.poi.all_categories))
        _LOG.info("writing %d regions", len(regions))
        result: list[Written] = []
        with deployment.store.write_bundle("poi_points", result) as folder:
            rows = connection.execute(sql_text("poi_gathered")).to_arrow_reader(BATCH_ROWS)
            kept = _write_regions(folder, rows, cells, dict(zip(regions, map(len, grids), strict=True)))
    total = Counter({"points_read": 0} | dict.fromkeys(_STATUSES.values(), 0))
    for by_source in counts.values():
        total.update(by_source)
    markdown = {"Points by source": _source_markdown(counts), "Points by region": _region_markdown(kept)}
    return StepResult(result[0], dict(sorted(total.items())), markdown=markdown)


def _one_category(points: PoiSource) -> str | None:
    return points.category if isinstance(points, PoiPoints) else None


def _gather(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, points: PoiSource, locator: Locator
) -> Counter[str]:
    """Add a source to the table `poi_gathered`; returns its counts."""
    limits = deployment.profile.duckdb
    with (
        tempfile.TemporaryDirectory(prefix="mobclip-poi-", dir=limits.spill_directory) as folder,
        session(limits) as rows,
    ):
        # files keep their order only where their rows do not matter
        rows.execute("SET preserve_insertion_order = false")
        source = open_points(rows, points, Path(folder), BATCH_ROWS)
        schema = locator.schema(with_id=source.has_id, with_name=source.has_name)
        found = Located(pa.RecordBatch.from_pylist([], schema))

        def locate(batch: pa.RecordBatch) -> Located:
            return locator.locate(source.prepare(batch) if source.prepare else batch, schema)

        located = ordered_map(locate, source.batches, limits.threads, in_flight=2 * limits.threads)
        batches = _tallied(located, found)
        counter = None if source.has_id or source.has_name else KeyCounter(locator.cells)
        if counter is not None:
            batches = _uncounted(batches, counter)
        with _streaming(connection, "poi_located", schema, batches):
            duplicates = _take_in(connection, source.has_id, source.has_name, locator.codes)
        if counter is not None:
            connection.register("poi_counted", counter.table())
            connection.execute(sql_text("poi_gather_counted"))
    _require_usable(points, source.position, found)
    counts = Counter({name: found.tally.counts[status] for status, name in _STATUSES.items()})
    counts["points_inside"] -= duplicates
    counts["points_duplicate_id"] += duplicates
    counts["points_read"] = found.rows
    counts.update({f"points_{reason}": found.tally.counts[reason] for reason in found.dropped})
    counts.update({name if name.startswith("osm_") else f"points_{name}": n for name, n in source.counts.items()})
    return counts


def _take_in(connection: duckdb.DuckDBPyConnection, has_id: bool, has_name: bool, codes: CategoryCodes) -> int:
    """Gather the stream `poi_located`; returns how many rows repeat an identifier."""
    duplicates = 0
    if has_id:
        connection.execute(sql_text("poi_staged"))
        connection.register("poi_words", codes.table([]))
        [(duplicates,)] = connection.execute(sql_text("poi_drop_duplicates")).fetchall()
        connection.execute(sql_text("poi_gather_staged"))
        connection.execute("DROP TABLE poi_staged")
    elif has_name:
        connection.execute(sql_text("poi_gather_named"))
    else:
        connection.execute(sql_text("poi_gather"))
    return int(duplicates)


def _tallied(located: Iterable[Located], total: Located) -> Iterator[pa.RecordBatch]:
    """The batches, while their counts are added up."""
    logged = 0
    for part in located:
        total.add(part)
        if total.rows >= logged + _LOG_ROWS:
            logged = total.rows
            _LOG.info("%d million rows read", logged // 1_000_000)
        if part.batch.num_rows:
            yield part.batch


def _uncounted(batches: Iterator[pa.RecordBatch], counter: KeyCounter) -> Iterator[pa.RecordBatch]:
    """Count the keys of batches; what the counter leaves goes on."""
    for batch in batches:
        left = counter.take(batch["key"].to_numpy())
        if len(left):
            yield pa.RecordBatch.from_arrays([pa.array(left)], schema=batch.schema)


@contextlib.contextmanager
def _streaming(
    connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> Iterator[None]:
    """Let statements read batches, once, under a name; an error that the batches raise comes out as it is."""
    errors: list[Exception] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            errors.append(error)
            raise

    connection.register(name, pa.RecordBatchReader.from_batches(schema, guarded()))
    try:
        yield
    except duckdb.Error as error:
        raise (errors or [error])[0] from None
    finally:
        connection.unregister(name)


def _require_usable(points: PoiSource, position: Iterable[str], found: Located) -> None:
    tally = found.tally
    statuses = {
        status: (tally.counts[status], tally.first_rows.get(status, []))
        for status in ("swapped", "out_of_range", "outside", "inside")
    }
    if any(number for number, _ in statuses.values()):
        unreadable = tally.counts["unreadable"]
    else:
        # a source all of whose positions are empty names the wrong columns
        unreadable = tally.counts["without_position"]
    statuses["unreadable"] = (unreadable, tally.first_rows.get("without_position", []))
    require_usable_positions(points.file, list(position), statuses)


class _RegionFile:
    """A region's Parquet file, and how many points and rows are in it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        self.points, self.rows = 0, 0
        self._writer = RowGroupWriter(path, _ROW_GROUP_ROWS)
        self._writer.write(SCHEMA.empty_table())

    def write(self, table: pa.Table) -> None:
        self.points += int(np.sum(table["points"].to_numpy()))
        self.rows += table.num_rows
        self._writer.write(table)

    def close(self) -> None:
        self._writer.close()


def _write_regions(
    folder: Path, batches: Iterable[pa.RecordBatch], cells: np.ndarray, sizes: dict[str, int]
) -> dict[str, _RegionFile]:
    """Write the gathered points, sorted by the number of their cell, to the file of each region."""
    ends = np.cumsum(list(sizes.values()))
    files = {region: _RegionFile(folder / region_file(region)) for region in sizes}
    for batch in batches:
        numbers = batch["number"].to_numpy()
        table = pa.Table.from_batches([batch]).drop_columns(["number"]).cast(pa.schema(list(SCHEMA)[1:]))
        table = table.add_column(0, SCHEMA.field("cell"), pa.array(cells[numbers - 1]))
        # numbers start at 1
        cuts = np.concatenate([[0], np.searchsorted(numbers, ends, side="right")])
        for region, start, end in zip(sizes, cuts[:-1], cuts[1:], strict=True):
            if end > start:
                files[region].write(table.slice(start, end - start))
    for file in files.values():
        file.close()
    return files


def _source_markdown(counts: dict[str, Counter[str]]) -> str:
    names = sorted({name for by_name in counts.values() for name in by_name})
    lines = ["| source | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    lines += [
        f"| {source} | " + " | ".join(f"{by_name[name]:,}" for name in names) + " |"
        for source, by_name in counts.items()
    ]
    return "\n".join(lines)


def _region_markdown(files: dict[str, _RegionFile]) -> str:
    lines = ["| region | points | rows |", "| --- | ---: | ---: |"]
    lines += [f"| {region} | {file.points:,} | {file.rows:,} |" for region, file in files.items()]
    return "\n".join(lines)
