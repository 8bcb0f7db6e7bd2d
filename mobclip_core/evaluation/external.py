"""Embeddings of others, brought to the cells of a deployment, to be scored in the same run.

Belongs here: reading them from a table or calling a function of coordinates, and joining them to cells. Does not belong
here: this project's representations (see `representations`), scoring.
"""

import importlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mobclip_core.bulk_cells import cells_of_points
from mobclip_core.cells import are_cells, parents, resolution_of
from mobclip_core.errors import ProfileError, SourceError
from mobclip_core.profile import ExternalEmbedding
from mobclip_core.sources.tables import open_files, reading, source_files
from mobclip_core.sql import session
from mobclip_core.vectors import matrix_of

_SHOWN_ROWS = 5


@dataclass(frozen=True)
class ExternalVectors:
    """Vectors of the cells that an external embedding knows.

    Args:
        values: float32 (N, D); 0 where it knows none.
        known: bool (N,).
        counts: `rows`, `rows_incomplete`, `rows_outside`, `cells_without`.
    """

    values: np.ndarray
    known: np.ndarray
    counts: dict[str, int]


def external_vectors(
    name: str, config: ExternalEmbedding, cells: np.ndarray, lon: np.ndarray, lat: np.ndarray
) -> ExternalVectors:
    """The vectors of an external embedding on the cells of a deployment.

    Rows of a table that fall on one cell (points in it, finer cells of it) are averaged; rows with a missing number or
    position, and rows outside the grid, are left out and counted.

    Args:
        name: Its name in the profile.
        config: Where it comes from.
        cells: Sorted cells of one resolution, uint64 (N,).
        lon: Longitude of their centres in degrees, (N,).
        lat: Latitude, (N,).

    Raises:
        SourceError: The table is missing, unreadable, without a column named, or none of its rows lies on a cell.
        ProfileError: There is no such function, or it does not give one vector a cell.
    """
    if config.function is not None:
        values = _called(name, config.function, lon, lat)
        known = np.isfinite(values).all(axis=1)
        counts = {"rows": len(values), "rows_incomplete": int((~known).sum()), "rows_outside": 0}
    else:
        values, known, counts = _joined(config, cells)
    counts["cells_without"] = int((~known).sum())
    return ExternalVectors(np.where(known[:, None], values, 0).astype(np.float32), known, counts)


def _called(name: str, function: str, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    module, _, attribute = function.partition(":")
    try:
        encode = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ProfileError(f"evaluation.external.{name}.function: no {function!r}: {error}") from error
    values = np.asarray(encode(lon, lat))
    if values.ndim != 2 or len(values) != len(lon):
        raise ProfileError(
            f"evaluation.external.{name}.function: {function!r} gave an array of shape {values.shape} for {len(lon)} "
            "cells; expected (cells, dimensions)"
        )
    return values


def _joined(config: ExternalEmbedding, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    files = source_files(config.file or "")
    with session() as connection, reading(files):
        open_files(connection, "external_embedding", files)
        table = connection.execute("SELECT * EXCLUDE (source_row) FROM external_embedding").to_arrow_table()
    vectors = _vectors(files, table, config)
    resolution = int(resolution_of(cells[:1])[0]) if len(cells) else 0
    at, placed = _places(files, table, config, resolution)
    complete = placed & np.isfinite(vectors).all(axis=1)
    position = np.minimum(np.searchsorted(cells, at), max(len(cells) - 1, 0))
    inside = complete & (cells[position] == at) if len(cells) else np.zeros(len(at), dtype=bool)
    if len(cells) and not inside.any():
        raise SourceError(files, "no row lies on a cell of this deployment", hint="is it about another country?")
    number = np.bincount(position[inside], minlength=len(cells))
    total = np.zeros((len(cells), vectors.shape[1]))
    np.add.at(total, position[inside], vectors[inside])
    counts = {
        "rows": len(table),
        "rows_incomplete": int((~complete).sum()),
        "rows_outside": int((complete & ~inside).sum()),
    }
    return total / np.maximum(number, 1)[:, None], number > 0, counts


def _column(files: list[str], table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise SourceError(
            files, f"no column {name!r}", column=name, hint=f"the file has {sorted(table.column_names)[:40]}"
        )
    return table[name]


def _vectors(files: list[str], table: pa.Table, config: ExternalEmbedding) -> np.ndarray:
    """The vectors of all rows, float64 (rows, D), NaN where a number is missing."""
    wanted = config.vector
    if isinstance(wanted, str) and wanted.endswith("*"):
        wanted = [name for name in table.column_names if name.startswith(wanted[:-1])]
        if not wanted:
            raise SourceError(
                files, f"no column {config.vector!r}", hint=f"the file has {sorted(table.column_names)[:40]}"
            )
    if isinstance(wanted, str):
        column = _column(files, table, wanted).combine_chunks()
        lengths = np.array([len(row) if row is not None else 0 for row in column])
        width = int(lengths.max(initial=0))
        bad = np.flatnonzero((lengths != width) & (lengths > 0))
        if len(bad):
            raise SourceError(
                files, f"vectors of several lengths (most: {width})", column=wanted, rows=bad[:_SHOWN_ROWS].tolist()
            )
        values = np.full((len(column), width), np.nan)
        filled = column.filter(pa.array(lengths == width))
        values[lengths == width] = matrix_of(filled.cast(pa.list_(pa.float64(), width)))
        return values
    try:
        columns = [_column(files, table, name).cast(pa.float64()).to_numpy() for name in wanted]
    except pa.ArrowInvalid as error:
        raise SourceError(files, f"a column of the vector holds no numbers: {error}") from error
    return np.column_stack(columns)


def _places(
    files: list[str], table: pa.Table, config: ExternalEmbedding, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each row, uint64 (rows,), and whether it has one."""
    if config.cell is None:
        lon, lat = (
            _column(files, table, name or "").cast(pa.float64()).to_numpy() for name in (config.lon, config.lat)
        )
        placed = (np.abs(lon) <= 180) & (np.abs(lat) <= 90)
        return cells_of_points(np.where(placed, lon, 0), np.where(placed, lat, 0), resolution), placed
    column = _column(files, table, config.cell)
    placed = ~column.is_null().to_numpy()
    names = column.fill_null("0" if pa.types.is_string(column.type) else 0).to_pylist()
    try:
        at = np.array([int(name, 16) if isinstance(name, str) else int(name) for name in names], dtype=np.uint64)
    except (ValueError, OverflowError) as error:
        raise SourceError(files, f"holds no H3 cells: {error}", column=config.cell) from error
    if placed.any() and (not are_cells(at[placed]) or int(resolution_of(at[placed]).min()) < resolution):
        wrong = np.flatnonzero(placed & ~((at >> np.uint64(59) == 1) & (resolution_of(at) >= resolution)))
        raise SourceError(
            files,
            f"not all are H3 cells of resolution {resolution} or finer",
            column=config.cell,
            rows=wrong[:_SHOWN_ROWS].tolist(),
            hint="name lon and lat in place of cell to join by position",
        )
    at[placed] = parents(at[placed], resolution)
    return at, placed
