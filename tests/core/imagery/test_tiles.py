"""Tiles cut from an EPSG:3857 raster must give what the raster gives."""

import numpy as np
import pytest
from PIL import Image

from mobclip_core.errors import SourceError
from mobclip_core.imagery.patches import read_patches
from mobclip_core.imagery.tiles import tile_source
from mobclip_core.profile.imagery import TileFolder

ZOOM, X, Y = 12, 2160, 1388  # near 9.9 east 50.1 north
SIDE = 2 * 20_037_508.342789244 / 2**ZOOM
OPTIONS = {"ground_resolution_m": 40.0, "patch_pixels": 16}
LON, LAT = np.array([9.9, 9.95, 9.87]), np.array([50.06, 50.03, 50.04])


def picture(bands=3, seed=0):
    """2 x 2 tiles as one image, shape (bands, 512, 512)."""
    return np.random.default_rng(seed).integers(1, 255, (bands, 512, 512)).astype(np.uint8)


def bounds():
    west, north = X * SIDE - 20_037_508.342789244, 20_037_508.342789244 - Y * SIDE
    return west, north - 2 * SIDE, west + 2 * SIDE, north


def write_tiles(folder, data, pattern="{z}/{x}/{y}.png", flip=False, mode="RGB"):
    for j in range(2):
        for i in range(2):
            y = 2**ZOOM - 1 - (Y + j) if flip else Y + j
            path = folder / pattern.format(**{"z": ZOOM, "x": X + i, "y": y, "-y": y})
            path.parent.mkdir(parents=True, exist_ok=True)
            tile = np.moveaxis(data[:, j * 256 : (j + 1) * 256, i * 256 : (i + 1) * 256], 0, -1)
            Image.fromarray(tile.squeeze(), mode if tile.shape[2] > 1 else None).save(path)
    return folder


def read(folder, **changes):
    config = TileFolder(folder=str(folder), **{"zoom": ZOOM} | changes)
    return read_patches(tile_source(config, None), LON, LAT, **OPTIONS)


@pytest.mark.parametrize(("pattern", "flip"), [("{z}/{x}/{y}.png", False), ("t-{x}_{-y}.png", True)])
def test_tiles_give_what_the_raster_gives(write_raster, tmp_path, pattern, flip):
    data = picture()
    expected = read_patches(write_raster(data, bounds(), "EPSG:3857"), LON, LAT, **OPTIONS)
    assert (expected.valid_fraction == 1).all()
    found = read(write_tiles(tmp_path / "tiles", data, pattern, flip), pattern=pattern)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.valid_fraction, expected.valid_fraction)


def test_missing_tiles_have_no_data(tmp_path):
    folder = write_tiles(tmp_path, picture())
    (folder / str(ZOOM) / str(X) / f"{Y}.png").unlink()
    found = read(folder)
    assert found.valid_fraction.min() < 1
    assert found.valid_fraction.max() == 1


def test_transparent_pixels_have_no_data_and_grey_is_three_bands(tmp_path):
    data = picture(4)
    data[3] = 255
    data[3, :, ::2] = 0
    found = read(write_tiles(tmp_path / "rgba", data, mode="RGBA"))
    assert 0.3 < found.valid_fraction.mean() < 0.7
    grey = read(write_tiles(tmp_path / "grey", picture(1)))
    assert grey.pixels.shape[1] == 3
    assert (grey.pixels[:, 0] == grey.pixels[:, 2]).all()


def test_jpeg_tiles(tmp_path):
    smooth = np.broadcast_to(np.linspace(20, 220, 512).astype(np.uint8), (3, 512, 512))
    found = read(write_tiles(tmp_path, smooth, "{z}/{y}/{x}.jpg"), pattern="{z}/{y}/{x}.jpg")
    assert (found.valid_fraction == 1).all()
    assert np.abs(np.diff(found.pixels[0, 0].astype(int), axis=0)).max() <= 4


def test_a_small_cache_changes_nothing(tmp_path, monkeypatch):
    from mobclip_core.imagery import tiles

    folder = write_tiles(tmp_path, picture())
    expected = read(folder)
    monkeypatch.setattr(tiles, "_CACHED_BYTES", 1)
    np.testing.assert_array_equal(read(folder).pixels, expected.pixels)


def test_no_tiles_at_the_zoom_level(tmp_path):
    write_tiles(tmp_path, picture())
    with pytest.raises(SourceError, match=r"no tile of zoom level 9.*zoom levels there: 12; set imagery\.tiles\.zoom"):
        read(tmp_path, zoom=9)
    with pytest.raises(SourceError, match=r"no tile of zoom level 12 .*check folder and pattern"):
        read(tmp_path, pattern="{x}-{y}.png")
    with pytest.raises(SourceError, match="no tile of zoom level 12"):
        read(tmp_path / "nowhere")


def test_tiles_that_are_not_as_said(tmp_path):
    folder = write_tiles(tmp_path, picture())
    with pytest.raises(SourceError, match=r"the tile is 256 x 256 pixels, expected 512 x 512.*tile_pixels"):
        read(folder, tile_pixels=512, zoom=ZOOM)
    for i in range(2):
        for j in range(2):
            path = folder / str(ZOOM) / str(X + i) / f"{Y + j}.png"
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=rf"{ZOOM}/\d+/\d+\.png: the tile cannot be read"):
        read(folder)
    for i in range(2):
        for j in range(2):
            deep = np.zeros((256, 256), np.uint16)
            Image.fromarray(deep).save(folder / str(ZOOM) / str(X + i) / f"{Y + j}.png")
    with pytest.raises(SourceError, match="pixels of type I;16, expected 8 bits"):
        read(folder)


@pytest.mark.parametrize("pattern", ["{z}/{x}.png", "{z}/{x}/{y}/{y}.png", "{x}/{y}/{q}.png", "{z}{z}/{x}/{y}.png"])
def test_patterns_that_name_no_tile(pattern):
    with pytest.raises(ValueError, match=r"write \{x\} and \{y\}"):
        TileFolder(folder="t", zoom=1, pattern=pattern)
