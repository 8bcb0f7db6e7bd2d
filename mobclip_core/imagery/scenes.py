"""Scenes: the rasters that an imagery source consists of, in the order in which they cover each other.

Belongs here: what a scene is, and making a source of the profile's imagery. Does not belong here: reading item lists
(see `stac`), tiles (see `tiles`) or pixels (see `mosaic`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from rasterio.warp import transform_bounds

from mobclip_core.errors import SourceError
from mobclip_core.imagery.raster import chosen_bands, open_raster
from mobclip_core.imagery.sampling import Raster, RasterFile
from mobclip_core.profile import Files, ImageryConfig
from mobclip_core.sources.tables import source_files
from mobclip_core.workers import ordered_map

_OPENED_AT_ONCE = 8

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west of `east` where the box crosses the antimeridian."""


@dataclass(frozen=True)
class Scene:
    """One image: a raster, or rasters whose bands are stacked; each in a CRS and grid of its own.

    Args:
        name: Path of the raster or name of the item, for messages.
        rasters: The rasters, in the order of their bands.
        box: Where it may have data; anywhere if None.
    """

    name: str
    rasters: tuple[Raster, ...]
    box: Box | None = None


@dataclass(frozen=True)
class ImageSource:
    """All scenes of an imagery source.

    Args:
        scenes: Scenes, the topmost first.
        bands: 1-based bands of each raster; all but an alpha band if None.
        counts: What a person should know about them.
    """

    scenes: tuple[Scene, ...]
    bands: tuple[int, ...] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    _cache: dict[str, tuple[shapely.STRtree, np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    def scenes_at(self, boxes: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Which scenes may have data in which boxes.

        Args:
            boxes: West, south, east, north in degrees, shape (n, 4).

        Returns:
            Numbers of scenes, the topmost first, each with the numbers of the boxes, ascending.
        """
        tree, owner = self._tree()
        queried = shapely.box(*np.asarray(boxes, dtype=float).reshape(-1, 4).T)
        box, found = tree.query(queried)
        pairs = np.unique(np.stack([owner[found], box], axis=1), axis=0)
        if not len(pairs):
            return []
        numbers, starts = np.unique(pairs[:, 0], return_index=True)
        return [(int(number), part) for number, part in zip(numbers, np.split(pairs[:, 1], starts[1:]), strict=True)]

    def _tree(self) -> tuple[shapely.STRtree, np.ndarray]:
        if "tree" not in self._cache:
            boxes, owner = [], []
            for number, scene in enumerate(self.scenes):
                west, south, east, north = scene.box or (-180.0, -90.0, 180.0, 90.0)
                for left, right in [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]:
                    boxes.append(shapely.box(left, south, right, north))
                    owner.append(number)
            self._cache["tree"] = (shapely.STRtree(boxes), np.array(owner))
        return self._cache["tree"]


def open_source(config: ImageryConfig) -> ImageSource:
    """The imagery source of a profile.

    Raises:
        SourceError: Files, items or tiles that are missing, unreadable, not what was expected, or do not fit together.
    """
    if config.stac is not None:
        # item lists and tiles only where a profile has them
        from mobclip_core.imagery.stac import stac_source

        return stac_source(config.stac, config.bands)
    if config.tiles is not None:
        from mobclip_core.imagery.tiles import tile_source

        return tile_source(config.tiles, config.bands)
    assert config.file is not None
    return rasters(config.file, config.bands)


def rasters(file: Files, bands: Sequence[int] | None) -> ImageSource:
    """A source of one raster, or of several that make a mosaic: the first by name on top.

    No VRT is built of several: it would have one CRS and none of the rasters' overviews.

    Args:
        file: Path, URL, glob pattern, or several.
        bands: 1-based bands; all but an alpha band if None.

    Raises:
        SourceError: A raster that is missing, unreadable, without CRS or band, or not of the type of the others.
    """
    chosen = None if bands is None else tuple(bands)
    if isinstance(file, str) and not any(sign in file for sign in "*?["):
        # GDAL knows names that are no files, such as /vsizip/
        return ImageSource((Scene(file, (RasterFile(file),)),), chosen)
    files = source_files(file)
    headers = list(ordered_map(lambda name: _header(name, chosen), files, _OPENED_AT_ONCE))
    for name, (_, kind) in zip(files, headers, strict=True):
        if kind != headers[0][1]:
            raise SourceError(
                name,
                f"has {kind}, {files[0]} has {headers[0][1]}",
                hint="the rasters of a mosaic have the same bands: name them in imagery.bands, or convert the file",
            )
    scenes = tuple(Scene(name, (RasterFile(name),), box) for name, (box, _) in zip(files, headers, strict=True))
    return ImageSource(scenes, chosen, {"scenes": len(scenes)})


def _header(file: str, bands: tuple[int, ...] | None) -> tuple[Box | None, str]:
    """Box of a raster and the number and type of its bands."""
    with open_raster(file) as source:
        numbers = chosen_bands(source, bands)
        types = sorted({source.dtypes[band - 1] for band in numbers})
        left, bottom, right, top = source.bounds
        # a neighbour's points up to half a pixel beside the raster are completed by it
        spare = np.hypot(source.transform.a, source.transform.b), np.hypot(source.transform.d, source.transform.e)
        around = left - spare[0], bottom - spare[1], right + spare[0], top + spare[1]
        box = transform_bounds(source.crs, "EPSG:4326", *around, densify_pts=21)
    return (box if np.isfinite(box).all() else None), f"{len(numbers)} bands of {' and '.join(types)}"
