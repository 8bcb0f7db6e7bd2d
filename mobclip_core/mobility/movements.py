"""Movements of the whole country in one pass over the raw records, k-anonymous.

Belongs here: the step that makes the bundle `movements`. Does not belong here: how a source is read (see `buckets`,
`flows` and `sources.origin_destination`), the privacy check and report (see `privacy`), spreading flows over cells (see
`edges`).

The bundle has two files for each region of origin::

    region=<key>/part.parquet     src, dst, weight, people: edges from visits and trips, sorted by (src, dst)
    region=<key>/zones.parquet    source, origin, destination, destination_region, weight, people: flows between zones

`people` is the smallest group of people that any source's contribution to the edge comes from. With noise it is the
smallest noisy number, never an exact one.
"""

import itertools
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from mobclip_core.crosswalk import materialised_regions
from mobclip_core.deployment import Deployment, StepResult
from mobclip_core.errors import MissingTableError
from mobclip_core.mobility.buckets import Gathering, gather_trips, gather_visits
from mobclip_core.mobility.flows import gather_flows
from mobclip_core.mobility.locating import Locator
from mobclip_core.mobility.noise import add_noise, calibrate
from mobclip_core.mobility.privacy import Report, require_anonymous
from mobclip_core.mobility.spreading import Spreader
from mobclip_core.profile import MobilitySource, Visits
from mobclip_core.row_groups import RowGroupWriter
from mobclip_core.sources.origin_destination import TripReading, origin_destination_reading
from mobclip_core.sql import session, sql_text
from mobclip_core.store import TableRef, Written

BUNDLE = "movements"
_LOG = logging.getLogger(__name__)
_BATCH_ROWS = 1_000_000
SLICE_ROWS = 2_000_000
"""Edges of single buckets that are merged at once, about."""
_LAST_CELL = (1 << 64) - 1


def region_file(region: str, name: str = "part") -> str:
    """Name, within the bundle, of a region's file of edges (`part`) or of flows between zones (`zones`)."""
    return f"region={region}/{name}.parquet"


def build_movements(deployment: Deployment) -> StepResult:
    """Read every mobility source once and keep what enough people made.

    Reads `grid_cells` and, for flows, `zone_cells` of all regions that are there. Writes the bundle `movements`. Each
    source is judged on its own: no edge, and no flow between two zones, of fewer than `mobility.minimum_people` people
    leaves the step; `mobility.noise` adds calibrated noise to the rest.

    - Visits: consecutive visits of a person within `window_hours`. A visit in no region ends a movement, starts none.
    - Trips: each row.
    - Flows and trips between zones: gathered by pair of zones.

    Counts, prefixed with the source's name: `rows_*` add up to `rows_read`; `weight` + `self_loop_weight` +
    `below_k_weight` (+ what `rows_*` and `movements_*` say was dropped) is the source's mass before noise.

    Args:
        deployment: The deployment.

    Raises:
        SourceError: A source is missing, unreadable, lacks a column, has mostly swapped positions, or no row that
            matches its zone layer.
        MissingTableError: No region's grid, or for flows no region's crosswalk, is materialised.
        PrivacyError: What is about to be published breaks the policy.
    """
    config = deployment.profile.mobility
    regions = materialised_regions(deployment, "grid_cells")
    if not regions:
        raise MissingTableError("grid_cells is not materialised yet in any region; materialise it first")
    report = Report()
    written: list[Written] = []
    spill = deployment.profile.duckdb.spill_directory
    with (
        deployment.store.write_bundle(BUNDLE, written) as bundle,
        session(deployment.profile.duckdb) as connection,
        tempfile.TemporaryDirectory(prefix="mobclip-movements-", dir=spill) as folder,
    ):
        locator = _register_cells(connection, deployment, regions)
        connection.execute(sql_text("mobility_zone_flows_table"))
        edges: dict[str, Spreader] = {}
        for i, (name, source) in enumerate(config.sources.items()):
            _LOG.info("reading %s %s", source.kind, name)
            place, threads = Path(folder) / f"source_{i}", deployment.profile.duckdb.threads
            gathering = Gathering(connection, threads, locator, len(regions), config, place)
            found = _gather(gathering, deployment, name, source, report)
            if found is not None:
                edges[name] = found
        for number, region in enumerate(regions):
            (bundle / region_file(region)).parent.mkdir()
            _write_region(connection, deployment, (number, region), edges, bundle, report)
    return StepResult(written[0], report.totals(list(config.sources)), markdown={"Suppressed": report.markdown()})


def _register_cells(connection: duckdb.DuckDBPyConnection, deployment: Deployment, regions: Sequence[str]) -> Locator:
    """Register `cell_regions` (cell, region: its number in `regions`)."""
    grids = [deployment.store.read(TableRef("grid_cells", region), ["cell"])["cell"] for region in regions]
    numbers = np.repeat(np.arange(len(regions), dtype=np.int32), [len(cells) for cells in grids])
    cells = np.concatenate([cells.to_numpy() for cells in grids])
    connection.register("cell_regions", pa.table({"cell": cells, "region": numbers}))
    return Locator(cells, deployment.profile.grid.resolution)


def _gather(
    gathering: Gathering, deployment: Deployment, name: str, source: MobilitySource, report: Report
) -> Spreader | None:
    """Read one source: into the edges of its buckets, which are returned, or into published flows between zones."""
    connection, noise = gathering.connection, gathering.config.noise
    minimum_people = gathering.config.minimum_people
    if isinstance(source, Visits):
        if noise is not None:
            report.calibrations[name] = calibrate(noise, minimum_people, bounded=True)
        counts, edges = gather_visits(gathering, source)
        report.counts |= {f"{name}_{key}": value for key, value in counts.items()}
        return edges
    found = origin_destination_reading(connection, source)
    if noise is not None:
        report.calibrations[name] = calibrate(noise, minimum_people, bounded="person" in found.columns)
    if isinstance(found, TripReading):
        counts, edges = gather_trips(gathering, source.file, found)
        report.counts |= {f"{name}_{key}": value for key, value in counts.items()}
        return edges
    fates = gather_flows(gathering, deployment, source.file, found)
    report.counts |= {f"{name}_{key}": value for key, value in fates.counts.items()}
    report.add_flows(name, fates.by_region)
    if name in report.calibrations:
        exact = connection.execute(sql_text("mobility_exact_flows")).to_arrow_table()
        noisy = add_noise(exact, report.calibrations[name])
        report.hide(name, exact["region"], noisy["region"])
        connection.register("mobility_published_flows", noisy)
    else:
        connection.execute(sql_text("mobility_published_flows"))
    connection.execute(sql_text("mobility_contribute_flows"), {"source": name})
    return None


def _write_region(
    connection: duckdb.DuckDBPyConnection,
    deployment: Deployment,
    place: tuple[int, str],
    edges: dict[str, Spreader],
    bundle: Path,
    report: Report,
) -> None:
    """Judge the edges of every source that start in a region (its number and key), and write the region's two files."""
    number, region = place
    minimum_people = deployment.profile.mobility.minimum_people
    written, flows = bundle / region_file(region), bundle / region_file(region, "zones")
    slices = _slices(connection, number, edges)
    _write(
        itertools.chain.from_iterable(
            _merged(connection, deployment, place, edges, bounds, report) for bounds in slices
        ),
        written,
    )
    reader = connection.execute(sql_text("mobility_region_flows"), {"region": region}).to_arrow_reader(_BATCH_ROWS)
    _write(_tables(reader), flows)
    for file in (written, flows):
        require_anonymous(file, minimum_people)


def _slices(connection: duckdb.DuckDBPyConnection, number: int, edges: dict[str, Spreader]) -> list[tuple[int, int]]:
    """First and last cell of origin of the slices of a region that are merged one after the other, in order.

    A region of a few cells holds most of a country's movements; slices keep what is in memory as small there.
    """
    if sum(parts.rows(number % parts.number) for parts in edges.values()) <= SLICE_ROWS:
        return [(0, _LAST_CELL)]
    found = []
    for parts in edges.values():
        with parts.reading(number % parts.number) as rows:
            if rows is not None:
                connection.register("mobility_parts", rows)
                found.append(connection.execute(sql_text("mobility_src_rows"), {"region": number}).to_arrow_table())
                connection.unregister("mobility_parts")
    table = pa.concat_tables(found)
    cells, place = np.unique(table["src"].to_numpy(), return_inverse=True)
    rows_before = np.cumsum(np.bincount(place, weights=table["rows"].to_numpy(), minlength=len(cells)))
    # the first cell of each slice after the first
    cuts = cells[np.flatnonzero(np.diff(rows_before // SLICE_ROWS)) + 1].tolist()
    return list(zip([0, *cuts], [*(cut - 1 for cut in cuts), _LAST_CELL], strict=True))


def _merged(
    connection: duckdb.DuckDBPyConnection,
    deployment: Deployment,
    place: tuple[int, str],
    edges: dict[str, Spreader],
    bounds: tuple[int, int],
    report: Report,
) -> Iterator[pa.Table]:
    """The published edges of one slice of a region, sorted."""
    number, region = place
    config = deployment.profile.mobility
    connection.execute(sql_text("mobility_contributions_table"))
    for name, parts in edges.items():
        with parts.reading(number % parts.number) as rows:
            if rows is None:
                continue
            connection.register("mobility_parts", rows)
            parameters = {"region": number, "first_src": bounds[0], "last_src": bounds[1]}
            connection.execute(sql_text("mobility_candidates"), parameters)
            connection.unregister("mobility_parts")
        rules = {"minimum_people": config.minimum_people, "self_loops": config.self_loops}
        connection.execute(sql_text("mobility_judged"), rules)
        report.add_edges(name, region, connection.execute(sql_text("mobility_edge_counts")).fetchall())
        if name in report.calibrations:
            exact = connection.execute(sql_text("mobility_exact_edges")).to_arrow_table()
            noisy = add_noise(exact, report.calibrations[name])
            report.fates[name, region].below_threshold += exact.num_rows - noisy.num_rows
            connection.register("mobility_published", noisy)
        else:
            connection.execute(sql_text("mobility_published"))
        connection.execute(sql_text("mobility_contribute"))
    yield from _tables(connection.execute(sql_text("mobility_edges")).to_arrow_reader(_BATCH_ROWS))


def _tables(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The batches of a result; where it is empty, its schema."""
    yield reader.schema.empty_table()
    for batch in reader:
        yield pa.Table.from_batches([batch])


def _write(tables: Iterable[pa.Table], file: Path) -> None:
    with RowGroupWriter(file, _BATCH_ROWS) as writer:
        for table in tables:
            writer.write(table)
