"""Seven cells in two regions, and sources of mobility over them, for tests."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq

from mobclip_core.mobility.edges import build_mobility_edges
from mobclip_core.mobility.movements import build_movements
from mobclip_core.store import TableRef
from tests import lake as lakes

CELLS = lakes.disk(40.7, -74.0, 1)  # 7 cells
A, B, C, D = HERE = CELLS[:4]
X, Y, Z = THERE = CELLS[4:]
FAR = lakes.disk(45.0, -74.0, 0)[0]  # a cell of no region
START = dt.datetime(2024, 1, 1)


def world(folder, sources, minimum_people=1, **mobility):
    lake = lakes.deployment(
        folder, ["here", "there"], mobility={"sources": sources, "minimum_people": minimum_people} | mobility
    )
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    return lake


def edges_of(lake, region="here"):
    """Counts of the movements and, over them, of the region; the region's edges."""
    counts = build_movements(lake).counts
    result = build_mobility_edges(lake, region)
    table = lake.store.read(TableRef("mobility_edges", region))
    rows = table.to_pylist()
    region_counts = {f"{region}_{key}": value for key, value in result.counts.items()}
    return counts | region_counts, {(r["src"], r["dst"]): (r["weight"], r["people"]) for r in rows}


def parquet(folder, table, name="source.parquet"):
    pq.write_table(table, folder / name)
    return str(folder / name)


def visits_table(rows):
    """Rows of (person, hour, cell or (lon, lat))."""
    places = [lakes.centre(p) if isinstance(p, int) else p for _, _, p in rows]
    times = [None if h is None else START + dt.timedelta(hours=h) for _, h, _ in rows]
    return pa.table(
        {
            "who": pa.array([None if w is None else str(w) for w, _, _ in rows], pa.string()),
            "when": pa.array(times, pa.timestamp("us")),
            "lon": pa.array([p[0] for p in places], pa.float64()),
            "lat": pa.array([p[1] for p in places], pa.float64()),
        }
    )


def visits(file, **more):
    return {"v": {"kind": "visits", "file": file, "person": "who", "time": "when", "lon": "lon", "lat": "lat"} | more}


def visits_world(folder, rows, minimum_people=1, window_hours=24.0, **mobility):
    file = parquet(folder, visits_table(rows))
    return world(folder, visits(file, window_hours=window_hours), minimum_people, **mobility)


def trips_table(rows):
    """Rows of (person, origin, destination), places as cells or (lon, lat)."""
    ends = [[lakes.centre(p) if isinstance(p, int) else p for p in row[1:]] for row in rows]
    return pa.table(
        {
            "who": pa.array([row[0] for row in rows], pa.string()),
            "x1": pa.array([o[0] for o, _ in ends], pa.float64()),
            "y1": pa.array([o[1] for o, _ in ends], pa.float64()),
            "x2": pa.array([d[0] for _, d in ends], pa.float64()),
            "y2": pa.array([d[1] for _, d in ends], pa.float64()),
        }
    )


def trips(file, **more):
    ends = {"origin_lon": "x1", "origin_lat": "y1", "destination_lon": "x2", "destination_lat": "y2"}
    return {"t": {"kind": "trips", "file": file} | ends | more}


def flows_world(folder, rows, minimum_people=1, zones="tracts", extra=None, **mobility):
    columns = {"o": [r[0] for r in rows], "d": [r[1] for r in rows], "n": [r[2] for r in rows]}
    table = pa.table(columns, schema=pa.schema([("o", pa.string()), ("d", pa.string()), ("n", pa.float64())]))
    source = {"kind": "flows", "file": parquet(folder, table, "flows.parquet"), "zones": zones}
    source |= {"origin": "o", "destination": "d", "count": "n"}
    lake = world(folder, {"f": source} | (extra or {}), minimum_people, **mobility)
    here = {"01": {A: 0.25, B: 0.75}, "02": {B: 1.0}}
    there = {"09": {X: 0.5, Y: 0.5}}
    lakes.write_zones(lake, "here", {"tracts": here, "blocks": {"b": {A: 0.5, B: 0.5}, "c": {C: 1.0}}})
    lakes.write_zones(lake, "there", {"tracts": there})
    return lake
