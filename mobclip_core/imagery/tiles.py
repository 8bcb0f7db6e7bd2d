"""A folder of XYZ map tiles as one raster.

Belongs here: where a tile lies, decoding it, windows over many. Does not belong here: sampling (see `sampling`).
Source: https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames; rows that count from the south are OSGeo's TMS.
"""

import contextlib
import io
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
from affine import Affine
from PIL import Image, UnidentifiedImageError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from mobclip_core.errors import SourceError
from mobclip_core.imagery.scenes import ImageSource, Scene
from mobclip_core.profile.imagery import TileFolder
from mobclip_core.sources.remote import reaching

_HALF_TURN_M = 20_037_508.342789244
_CACHED_BYTES = 1 << 26
_PLACES = {"{x}": r"\d+", "{y}": r"\d+", "{-y}": r"\d+"}
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def tile_source(config: TileFolder, bands: Sequence[int] | None) -> ImageSource:
    """The imagery source of a tile folder.

    Raises:
        SourceError: If the folder has no tile of the zoom level (a web server is not asked: it lists nothing).
    """
    if not config.folder.startswith(("http://", "https://")):
        _require_tiles(config)
    return ImageSource((Scene(config.folder, (TileRaster(config),)),), None if bands is None else tuple(bands))


@dataclass(frozen=True)
class TileRaster:
    """The world at one zoom level.

    Args:
        config: Where the tiles are.
    """

    config: TileFolder

    @property
    def name(self) -> str:
        """The folder."""
        return self.config.folder

    def open(self, overview: int | None) -> AbstractContextManager[Any]:
        """A reader with a cache of its own; there are no overviews."""
        assert overview is None
        return contextlib.nullcontext(_TileReader(self.config))


class _TileReader:
    """Reads like a rasterio dataset: red, green, blue of 8 bits, with a mask."""

    count, indexes, dtypes = 3, (1, 2, 3), ("uint8", "uint8", "uint8")
    colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)

    def __init__(self, config: TileFolder) -> None:
        self._config, self._pixels = config, config.tile_pixels
        self.name, self.crs = config.folder, CRS.from_epsg(3857)
        self.width = self.height = self._pixels << config.zoom
        size = 2 * _HALF_TURN_M / self.width
        self.transform = Affine(size, 0.0, -_HALF_TURN_M, 0.0, -size, _HALF_TURN_M)
        with reaching(config.folder):
            self._fs, self._root = fsspec.core.url_to_fs(config.folder)
        self._tiles: OrderedDict[tuple[int, int], np.ndarray | None] = OrderedDict()
        self._cached = max(1, _CACHED_BYTES // (4 * self._pixels**2))

    def overviews(self, band: int) -> list[int]:
        return []

    def read(self, bands: Sequence[int], window: Window) -> np.ndarray:
        return self._rgba(window)[[band - 1 for band in bands]]

    def read_masks(self, bands: Sequence[int], window: Window) -> np.ndarray:
        return self._rgba(window)[[3] * len(bands)]

    def _rgba(self, window: Window) -> np.ndarray:
        """Pixels of a window, shape (4, rows, columns); 0 where there is no tile."""
        (top, bottom), (left, right) = window.toranges()
        side = self._pixels
        result = np.zeros((4, bottom - top, right - left), np.uint8)
        for y in range(top // side, -(-bottom // side)):
            for x in range(left // side, -(-right // side)):
                tile = self._tile(x, y)
                if tile is None:
                    continue
                rows = slice(max(top, y * side), min(bottom, (y + 1) * side))
                cols = slice(max(left, x * side), min(right, (x + 1) * side))
                result[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = tile[
                    :, rows.start - y * side : rows.stop - y * side, cols.start - x * side : cols.stop - x * side
                ]
        return result

    def _tile(self, x: int, y: int) -> np.ndarray | None:
        if (x, y) not in self._tiles:
            self._tiles[x, y] = self._read_tile(_tile_path(self._config, x, y))
            if len(self._tiles) > self._cached:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end((x, y))
        return self._tiles[x, y]

    def _read_tile(self, path: str) -> np.ndarray | None:
        place = f"{self._config.folder.rstrip('/')}/{path}"
        with reaching(place):
            try:
                content = self._fs.cat_file(f"{self._root.rstrip('/')}/{path}")
            except FileNotFoundError:
                return None
        return _decoded(content, place, self._pixels)


def _tile_path(config: TileFolder, x: int, y: int) -> str:
    return config.pattern.format(**{"z": config.zoom, "x": x, "y": y, "-y": (1 << config.zoom) - 1 - y})


def _decoded(content: bytes, place: str, pixels: int) -> np.ndarray:
    """A tile as red, green, blue, alpha: shape (4, pixels, pixels)."""
    try:
        image = Image.open(io.BytesIO(content))
        if image.mode not in _EIGHT_BITS:
            raise SourceError(
                place, f"the tile has pixels of type {image.mode}, expected 8 bits", hint="use tiles of pictures"
            )
        tile = np.asarray(image.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise SourceError(
            place, f"the tile cannot be read: {error}", hint="it may be truncated: fetch it again or delete it"
        ) from error
    if tile.shape[:2] != (pixels, pixels):
        raise SourceError(
            place,
            f"the tile is {tile.shape[1]} x {tile.shape[0]} pixels, expected {pixels} x {pixels}",
            hint="set imagery.tiles.tile_pixels; all tiles have one size",
        )
    return np.ascontiguousarray(np.moveaxis(tile, -1, 0))


def _require_tiles(config: TileFolder) -> None:
    with reaching(config.folder):
        fs, root = fsspec.core.url_to_fs(config.folder, use_listings_cache=False)
        found = next(_matching(fs, root.rstrip("/"), config.pattern.replace("{z}", str(config.zoom)).split("/")), None)
        if found is not None:
            return
        folder, *_ = config.pattern.split("{z}")[0].rpartition("/")
        names = _names(fs, f"{root.rstrip('/')}/{folder}".rstrip("/")) if "{z}" in config.pattern else []
    zooms = sorted((name for name in names if name.isdecimal()), key=int)
    hint = f"zoom levels there: {', '.join(zooms)}; set imagery.tiles.zoom" if zooms else "check folder and pattern"
    raise SourceError(
        config.folder, f"no tile of zoom level {config.zoom} under the pattern {config.pattern}", hint=hint
    )


def _matching(fs: Any, folder: str, parts: list[str]) -> Iterator[str]:
    """Files below a folder that match a pattern's parts; folders are listed only as far as asked for."""
    pattern = re.compile("".join(_PLACES.get(part) or re.escape(part) for part in re.split(r"(\{.*?\})", parts[0])))
    for name in _names(fs, folder):
        if pattern.fullmatch(name):
            if len(parts) == 1:
                yield f"{folder}/{name}"
            else:
                yield from _matching(fs, f"{folder}/{name}", parts[1:])


def _names(fs: Any, folder: str) -> list[str]:
    if not fs.isdir(folder):
        return []
    return sorted(str(path).rstrip("/").split("/")[-1] for path in fs.ls(folder, detail=False))
