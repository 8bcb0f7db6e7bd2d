"""The value of every labelled unit, read from the source of a task and tidied.

Belongs here: one reader for each kind of label, and the count of every row it leaves out. Does not belong here: the
cells of a unit (see `members`), transforms, the label table.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mobclip_core.crosswalk import require_usable_positions
from mobclip_core.errors import SourceError
from mobclip_core.evaluation.members import GridFrame, cell_positions
from mobclip_core.imagery.raster import raster_cell_means
from mobclip_core.profile import CityLabel, PointLabel, RasterLabel, ZoneLabel
from mobclip_core.sources.tables import SourceColumn, read_table

Counts = dict[str, int]


def raster_values(label: RasterLabel, grid: GridFrame) -> tuple[np.ndarray, Counts]:
    """Mean of a raster band over each cell.

    Returns:
        Values of the grid's cells, shape (n,), NaN where the raster has no data; and counts.
    """
    values, _ = raster_cell_means(label.file, label.band, grid.cells)
    return values, {"cells_without_data": int(np.isnan(values).sum())}


def point_values(label: PointLabel, grid: GridFrame) -> tuple[np.ndarray, Counts]:
    """Points gathered by cell: (weighted) mean, (weighted) sum, or number of the points that have a value.

    Returns:
        Values of the grid's cells, shape (n,), NaN for cells without a point; and counts.

    Raises:
        SourceError: Missing file or column, no identifier in common with the table of positions, or positions that are
            mostly swapped or out of range.
    """
    points, counts = _points(label)
    points = _drop(points, points["value"].isna() | points["weight"].isna() | (points["weight"] < 0), "missing", counts)
    points = _drop(points, points["lon"].isna() | points["lat"].isna(), "no_position", counts)
    lon, lat = points["lon"].to_numpy(dtype=float), points["lat"].to_numpy(dtype=float)
    points["position"] = cell_positions(lon, lat, grid)
    swapped = (points["position"].to_numpy() < 0) & (cell_positions(lat, lon, grid) >= 0)
    invalid = ~swapped & ((np.abs(lon) > 180) | (np.abs(lat) > 90))
    _require_usable(label, points, swapped, invalid)
    points = _drop(points, swapped, "swapped_position", counts)
    points = _drop(points, invalid[~swapped], "invalid_position", counts)
    points = _drop(points, points["position"] < 0, "outside_regions", counts)
    return _gathered(points, len(grid.cells), label.gather), counts


def _require_usable(label: PointLabel, points: pd.DataFrame, swapped: np.ndarray, invalid: np.ndarray) -> None:
    row = points["source_row_of_position" if label.positions else "source_row"].to_numpy(dtype=np.int64)
    bad = {"swapped": swapped, "out_of_range": invalid}
    statuses = {status: (int(rows.sum()), row[rows][:5].tolist()) for status, rows in bad.items()}
    statuses["usable"] = (int((~swapped & ~invalid).sum()), [])
    require_usable_positions(label.positions or label.file, [label.lon, label.lat], statuses)


def _points(label: PointLabel) -> tuple[pd.DataFrame, Counts]:
    """Columns source_row, value, weight, lon, lat, one row a point."""
    columns = {"value": SourceColumn(label.value, "DOUBLE", label.missing_values)}
    if label.weight:
        columns["weight"] = SourceColumn(label.weight, "DOUBLE", label.missing_values)
    if label.id_column:
        columns["id"] = SourceColumn(label.id_column, "VARCHAR")
    place = {"lon": SourceColumn(label.lon, "DOUBLE"), "lat": SourceColumn(label.lat, "DOUBLE")}
    points, counts = _read(label.file, columns | ({} if label.positions else place))
    if label.id_column:
        points = _drop(points, points["id"].notna() & points["id"].duplicated(), "duplicate", counts)
    if label.positions:
        assert label.positions_id_column is not None  # the profile's validator asks for it
        places, _ = _read(label.positions, {"id": SourceColumn(label.positions_id_column, "VARCHAR")} | place)
        places = places.dropna(subset=["id"]).drop_duplicates("id")
        _require_match(label.file, label.id_column, points["id"], label.positions, places["id"])
        counts["positions_without_value"] = int((~places["id"].isin(points["id"])).sum())
        points = points.merge(places, on="id", how="left", sort=False, suffixes=("", "_of_position"))
    if not label.weight:
        points["weight"] = 1.0
    return points, counts


def _gathered(points: pd.DataFrame, n_cells: int, gather: str) -> np.ndarray:
    position = points["position"].to_numpy(dtype=np.int64)
    value, weight = points["value"].to_numpy(dtype=float), points["weight"].to_numpy(dtype=float)
    number = np.bincount(position, minlength=n_cells)
    total = np.bincount(position, value * weight, minlength=n_cells)
    weights = np.bincount(position, weight, minlength=n_cells)
    if gather == "count":
        return np.where(number > 0, number, np.nan)
    if gather == "sum":
        return np.where(number > 0, total, np.nan)
    mean: np.ndarray = np.divide(total, weights, out=np.full(n_cells, np.nan), where=weights > 0)
    return mean


def zone_values(label: ZoneLabel) -> tuple[pd.DataFrame, Counts]:
    """Rows of a zone table: filtered, summed where the profile says so, divided.

    Returns:
        Columns id (unique) and value, in file order; and counts.

    Raises:
        SourceError: Missing file or column, or a filter that no row passes.
    """
    names = [label.value] if isinstance(label.value, str) else label.value
    values = [f"value_{i}" for i in range(len(names))]
    columns = {"id": SourceColumn(label.id_column, "VARCHAR")}
    columns |= {k: SourceColumn(name, "DOUBLE", label.missing_values) for k, name in zip(values, names, strict=True)}
    if label.divide_by:
        columns["divisor"] = SourceColumn(label.divide_by, "DOUBLE", label.missing_values)
    columns |= {f"where_{i}": SourceColumn(name, "VARCHAR") for i, name in enumerate(label.where)}
    rows, counts = _read(label.file, columns)
    rows = _filtered(rows, label, counts)
    rows["value"] = rows[values].sum(axis=1, skipna=False)
    rows["divisor"] = rows["divisor"] if label.divide_by else 1.0
    rows = _drop(rows, rows[["id", "value", "divisor"]].isna().any(axis=1), "missing", counts)
    if label.sum_rows:
        rows = rows.groupby("id", sort=False, as_index=False)[["value", "divisor"]].sum()
    rows = _drop(rows, rows["id"].duplicated(), "duplicate", counts)
    if label.divide_by:
        rows = _drop(rows, rows["divisor"] <= 0, "divisor_not_positive", counts)
        rows["value"] /= rows["divisor"]
    return rows[["id", "value"]].reset_index(drop=True), counts


def _filtered(rows: pd.DataFrame, label: ZoneLabel, counts: Counts) -> pd.DataFrame:
    keep = pd.Series(True, index=rows.index)
    for i, wanted in enumerate(label.where.values()):
        keep &= rows[f"where_{i}"] == wanted
    if label.where:
        counts["filtered_out"] = int((~keep).sum())
        if not keep.any():
            raise SourceError(
                label.file,
                f"no row has {dict(label.where)}",
                column=", ".join(label.where),
                hint="compare `where` of the label with the values in the file",
            )
    return rows[keep].reset_index(drop=True)


def city_values(label: CityLabel) -> tuple[pd.DataFrame, Counts]:
    """Rows of a city table.

    Returns:
        Columns id (unique), lon, lat, radius_km and value, in file order; and counts.

    Raises:
        SourceError: Missing file or column.
    """
    columns = {
        "id": SourceColumn(label.id_column, "VARCHAR"),
        "lon": SourceColumn(label.lon, "DOUBLE"),
        "lat": SourceColumn(label.lat, "DOUBLE"),
        "radius_km": SourceColumn(label.radius_km, "DOUBLE", label.missing_values),
        "value": SourceColumn(label.value, "DOUBLE", label.missing_values),
    }
    rows, counts = _read(label.file, columns)
    rows = _drop(rows, rows[["id", "radius_km", "value"]].isna().any(axis=1), "missing", counts)
    rows = _drop(rows, rows["id"].duplicated(), "duplicate", counts)
    valid = (rows["lon"].abs() <= 180) & (rows["lat"].abs() <= 90) & (rows["radius_km"] >= 0)
    rows = _drop(rows, ~valid, "invalid_position", counts)
    return rows[list(columns)].reset_index(drop=True), counts


def _require_match(
    file: str, column: str | None, ids: "pd.Series[str]", other: str, other_ids: "pd.Series[str]"
) -> None:
    """Raise if two columns of identifiers have none in common.

    Raises:
        SourceError: With an identifier of each side.
    """
    if len(ids) and len(other_ids) and not ids.isin(other_ids).any():
        raise SourceError(
            file,
            f"no identifier is in {other}: found {ids.iloc[0]!r}, there {other_ids.iloc[0]!r}",
            column=column,
            hint="compare the two columns; leading zeros may have been lost",
        )


def matched_zones(label: ZoneLabel, rows: pd.DataFrame, zone_ids: list[str]) -> tuple[np.ndarray, Counts]:
    """Position of each row's polygon.

    Returns:
        int64, shape (rows,), -1 where there is no polygon; and counts of what either side lacks.

    Raises:
        SourceError: If no identifier is on both sides.
    """
    polygons = pd.Series({zone: i for i, zone in enumerate(zone_ids)}, dtype=float)
    _require_match(label.file, label.id_column, rows["id"], label.zones, pd.Series(zone_ids, dtype=object))
    position = rows["id"].map(polygons).fillna(-1).to_numpy(dtype=np.int64)
    counts = {
        "rows_without_zone": int((position < 0).sum()),
        "zones_without_row": int((~polygons.index.isin(rows["id"])).sum()),
    }
    return position, counts


def _read(file: str, columns: Mapping[str, SourceColumn]) -> tuple[pd.DataFrame, Counts]:
    table, counts = read_table(file, columns)
    frame: pd.DataFrame = table.to_pandas()
    for name, column in columns.items():
        if column.type == "DOUBLE":
            # an infinite number is as good as none
            frame[name] = frame[name].astype(float).replace([np.inf, -np.inf], np.nan)
    return frame, counts


def _drop(rows: pd.DataFrame, bad: "pd.Series[bool] | np.ndarray", reason: str, counts: Counts) -> pd.DataFrame:
    """Rows that are not bad; the others are counted as `dropped_<reason>`."""
    counts[f"dropped_{reason}"] = counts.get(f"dropped_{reason}", 0) + int(np.sum(bad))
    return rows[~np.asarray(bad, dtype=bool)].reset_index(drop=True)
