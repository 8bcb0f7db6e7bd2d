"""Flows between zones, gathered by pair of zones before they are spread over cells.

Belongs here: reading every kind of zone-to-zone source once, judging each pair of zones by k, and the region that
it starts in.
Does not belong here: what published files hold (see `sources.origin_destination`), spreading over cells (see
`edges`).
"""

from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.crosswalk import materialised_regions, require_matching_zones
from mobclip_core.deployment import Count, Deployment
from mobclip_core.errors import FILE_BITS, MissingTableError
from mobclip_core.mobility.buckets import Gathering
from mobclip_core.profile import Files
from mobclip_core.sources.origin_destination import FlowReading, ZoneTripReading
from mobclip_core.sources.tables import create_source_view, reading
from mobclip_core.sql import sql_text
from mobclip_core.store import TableRef


@dataclass(frozen=True)
class FlowFates:
    """What became of the flows of a source.

    Args:
        counts: Rows by status, flows by fate.
        by_region: Region of origin and fate (kept, below_k) -> flows, weight.
    """

    counts: dict[str, Count]
    by_region: dict[tuple[str, str], tuple[int, float]]


def gather_flows(
    gathering: Gathering, deployment: Deployment, file: Files, flows: FlowReading | ZoneTripReading
) -> FlowFates:
    """Gather a zone-to-zone source into `mobility_flows`: one row for each pair of zones.

    Args:
        gathering: What all sources share.
        deployment: The deployment, for its crosswalk.
        file: Files of the source.
        flows: How to read them.

    Raises:
        SourceError: The source is missing, unreadable, lacks a column, or no row matches the layer.
        MissingTableError: No region's crosswalk is materialised.
    """
    connection = gathering.connection
    read = create_source_view(connection, "mobility_source", file, flows.columns, verify=False)
    _register_zone_homes(connection, deployment, flows.zones)
    with reading(file):
        over_bounds = _gather_pairs(gathering, flows)
    connection.execute(sql_text("mobility_flows"), {"minimum_people": gathering.config.minimum_people})
    rows = _rows_by_status(connection)
    if "without_zone" in rows:
        ends = f"{flows.columns['origin'].source} and {flows.columns['destination'].source}"
        require_matching_zones(connection, deployment, file, ends, flows.zones, rows.get("inside", (0, 0.0))[0])
    return FlowFates(*_fates(connection, read, rows, over_bounds))


def _register_zone_homes(connection: duckdb.DuckDBPyConnection, deployment: Deployment, layer: str) -> None:
    """Register `zone_home` (zone, region): a zone lies in the crosswalk of the one region that is its home."""
    regions = materialised_regions(deployment, "zone_cells")
    if not regions:
        raise MissingTableError("zone_cells is not materialised yet in any region; materialise it first")
    homes = []
    for region in regions:
        cells = deployment.store.read(TableRef("zone_cells", region), ["layer", "zone"])
        zones = pc.unique(cells.filter(pc.equal(cells["layer"], layer))["zone"].combine_chunks())
        homes.append(
            pa.table({"zone": zones.cast(pa.string()), "region": pa.array([region] * len(zones), pa.string())})
        )
    connection.register("zone_home", pa.concat_tables(homes))


def _gather_pairs(gathering: Gathering, flows: FlowReading | ZoneTripReading) -> int:
    connection = gathering.connection
    if "person" in flows.columns:
        connection.execute(sql_text("mobility_zone_trips"))
        over_bounds = gathering.bound_pairs(with_person=True)
        connection.execute(sql_text("mobility_zone_trip_pairs"))
        return over_bounds
    options = flows if isinstance(flows, FlowReading) else FlowReading(flows.zones, flows.columns)
    connection.execute(
        sql_text("mobility_flow_pairs"),
        {
            "code_digits": options.code_digits,
            "zone_digits": options.zone_digits,
            "kinds": None if options.kinds is None else list(options.kinds),
            "occasion": options.occasion if isinstance(flows, FlowReading) else "trip",
            "file_bits": FILE_BITS,
        },
    )
    return 0


def _rows_by_status(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, float]]:
    rows = connection.execute(sql_text("mobility_flow_rows")).fetchall()
    return {status: (number, weight) for status, number, weight in rows}


def _fates(
    connection: duckdb.DuckDBPyConnection, read: dict[str, int], rows: dict[str, tuple[int, float]], over_bounds: int
) -> tuple[dict[str, Count], dict[tuple[str, str], tuple[int, float]]]:
    counts: dict[str, Count] = {f"rows_{name}": number for name, number in read.items() if name != "rows"}
    counts["rows_read"] = read["rows"]
    counts |= {f"rows_{s}": rows.get(s, (0, 0.0))[0] for s in ("inside", "without_zone", "bad_count")}
    counts |= {f"rows_{s}": rows[s][0] for s in ("not_selected", "without_person") if s in rows}
    counts |= {f"rows_{s}_weight": rows.get(s, (0, 0.0))[1] for s in ("inside", "without_zone")}
    found = connection.execute(sql_text("mobility_flow_counts")).fetchall()
    by_region = {(region, fate): (flows, weight) for region, fate, flows, weight, _ in found}
    for fate, name in (("kept", "flows"), ("below_k", "flows_below_k")):
        of_fate = [value for (_, found_fate), value in sorted(by_region.items()) if found_fate == fate]
        counts[name] = sum(flows for flows, _ in of_fate)
        counts[f"{name}_weight"] = sum(weight for _, weight in of_fate)
    counts["rows_repeated"] = sum(repeated for *_, repeated in found)
    return counts | ({"movements_over_bounds": over_bounds} if over_bounds else {}), by_region
