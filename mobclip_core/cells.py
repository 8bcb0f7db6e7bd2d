"""Arithmetic on H3 indices with numpy alone.

Belongs here: what the encoder and the evaluation need of H3 where no H3 library is installed. Does not belong here:
geometry (see `grid`).
"""

import numpy as np

_MODE_SHIFT = np.uint64(59)
_CELL_MODE = 1
_RESOLUTION_SHIFT = np.uint64(52)
_DIGIT_BITS = 3
_MAX_RESOLUTION = 15


def are_cells(ids: np.ndarray) -> bool:
    """Whether all node ids are H3 cells: the five leading bits of the index are its mode, 1 for a cell.

    Args:
        ids: uint64, shape (n,).
    """
    return bool(np.all(np.asarray(ids, dtype=np.uint64) >> _MODE_SHIFT == _CELL_MODE))


def resolution_of(cells: np.ndarray) -> np.ndarray:
    """Resolution of each H3 cell: bits 52 to 55 of the index.

    Args:
        cells: uint64, shape (n,).

    Returns:
        int64, shape (n,).
    """
    return ((np.asarray(cells, dtype=np.uint64) >> _RESOLUTION_SHIFT) & np.uint64(0xF)).astype(np.int64)


def parents(cells: np.ndarray, resolution: int) -> np.ndarray:
    """The H3 parent of each cell at a coarser (or the same) resolution.

    The parent's index has the resolution's bits replaced and the digits below it set to 7 (H3 index layout,
    https://h3geo.org/docs/core-library/h3Indexing).

    Args:
        cells: uint64 H3 indices of one or several resolutions, shape (n,).
        resolution: Resolution of the parents.

    Returns:
        uint64, shape (n,).

    Raises:
        ValueError: If a cell is coarser than `resolution`.
    """
    cells = np.asarray(cells, dtype=np.uint64)
    if len(cells) and int(resolution_of(cells).min()) < resolution:
        raise ValueError(
            f"parents at resolution {resolution} asked for cells of resolution {resolution_of(cells).min()}"
        )
    unused = np.uint64((1 << (_DIGIT_BITS * (_MAX_RESOLUTION - resolution))) - 1)
    cleared = cells & ~(np.uint64(0xF) << _RESOLUTION_SHIFT)
    return (cleared | (np.uint64(resolution) << _RESOLUTION_SHIFT)) | unused
