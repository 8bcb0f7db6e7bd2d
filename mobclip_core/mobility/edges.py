"""Cell-to-cell movement by region of origin, k-anonymous.

Belongs here: the step that makes `mobility_edges` of a region from `movements`, and its privacy check. Does not belong
here: reading raw records (see `movements`), the statements (`sql/mobility_*.sql`), pruning and symmetry (see `graph`).
"""

import itertools
import logging

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mobclip_core.crosswalk import create_zone_shares
from mobclip_core.deployment import CheckOutcome, Count, Deployment, StepResult
from mobclip_core.errors import MissingTableError
from mobclip_core.mobility.movements import BUNDLE, region_file
from mobclip_core.profile import Trips, Visits
from mobclip_core.sql import session, sql_text
from mobclip_core.store import TableRef

_LOG = logging.getLogger(__name__)
_BATCH_ROWS = 1_000_000


def build_mobility_edges(deployment: Deployment, region: str) -> StepResult:
    """Put the movements that start in a region together, and spread its flows between zones over cells.

    Reads the region's files of the bundle `movements`; for flows also `grid_cells`, `zone_cells` and `census_features`
    of the regions that they lead to. Writes `mobility_edges[region]`. Contributions of several sources to one edge add
    up; `people` is the smallest of their groups.

    - Flows: flow(o, d) x share of the source cell in o x share of the destination cell in d.

    Counts: `edges` and `total_weight`; `movement_edges` from visits and trips; for each source of flows, prefixed with
    its name, `flows`, `weight` and `self_loop_weight`, which add up to what the flows hold.

    Args:
        deployment: The deployment.
        region: Partition key: region of the origin.

    Raises:
        MissingTableError: An upstream table is not materialised.
    """
    movements, flows = (_read(deployment, region, name) for name in ("part", "zones"))
    counts: dict[str, Count] = {"movement_edges": movements.num_rows}
    with session(deployment.profile.duckdb) as connection:
        connection.execute(sql_text("mobility_contributions_table"))
        connection.register("mobility_published", movements)
        connection.execute(sql_text("mobility_contribute"))
        counts |= _add_flows(connection, deployment, region, flows)
        [(edges, weight)] = connection.execute(sql_text("mobility_edge_totals")).fetchall()
        reader = connection.execute(sql_text("mobility_edges")).to_arrow_reader(_BATCH_ROWS)
        ref = TableRef("mobility_edges", region)
        batches = (pa.Table.from_batches([batch]) for batch in reader)
        written = deployment.store.write_batches(ref, itertools.chain([reader.schema.empty_table()], batches))
    _LOG.info("%s: %s edges", region, edges)
    return StepResult(written, counts | {"edges": edges, "total_weight": weight})


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


def _read(deployment: Deployment, region: str, name: str) -> pa.Table:
    """A region's file of the bundle."""
    store = deployment.store
    path = store.bundle_file(BUNDLE, region_file(region, name))
    try:
        with store.fs.open(path, "rb") as file:
            return pq.read_table(file)
    except FileNotFoundError as error:
        raise MissingTableError(f"{BUNDLE} was made before grid_cells[{region}]; materialise {BUNDLE} again") from error


def _add_flows(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str, flows: pa.Table
) -> dict[str, Count]:
    """Spread the flows between zones over cells, source by source."""
    config = deployment.profile.mobility
    layers = {name: source.zones for name, source in config.sources.items() if not isinstance(source, Visits | Trips)}
    present = set(pc.unique(flows["source"]).to_pylist())
    if not present <= set(layers):
        raise MissingTableError(f"{BUNDLE} was made of other sources; materialise {BUNDLE} again")
    # only the regions that the flows lead to: a region's step does not read the whole country
    regions = sorted({region, *pc.unique(flows["destination_region"]).to_pylist()})
    connection.register("mobility_region", flows)
    if present:
        connection.register("grid", deployment.store.read_all("grid_cells", ["cell", "region", "area_km2"], regions))
    counts: dict[str, Count] = {}
    for name, layer in layers.items():
        if name not in present or layer is None:
            continue
        create_zone_shares(connection, deployment, layer, region, by_population=True, regions=regions)
        connection.execute(sql_text("mobility_flow_candidates"), {"source": name})
        parameters = {"minimum_people": config.minimum_people, "self_loops": config.self_loops}
        connection.execute(sql_text("mobility_judged"), parameters)
        connection.execute(sql_text("mobility_published"))
        connection.execute(sql_text("mobility_contribute"))
        fates = {fate: weight for fate, _, weight in connection.execute(sql_text("mobility_edge_counts")).fetchall()}
        counts[f"{name}_flows"] = int(pc.sum(pc.equal(flows["source"], name)).as_py())
        counts[f"{name}_weight"] = fates.get("kept", 0.0)
        counts[f"{name}_self_loop_weight"] = fates.get("self_loop", 0.0)
    return counts
