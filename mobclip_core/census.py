"""People on cells: population and histogram from a census table by zone.

Belongs here: reading the census table, spreading it over cells with the crosswalk, and the proof that nobody was lost
or invented. Does not belong here: the crosswalk itself (see `areal`).
"""

import logging

import duckdb
import numpy as np
import pyarrow as pa

from mobclip_core.contracts import CENSUS_FEATURES, matrix_of, vector_column
from mobclip_core.deployment import CheckOutcome, Count, Deployment, StepResult
from mobclip_core.errors import SourceError
from mobclip_core.plots import cell_map
from mobclip_core.profile import CensusConfig
from mobclip_core.sources.tables import SourceColumn, create_source_view
from mobclip_core.sql import session, sql_text
from mobclip_core.store import TableRef

logger = logging.getLogger(__name__)

SNAPPED_SHARE = 1e-9
"""`zone_share` of a cell that only snapped zones reach: it has census data, though no zone has an area in it."""

TOTALS_TOLERANCE = 1e-6


def build_census_features(deployment: Deployment, region: str) -> StepResult:
    """Write `census_features[region]`: population, histogram and share of the cell with census data.

    Every grid cell has a row. A zone without a row in the table, or whose population is missing, counts as nobody, in
    every bin too; a missing bin counts as nobody in that bin; all are counted. Of rows that repeat an identifier the
    first is taken.

    Counts: `rows`, `zones`, `zones_without_row`, `rows_without_zone` (over the whole table and layer file),
    `duplicate_ids`, `population_missing` (negative ones included), `population_negative`, `bins_missing`,
    `population`, `cells_with_census` and `unreadable_*`.

    Raises:
        SourceError: A missing or unreadable file, a missing column, or a table of which no row matches a zone of the
            layer.
        MissingTableError: `grid_cells[region]` or `zone_cells[region]` is not materialised.
    """
    config = deployment.profile.census
    bins = len(config.histogram)
    with session(deployment.profile.duckdb) as connection:
        counts = _open_census(connection, deployment, region)
        cells = connection.execute(sql_text("census_cells"), {"least_share": SNAPPED_SHARE}).to_arrow_table()
        cell_bins = connection.execute(sql_text("census_cell_bins")).to_arrow_table()
        counts |= _mismatches(connection, deployment)
    if counts["rows"] and counts["rows_without_zone"] == counts["rows"]:
        raise SourceError(
            config.file,
            f"none of its {counts['rows']} rows matches a zone of layer {config.zones!r}",
            column=config.id_column,
            hint="name the column that holds the layer's identifiers, with the same digits and leading zeros",
        )
    histogram = np.zeros((cells.num_rows, bins))
    row = np.searchsorted(cells.column("cell").to_numpy(), cell_bins.column("cell").to_numpy())
    histogram[row, cell_bins.column("bin").to_numpy()] = cell_bins.column("people").to_numpy()
    share = cells.column("zone_share")
    table = pa.table(
        {
            "cell": cells.column("cell"),
            "population": cells.column("population"),
            "histogram": vector_column(histogram),
            "zone_share": share,
        }
    )
    counts["cells_with_census"] = int((share.to_numpy() > 0).sum())
    written = deployment.store.write(TableRef(CENSUS_FEATURES.name, region), table)
    return StepResult(written, counts, _pictures(region, table))


def _pictures(region: str, table: pa.Table) -> dict[str, bytes]:
    if not table.num_rows:
        return {}
    people = table.column("population").to_numpy()
    # cells without people are drawn as cells without a value
    shown = np.log10(np.where(people > 0, people, np.nan))
    return {
        "Population": cell_map(table.column("cell").to_numpy(), shown, f"{region}: people", "log10 of people a cell")
    }


def check_census_totals(deployment: Deployment, region: str) -> CheckOutcome:
    """Whether the people in the region's cells add up to those of its zones: population and every bin.

    The zones' totals are taken from the source again, without the crosswalk's weights.

    Returns:
        Passed when every total agrees within 1e-6 relative. Numbers: `population_source`, `population_cells`,
        `largest_relative_error` (over population and bins), `bins`, `tolerance`.

    Raises:
        SourceError, MissingTableError: As `build_census_features`.
    """
    with session(deployment.profile.duckdb) as connection:
        _open_census(connection, deployment, region)
        totals = connection.execute(sql_text("census_zone_totals")).to_arrow_table()
    bins = len(deployment.profile.census.histogram)
    source = np.zeros(bins + 1)
    source[totals.column("bin").to_numpy() + 1] = totals.column("people").to_numpy()
    features = deployment.store.read(TableRef(CENSUS_FEATURES.name, region), ["population", "histogram"])
    cells = np.concatenate(
        [[features.column("population").to_numpy().sum()], matrix_of(features.column("histogram")).sum(axis=0)]
    )
    error = np.abs(cells - source) / np.maximum(source, 1.0)
    worst = int(error.argmax())
    name = "population" if worst == 0 else f"bin {worst - 1} ({deployment.profile.census.histogram[worst - 1].column})"
    numbers: dict[str, Count] = {
        "population_source": float(source[0]),
        "population_cells": float(cells[0]),
        "largest_relative_error": float(error[worst]),
        "bins": bins,
        "tolerance": TOTALS_TOLERANCE,
    }
    passed = bool(error[worst] <= TOTALS_TOLERANCE)
    verb = "equal" if passed else "differ from"
    message = (
        f"census totals of {region} {verb} the source's; the largest relative error is {error[worst]:.1e}, in {name}"
    )
    return CheckOutcome(passed, message, numbers)


def _open_census(connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str) -> dict[str, Count]:
    """Create what the census statements read: the source, the crosswalk, the grid, the zones and their bins."""
    config = deployment.profile.census
    crosswalk = deployment.store.read(TableRef("zone_cells", region))
    in_layer = np.equal(crosswalk.column("layer").to_numpy(zero_copy_only=False), config.zones)
    connection.register("zone_cells", crosswalk.filter(pa.array(in_layer, pa.bool_())))
    connection.register("grid_cells", deployment.store.read(TableRef("grid_cells", region), ["cell", "area_km2"]))
    columns, bins = _columns(config)
    logger.info("census table %s for region %s", config.file, region)
    counts: dict[str, Count] = dict(create_source_view(connection, "census_source", config.file, columns))
    connection.register("bins", bins)
    connection.execute(sql_text("census_zones"))
    connection.execute(sql_text("census_bins"))
    return counts


def _columns(config: CensusConfig) -> tuple[dict[str, SourceColumn], pa.Table]:
    """The columns to read, each once, and the table of bins (bin, value_column, base_column)."""
    wanted = [bin.column for bin in config.histogram] + [bin.percent_of for bin in config.histogram if bin.percent_of]
    names = {source: f"value_{i}" for i, source in enumerate(dict.fromkeys(wanted))}
    columns = {
        "zone": SourceColumn(config.id_column, "VARCHAR"),
        "population": SourceColumn(config.population, "DOUBLE", config.missing_values),
        **{name: SourceColumn(source, "DOUBLE", config.missing_values) for source, name in names.items()},
    }
    bins = pa.table(
        {
            "bin": pa.array(range(len(config.histogram)), pa.int64()),
            "value_column": [names[bin.column] for bin in config.histogram],
            "base_column": pa.array(
                [names[bin.percent_of] if bin.percent_of else None for bin in config.histogram], pa.string()
            ),
        }
    )
    return columns, bins


def _mismatches(connection: duckdb.DuckDBPyConnection, deployment: Deployment) -> dict[str, Count]:
    config = deployment.profile.census
    layer = deployment.profile.zones[config.zones]
    create_source_view(connection, "layer", layer.file, {"zone": SourceColumn(layer.id_column, "VARCHAR")})
    result = connection.execute(sql_text("census_counts"), {"bins": len(config.histogram)}).to_arrow_table()
    return dict(result.to_pylist()[0])
