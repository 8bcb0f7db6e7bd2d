"""The GeoBench label table: every task's units, values and cells.

Belongs here: the step that brings values and cells together. Does not belong here: reading a source (see
`label_values`), weighting cells (see `members`), predicting.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mobclip_core.contracts import GEOBENCH_LABELS
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.errors import ContractError, SourceError
from mobclip_core.evaluation import label_values
from mobclip_core.evaluation.members import GridFrame, Members, city_members, zone_members
from mobclip_core.grid import cell_polygons
from mobclip_core.profile import CityLabel, Label, PointLabel, PopulationLabel, RasterLabel, TaskConfig, ZoneLabel
from mobclip_core.sources.polygons import read_polygons
from mobclip_core.sphere import unit_vectors
from mobclip_core.store import TableRef

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Units:
    """Labelled units of one task: names and values, shape (units,), and their cells."""

    scale: str
    names: list[str]
    values: np.ndarray
    members: Members


def build_geobench_labels(deployment: Deployment) -> StepResult:
    """Gather the labels of all tasks of the profile.

    Counts are prefixed by the task, e.g. `POP_units`, `POP_dropped_missing`.

    Raises:
        SourceError: A source is missing or does not hold what the profile says, or a label to be log-transformed is
            negative.
        MissingTableError: Grid cells or census features are not materialised.
    """
    builder = _Builder(read_grid(deployment))
    tables: list[pa.Table] = []
    counts: dict[str, Count] = {}
    for code, task in sorted(deployment.profile.tasks.items()):
        units, found = builder.units(task.label)
        tables.append(_task_table(code, task, units, builder.grid))
        log.info("%s: %d units", code, len(units.names))
        if not units.names:
            log.warning("%s has no labelled unit: %s", code, found)
        counts |= {f"{code}_units": len(units.names)} | {f"{code}_{key}": value for key, value in found.items()}
    table = pa.concat_tables([GEOBENCH_LABELS.schema().empty_table(), *tables])
    written = deployment.store.write(TableRef("geobench_labels"), table)
    return StepResult(written, counts, markdown={"Tasks": _tasks_markdown(deployment.profile.tasks, counts)})


def read_grid(deployment: Deployment) -> GridFrame:
    """All cells of the deployment with their people, sorted by cell.

    Raises:
        MissingTableError: Grid cells or census features of a region are not materialised.
        ContractError: Census features are older than the grid.
    """
    regions = deployment.profile.regions.region_keys
    grid = deployment.store.read_all("grid_cells", ["cell", "lon", "lat", "area_km2"], regions).sort_by("cell")
    people = deployment.store.read_all("census_features", ["cell", "population"], regions).sort_by("cell")
    if not grid["cell"].equals(people["cell"]):
        raise ContractError("census_features has other cells than grid_cells; materialise census_features again")
    return GridFrame(
        grid["cell"].to_numpy(),
        grid["lon"].to_numpy(),
        grid["lat"].to_numpy(),
        grid["area_km2"].to_numpy(),
        people["population"].to_numpy(),
        deployment.profile.grid.resolution,
    )


class _Builder:
    """Units by kind of label; tasks on the same zones share the overlay of zones and cells."""

    def __init__(self, grid: GridFrame) -> None:
        self.grid = grid
        self._zones: dict[str, tuple[list[str], Members, dict[str, int]]] = {}

    def units(self, label: Label) -> tuple[_Units, dict[str, int]]:
        if isinstance(label, RasterLabel):
            return self._cell_units(*label_values.raster_values(label, self.grid))
        if isinstance(label, PointLabel):
            return self._cell_units(*label_values.point_values(label, self.grid))
        if isinstance(label, PopulationLabel):
            return self._cell_units(self.grid.population, {})
        if isinstance(label, ZoneLabel):
            return self._zone_units(label)
        return self._city_units(label)

    def _cell_units(self, values: np.ndarray, counts: dict[str, int]) -> tuple[_Units, dict[str, int]]:
        cell = np.flatnonzero(~np.isnan(values))
        members = Members(np.arange(len(cell)), cell, np.ones(len(cell)))
        names = [f"{int(h3):x}" for h3 in self.grid.cells[cell]]
        return _Units("cell", names, values[cell], members), counts

    def _zone_units(self, label: ZoneLabel) -> tuple[_Units, dict[str, int]]:
        rows, counts = label_values.zone_values(label)
        zone_ids, zones, zone_counts = self._zone_members(label)
        position, matched = label_values.matched_zones(label, rows, zone_ids)
        counts |= zone_counts | matched
        row_of_zone = np.full(len(zone_ids), -1)
        row_of_zone[position[position >= 0]] = np.flatnonzero(position >= 0)
        unit = row_of_zone[zones.unit]
        kept = unit >= 0
        members = Members(unit[kept], zones.cell[kept], zones.weight[kept])
        units = _Units(label.scale, rows["id"].tolist(), rows["value"].to_numpy(dtype=float), members)
        return _with_cells(units, counts, without_polygon=counts["rows_without_zone"])

    def _zone_members(self, label: ZoneLabel) -> tuple[list[str], Members, dict[str, int]]:
        key = repr((label.zones, label.zone_id_column, sorted(label.zone_where.items()), label.weighting))
        if key not in self._zones:
            zones, counts = read_polygons(
                label.zones, label.zone_id_column, where=label.zone_where, merge_duplicates=True
            )
            polygons = zones.geometry.to_numpy()
            members = zone_members(polygons, cell_polygons(self.grid.cells), self.grid, label.weighting)
            self._zones[key] = (zones["id"].tolist(), members, {f"zone_{k}": int(v) for k, v in counts.items() if v})
        return self._zones[key]

    def _city_units(self, label: CityLabel) -> tuple[_Units, dict[str, int]]:
        rows, counts = label_values.city_values(label)
        lon, lat, radius = (rows[name].to_numpy(dtype=float) for name in ("lon", "lat", "radius_km"))
        members = city_members(lon, lat, radius, self.grid, label.weighting)
        return _with_cells(_Units("city", rows["id"].tolist(), rows["value"].to_numpy(dtype=float), members), counts)


def _with_cells(units: _Units, counts: dict[str, int], without_polygon: int = 0) -> tuple[_Units, dict[str, int]]:
    """Units that have cells, numbered anew; the others are counted."""
    kept, unit = np.unique(units.members.unit, return_inverse=True)
    counts = counts | {"units_without_cells": len(units.names) - len(kept) - without_polygon}
    members = Members(unit, units.members.cell, units.members.weight)
    return _Units(units.scale, [units.names[i] for i in kept], units.values[kept], members), counts


def _task_table(code: str, task: TaskConfig, units: _Units, grid: GridFrame) -> pa.Table:
    """The rows of a task, sorted by unit."""
    order = sorted(range(len(units.names)), key=units.names.__getitem__)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    by_unit = np.argsort(rank[units.members.unit], kind="stable")
    members = Members(rank[units.members.unit][by_unit], units.members.cell[by_unit], units.members.weight[by_unit])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(members.unit, minlength=len(order)))]).astype(np.int32)
    lon, lat = _centres(members, len(order), grid)
    values = units.values[order]
    columns = [
        pa.array([code] * len(order), pa.string()),
        pa.array([units.names[i] for i in order], pa.string()),
        pa.array([units.scale] * len(order), pa.string()),
        pa.array(values, pa.float64()),
        pa.array(_transformed(values, task), pa.float64()),
        pa.array(lon, pa.float64()),
        pa.array(lat, pa.float64()),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(grid.cells[members.cell], pa.uint64())),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(members.weight, pa.float64())),
    ]
    return pa.Table.from_arrays(columns, schema=GEOBENCH_LABELS.schema())


def _transformed(values: np.ndarray, task: TaskConfig) -> np.ndarray:
    """What the probes predict."""
    if task.transform == "identity":
        return values
    negative = values < 0
    if negative.any() and not isinstance(task.label, PopulationLabel):
        raise SourceError(
            task.label.file,
            f"log1p of {int(negative.sum())} negative labels; the smallest is {values.min():g}",
            column=None if isinstance(task.label, RasterLabel) else str(task.label.value),
            hint="use `transform: identity`, or name the number that stands for missing under `missing_values`",
        )
    return np.asarray(np.log1p(values))


def _centres(members: Members, n_units: int, grid: GridFrame) -> tuple[np.ndarray, np.ndarray]:
    """Weighted centres of the units on the sphere, in degrees; right across the antimeridian."""
    xyz = unit_vectors(grid.lon[members.cell], grid.lat[members.cell])
    x, y, z = (np.bincount(members.unit, members.weight * axis, minlength=n_units) for axis in xyz.T)
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def _tasks_markdown(tasks: dict[str, TaskConfig], counts: dict[str, Count]) -> str:
    lines = [
        "| task | title | unit | source | scale | units | inputs that overlap |",
        "| --- | --- | --- | --- | --- | ---: | --- |",
    ]
    for code, task in sorted(tasks.items()):
        scale = {"zones": getattr(task.label, "scale", ""), "cities": "city"}.get(task.label.kind, "cell")
        row = (
            code,
            task.title,
            task.unit,
            task.source,
            scale,
            counts[f"{code}_units"],
            ", ".join(task.overlaps) or "none",
        )
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)
