"""Cell-to-cell movement by region of origin, k-anonymous.

Belongs here: the step that makes `mobility_edges` from visits, trips and zone-to-zone flows, and its privacy check.
Does not belong here: the statements (`sql/mobility_*.sql`), pruning and symmetry (see `graph`).
"""

import logging
from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.crosswalk import create_zone_shares, register_grid, require_matching_zones, require_usable_positions
from mobclip_core.deployment import CheckOutcome, Count, Deployment, StepResult
from mobclip_core.profile import Files, Flows, Trips, Visits
from mobclip_core.sources.tables import SourceColumn, create_source_view
from mobclip_core.sql import session, sql_text
from mobclip_core.store import TableRef

_LOG = logging.getLogger(__name__)
_TIME = "TIMESTAMP WITH TIME ZONE"
"""DuckDB type of times: with an offset they are the instants they say, without one they are UTC."""

_RowCounts = dict[str, tuple[int, float, list[int]]]
"""What became of source rows -> rows, people or movements in them, first rows."""


def build_mobility_edges(deployment: Deployment, region: str) -> StepResult:
    """Gather the movements that start in a region into edges from cell to cell.

    Reads `grid_cells` of all regions and, for flows, `zone_cells` and `census_features` of all regions. Writes
    `mobility_edges[region]`. Contributions of several sources to one edge add up; `people` is the smallest of their
    groups, and no group of fewer than `mobility.minimum_people` people contributes.

    - Visits: consecutive visits of a person within `window_hours`. A visit in no region ends a movement, starts none.
    - Trips: each row.
    - Flows: flow(o, d) x share of the source cell in o x share of the destination cell in d; k applies to flow(o, d).

    Counts, prefixed with the source's name: `rows_*` concern the whole source and add up to `rows_read`; the others
    concern this region. `weight` + `self_loop_weight` + `below_k_weight` (+ what `rows_*` and `movements_*` say was
    dropped) is the source's mass.

    Args:
        deployment: The deployment.
        region: Partition key: region of the origin.

    Raises:
        SourceError: A source is missing, unreadable, lacks a column, has mostly swapped positions, or no row that
            matches its zone layer.
        MissingTableError: An upstream table is not materialised.
    """
    config = deployment.profile.mobility
    counts: dict[str, Count] = {}
    with session(deployment.profile.duckdb) as connection:
        register_grid(connection, deployment, region)
        connection.execute(sql_text("mobility_contributions_table"))
        for name, source in config.sources.items():
            _LOG.info("%s: reading %s %s", region, source.kind, name)
            found = _add_source(connection, deployment, region, source)
            parameters = {"minimum_people": config.minimum_people, "self_loops": config.self_loops}
            connection.execute(sql_text("mobility_judged"), parameters)
            connection.execute(sql_text("mobility_contribute"))
            found |= _edge_counts(connection)
            counts |= {f"{name}_{key}": value for key, value in found.items()}
            _LOG.info("%s: %s gives %s edges", region, name, found["edges"])
        table = connection.execute(sql_text("mobility_edges")).to_arrow_table()
    written = deployment.store.write(TableRef("mobility_edges", region), table)
    counts["edges"] = table.num_rows
    counts["total_weight"] = float(pc.sum(table["weight"]).as_py() or 0.0)
    return StepResult(written, counts, markdown={"Mobility by source": _markdown(counts, list(config.sources))})


def check_mobility_privacy(deployment: Deployment, region: str) -> CheckOutcome:
    """Whether every edge of a region comes from at least `mobility.minimum_people` people.

    Raises:
        MissingTableError: If the edges are not materialised.
    """
    k = deployment.profile.mobility.minimum_people
    people = deployment.store.read(TableRef("mobility_edges", region), ["people"])["people"]
    below = int(pc.sum(pc.less(people, pa.scalar(float(k)))).as_py() or 0)
    numbers: dict[str, Count] = {"edges": len(people), "edges_below_k": below, "minimum_people": k}
    if len(people):
        numbers["smallest_group_people"] = float(pc.min(people).as_py())
    if below:
        return CheckOutcome(False, f"{below} of {len(people)} edges come from fewer than {k} people", numbers)
    return CheckOutcome(True, f"all {len(people)} edges come from at least {k} people", numbers)


def _add_source(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str, source: Visits | Trips | Flows
) -> dict[str, Count]:
    """Fill `mobility_candidates` from one source."""
    if isinstance(source, Visits):
        return _add_visits(connection, deployment, region, source)
    if isinstance(source, Trips):
        return _add_trips(connection, deployment, region, source)
    return _add_flows(connection, deployment, region, source)


def _add_visits(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str, source: Visits
) -> dict[str, Count]:
    columns = {
        "person": SourceColumn(source.person, "VARCHAR"),
        "time": SourceColumn(source.time, _TIME),
        "lon": SourceColumn(source.lon, "DOUBLE"),
        "lat": SourceColumn(source.lat, "DOUBLE"),
    }
    read = create_source_view(connection, "mobility_source", source.file, columns)
    connection.execute(sql_text("mobility_visits"), {"resolution": deployment.profile.grid.resolution})
    rows = _row_counts(connection)
    _require_usable(source.file, [source.lon, source.lat], rows)
    parameters = {"region": region, "window_hours": source.window_hours}
    connection.execute(sql_text("mobility_visit_movements"), parameters)
    statuses = ("inside", "outside", "without_person", "without_time", "without_position", "swapped", "duplicate")
    return _named_row_counts(read, rows, statuses) | _gather_movements(connection)


def _add_trips(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str, source: Trips
) -> dict[str, Count]:
    positions = {
        "origin_lon": source.origin_lon,
        "origin_lat": source.origin_lat,
        "destination_lon": source.destination_lon,
        "destination_lat": source.destination_lat,
    }
    columns = {name: SourceColumn(column, "DOUBLE") for name, column in positions.items()}
    if source.person is not None:
        columns["person"] = SourceColumn(source.person, "VARCHAR")
    read = create_source_view(connection, "mobility_source", source.file, columns)
    parameters = {
        "resolution": deployment.profile.grid.resolution,
        "region": region,
        "with_person": source.person is not None,
    }
    connection.execute(sql_text("mobility_trips"), parameters)
    rows = _row_counts(connection)
    _require_usable(source.file, list(positions.values()), rows)
    connection.execute(sql_text("mobility_trip_movements"))
    statuses = ("inside", "other_region", "outside", "without_person", "without_position", "swapped")
    return _named_row_counts(read, rows, statuses) | _gather_movements(connection)


def _add_flows(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str, source: Flows
) -> dict[str, Count]:
    columns = {
        "origin": SourceColumn(source.origin, "VARCHAR"),
        "destination": SourceColumn(source.destination, "VARCHAR"),
        "count": SourceColumn(source.count, "DOUBLE"),
    }
    read = create_source_view(connection, "mobility_source", source.file, columns)
    create_zone_shares(connection, deployment, source.zones, region, by_population=True)
    connection.execute(sql_text("mobility_flow_rows"))
    rows = _row_counts(connection)
    matched = sum(rows.get(status, (0,))[0] for status in ("inside", "other_region"))
    if "without_zone" in rows:
        ends = f"{source.origin} and {source.destination}"
        require_matching_zones(connection, deployment, source.file, ends, source.zones, matched)
    k = {"minimum_people": deployment.profile.mobility.minimum_people}
    connection.execute(sql_text("mobility_flows"))
    [(flows, repeated, below, below_weight)] = connection.execute(sql_text("mobility_flow_counts"), k).fetchall()
    connection.execute(sql_text("mobility_flow_candidates"), k)
    counts = _named_row_counts(read, rows, ("inside", "other_region", "without_zone", "bad_count"))
    weights = {f"rows_{s}_weight": rows.get(s, (0, 0.0))[1] for s in ("inside", "other_region", "without_zone")}
    return (
        counts
        | weights
        | {
            "flows": flows,
            "rows_repeated": repeated,
            "flows_below_k": below,
            "flows_below_k_weight": below_weight,
        }
    )


def _gather_movements(connection: duckdb.DuckDBPyConnection) -> dict[str, Count]:
    statuses = dict(connection.execute(sql_text("mobility_movement_counts")).fetchall())
    connection.execute(sql_text("mobility_movement_candidates"))
    return {f"movements_{status}": statuses.get(status, 0) for status in ("kept", "after_window", "leaving")}


def _row_counts(connection: duckdb.DuckDBPyConnection) -> _RowCounts:
    rows = connection.execute(sql_text("mobility_row_counts")).fetchall()
    return {status: (number, amount, first) for status, number, amount, first in rows}


def _named_row_counts(read: dict[str, int], rows: _RowCounts, statuses: Sequence[str]) -> dict[str, Count]:
    counts: dict[str, Count] = {f"rows_{name}": number for name, number in read.items() if name != "rows"}
    counts["rows_read"] = read["rows"]
    return counts | {f"rows_{status}": rows.get(status, (0,))[0] for status in statuses}


def _require_usable(file: Files, columns: Sequence[str], rows: _RowCounts) -> None:
    placed = {status: rows[status] for status in rows if status not in ("without_person", "without_time")}
    statuses = {status: (number, first) for status, (number, _, first) in placed.items()}
    missing = statuses.pop("without_position", None)
    if missing is not None and not statuses:
        statuses["unreadable"] = missing
    require_usable_positions(file, columns, statuses)


def _edge_counts(connection: duckdb.DuckDBPyConnection) -> dict[str, Count]:
    fates = {
        fate: (edges, weight) for fate, edges, weight in connection.execute(sql_text("mobility_edge_counts")).fetchall()
    }
    counts: dict[str, Count] = {}
    for fate, prefix in (("kept", ""), ("self_loop", "self_loop_"), ("below_k", "below_k_")):
        edges, weight = fates.get(fate, (0, 0.0))
        counts |= {f"{prefix}edges": edges, f"{prefix}weight": weight}
    return counts


def _markdown(counts: dict[str, Count], sources: Sequence[str]) -> str:
    columns = ("rows_read", "edges", "weight", "self_loop_weight", "below_k_edges", "below_k_weight")
    lines = ["| source | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for name in sources:
        lines.append(f"| {name} | " + " | ".join(f"{counts[f'{name}_{key}']:,}" for key in columns) + " |")
    return "\n".join(lines)
