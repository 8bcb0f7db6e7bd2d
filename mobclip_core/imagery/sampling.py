"""Sampling one raster at points, from the overview that fits, with bounded memory.

Belongs here: windows, overviews, averaging and bilinear weights of one raster. Does not belong here: which points (see
`patches`), several rasters (see `mosaic`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyproj
from rasterio.windows import Window

from mobclip_core.imagery.raster import chosen_bands, crs_of, open_raster, reading
from mobclip_core.sources.remote import gdal_environment

_WINDOW_PIXELS = 1 << 22
_PIXELS_A_POINT = 64


class Raster(Protocol):
    """Anything that opens as a raster."""

    @property
    def name(self) -> str:
        """Path or URL, for messages."""

    def open(self, overview: int | None) -> AbstractContextManager[Any]:
        """A rasterio dataset, or what reads like one, at full size (None) or at an overview (its number)."""


@dataclass(frozen=True)
class RasterFile:
    """A raster that GDAL reads.

    Args:
        name: Path or URL.
    """

    name: str

    def open(self, overview: int | None) -> AbstractContextManager[Any]:
        """The dataset, opened with checks."""
        return open_raster(self.name, **({} if overview is None else {"overview_level": overview}))


@dataclass(frozen=True)
class Samples:
    """What rasters say about points, as sums that can be completed by another raster.

    Args:
        sums: Values times their bilinear weights, summed over pixels with data, float64, shape (..., bands).
        weight: Sum of these weights, float64, shape (...): 1 amid data, less beside an edge of the data.
        valid: Whether the pixel that holds the point has data, shape (...).
    """

    sums: np.ndarray
    weight: np.ndarray
    valid: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Weighted means, 0 where no weight."""
        return self.sums / np.where(self.weight > 0, self.weight, 1.0)[..., None]


class RasterLayer:
    """A raster with its overviews, each opened when first needed and closed with `stack`.

    Args:
        raster: The raster.
        bands: 1-based band numbers; all but an alpha band if None.
        stack: What closes it.

    Raises:
        SourceError: Missing or unreadable raster, no CRS, or a band that it does not have.
    """

    def __init__(self, raster: Raster, bands: Sequence[int] | None, stack: contextlib.ExitStack) -> None:
        self._raster, self._stack = raster, stack
        source = stack.enter_context(raster.open(None))
        self.bands = chosen_bands(source, bands)
        self.dtype = np.dtype("uint8" if all(source.dtypes[b - 1] == "uint8" for b in self.bands) else "float32")
        self.to_raster = pyproj.Transformer.from_crs("EPSG:4326", crs_of(source), always_xy=True)
        self._overviews = source.overviews(self.bands[0])
        self._size = (source.width, source.height)
        self._to_pixel = ~source.transform
        self._levels: dict[int, _Level] = {}

    def sample(self, x: np.ndarray, y: np.ndarray, wanted: np.ndarray) -> Samples:
        """Sample patches.

        Args:
            x: Coordinates of the patches' pixels in the raster's CRS, shape (n, P, P).
            y: The same, northwards.
            wanted: Which points to read, shape (n, P, P); the others have no weight.
        """
        to_pixel = self._to_pixel
        cols = to_pixel.a * x + to_pixel.b * y + to_pixel.c
        rows = to_pixel.d * x + to_pixel.e * y + to_pixel.f
        decimation = np.maximum(np.floor(_raster_pixels_per_pixel(cols, rows) + 0.01), 1).astype(int)
        sums = np.zeros((*x.shape, len(self.bands)))
        weight, valid = np.zeros(x.shape), np.zeros(x.shape, dtype=bool)
        for factor in np.unique(decimation):
            at = wanted & (decimation == factor)[:, None, None]
            with reading(self._raster.name), gdal_environment(self._raster.name):
                sums[at], weight[at], valid[at] = self._level(int(factor)).sample(cols[at], rows[at])
        return Samples(sums, weight, valid)

    def _level(self, decimation: int) -> "_Level":
        """The coarsest overview that is no coarser than wanted, averaged down by what is left."""
        if decimation not in self._levels:
            usable = [factor for factor in self._overviews if factor <= decimation]
            source = self._stack.enter_context(
                self._raster.open(self._overviews.index(max(usable)) if usable else None)
            )
            self._levels[decimation] = _Level(source, self.bands, decimation // max(usable, default=1), self._size)
        return self._levels[decimation]


@dataclass(frozen=True)
class _Level:
    """A raster at an overview, averaged down further by a whole factor.

    Args:
        source: The raster opened at the overview.
        bands: Bands to read.
        factor: Pixels of the overview that are averaged into one, along a side.
        full_size: Width and height of the full raster.
    """

    source: Any
    bands: tuple[int, ...]
    factor: int
    full_size: tuple[int, int]

    def sample(self, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bilinear sums at points over the pixels that have data.

        Args:
            cols: Column coordinates in the full raster (0 is the outer edge of the first pixel), shape (n,).
            rows: Row coordinates.

        Returns:
            The three fields of `Samples` for these points. A point up to half a pixel of this level beside the raster
            has weight, so that a raster that goes on there completes it.
        """
        width, height = self.full_size
        sums, weight = np.zeros((len(cols), len(self.bands))), np.zeros(len(cols))
        valid = np.zeros(len(cols), dtype=bool)
        scale_x, scale_y = self.source.width / width / self.factor, self.source.height / height / self.factor
        near_x = (cols * scale_x >= -0.5) & (cols * scale_x < width * scale_x + 0.5)
        near_y = (rows * scale_y >= -0.5) & (rows * scale_y < height * scale_y + 0.5)
        near = np.flatnonzero(near_x & near_y)
        x, y = cols[near] * scale_x, rows[near] * scale_y
        for points, window in self._windows(x, y):
            at = near[points]
            found = _bilinear(*self._read(*window), x[points] - window[0], y[points] - window[1])
            sums[at], weight[at], valid[at] = found
        # the last pixel of an averaged level may reach beyond the raster
        return sums, weight, valid & (cols >= 0) & (rows >= 0) & (cols < width) & (rows < height)

    def _windows(self, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
        """Split points until the window around each group is small and not much larger than its points need."""
        groups = [np.arange(len(x))] if len(x) else []
        while groups:
            points = groups.pop()
            px, py = x[points], y[points]
            left, right = int(np.floor(px.min() - 0.5)), int(np.floor(px.max() - 0.5)) + 2
            top, bottom = int(np.floor(py.min() - 0.5)), int(np.floor(py.max() - 0.5)) + 2
            limit = min(max(_PIXELS_A_POINT * len(points), _WINDOW_PIXELS >> 4), _WINDOW_PIXELS)
            if (right - left) * (bottom - top) * self.factor**2 > limit and max(right - left, bottom - top) > 3:
                longer = px if right - left >= bottom - top else py
                low = longer < (longer.min() + longer.max()) / 2
                groups += [points[~low], points[low]]
            else:
                yield points, (left, top, right, bottom)

    def _read(self, left: int, top: int, right: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of a window of this level, beyond the raster too.

        Returns:
            float32, shape (rows, columns, bands), 0 where not valid; and validity, shape (rows, columns).
        """
        f = self.factor
        x0, y0 = max(left * f, 0), max(top * f, 0)
        x1, y1 = min(right * f, self.source.width), min(bottom * f, self.source.height)
        window = Window.from_slices((y0, y1), (x0, x1))
        data = self.source.read(self.bands, window=window)
        masks = self.source.read_masks(self.bands, window=window) > 0
        valid = masks.any(axis=0) if data.dtype == np.uint8 else masks.all(axis=0)
        data = np.moveaxis(data.astype(np.float32), 0, -1)
        valid &= np.isfinite(data).all(axis=-1)
        data[~valid] = 0.0
        margins = ((y0 - top * f, bottom * f - y1), (x0 - left * f, right * f - x1))
        data, valid = np.pad(data, (*margins, (0, 0))), np.pad(valid, margins)
        return _averaged(data, valid, f) if f > 1 else (data, valid)


def _averaged(data: np.ndarray, valid: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of blocks of factor x factor pixels over the valid ones; a block is valid where at least half of it is."""
    height, width, bands = data.shape
    blocks = (height // factor, factor, width // factor, factor)
    count = valid.reshape(blocks).sum(axis=(1, 3))
    total = data.reshape(*blocks, bands).sum(axis=(1, 3), dtype=np.float64)
    enough = 2 * count >= factor**2
    mean = np.where(enough[..., None], total / np.maximum(count, 1)[..., None], 0.0)
    return mean.astype(np.float32), enough


def _bilinear(
    data: np.ndarray, valid: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over valid pixels; `x` and `y` are coordinates in the window whose pixel centres lie at halves."""
    width = data.shape[1]
    flat, has_data = data.reshape(-1, data.shape[2]), valid.ravel()
    i, j = np.floor(x - 0.5).astype(np.int64), np.floor(y - 0.5).astype(np.int64)
    dx, dy = x - 0.5 - i, y - 0.5 - j
    sums = np.zeros((len(x), flat.shape[1]))
    total = np.zeros(len(x))
    for down, weight_y in ((0, 1 - dy), (1, dy)):
        for across, weight_x in ((0, 1 - dx), (1, dx)):
            corner = (j + down) * width + i + across
            weight = weight_y * weight_x * has_data[corner]
            total += weight
            sums += weight[:, None] * flat[corner]
    return sums, total, has_data[np.floor(y).astype(np.int64) * width + np.floor(x).astype(np.int64)]


def _raster_pixels_per_pixel(cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many raster pixels a patch's pixel spans, by the square root of the area ratio at the patch's middle lines.

    Args:
        cols: Column coordinates of the patch's pixels, shape (n, P, P).
        rows: Row coordinates.

    Returns:
        Shape (n,); 1 where the patch lies beyond the projection's domain.
    """
    middle = cols.shape[1] // 2
    with np.errstate(invalid="ignore"):
        across = [np.median(np.diff(values[:, middle, :], axis=1), axis=1) for values in (cols, rows)]
        down = [np.median(np.diff(values[:, :, middle], axis=1), axis=1) for values in (cols, rows)]
        scale = np.sqrt(np.abs(across[0] * down[1] - across[1] * down[0]))
    return np.where(np.isfinite(scale), scale, 1.0)
