"""Positions to H3 cells in bulk.

Belongs here: converting batches of positions, reading WKB points without a loop, numbering the cells of a
grid. Does not belong here: what becomes of a position that lies in no cell (see `tally`).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

BATCH_ROWS = 131_072
"""Rows converted at once: enough to make the calls cheap, few enough that several batches fit in the cache."""

_FINE_DIGITS = 4
_FINE = 1 << (3 * _FINE_DIGITS)
_MAX_COARSE_BITS = 22
_WKB_POINT_BYTES = 21


def cells_of_points(lon: np.ndarray, lat: np.ndarray, resolution: int) -> np.ndarray:
    """H3 cells of points, without the global interpreter lock.

    Args:
        lon: Longitudes in degrees, float64, shape (n,).
        lat: Latitudes in degrees, float64, shape (n,).
        resolution: H3 resolution.

    Returns:
        uint64, shape (n,); 0 where a coordinate is not finite or out of range.
    """
    from h3ronpy.vector import coordinates_to_cells

    # comparisons with NaN are false; h3ronpy raises on it, so only valid points go in
    valid = (np.abs(lon) <= 180) & (np.abs(lat) <= 90)
    if valid.all():
        return np.asarray(coordinates_to_cells(lat, lon, resolution), dtype=np.uint64)
    cells = np.zeros(len(lon), dtype=np.uint64)
    if valid.any():
        cells[valid] = np.asarray(coordinates_to_cells(lat[valid], lon[valid], resolution))
    return cells


@dataclass(frozen=True)
class Positions:
    """Where points lie.

    Args:
        cell: Their cells, uint64, shape (n,); 0 where a coordinate is not finite or out of range.
        number: Numbers of the cells in the grid, uint32, shape (n,); 0 for a cell that is not in it.
        swapped: Points in no cell of the grid that would be in one were longitude and latitude exchanged, bool.
    """

    cell: np.ndarray
    number: np.ndarray
    swapped: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Points in a cell of the grid, bool, shape (n,)."""
        return self.number > 0


class CellNumbers:
    """The numbers of the cells of a grid: a look-up by H3 index in two steps, through the ancestor four levels up.

    A binary search in all cells costs a cache miss a step; the ancestors are few, and the cells below one of them are
    an array. Up to resolution 9 the ancestors are an array, too.

    Args:
        cells: Distinct H3 cells of one resolution, uint64, shape (n,), in any order.
        resolution: Their resolution.

    Shapes:
        The i-th of `cells` has the number i + 1.
    """

    def __init__(self, cells: np.ndarray, resolution: int) -> None:
        self._resolution = resolution
        # three bits a digit; the bits of the digits that the resolution does not use are all set
        self._shift = np.uint64(3 * (15 - resolution))
        # above the digits: 7 bits of the base cell, then what all cells of a resolution share
        self._base = np.uint64(((1 << 59) | (resolution << 52)) >> int(self._shift) >> (3 * _FINE_DIGITS))
        bits = 7 + 3 * (resolution - _FINE_DIGITS)
        coarse, fine = self._split(cells)
        self._blocks, block = np.unique(coarse, return_inverse=True)
        # one more block that stays empty: that of all cells elsewhere
        self._numbers = np.zeros((len(self._blocks) + 1) * _FINE, dtype=np.uint32)
        self._numbers[block * _FINE + fine] = np.arange(1, len(cells) + 1, dtype=np.uint32)
        self._starts = None
        if bits <= _MAX_COARSE_BITS:
            self._starts = np.full((1 << max(bits, 7)) + 1, len(self._blocks) * _FINE)
            self._starts[self._blocks] = np.arange(len(self._blocks)) * _FINE

    def _split(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        digits = cells >> self._shift
        # 0, which is no cell, becomes a very large number
        return (digits >> np.uint64(3 * _FINE_DIGITS)) - self._base, (digits & np.uint64(_FINE - 1)).astype(np.int64)

    def find(self, cells: np.ndarray) -> np.ndarray:
        """Numbers of cells.

        Args:
            cells: uint64, shape (m,), of the same resolution, or 0 for none.

        Returns:
            uint32, shape (m,); 0 for a cell that is not in the grid.
        """
        coarse, fine = self._split(cells)
        if self._starts is not None:
            last = np.uint64(len(self._starts) - 1)
            return np.asarray(self._numbers[self._starts[np.minimum(coarse, last)] + fine])
        block = np.searchsorted(self._blocks, coarse)
        known = np.append(self._blocks, np.uint64(2**64 - 1))
        block[known[block] != coarse] = len(self._blocks)
        return np.asarray(self._numbers[block * _FINE + fine])

    def locate(self, lon: np.ndarray, lat: np.ndarray) -> Positions:
        """Cells and numbers of points; errors in the axis order are seen.

        Args:
            lon: Longitudes in degrees, float64, shape (n,).
            lat: Latitudes in degrees, float64, shape (n,).
        """
        cell = cells_of_points(lon, lat, self._resolution)
        number = self.find(cell)
        swapped = np.zeros(len(lon), dtype=bool)
        elsewhere = np.flatnonzero(number == 0)
        if len(elsewhere):
            exchanged = cells_of_points(lat[elsewhere], lon[elsewhere], self._resolution)
            swapped[elsewhere] = self.find(exchanged) > 0
        return Positions(cell, number, swapped)


def wkb_positions(wkb: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of WKB points.

    Args:
        wkb: Binary array of n values.

    Returns:
        Two float64 arrays of shape (n,); NaN for null and for what is no point.
    """
    if wkb.null_count == 0 and len(wkb):
        plain = _plain_points(wkb)
        if plain is not None:
            return plain
    import shapely

    geometries = shapely.from_wkb(np.array(wkb.to_pylist(), dtype=object), on_invalid="ignore")
    return shapely.get_x(geometries), shapely.get_y(geometries)


def _plain_points(wkb: pa.Array) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions where every value is a little-endian point of two dimensions, else None."""
    wkb = wkb.cast(pa.binary())
    _, offset_buffer, data = wkb.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[wkb.offset : wkb.offset + len(wkb) + 1]
    if data is None or (np.diff(offsets) != _WKB_POINT_BYTES).any():
        return None
    rows = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]].reshape(-1, _WKB_POINT_BYTES)
    if (rows[:, :5] != (1, 1, 0, 0, 0)).any():
        return None
    positions = np.ascontiguousarray(rows[:, 5:]).view("<f8")
    return positions[:, 0].copy(), positions[:, 1].copy()
