"""Image patches: a square of given ground size around each position, read from a raster in any CRS.

Belongs here: where a patch's pixels lie in the raster, and sampling them with bounded memory. Does not belong here:
what is made of the patches (see `features`).

How it works: positions of a patch's pixels are geodesically exact on 3 x 3 control points and quadratic in between;
they are sampled bilinearly from the overview whose pixel is nearest below the patch's, after averaging down what the
overviews lack. A patch depends on the raster and its own position only, never on what else is read beside it.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import rasterio
from rasterio.windows import Window

from mobclip_core.imagery.raster import chosen_bands, crs_of, open_raster

_POINTS_AT_A_TIME = 1 << 18
_WINDOW_PIXELS = 1 << 22
_PIXELS_A_POINT = 64
_ROUGHNESS = 0.02
_GEOD = pyproj.Geod(ellps="WGS84")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patches:
    """Patches and how much of them is data.

    Args:
        pixels: Shape (n, bands, pixels, pixels), row 0 in the north; uint8 where the raster is, else float32; 0 where
            not valid.
        valid_fraction: float64, shape (n,): fraction of the patch's pixels that lie in the raster and have data there.
    """

    pixels: np.ndarray
    valid_fraction: np.ndarray


def read_patches(
    file: str,
    lon: np.ndarray,
    lat: np.ndarray,
    *,
    ground_resolution_m: float,
    patch_pixels: int,
    bands: Sequence[int] | None = None,
) -> Patches:
    """Read a square patch around each position.

    A pixel is valid where any band has data (uint8: an image's black may be its nodata value in one band) or all bands
    have (other types: a nodata value is not a measurement), NaN is no data, and an alpha band rules where there is one.

    Args:
        file: Raster in any CRS, any GDAL format; overviews are used where they are.
        lon: Longitudes of the centres in degrees, shape (n,).
        lat: Latitudes of the centres in degrees, shape (n,).
        ground_resolution_m: Size of a patch's pixel on the ground (WGS 84 ellipsoid). The error of a pixel's position
            grows with the cube of the patch's size: under 1 cm for patches of 10 km, under 30 m for 200 km.
        patch_pixels: Side of the patch.
        bands: 1-based band numbers; all but an alpha band if None.

    Returns:
        The patches, in the order of the positions.

    Raises:
        SourceError: Missing, unreadable or truncated raster, no CRS, or a band that the file does not have.
    """
    with contextlib.ExitStack() as stack:
        pyramid = _Pyramid(file, bands, stack)
        pixels = np.zeros((len(lon), len(pyramid.bands), patch_pixels, patch_pixels), dtype=pyramid.dtype)
        valid_fraction = np.zeros(len(lon))
        at_a_time = max(1, _POINTS_AT_A_TIME // patch_pixels**2)
        for start in range(0, len(lon), at_a_time):
            part = slice(start, start + at_a_time)
            x, y = pixel_positions(lon[part], lat[part], pyramid.to_raster, ground_resolution_m, patch_pixels)
            values, valid = pyramid.sample(x, y)
            pixels[part] = np.moveaxis(np.rint(values) if pyramid.dtype == np.uint8 else values, -1, 1)
            valid_fraction[part] = valid.mean(axis=(1, 2))
            _log.info("imagery: %d of %d patches read", start + len(x), len(lon))
    return Patches(pixels, valid_fraction)


def pixel_positions(
    lon: np.ndarray, lat: np.ndarray, to_raster: pyproj.Transformer, ground_resolution_m: float, patch_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the centres of all pixels of patches, in the raster's CRS.

    Pixel (i, j) lies `ground_resolution_m` times ((P - 1) / 2 - i) north and (j - (P - 1) / 2) east of the centre on
    the azimuthal equidistant plane of that centre.

    Args:
        lon: Longitudes of the centres, shape (n,).
        lat: Latitudes of the centres, shape (n,).
        to_raster: From EPSG:4326 (lon, lat) to the raster's CRS.
        ground_resolution_m: Size of a pixel on the ground.
        patch_pixels: P, the side of the patch.

    Returns:
        x and y, each float64 of shape (n, P, P); infinite beyond the CRS's domain.
    """
    half = (patch_pixels - 1) / 2 * ground_resolution_m
    x, y = _exact_positions(lon, lat, to_raster, np.linspace(-half, half, 3))
    rough = ~(_is_smooth(x) & _is_smooth(y))
    u = np.linspace(-1.0, 1.0, patch_pixels)
    basis = np.stack([u * (u - 1) / 2, 1 - u**2, u * (u + 1) / 2], axis=1)
    with np.errstate(invalid="ignore"):
        x, y = (basis @ values @ basis.T for values in (x, y))
    if rough.any():  # across a seam of the projection (the antimeridian), or near a pole
        offsets = np.linspace(-half, half, patch_pixels)
        x[rough], y[rough] = _exact_positions(lon[rough], lat[rough], to_raster, offsets)
    return x, y


def _exact_positions(
    lon: np.ndarray, lat: np.ndarray, to_raster: pyproj.Transformer, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    north, east = (-offsets)[:, None], offsets[None, :]
    shape = (len(lon), len(offsets), len(offsets))
    azimuth = np.broadcast_to(np.degrees(np.arctan2(east, north)), shape)
    distance = np.broadcast_to(np.hypot(east, north), shape)
    lon0 = np.broadcast_to(np.asarray(lon, dtype=float)[:, None, None], shape)
    lat0 = np.broadcast_to(np.asarray(lat, dtype=float)[:, None, None], shape)
    flat = [np.ascontiguousarray(values).ravel() for values in (lon0, lat0, azimuth, distance)]
    point_lon, point_lat, _ = _GEOD.fwd(flat[0], flat[1], flat[2], flat[3])
    x, y = to_raster.transform(point_lon, point_lat)
    return np.asarray(x).reshape(shape), np.asarray(y).reshape(shape)


def _is_smooth(values: np.ndarray) -> np.ndarray:
    """Whether a quadratic through 3 x 3 control points, shape (n, 3, 3), describes what lies between them."""
    with np.errstate(invalid="ignore"):
        span = np.ptp(values, axis=(1, 2))
        bend = np.maximum(
            np.abs(np.diff(values, 2, axis=1)).max(axis=(1, 2)), np.abs(np.diff(values, 2, axis=2)).max(axis=(1, 2))
        )
    return np.asarray(np.isfinite(span) & (bend <= _ROUGHNESS * span))


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


class _Pyramid:
    """A raster with its overviews, each opened when first needed and closed with `stack`."""

    def __init__(self, file: str, bands: Sequence[int] | None, stack: contextlib.ExitStack) -> None:
        self._file, self._stack = file, stack
        source = stack.enter_context(open_raster(file))
        self.bands = chosen_bands(source, bands)
        self.dtype = np.dtype("uint8" if all(source.dtypes[b - 1] == "uint8" for b in self.bands) else "float32")
        self.to_raster = pyproj.Transformer.from_crs("EPSG:4326", crs_of(source), always_xy=True)
        self._overviews = source.overviews(self.bands[0])
        self._size = (source.width, source.height)
        self._to_pixel = ~source.transform
        self._levels: dict[int, _Level] = {}

    def sample(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sample patches at coordinates x and y of shape (n, P, P): values (n, P, P, bands), validity (n, P, P)."""
        to_pixel = self._to_pixel
        cols = to_pixel.a * x + to_pixel.b * y + to_pixel.c
        rows = to_pixel.d * x + to_pixel.e * y + to_pixel.f
        decimation = np.maximum(np.floor(_raster_pixels_per_pixel(cols, rows) + 0.01), 1).astype(int)
        values = np.zeros((*x.shape, len(self.bands)), dtype=np.float32)
        valid = np.zeros(x.shape, dtype=bool)
        for factor in np.unique(decimation):
            chosen = np.flatnonzero(decimation == factor)
            found, ok = self._level(int(factor)).sample(cols[chosen].ravel(), rows[chosen].ravel())
            values[chosen] = found.reshape(len(chosen), *values.shape[1:])
            valid[chosen] = ok.reshape(len(chosen), *x.shape[1:])
        return values, valid

    def _level(self, decimation: int) -> "_Level":
        """The coarsest overview that is no coarser than wanted, averaged down by what is left."""
        if decimation not in self._levels:
            usable = [factor for factor in self._overviews if factor <= decimation]
            options = {"overview_level": self._overviews.index(max(usable))} if usable else {}
            source = self._stack.enter_context(open_raster(self._file, **options))
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

    source: rasterio.DatasetReader
    bands: tuple[int, ...]
    factor: int
    full_size: tuple[int, int]

    def sample(self, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bilinear values at points, among the pixels that have data.

        Args:
            cols: Column coordinates in the full raster (0 is the outer edge of the first pixel), shape (n,).
            rows: Row coordinates.

        Returns:
            float32 values, shape (n, bands), 0 where not valid; and validity, shape (n,): the pixel that holds the
            point has data.
        """
        width, height = self.full_size
        values = np.zeros((len(cols), len(self.bands)), dtype=np.float32)
        valid = np.zeros(len(cols), dtype=bool)
        inside = np.flatnonzero((cols >= 0) & (rows >= 0) & (cols < width) & (rows < height))
        x = cols[inside] * (self.source.width / width / self.factor)
        y = rows[inside] * (self.source.height / height / self.factor)
        for points, window in self._windows(x, y):
            at = inside[points]
            values[at], valid[at] = _bilinear(*self._read(*window), x[points] - window[0], y[points] - window[1])
        return values, valid

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


def _bilinear(data: np.ndarray, valid: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate among valid pixels; `x` and `y` are coordinates in the window whose pixel centres lie at halves."""
    width = data.shape[1]
    flat, has_data = data.reshape(-1, data.shape[2]), valid.ravel()
    i, j = np.floor(x - 0.5).astype(np.int64), np.floor(y - 0.5).astype(np.int64)
    dx, dy = x - 0.5 - i, y - 0.5 - j
    values = np.zeros((len(x), flat.shape[1]))
    total = np.zeros(len(x))
    for down, weight_y in ((0, 1 - dy), (1, dy)):
        for across, weight_x in ((0, 1 - dx), (1, dx)):
            corner = (j + down) * width + i + across
            weight = weight_y * weight_x * has_data[corner]
            total += weight
            values += weight[:, None] * flat[corner]
    # the pixel that holds the point weighs at least a quarter, so the division is safe where it has data
    ok = has_data[np.floor(y).astype(np.int64) * width + np.floor(x).astype(np.int64)]
    values = np.where(ok[:, None], values / np.where(ok, total, 1.0)[:, None], 0.0)
    return values.astype(np.float32), ok
