"""POIs on cells: counts by category and a text vector.

Belongs here: the step that makes `poi_aggregates`: reading point sources and counts by zone, judging every row, filling
the cells. Does not belong here: the statements (`sql/poi_*.sql`), turning strings into vectors (see `text`).
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import shapely
from duckdb.func import ARROW
from duckdb.sqltypes import BLOB, DOUBLE
from scipy.sparse import csr_matrix

from mobclip_core.contracts import vector_column
from mobclip_core.crosswalk import create_zone_shares, register_grid, require_matching_zones, require_usable_positions
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.profile import PoiConfig, PoiPoints, PoiZoneCounts
from mobclip_core.sources.tables import SourceColumn, create_source_view
from mobclip_core.sql import session, sql_text
from mobclip_core.store import TableRef
from mobclip_core.text import TextEncoder, make_text_encoder, normalise

_LOG = logging.getLogger(__name__)
_STRINGS_AT_ONCE = 4096
_POINT_COUNTS = {
    "without_position": "points_without_position",
    "out_of_range": "points_out_of_range",
    "swapped": "points_swapped_suspected",
    "outside": "points_outside",
    "duplicate_id": "points_duplicate_id",
}
_ZONE_COUNTS = {
    "without_zone": "zone_rows_without_zone",
    "bad_count": "zone_rows_bad_count",
    "other_region": "zone_rows_in_other_regions",
    "inside": "zone_rows_in_region",
}


def build_poi_aggregates(deployment: Deployment, region: str) -> StepResult:
    """Count a region's POIs by cell and category, and average the vectors of their texts.

    Reads `grid_cells` of all regions (to tell a point of another region from one in no region) and, for counts by zone,
    `zone_cells` and `census_features`. Writes `poi_aggregates[region]`, a row for every grid cell.

    Counts: every row read is in exactly one of `points_in_region`, `points_in_other_regions`, `points_outside` (in no
    region), `points_without_position`, `points_out_of_range`, `points_swapped_suspected` and `points_duplicate_id`; the
    last five concern whole sources, whatever the region. Likewise `zone_rows_*`.

    Args:
        deployment: The deployment.
        region: Partition key.

    Raises:
        SourceError: A source is missing, unreadable, lacks a column, has no usable or mostly swapped positions, or no
            row that matches its zone layer.
        MissingTableError: An upstream table is not materialised.
    """
    config = deployment.profile.poi
    counts: Counter[str] = Counter()
    with session(deployment.profile.duckdb) as connection:
        cells = np.sort(register_grid(connection, deployment, region)["cell"].to_numpy().astype(np.uint64))
        connection.create_function("wkb_point", _wkb_points, [BLOB], connection.list_type(DOUBLE), type=ARROW)
        _register_categories(connection, config.all_categories)
        connection.execute(sql_text("poi_items_table"))
        for name, points in config.points.items():
            _LOG.info("%s: reading POIs of %s", region, name)
            counts.update(_add_points(connection, deployment, region, points))
        for name, zone_counts in config.zone_counts.items():
            _LOG.info("%s: spreading POI counts of %s", region, name)
            counts.update(_add_zone_counts(connection, deployment, region, zone_counts))
        by_category = connection.execute(sql_text("poi_counts")).to_arrow_table()
        by_text = connection.execute(sql_text("poi_texts")).to_arrow_table()
    matrix = category_counts(cells, by_category, len(config.all_categories))
    encoder = make_text_encoder(config.text, deployment.store)
    vectors, text_counts = text_means(cells, by_text, encoder)
    table = pa.table(
        {
            "cell": pa.array(cells),
            "poi_count": pa.array(matrix.sum(axis=1)),
            "counts": vector_column(matrix.astype(np.float32)),
            "text_vector": vector_column(vectors),
        }
    )
    written = deployment.store.write(TableRef("poi_aggregates", region), table)
    totals: dict[str, Count] = {**dict(sorted(counts.items())), **text_counts}
    totals["pois_category_unknown"] = float(by_category["unknown"].to_numpy().sum())
    totals["pois"] = float(matrix.sum())
    totals["cells_with_poi"] = int((matrix.sum(axis=1) > 0).sum())
    return StepResult(written, totals, markdown={"POIs by category": _category_markdown(config, matrix.sum(axis=0))})


def category_counts(cells: np.ndarray, by_category: pa.Table, categories: int) -> np.ndarray:
    """The counts as a matrix.

    Args:
        cells: uint64, sorted, shape (n,).
        by_category: Columns cell, category, count; every cell is one of `cells`.
        categories: Number of categories, c.

    Returns:
        float64, shape (n, c).
    """
    matrix = np.zeros((len(cells), categories))
    rows = np.searchsorted(cells, by_category["cell"].to_numpy())
    matrix[rows, by_category["category"].to_numpy()] = by_category["count"].to_numpy()
    return matrix


def text_means(cells: np.ndarray, by_text: pa.Table, encoder: TextEncoder) -> tuple[np.ndarray, dict[str, int]]:
    """Count-weighted mean of the text vectors of each cell, every distinct string encoded once.

    Args:
        cells: uint64, sorted, shape (n,).
        by_text: Columns cell, text, weight; every cell is one of `cells`.
        encoder: Text encoder of d dimensions.

    Returns:
        float32, shape (n, d), zeros for a cell without text; and the counts `text_strings_total` (strings of all cells)
        and `text_strings_distinct` (strings encoded).
    """
    spelled = by_text["text"].combine_chunks().dictionary_encode()
    normal = [normalise(text) for text in spelled.dictionary.to_pylist()]
    strings = sorted(set(normal))
    number = {text: i for i, text in enumerate(strings)}
    renumber = np.array([number[text] for text in normal], dtype=np.int64)
    columns = renumber[spelled.indices.to_numpy()]
    rows = np.searchsorted(cells, by_text["cell"].to_numpy())
    weights = csr_matrix((by_text["weight"].to_numpy(), (rows, columns)), shape=(len(cells), len(strings))).tocsc()
    sums = np.zeros((len(cells), encoder.dimensions))
    for start in range(0, len(strings), _STRINGS_AT_ONCE):
        batch = slice(start, start + _STRINGS_AT_ONCE)
        sums += weights[:, batch] @ encoder.encode(strings[batch]).astype(np.float64)
        _LOG.info("encoded %d of %d strings", min(start + _STRINGS_AT_ONCE, len(strings)), len(strings))
    totals = np.asarray(weights.sum(axis=1)).reshape(-1, 1)
    means = np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)
    counts = {"text_strings_total": by_text.num_rows, "text_strings_distinct": len(strings)}
    return means.astype(np.float32), counts


def _wkb_points(wkb: pa.ChunkedArray) -> pa.Array:
    """Longitude and latitude of WKB points; NaN for what is no point."""
    geometries = shapely.from_wkb(np.array(wkb.to_pylist(), dtype=object), on_invalid="ignore")
    positions = np.column_stack([shapely.get_x(geometries), shapely.get_y(geometries)])
    offsets = np.arange(0, positions.size + 1, 2, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, positions.ravel())


def _register_categories(connection: duckdb.DuckDBPyConnection, categories: Sequence[str]) -> None:
    positions = pa.array(range(len(categories)), pa.int64())
    connection.register("poi_categories", pa.table({"category": list(categories), "position": positions}))


def _register_aliases(connection: duckdb.DuckDBPyConnection, aliases: Mapping[str, str]) -> None:
    sources, targets = pa.array(list(aliases), pa.string()), pa.array(list(aliases.values()), pa.string())
    connection.register("poi_aliases", pa.table({"source": sources, "target": targets}))


def _point_columns(points: PoiPoints) -> dict[str, SourceColumn]:
    wanted = {
        "id": (points.id_column, "VARCHAR"),
        "name": (points.name_column, "VARCHAR"),
        "category": (points.category_column, "VARCHAR"),
        "lon": (points.lon, "DOUBLE"),
        "lat": (points.lat, "DOUBLE"),
        "wkt": (points.wkt, "VARCHAR"),
        "wkb": (points.geometry, "BLOB"),
    }
    return {name: SourceColumn(source, kind) for name, (source, kind) in wanted.items() if source is not None}


def _add_points(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str, points: PoiPoints
) -> Counter[str]:
    read = create_source_view(connection, "poi_source", points.file, _point_columns(points))
    _register_aliases(connection, points.aliases)
    connection.execute(sql_text("poi_points"), {"resolution": deployment.profile.grid.resolution})
    rows = connection.execute(sql_text("poi_point_counts"), {"region": region}).fetchall()
    _require_usable_points(points, rows)
    parameters = {"region": region, "category": points.category, "other": _other(deployment.profile.poi)}
    connection.execute(sql_text("poi_point_items"), parameters)
    counts = Counter(dict.fromkeys(_POINT_COUNTS.values(), 0))
    counts.update({"points_in_region": 0, "points_in_other_regions": 0, "points_read": read.pop("rows")})
    for status, here, number, _, _ in rows:
        inside = "points_in_region" if here else "points_in_other_regions"
        counts[_POINT_COUNTS.get(status, inside)] += number
    counts.update({f"points_{name}": number for name, number in read.items()})
    return counts


def _require_usable_points(points: PoiPoints, rows: Sequence[tuple[str, bool, int, int, list[int]]]) -> None:
    statuses: dict[str, tuple[int, list[int]]] = {}
    for status, _, number, _, first in rows:
        before = statuses.get(status, (0, []))
        statuses[status] = (before[0] + number, before[1] or first)
    missing, first = statuses.pop("without_position", (0, []))
    filled = sum(row[3] for row in rows if row[0] == "without_position")
    # a source all of whose positions are empty names the wrong columns
    statuses["unreadable"] = (filled if statuses else missing, first)
    columns = [name for name in (points.lon, points.lat, points.wkt, points.geometry) if name is not None]
    require_usable_positions(points.file, columns, statuses)


def _add_zone_counts(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str, source: PoiZoneCounts
) -> Counter[str]:
    columns = {
        "zone": SourceColumn(source.id_column, "VARCHAR"),
        "category": SourceColumn(source.category_column, "VARCHAR"),
        "count": SourceColumn(source.count_column, "DOUBLE"),
    }
    read = create_source_view(connection, "poi_source", source.file, columns)
    _register_aliases(connection, source.aliases)
    by_population = source.spread == "population"
    create_zone_shares(connection, deployment, source.zones, region, by_population=by_population)
    connection.execute(sql_text("poi_zone_rows"))
    rows = {row[0]: row[1] for row in connection.execute(sql_text("poi_zone_row_counts")).fetchall()}
    matched = sum(number for status, number in rows.items() if status != "without_zone")
    if read["rows"]:
        require_matching_zones(connection, deployment, source.file, source.id_column, source.zones, matched)
    connection.execute(sql_text("poi_zone_items"), {"other": _other(deployment.profile.poi)})
    counts = Counter({name: rows.get(status, 0) for status, name in _ZONE_COUNTS.items()})
    counts["zone_rows_read"] = read.pop("rows")
    counts.update({f"zone_rows_{name}": number for name, number in read.items()})
    return counts


def _other(config: PoiConfig) -> int:
    return config.all_categories.index("other")


def _category_markdown(config: PoiConfig, totals: np.ndarray) -> str:
    order = np.argsort(-totals, kind="stable")[:20]
    lines = ["| category | POIs |", "| --- | ---: |"]
    lines += [f"| {config.all_categories[i]} | {totals[i]:,.1f} |" for i in order]
    return "\n".join(lines)
