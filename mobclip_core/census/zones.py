"""People from a census table by zone.

Belongs here: reading the table and spreading it over cells with the crosswalk. Does not belong here: the crosswalk
itself (see `areal`), other sources of people (see `rasters`).
"""

import contextlib
import logging
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from mobclip_core.census.people import People
from mobclip_core.deployment import Count, Deployment
from mobclip_core.errors import SourceError
from mobclip_core.profile import CensusZones
from mobclip_core.sources.tables import SourceColumn, create_source_view, reading, source_files
from mobclip_core.sql import session, sql_text
from mobclip_core.store import TableRef

logger = logging.getLogger(__name__)

SNAPPED_SHARE = 1e-9
"""`zone_share` of a cell that only snapped zones reach: it has census data, though no zone has an area in it."""


def people_of_zones(deployment: Deployment, config: CensusZones, region: str) -> tuple[People, dict[str, Count]]:
    """Spread the people of a region's zones over its cells.

    A zone without a row in the table, or whose population is missing, counts as nobody, in every bin too; a missing bin
    counts as nobody in that bin; all are counted. Of rows that repeat an identifier one is taken, by its numbers.

    Returns:
        The people; and the counts `rows`, `zones`, `zones_without_row`, `rows_without_zone` (over the whole table and
        layer file), `duplicate_ids`, `population_missing` (negative ones included), `population_negative`,
        `bins_missing`, `population` and `unreadable_*`.

    Raises:
        SourceError: A missing or unreadable file, a missing column, or a table of which no row matches a zone of the
            layer.
        MissingTableError: `grid_cells[region]` or `zone_cells[region]` is not materialised.
    """
    with _census(deployment, config, region) as (connection, counts):
        cells = connection.execute(sql_text("census_cells"), {"least_share": SNAPPED_SHARE}).to_arrow_table()
        bins = connection.table("census_bins").to_arrow_table()
        crosswalk = connection.table("zone_cells").to_arrow_table()
        counts |= _mismatches(connection, deployment, config)
    if counts["rows"] and counts["rows_without_zone"] == counts["rows"]:
        raise SourceError(
            source_files(config.file),
            f"none of its {counts['rows']} rows matches a zone of layer {config.zones!r}",
            column=config.id_column,
            hint="name the column that holds the layer's identifiers, with the same digits and leading zeros",
        )
    number, population, share = (cells.column(name).to_numpy() for name in ("cell", "population", "zone_share"))
    return People(number, population, cell_histograms(number, crosswalk, bins, len(config.histogram)), share), counts


def cell_histograms(cells: np.ndarray, crosswalk: pa.Table, census_bins: pa.Table, bins: int) -> np.ndarray:
    """People of each cell by bin: the weighted sum over its zones.

    A sparse product, since a sorted sum for every cell and bin takes DuckDB ten times as long; it adds zones up in
    their order too, so that sums come out the same to the last bit.

    Args:
        cells: uint64, sorted, shape (n,).
        crosswalk: Columns zone, cell, weight; every cell is one of `cells`.
        census_bins: Columns zone, bin, people; every zone is in the crosswalk.
        bins: Number of bins.

    Returns:
        float64, shape (n, bins).
    """
    zones, zone = np.unique(crosswalk.column("zone").to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    people = np.zeros((len(zones), bins))
    position = np.searchsorted(zones, census_bins.column("zone").to_numpy(zero_copy_only=False).astype(str))
    people[position, census_bins.column("bin").to_numpy()] = census_bins.column("people").to_numpy()
    row = np.searchsorted(cells, crosswalk.column("cell").to_numpy())
    weights = csr_matrix((crosswalk.column("weight").to_numpy(), (row, zone)), shape=(len(cells), len(zones)))
    weights.sort_indices()
    return np.asarray(weights @ people)


def totals_of_zones(deployment: Deployment, config: CensusZones, region: str) -> np.ndarray:
    """What the region's zones add up to, taken from the source again, without the crosswalk's weights.

    Returns:
        Population, then people by bin; float64, shape (1 + bins,).

    Raises:
        SourceError, MissingTableError: As `people_of_zones`.
    """
    with _census(deployment, config, region) as (connection, _):
        found = connection.execute(sql_text("census_zone_totals")).to_arrow_table()
    totals = np.zeros(1 + len(config.histogram))
    totals[found.column("bin").to_numpy() + 1] = found.column("people").to_numpy()
    return totals


@contextlib.contextmanager
def _census(
    deployment: Deployment, config: CensusZones, region: str
) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, Count]]]:
    """A session with what the census statements read: the source, the crosswalk, the grid, the zones and their bins."""
    crosswalk = deployment.store.read(TableRef("zone_cells", region))
    in_layer = np.equal(crosswalk.column("layer").to_numpy(zero_copy_only=False), config.zones)
    files = source_files(config.file)
    with session(deployment.profile.duckdb) as connection, reading(files):
        connection.register("zone_cells", crosswalk.filter(pa.array(in_layer, pa.bool_())))
        connection.register("grid_cells", deployment.store.read(TableRef("grid_cells", region), ["cell", "area_km2"]))
        columns, bins = _columns(config)
        logger.info("census table %s for region %s", files, region)
        # the statements below read what they need; the rows of other regions are not read to their last column
        counts: dict[str, Count] = dict(create_source_view(connection, "census_source", files, columns, verify=False))
        connection.register("bins", bins)
        connection.execute(sql_text("census_zones"))
        connection.execute(sql_text("census_bins"))
        yield connection, counts


def _columns(config: CensusZones) -> tuple[dict[str, SourceColumn], pa.Table]:
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


def _mismatches(connection: duckdb.DuckDBPyConnection, deployment: Deployment, config: CensusZones) -> dict[str, Count]:
    layer = deployment.profile.zones[config.zones]
    create_source_view(connection, "layer", layer.file, {"zone": SourceColumn(layer.id_column, "VARCHAR")})
    result = connection.execute(sql_text("census_counts"), {"bins": len(config.histogram)}).to_arrow_table()
    return dict(result.to_pylist()[0])
