"""What sources need to reach cells: the region of every cell, and the share of every zone that each cell gets.

Belongs here: the session tables `grid`, `zone_shares` and `zone_home` that POIs and mobility join with. Does not belong
here: making the crosswalk (see `areal`), or what is spread with it.
"""

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from mobclip_core.contracts import CONTRACTS
from mobclip_core.deployment import Deployment
from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.profile import CensusZones, Files
from mobclip_core.sources.tables import source_files
from mobclip_core.sql import sql_text

_DEFECTS = {
    "unreadable": (
        "cannot be read",
        "positions are longitude and latitude in degrees, WKT points or WKB points; name the columns that hold them",
    ),
    "swapped": (
        "have longitude and latitude swapped",
        "exchange the two columns in the profile, or the two numbers in the file",
    ),
    "out_of_range": (
        "are out of range",
        "positions have to be longitude and latitude in degrees (EPSG:4326); convert the file first",
    ),
}


def materialised_regions(deployment: Deployment, table: str) -> list[str]:
    """The profile's regions whose partition of a table is there, in the profile's order."""
    present = set(deployment.store.regions(table))
    return [region for region in deployment.profile.regions.region_keys if region in present]


def register_grid(connection: duckdb.DuckDBPyConnection, deployment: Deployment, region: str) -> pa.Table:
    """Register the cells of all regions as `grid` (cell, region, area_km2).

    A region whose grid is not there yet is left out: points in it count as outside, never as this region's.

    Args:
        connection: The step's session.
        deployment: The deployment.
        region: The region of the step; its grid has to be there.

    Returns:
        The grid cells of `region`.

    Raises:
        MissingTableError: If the grid of `region` is not materialised.
    """
    regions = materialised_regions(deployment, "grid_cells")
    if region not in regions:
        raise MissingTableError(f"grid_cells[{region}] is not materialised yet; materialise it first")
    grid = deployment.store.read_all("grid_cells", ["cell", "region", "area_km2"], regions)
    connection.register("grid", grid)
    return grid.filter(pa.array(grid["region"].to_numpy(zero_copy_only=False) == region, pa.bool_()))


def create_zone_shares(
    connection: duckdb.DuckDBPyConnection,
    deployment: Deployment,
    layer: str,
    region: str,
    *,
    by_population: bool,
    regions: Sequence[str] | None = None,
) -> None:
    """Create `zone_shares` (zone, cell, share) and `zone_home` (zone, here) for a zone layer, over all regions.

    The share of a cell is its weight in the crosswalk; or, by population on a layer that is not the census layer, that
    weight times the cell's population density, normalised (the census layer's weights say where its people are).
    A zone in whose cells nobody lives falls back to the weights. `here` says that `region` is the zone's home.

    Args:
        connection: The step's session, with `grid` registered.
        deployment: The deployment.
        layer: Zone layer of the profile.
        region: The region of the step.
        by_population: Share by population; else by the crosswalk alone.
        regions: Only the zones of these regions, which have to be there; those of all that are there if None.

    Raises:
        MissingTableError: If a table needed is not materialised for `region`.
    """
    census_config = deployment.profile.census
    by_density = by_population and not (isinstance(census_config, CensusZones) and layer == census_config.zones)
    columns = ["layer", "zone", "cell", "weight"]
    connection.register("zone_cells", _read(deployment, "zone_cells", columns, region, regions))
    census = (
        _read(deployment, "census_features", ["cell", "population"], region, regions)
        if by_density
        else CONTRACTS["census_features"].schema().empty_table().select(["cell", "population"])
    )
    connection.register("census", census)
    connection.execute(sql_text("zone_shares"), {"layer": layer, "by_population": by_density})
    connection.execute(sql_text("zone_home"), {"region": region})


def _read(
    deployment: Deployment, table: str, columns: list[str], region: str, wanted: Sequence[str] | None
) -> pa.Table:
    regions = materialised_regions(deployment, table)
    if region not in regions:
        raise MissingTableError(f"{table}[{region}] is not materialised yet; materialise it first")
    return deployment.store.read_all(table, columns, regions if wanted is None else wanted)


def require_matching_zones(
    connection: duckdb.DuckDBPyConnection, deployment: Deployment, file: Files, column: str, layer: str, matched: int
) -> None:
    """Raise if a table by zone has rows, the layer has zones, and not one of them matches.

    Silent while some region's crosswalk is missing: the rows may belong there.

    Args:
        connection: The step's session, with `zone_home` created.
        deployment: The deployment.
        file: The table.
        column: Its identifier column.
        layer: Zone layer of the profile.
        matched: Rows that matched a zone.

    Raises:
        SourceError: Naming the table, its column and an identifier of the layer.
    """
    complete = len(materialised_regions(deployment, "zone_cells")) == len(deployment.profile.regions.region_keys)
    [example] = connection.table("zone_home").min("zone").fetchall()
    if matched == 0 and complete and example[0] is not None:
        raise SourceError(
            file,
            f"no row matches a zone of the layer {layer!r}",
            column=column,
            hint=f"zones of the layer look like {example[0]!r}, leading zeros included; name the column that has them",
        )


def require_usable_positions(
    file: Files, columns: Sequence[str], statuses: Mapping[str, tuple[int, list[int]]]
) -> None:
    """Raise if more than half of a source's positions have one and the same defect.

    Args:
        file: The source.
        columns: Its position columns.
        statuses: What became of the positions -> rows, first rows. The defects are `unreadable`, `swapped` and
            `out_of_range`.

    Raises:
        SourceError: Naming the file, the columns, the first rows and the way out.
    """
    total = sum(rows for rows, _ in statuses.values())
    for status, (problem, hint) in _DEFECTS.items():
        rows, first = statuses.get(status, (0, []))
        if rows > total / 2:
            raise SourceError(
                source_files(file),
                f"{rows} of {total} positions {problem}",
                column=" and ".join(columns),
                rows=first,
                hint=hint,
            )
