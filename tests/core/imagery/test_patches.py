"""Golden tests: the pixel's value is a function of its place on the ground, so a patch must read it back."""

from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from mobclip_core.errors import SourceError
from mobclip_core.imagery import patches as patches_module
from mobclip_core.imagery import sampling as sampling_module
from mobclip_core.imagery.patches import read_patches
from mobclip_core.imagery.positions import pixel_positions

GEOD = pyproj.Geod(ellps="WGS84")


def ground_grid(lon, lat, resolution, pixels):
    """Longitude and latitude of each pixel's centre, one geodesic at a time."""
    half = (pixels - 1) / 2
    lons, lats = np.empty((pixels, pixels)), np.empty((pixels, pixels))
    for i in range(pixels):
        for j in range(pixels):
            east, north = (j - half) * resolution, (half - i) * resolution
            lons[i, j], lats[i, j], _ = GEOD.fwd(lon, lat, np.degrees(np.arctan2(east, north)), np.hypot(east, north))
    return lons, lats


def coordinate_raster(write_raster, crs, bounds, size=400, **options):
    """Band 1 is the longitude, band 2 the latitude of the pixel's centre, both less those of (10, 50)."""
    west, south, east, north = bounds
    x = west + (np.arange(size) + 0.5) / size * (east - west)
    y = north - (np.arange(size) + 0.5) / size * (north - south)
    lon, lat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    return write_raster(np.stack([lon - 10, lat - 50]).astype(np.float32), bounds, crs, **options)


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        ("EPSG:4326", (9.5, 49.7, 10.5, 50.3)),
        ("EPSG:3857", (1_050_000, 6_400_000, 1_180_000, 6_530_000)),
        ("EPSG:32632", (530_000, 5_500_000, 620_000, 5_590_000)),
        ("EPSG:3035", (4_250_000, 2_950_000, 4_400_000, 3_050_000)),
    ],
)
def test_patches_hold_the_ground_they_claim(write_raster, crs, bounds):
    file = coordinate_raster(write_raster, crs, bounds)
    lon, lat = np.array([10.0, 10.11, 9.93]), np.array([50.0, 50.07, 49.94])
    found = read_patches(file, lon, lat, ground_resolution_m=300.0, patch_pixels=9)
    assert found.pixels.shape == (3, 2, 9, 9)
    assert found.pixels.dtype == np.float32
    assert (found.valid_fraction == 1).all()
    for k in range(3):
        lons, lats = ground_grid(lon[k], lat[k], 300.0, 9)
        # 2e-5 degrees are about 2 m: 1/150 of a pixel
        np.testing.assert_allclose(found.pixels[k, 0], lons - 10, atol=2e-5)
        np.testing.assert_allclose(found.pixels[k, 1], lats - 50, atol=2e-5)


def test_north_is_up_and_a_pixel_has_its_size(write_raster):
    # 0.001 degrees of latitude are 111.2 m at 50 degrees north (WGS 84: 111,229 m a degree)
    file = coordinate_raster(write_raster, "EPSG:4326", (9.9, 49.9, 10.1, 50.1))
    patch = read_patches(file, np.array([10.0]), np.array([50.0]), ground_resolution_m=100.0, patch_pixels=5).pixels[0]
    assert np.diff(patch[0, 2]) == pytest.approx(100 / (111_320 * np.cos(np.radians(50))), rel=5e-3)
    assert np.diff(patch[1, :, 2]) == pytest.approx(-100 / 111_229, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    lon=st.floats(-180, 180),
    lat=st.floats(-84, 84),
    crs=st.sampled_from(["EPSG:4326", "EPSG:3857"]),
    resolution=st.floats(10, 2000),
)
def test_quadratic_positions_equal_exact_ones_anywhere(lon, lat, crs, resolution):
    to_raster = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = pixel_positions(np.array([lon]), np.array([lat]), to_raster, resolution, 6)
    exact_x, exact_y = to_raster.transform(*ground_grid(lon, lat, resolution, 6))
    pixel = resolution / 111_000 if crs == "EPSG:4326" else resolution
    turn = 360.0 if crs == "EPSG:4326" else 2 * np.pi * 6_378_137
    apart = np.abs(x[0] - exact_x)
    stretch = 1 / np.cos(np.radians(min(abs(lat) + 0.1, 85)))
    assert np.minimum(apart, turn - apart).max() < 0.02 * pixel * stretch
    assert np.abs(y[0] - exact_y).max() < 0.02 * pixel * stretch


def test_patch_across_the_antimeridian_reads_both_sides(write_raster):
    west_half = np.full((1, 180, 180), 10, np.uint8)
    file = write_raster(np.concatenate([west_half, west_half * 2], axis=2), (-180, -90, 180, 90))
    found = read_patches(file, np.array([179.99]), np.array([0.0]), ground_resolution_m=20_000.0, patch_pixels=6)
    assert found.valid_fraction[0] == 1
    # east of the line lies the raster's west half
    assert (found.pixels[0, 0, :, :3] == 20).all()
    assert (found.pixels[0, 0, :, 3:] == 10).all()


def test_rotated_raster(write_raster):
    transform = Affine.translation(10.0, 50.0) @ Affine.rotation(30) @ Affine.scale(0.001, -0.001)
    cols, rows = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    data = np.stack([cols, rows]).astype(np.float32)
    file = write_raster(data, None, transform=transform)
    lon, lat = transform @ (150.0, 150.0)
    found = read_patches(file, np.array([lon]), np.array([lat]), ground_resolution_m=50.0, patch_pixels=5)
    assert found.pixels[0, :, 2, 2] == pytest.approx([150.0, 150.0], abs=1e-2)
    expected = ~transform @ ground_grid(lon, lat, 50.0, 5)
    np.testing.assert_allclose(found.pixels[0], np.stack(expected), atol=0.01)


def test_partly_covered_and_outside(write_raster):
    file = write_raster(np.full((1, 100, 100), 7, np.uint8), (10.0, 50.0, 10.1, 50.1))
    lon, lat = np.array([10.05, 10.0, 10.0, 30.0, 10.05]), np.array([50.05, 50.05, 50.0, 50.05, -50.0])
    found = read_patches(file, lon, lat, ground_resolution_m=100.0, patch_pixels=10)
    assert found.valid_fraction.tolist() == [1.0, 0.5, 0.25, 0.0, 0.0]
    assert (found.pixels[0] == 7).all()
    assert (found.pixels[1, 0, :, :5] == 0).all()
    # bilinear weights are renormalised: no dark seam at the raster's edge
    assert (found.pixels[1, 0, :, 5:] == 7).all()
    assert not found.pixels[3:].any()


def test_position_beyond_the_projections_domain_is_not_covered(write_raster):
    file = write_raster(np.ones((1, 50, 50), np.uint8), (0, 0, 50_000, 50_000), "EPSG:32632")
    found = read_patches(file, np.array([-170.0]), np.array([-89.0]), ground_resolution_m=100.0, patch_pixels=4)
    assert found.valid_fraction.tolist() == [0.0]


def test_nodata_and_nan_are_not_valid(write_raster):
    data = np.full((2, 100, 100), 5, np.float32)
    data[0, :, 50:] = -9999
    file = write_raster(data, (10.0, 50.0, 10.1, 50.1), nodata=-9999)
    found = read_patches(file, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=10)
    assert found.valid_fraction[0] == 0.5
    assert (found.pixels[0, :, :, :5] == 5).all()
    assert (found.pixels[0, :, :, 5:] == 0).all()
    data[0, :, 50:] = np.nan
    with_nan = write_raster(data, (10.0, 50.0, 10.1, 50.1), name="nan.tif")
    again = read_patches(with_nan, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=10)
    np.testing.assert_array_equal(again.pixels, found.pixels)
    assert again.valid_fraction[0] == 0.5


def test_black_in_one_band_of_an_image_is_a_colour(write_raster):
    data = np.full((3, 50, 50), 9, np.uint8)
    data[0] = 0
    data[:, :, 25:] = 0
    file = write_raster(data, (10.0, 50.0, 10.1, 50.1), nodata=0)
    found = read_patches(file, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=10)
    assert found.valid_fraction[0] == 0.5
    assert (found.pixels[0, :, :, :5] == np.array([0, 9, 9])[:, None, None]).all()


def test_alpha_band_is_a_mask_and_no_image(write_raster):
    data = np.full((4, 50, 50), 9, np.uint8)
    data[3, :, 25:] = 0
    file = write_raster(data, (10.0, 50.0, 10.1, 50.1), photometric="RGB", alpha="YES")
    with rasterio.open(file) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    found = read_patches(file, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=10)
    assert found.pixels.shape[1] == 3
    assert found.valid_fraction[0] == 0.5


def test_bands_in_the_order_asked_for(write_raster):
    data = np.arange(1, 4, dtype=np.uint16)[:, None, None] * np.ones((3, 50, 50), np.uint16)
    file = write_raster(data, (10.0, 50.0, 10.1, 50.1))
    found = read_patches(
        file, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=4, bands=[3, 1]
    )
    assert found.pixels.dtype == np.float32
    assert found.pixels[0, :, 0, 0].tolist() == [3.0, 1.0]


@pytest.mark.parametrize("overviews", [(), (2,), (2, 4, 8)])
def test_coarse_patches_are_averages_not_samples(write_raster, overviews):
    # pixels of 0.001 degrees (111 m), alternating 0 and 200: sampling would alias, the mean is 100
    checker = (np.indices((512, 512)).sum(axis=0) % 2 * 200).astype(np.uint8)
    file = write_raster(checker[None], (10.0, -0.256, 10.512, 0.256), overviews=overviews)
    found = read_patches(file, np.array([10.256]), np.array([0.0]), ground_resolution_m=900.0, patch_pixels=8)
    assert np.abs(found.pixels.astype(float) - 100).max() <= 1
    assert found.valid_fraction[0] == 1


@pytest.mark.parametrize("overviews", [(), (2, 4)])
def test_decimated_patches_keep_their_place(write_raster, overviews):
    file = coordinate_raster(write_raster, "EPSG:4326", (9.5, 49.7, 10.5, 50.3), overviews=overviews)
    found = read_patches(file, np.array([10.0]), np.array([50.0]), ground_resolution_m=1500.0, patch_pixels=7)
    lons, lats = ground_grid(10.0, 50.0, 1500.0, 7)
    np.testing.assert_allclose(found.pixels[0, 0], lons - 10, atol=3e-5)
    np.testing.assert_allclose(found.pixels[0, 1], lats - 50, atol=3e-5)


def test_averaging_ignores_pixels_without_data(write_raster):
    data = np.full((1, 256, 256), 50, np.float32)
    data[0, ::3] = np.nan
    file = write_raster(data, (10.0, 50.0, 10.256, 50.256))
    found = read_patches(file, np.array([10.128]), np.array([50.128]), ground_resolution_m=600.0, patch_pixels=4)
    assert found.valid_fraction[0] == 1
    assert (found.pixels == 50).all()


@pytest.mark.parametrize("ground_resolution_m", [120.0, 700.0])
def test_a_patch_depends_on_its_place_alone(write_raster, monkeypatch, ground_resolution_m):
    rng = np.random.default_rng(0)
    file = write_raster(rng.integers(0, 255, (3, 301, 333)).astype(np.uint8), (10.0, 50.0, 10.5, 50.3), overviews=(2,))
    lon, lat = rng.uniform(9.99, 10.51, 40), rng.uniform(49.99, 50.31, 40)
    options = {"ground_resolution_m": ground_resolution_m, "patch_pixels": 8}
    whole = read_patches(file, lon, lat, **options)
    order = rng.permutation(40)
    shuffled = read_patches(file, lon[order], lat[order], **options)
    np.testing.assert_array_equal(shuffled.pixels, whole.pixels[order])
    np.testing.assert_array_equal(shuffled.valid_fraction, whole.valid_fraction[order])
    # small batches and small windows, as a large raster would make them
    monkeypatch.setattr(patches_module, "_POINTS_AT_A_TIME", 128)
    monkeypatch.setattr(sampling_module, "_WINDOW_PIXELS", 64)
    split = read_patches(file, lon, lat, **options)
    np.testing.assert_array_equal(split.pixels, whole.pixels)
    np.testing.assert_array_equal(split.valid_fraction, whole.valid_fraction)


def test_windows_stay_small(write_raster, monkeypatch):
    file = write_raster(np.zeros((1, 1024, 1024), np.uint8), (10.0, 50.0, 11.0, 51.0))
    sizes = []
    read = sampling_module._Level._read

    def spy(level, left, top, right, bottom):
        sizes.append((right - left) * (bottom - top))
        return read(level, left, top, right, bottom)

    monkeypatch.setattr(sampling_module, "_WINDOW_PIXELS", 4096)
    monkeypatch.setattr(sampling_module._Level, "_read", spy)
    rng = np.random.default_rng(1)
    read_patches(file, rng.uniform(10, 11, 30), rng.uniform(50, 51, 30), ground_resolution_m=100.0, patch_pixels=8)
    assert len(sizes) >= 10
    assert max(sizes) <= 4096


def test_no_positions(write_raster):
    file = write_raster(np.zeros((2, 10, 10), np.uint8), (10.0, 50.0, 10.1, 50.1))
    found = read_patches(file, np.empty(0), np.empty(0), ground_resolution_m=100.0, patch_pixels=4)
    assert found.pixels.shape == (0, 2, 4, 4)


def test_missing_band(write_raster):
    file = write_raster(np.zeros((2, 10, 10), np.uint8), (10.0, 50.0, 10.1, 50.1))
    with pytest.raises(SourceError, match=r"image\.tif: no band 5: the file has bands 1 to 2"):
        read_patches(
            file, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=4, bands=[1, 5]
        )


def test_missing_file(tmp_path):
    with pytest.raises(SourceError, match=r"nothing\.tif.*cannot be read"):
        read_patches(
            str(tmp_path / "nothing.tif"), np.array([1.0]), np.array([1.0]), ground_resolution_m=1, patch_pixels=4
        )


def test_truncated_file(write_raster):
    rng = np.random.default_rng(0)
    file = write_raster(rng.integers(0, 255, (1, 512, 512)).astype(np.uint8), (10.0, 50.0, 10.1, 50.1))
    content = Path(file).read_bytes()
    Path(file).write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"image\.tif.*cannot be read.*truncated"):
        read_patches(file, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=60)


def test_raster_without_crs(write_raster):
    file = write_raster(np.zeros((1, 10, 10), np.uint8), (10.0, 50.0, 10.1, 50.1), crs=None)
    with pytest.raises(SourceError, match="no coordinate reference system"):
        read_patches(file, np.array([10.05]), np.array([50.05]), ground_resolution_m=100.0, patch_pixels=4)
