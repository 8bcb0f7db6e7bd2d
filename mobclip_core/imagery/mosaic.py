"""Many scenes as one image: each sampled in its own CRS and grid, the topmost with data first.

Belongs here: combining what scenes say about the same point. Does not belong here: which scenes there are (see
`scenes`), sampling one raster (see `sampling`).

Scenes are combined by their bilinear weights. A point takes what the topmost scene has; what is lacking to a weight of
1 beside an edge of its data comes from the scenes below. Rasters that were cut from one image so give what the whole
image gives, and a hole in a scene is filled without a seam.
"""

import contextlib
from collections import OrderedDict
from types import TracebackType
from typing import Self

import numpy as np

from mobclip_core.errors import SourceError
from mobclip_core.imagery.positions import patch_boxes, pixel_positions
from mobclip_core.imagery.sampling import RasterLayer, Samples
from mobclip_core.imagery.scenes import ImageSource, Scene

_FULL = 1.0 - 1e-9
_OPEN_SCENES = 48


class Mosaic:
    """The opened scenes of a source; for one thread.

    Args:
        source: The source.

    Raises:
        SourceError: An unreadable scene, or one that has other bands than the topmost.
    """

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._open: OrderedDict[int, _OpenScene] = OrderedDict()
        first = self._open[0] = _OpenScene(source.scenes[0], source.bands)
        self.bands, self.dtype = first.bands, first.dtype

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def sample(self, lon: np.ndarray, lat: np.ndarray, ground_resolution_m: float, patch_pixels: int) -> Samples:
        """Sample the pixels of patches around positions of shape (n,): samples of shape (n, P, P)."""
        shape = (len(lon), patch_pixels, patch_pixels)
        sums, weight, valid = np.zeros((*shape, self.bands)), np.zeros(shape), np.zeros(shape, dtype=bool)
        boxes = patch_boxes(lon, lat, ground_resolution_m * patch_pixels)
        for number, touched in self._source.scenes_at(boxes):
            rows = touched[(weight[touched] < _FULL).any(axis=(1, 2))]
            if not len(rows):
                continue
            before = weight[rows]
            found = self._scene(number).sample(lon[rows], lat[rows], ground_resolution_m, patch_pixels, before < _FULL)
            # all that the topmost has, and what is lacking from those below
            taken = np.where(before == 0, found.weight, np.minimum(found.weight, 1.0 - before))
            share = taken / np.where(found.weight > 0, found.weight, 1.0)
            sums[rows] += found.sums * share[..., None]
            weight[rows] += taken
            valid[rows] |= found.valid
        return Samples(sums, weight, valid)

    def _scene(self, number: int) -> "_OpenScene":
        if number not in self._open:
            scene = self._source.scenes[number]
            opened = self._open[number] = _OpenScene(scene, self._source.bands)
            if (opened.bands, opened.dtype) != (self.bands, self.dtype):
                first = self._source.scenes[0].name
                raise SourceError(
                    scene.name,
                    f"has {opened.bands} bands read as {opened.dtype}, {first} has {self.bands} read as {self.dtype}",
                    hint="scenes of a mosaic have the same bands; leave this one out, or convert it",
                )
            if len(self._open) > _OPEN_SCENES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]


class _OpenScene:
    """A scene whose rasters are open."""

    def __init__(self, scene: Scene, bands: tuple[int, ...] | None) -> None:
        with contextlib.ExitStack() as stack:
            self._layers = [RasterLayer(raster, bands, stack) for raster in scene.rasters]
            self.bands = sum(len(layer.bands) for layer in self._layers)
            whole = all(layer.dtype == np.uint8 for layer in self._layers)
            self.dtype = np.dtype("uint8" if whole else "float32")
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the rasters."""
        self._stack.close()

    def sample(
        self, lon: np.ndarray, lat: np.ndarray, ground_resolution_m: float, patch_pixels: int, wanted: np.ndarray
    ) -> Samples:
        parts = []
        for layer in self._layers:
            x, y = pixel_positions(lon, lat, layer.to_raster, ground_resolution_m, patch_pixels)
            parts.append(layer.sample(x, y, wanted))
        if len(parts) == 1:
            return parts[0]
        weights, valid = np.stack([part.weight for part in parts]), np.stack([part.valid for part in parts])
        # as among the bands of one raster: any band of an 8-bit image, all bands of measurements
        any_band = self.dtype == np.uint8
        weight = weights.max(axis=0) if any_band else weights.min(axis=0)
        means = np.concatenate([part.means for part in parts], axis=-1)
        return Samples(
            means * weight[..., None], weight, np.asarray(valid.any(axis=0) if any_band else valid.all(axis=0))
        )
