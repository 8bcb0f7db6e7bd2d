"""Image patches: a square of given ground size around each position, read from rasters in any CRS.

Belongs here: where a patch's pixels lie, and reading patches with bounded memory. Does not belong here: sampling one
raster (see `sampling`) or several (see `mosaic`), what is made of the patches (see `features`).

How it works: positions of a patch's pixels are geodesically exact on 3 x 3 control points and quadratic in between;
they are sampled bilinearly from the overview whose pixel is nearest below the patch's, after averaging down what the
overviews lack. A patch depends on the rasters and its own position only, never on what else is read beside it.
"""

import contextlib
import logging
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.session import DummySession

from mobclip_core.imagery.mosaic import Mosaic
from mobclip_core.imagery.scenes import ImageSource, rasters
from mobclip_core.profile import Files
from mobclip_core.workers import ordered_map

_POINTS_AT_A_TIME = 1 << 18
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
    file: Files | ImageSource,
    lon: np.ndarray,
    lat: np.ndarray,
    *,
    ground_resolution_m: float,
    patch_pixels: int,
    bands: Sequence[int] | None = None,
    workers: int = 1,
) -> Patches:
    """Read a square patch around each position.

    A pixel is valid where any band has data (uint8: an image's black may be its nodata value in one band) or all bands
    have (other types: a nodata value is not a measurement), NaN is no data, and an alpha band rules where there is one.

    Args:
        file: Raster or rasters in any CRS, any GDAL format, or an image source; overviews are used where they are.
        lon: Longitudes of the centres in degrees, shape (n,).
        lat: Latitudes of the centres in degrees, shape (n,).
        ground_resolution_m: Size of a patch's pixel on the ground (WGS 84 ellipsoid). The error of a pixel's position
            grows with the cube of the patch's size: under 1 cm for patches of 10 km, under 30 m for 200 km.
        patch_pixels: Side of the patch.
        bands: 1-based band numbers; all but an alpha band if None. An image source has chosen its own.
        workers: Threads that read.

    Returns:
        The patches, in the order of the positions.

    Raises:
        SourceError: Missing, unreadable or truncated raster, no CRS, or a band that the file does not have.
    """
    source = file if isinstance(file, ImageSource) else rasters(file, bands)
    parts = list(
        stream_patches(
            source,
            lon,
            lat,
            ground_resolution_m=ground_resolution_m,
            patch_pixels=patch_pixels,
            workers=workers,
        )
    )
    return Patches(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.valid_fraction for part in parts])
    )


def stream_patches(
    source: ImageSource,
    lon: np.ndarray,
    lat: np.ndarray,
    *,
    ground_resolution_m: float,
    patch_pixels: int,
    workers: int,
) -> Iterator[Patches]:
    """The patches of `read_patches` a few at a time, in the order of the positions; at least one part, maybe empty.

    Each thread has rasters of its own open, and only a few parts are in memory.
    """
    at_a_time = max(1, _POINTS_AT_A_TIME // patch_pixels**2)
    idle: queue.SimpleQueue[Mosaic] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        idle.put(stack.enter_context(Mosaic(source)))
        for _ in range(1, min(workers, -(-len(lon) // at_a_time))):
            idle.put(stack.enter_context(Mosaic(source)))

        def read(start: int) -> Patches:
            part = slice(start, start + at_a_time)
            mosaic = idle.get()
            try:
                # GDAL's environment belongs to a thread
                with rasterio.Env(session=DummySession()):
                    return _patches(mosaic, lon[part], lat[part], ground_resolution_m, patch_pixels)
            finally:
                idle.put(mosaic)

        done = 0
        for patches in ordered_map(read, range(0, max(len(lon), 1), at_a_time), workers):
            done += len(patches.pixels)
            _log.info("imagery: %d of %d patches read", done, len(lon))
            yield patches


def _patches(mosaic: Mosaic, lon: np.ndarray, lat: np.ndarray, resolution: float, pixels: int) -> Patches:
    samples = mosaic.sample(lon, lat, resolution, pixels)
    values = np.where(samples.valid[..., None], samples.means, 0.0).astype(np.float32)
    values = np.moveaxis(np.rint(values) if mosaic.dtype == np.uint8 else values, -1, 1)
    return Patches(np.ascontiguousarray(values, dtype=mosaic.dtype), samples.valid.mean(axis=(1, 2)))
