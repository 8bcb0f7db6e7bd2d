"""POIs on cells: counts by category and a text vector.

Belongs here: the step that makes `poi_aggregates`: a region's points and counts by zone, judging every row of the
latter, filling the cells, suppressing small counts. Does not belong here: reading points (see `poi_points`), the
statements (`sql/poi_*.sql`), turning strings into vectors (see `text`).
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from mobclip_core.crosswalk import create_zone_shares, register_grid, require_matching_zones
from mobclip_core.deployment import CheckOutcome, Count, Deployment, StepResult
from mobclip_core.errors import MissingTableError
from mobclip_core.poi_points import region_file
from mobclip_core.profile import PoiConfig, PoiZoneCounts
from mobclip_core.sources.tables import SourceColumn, create_source_view
from mobclip_core.sql import session, sql_text
from mobclip_core.store import TableRef
from mobclip_core.text import TextEncoder, make_text_encoder, normalise
from mobclip_core.vectors import matrix_of, vector_column

_LOG = logging.getLogger(__name__)
_STRINGS_AT_ONCE = 4096
_ZONE_COUNTS = {
    "without_zone": "zone_rows_without_zone",
    "bad_count": "zone_rows_bad_count",
    "other_region": "zone_rows_in_other_regions",
    "inside": "zone_rows_in_region",
}


def build_poi_aggregates(deployment: Deployment, region: str) -> StepResult:
    """Count a region's POIs by cell and category, and average the vectors of their texts.

    Reads the region's file of `poi_points` and, for counts by zone, the sources and `grid_cells`, `zone_cells` and
    `census_features` of all regions. Writes `poi_aggregates[region]`, a row for every grid cell.

    Counts: `points_in_region`; every row of a table by zone is in exactly one of `zone_rows_*`, which concern whole
    sources. `suppressed_*` say what `poi.minimum_count` took away.

    Args:
        deployment: The deployment.
        region: Partition key.

    Raises:
        SourceError: A table by zone is missing, unreadable, lacks a column, or has no row that matches its zone layer.
        MissingTableError: An upstream table is not materialised, or `poi_points` is older than the region's grid.
    """
    config = deployment.profile.poi
    counts: Counter[str] = Counter()
    with session(deployment.profile.duckdb) as connection:
        cells = np.sort(register_grid(connection, deployment, region)["cell"].to_numpy().astype(np.uint64))
        _register_categories(connection, config.all_categories)
        connection.execute(sql_text("poi_items_table"))
        counts["points_in_region"] = _add_points(connection, deployment, region)
        for name, zone_counts in config.zone_counts.items():
            _LOG.info("%s: spreading POI counts of %s", region, name)
            counts.update(_add_zone_counts(connection, deployment, region, zone_counts))
        connection.execute(sql_text("poi_counts"), {"minimum": config.minimum_count})
        by_category = (
            connection.table("poi_counts").to_arrow_table().sort_by([("cell", "ascending"), ("category", "ascending")])
        )
        by_text = connection.execute(sql_text("poi_texts")).to_arrow_table()
    suppressed = by_category.filter(by_category["suppressed"])
    by_category = by_category.filter(pc.invert(by_category["suppressed"]))
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
    markdown = {"POIs by category": _category_markdown(config, matrix.sum(axis=0))}
    if config.minimum_count:
        totals["suppressed_counts"] = suppressed.num_rows
        totals["suppressed_cells"] = len(suppressed["cell"].unique())
        totals["suppressed_pois"] = float(suppressed["count"].to_numpy().sum())
        markdown["Suppressed POIs by category"] = _suppressed_markdown(config, suppressed)
    return StepResult(written, totals, markdown=markdown)


def check_poi_suppression(deployment: Deployment, region: str) -> CheckOutcome:
    """Whether no number of POIs of one category in one cell is above 0 and below the profile's minimum."""
    minimum = deployment.profile.poi.minimum_count
    table = deployment.store.read(TableRef("poi_aggregates", region), ["cell", "counts"])
    counts = matrix_of(table["counts"])
    small = (counts > 0) & (counts < minimum)
    cells = int(small.any(axis=1).sum())
    message = f"{int(small.sum())} counts in {cells} cells are below the minimum of {minimum}"
    return CheckOutcome(
        not small.any(), message, {"small_counts": int(small.sum()), "cells": cells, "minimum": minimum}
    )


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


def _register_categories(connection: duckdb.DuckDBPyConnection, categories: Sequence[str]) -> None:
    positions = pa.array(range(len(categories)), pa.int64())
    connection.register("poi_categories", pa.table({"category": list(categories), "position": positions}))


def _register_aliases(connection: duckdb.DuckDBPyConnection, aliases: Mapping[str, str]) -> None:
    sources, targets = pa.array(list(aliases), pa.string()), pa.array(list(aliases.values()), pa.string())
    connection.register("poi_aliases", pa.table({"source": sources, "target": targets}))


def _add_points(connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str) -> int:
    """Add the region's file of `poi_points`; returns how many POIs it holds."""
    store = deployment.store
    if not store.is_local:
        connection.register_filesystem(store.fs)
    file = store.bundle_file("poi_points", region_file(region))
    if not store.fs.exists(file):
        raise MissingTableError(
            f"poi_points has no points of {region}: it is older than its grid; materialise it again"
        )
    connection.read_parquet(file).create_view("poi_region_points")
    connection.execute(sql_text("poi_point_items"), {"region": region})
    held, added = (
        int(connection.table(name).sum("points").fetchall()[0][0] or 0) for name in ("poi_region_points", "poi_items")
    )
    if added < held:
        raise MissingTableError(
            f"poi_points has {held - added} points of {region} in cells that its grid does not have: "
            "it is older than the grid; materialise it again"
        )
    return added


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


def _suppressed_markdown(config: PoiConfig, suppressed: pa.Table) -> str:
    lines = ["| category | cells | POIs |", "| --- | ---: | ---: |"]
    by_category = suppressed.group_by("category").aggregate([("cell", "count"), ("count", "sum")]).sort_by("category")
    for row in by_category.to_pylist():
        name = config.all_categories[row["category"]]
        lines.append(f"| {name} | {row['cell_count']:,} | {row['count_sum']:,.1f} |")
    return "\n".join(lines)
