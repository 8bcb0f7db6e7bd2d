"""Mosaics: rasters cut from one image give what the image gives; overlaps, CRSs and order."""

import numpy as np
import pyproj
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import SourceError
from mobclip_core.imagery import mosaic as mosaic_module
from mobclip_core.imagery.patches import read_patches
from mobclip_core.imagery.sampling import RasterFile
from mobclip_core.imagery.scenes import ImageSource, Scene, rasters

BOUNDS = (10.0, 50.0, 10.256, 50.256)
OPTIONS = {"ground_resolution_m": 90.0, "patch_pixels": 12}


def noise(bands=2, side=256, seed=0):
    return np.random.default_rng(seed).integers(1, 255, (bands, side, side)).astype(np.uint8)


def positions(n=40, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(9.99, 10.266, n), rng.uniform(49.99, 50.266, n)


def cut(write_raster, data, columns, rows):
    """The raster of BOUNDS in pieces, cut at columns and rows."""
    west, _, _, north = BOUNDS
    names = []
    for j0, j1 in zip([0, *rows], [*rows, 256], strict=True):
        for i0, i1 in zip([0, *columns], [*columns, 256], strict=True):
            bounds = (west + i0 / 1000, north - j1 / 1000, west + i1 / 1000, north - j0 / 1000)
            names.append(write_raster(data[:, j0:j1, i0:i1], bounds, name=f"piece_{i0}_{j0}.tif"))
    return names


@pytest.mark.parametrize("ground_resolution_m", [90.0, 230.0])
def test_pieces_give_what_the_whole_gives(write_raster, tmp_path, ground_resolution_m):
    # cuts at multiples of the factor that 230 m are averaged by
    data = noise()
    whole = write_raster(data, BOUNDS, name="whole_image.tif")
    pieces = cut(write_raster, data, [64, 160], [100])
    lon, lat = positions()
    options = OPTIONS | {"ground_resolution_m": ground_resolution_m}
    expected = read_patches(whole, lon, lat, **options)
    assert 0 < (expected.valid_fraction == 1).sum() < len(lon)
    for file in (pieces, pieces[::-1], str(tmp_path / "piece_*.tif")):
        found = read_patches(file, lon, lat, **options)
        np.testing.assert_array_equal(found.valid_fraction, expected.valid_fraction)
        # sums of weights in another order: a rounding that falls on the other side at most
        assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= 1
        assert (found.pixels == expected.pixels).mean() > 0.999


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 4))
def test_order_of_files_and_number_of_threads_change_no_bit(tmp_path_factory, order, workers):
    folder = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(0)
    names = []
    for k in range(6):
        west, south = 10 + 0.04 * k, 50 + 0.03 * (k % 2)
        transform = rasterio.transform.from_bounds(west, south, west + 0.08, south + 0.08, 80, 80)
        names.append(str(folder / f"{k}.tif"))
        with rasterio.open(
            names[-1], "w", driver="GTiff", width=80, height=80, count=1, dtype="uint8", crs=4326, transform=transform
        ) as sink:
            sink.write(rng.integers(1, 255, (1, 80, 80)).astype(np.uint8))
    lon, lat = positions(12)
    expected = read_patches(names, lon, lat, **OPTIONS)
    found = read_patches([names[i] for i in order], lon, lat, **OPTIONS, workers=workers)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.valid_fraction, expected.valid_fraction)


def test_the_first_by_name_is_on_top_and_holes_are_filled_from_below(write_raster):
    top = np.full((1, 256, 256), 10, np.uint8)
    top[:, 100:140, 100:140] = 0
    files = [
        write_raster(top, BOUNDS, name="a.tif", nodata=0),
        write_raster(np.full((1, 256, 256), 200, np.uint8), BOUNDS, name="b.tif"),
    ]
    west, _, _, north = BOUNDS
    lon, lat = np.array([west + 0.05, west + 0.12, west + 0.1]), np.array([north - 0.05, north - 0.12, north - 0.12])
    found = read_patches(files[::-1], lon, lat, **OPTIONS)
    assert found.valid_fraction.tolist() == [1.0, 1.0, 1.0]
    assert (found.pixels[0] == 10).all()
    assert (found.pixels[1] == 200).all()
    # half of the patch lies in the hole; only the pixels at its edge are mixed
    values, counts = np.unique(found.pixels[2], return_counts=True)
    assert {10, 200} <= set(values.tolist())
    assert counts[(values != 10) & (values != 200)].sum() <= 24


def test_scenes_of_neighbouring_utm_zones(write_raster):
    """Band 1 is the longitude, band 2 the latitude: both zones must read them back on either side of the border."""
    files = []
    for zone in (32, 33):
        crs = f"EPSG:326{zone}"
        to_utm = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
        x, y = to_utm.transform(12.0, 50.0)
        bounds = (x - 12_000, y - 12_000, x + 12_000, y + 12_000)
        centres = np.arange(240) * 100 + 50
        grid = np.meshgrid(bounds[0] + centres, bounds[3] - centres)
        lon, lat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*grid)
        keep = lon <= 12 if zone == 32 else lon > 12
        data = np.where(keep, np.stack([lon - 12, lat - 50]), np.nan).astype(np.float32)
        files.append(write_raster(data, bounds, crs, name=f"zone_{zone}.tif"))
    lon, lat = np.array([11.95, 12.0, 12.05]), np.array([50.0, 50.0, 50.02])
    found = read_patches(files, lon, lat, **OPTIONS)
    assert found.valid_fraction.min() > 0.97
    middle = found.pixels[:, :, 5:7, 5:7].mean(axis=(2, 3))
    np.testing.assert_allclose(middle, np.stack([lon - 12, lat - 50], axis=1), atol=1e-4)
    # along the border a pixel lies nearest to one that the other zone holds: within half a pixel of the truth
    assert np.abs(np.diff(found.pixels[1, 0], axis=1)).max() < 3 * 90 / 71_500


def test_across_the_antimeridian(write_raster):
    files = [
        write_raster(np.full((1, 20, 20), value, np.uint8), bounds, name=name)
        for name, value, bounds in (("e.tif", 10, (178, -1, 180, 1)), ("w.tif", 20, (-180, -1, -178, 1)))
    ]
    found = read_patches(files, np.array([179.99]), np.array([0.0]), ground_resolution_m=5_000.0, patch_pixels=6)
    assert found.valid_fraction[0] == 1
    assert (found.pixels[0, 0, :, :3] == 10).all()
    assert (found.pixels[0, 0, :, 4:] == 20).all()


def test_boxes_across_the_antimeridian_and_everywhere():
    source = ImageSource(
        (
            Scene("fiji", (RasterFile("f.tif"),), (177.0, -19.0, -178.0, -16.0)),
            Scene("berlin", (RasterFile("b.tif"),), (13.0, 52.0, 14.0, 53.0)),
            Scene("world", (RasterFile("w.tif"),)),
        )
    )
    boxes = np.array([[179.0, -18, 179.5, -17], [-179.5, -18, -179, -17], [13.5, 52.5, 13.6, 52.6], [0, 0, 1, 1]])
    found = {number: rows.tolist() for number, rows in source.scenes_at(boxes)}
    assert found == {0: [0, 1], 1: [2], 2: [0, 1, 2, 3]}
    assert source.scenes_at(np.empty((0, 4))) == []


def test_few_scenes_are_open_at_a_time(write_raster, monkeypatch):
    pieces = cut(write_raster, noise(), [64, 128, 192], [64, 128, 192])
    lon, lat = positions(10)
    expected = read_patches(pieces, lon, lat, **OPTIONS)
    monkeypatch.setattr(mosaic_module, "_OPEN_SCENES", 2)
    np.testing.assert_array_equal(read_patches(pieces, lon, lat, **OPTIONS).pixels, expected.pixels)


def test_a_vrt_is_one_raster(write_raster, tmp_path):
    file = write_raster(noise(), BOUNDS)
    rasterio.shutil.copy(file, str(tmp_path / "image.vrt"), driver="VRT")
    lon, lat = positions(5)
    found, expected = (read_patches(name, lon, lat, **OPTIONS) for name in (str(tmp_path / "image.vrt"), file))
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_rasters_that_do_not_fit_together(write_raster, tmp_path):
    first = write_raster(noise(2), BOUNDS, name="a.tif")
    three = write_raster(noise(3), BOUNDS, name="b.tif")
    wide = write_raster(noise(2).astype(np.uint16), BOUNDS, name="c.tif")
    with pytest.raises(
        SourceError, match=r"b\.tif: has 3 bands of uint8, .*a\.tif has 2 bands of uint8.*imagery\.bands"
    ):
        rasters([first, three], None)
    with pytest.raises(SourceError, match=r"c\.tif: has 2 bands of uint16, .*a\.tif has 2 bands of uint8"):
        rasters([wide, first], None)
    assert len(rasters([first, three], [1, 2]).scenes) == 2
    with pytest.raises(SourceError, match=r"a\.tif: no band 3"):
        rasters([first, three], [3])
    bare = write_raster(noise(2), BOUNDS, name="d.tif", crs=None)
    with pytest.raises(SourceError, match=r"d\.tif.*no coordinate reference system"):
        rasters([first, bare], None)
    with pytest.raises(SourceError, match="no file matches"):
        rasters(str(tmp_path / "nothing_*.tif"), None)


def test_a_truncated_raster_of_many_is_named(write_raster, tmp_path):
    pieces = cut(write_raster, noise(), [128], [])
    content = (tmp_path / "piece_128_0.tif").read_bytes()
    (tmp_path / "piece_128_0.tif").write_bytes(content[: len(content) // 3])
    with pytest.raises(SourceError, match=r"piece_128_0\.tif: the raster cannot be read"):
        read_patches(pieces, np.array([10.2]), np.array([50.1]), ground_resolution_m=90.0, patch_pixels=64)
