from pathlib import Path

import h3
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine

from mobclip_core.errors import SourceError
from mobclip_core.grid import cell_polygons
from mobclip_core.imagery import raster as raster_module
from mobclip_core.imagery.raster import raster_cell_means


def cells_around(lon, lat, rings=2, resolution=6):
    return np.array(sorted(map(h3.str_to_int, h3.grid_disk(h3.latlng_to_cell(lat, lon, resolution), rings))), np.uint64)


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        ("EPSG:4326", (9.3, 49.6, 10.7, 50.4)),
        ("EPSG:3857", (1_050_000, 6_380_000, 1_180_000, 6_530_000)),
        ("EPSG:32632", (510_000, 5_490_000, 640_000, 5_600_000)),
    ],
)
def test_mean_of_a_plane_is_its_value_at_the_centroid(write_raster, crs, bounds):
    west, south, east, north = bounds
    x, y = west + (np.arange(500) + 0.5) / 500 * (east - west), north - (np.arange(500) + 0.5) / 500 * (north - south)
    lon, lat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    file = write_raster(np.stack([lon - 10, lat - 50]).astype(np.float32), bounds, crs)
    cells = cells_around(10.0, 50.0)
    centroids = shapely.centroid(cell_polygons(cells))
    for band, expected in ((1, shapely.get_x(centroids) - 10), (2, shapely.get_y(centroids) - 50)):
        means, valid = raster_cell_means(file, band, cells)
        np.testing.assert_allclose(means, expected, atol=2e-5)
        np.testing.assert_allclose(valid, 1.0, atol=1e-9)


def test_pixel_larger_than_cells_and_parts_without_data(write_raster):
    # two pixels of 5 degrees, one without data, that meet at 10 degrees east
    file = write_raster(np.array([[[3.0, np.nan]]], np.float32), (5.0, 47.5, 15.0, 52.5))
    cells = cells_around(10.0, 50.0, rings=4)
    means, valid = raster_cell_means(file, 1, cells)
    polygons = cell_polygons(cells)
    west = shapely.intersection(polygons, shapely.box(5, 47.5, 10, 52.5))
    np.testing.assert_allclose(valid, shapely.area(west) / shapely.area(polygons), atol=1e-6)
    covered = valid > 0
    assert covered.any()
    assert not covered.all()
    assert (means[covered] == 3.0).all()
    assert np.isnan(means[~covered]).all()


def test_nodata_value_and_cells_outside(write_raster):
    data = np.full((1, 100, 100), 8, np.int16)
    data[0, :, ::2] = -1
    file = write_raster(data, (9.0, 49.0, 11.0, 51.0), nodata=-1)
    cells = np.concatenate([cells_around(10.0, 50.0, 0), cells_around(40.0, -30.0, 0)])
    means, valid = raster_cell_means(file, 1, cells)
    assert means[0] == 8.0
    assert valid[0] == pytest.approx(0.5, abs=0.15)
    assert np.isnan(means[1])
    assert valid[1] == 0.0


def test_pixels_of_a_geographic_raster_weigh_by_area(write_raster):
    # a cell of 1,100 km: the mean latitude by area lies nearer to the equator than by degrees
    y = 90 - (np.arange(720) + 0.5) / 4
    file = write_raster(np.repeat(y.astype(np.float32)[:, None], 1440, axis=1)[None], (-180, -90, 180, 90))
    cell = cells_around(20.0, 55.0, 0, resolution=0)
    means, _ = raster_cell_means(file, 1, cell)
    polygon = cell_polygons(cell)[0]
    lon, lat = np.meshgrid(np.arange(-20, 60, 0.1), np.arange(30, 80, 0.1))
    inside = shapely.contains_xy(polygon, lon, lat)
    assert means[0] == pytest.approx(np.average(lat[inside], weights=np.cos(np.radians(lat[inside]))), abs=0.02)


def test_batches_give_the_same(write_raster, monkeypatch):
    rng = np.random.default_rng(0)
    file = write_raster(rng.random((1, 200, 200)).astype(np.float32), (9.0, 49.5, 11.0, 50.5))
    cells = cells_around(10.0, 50.0, 3)
    means, _ = raster_cell_means(file, 1, cells)
    monkeypatch.setattr(raster_module, "_CELLS_AT_A_TIME", 5)
    np.testing.assert_allclose(raster_cell_means(file, 1, cells)[0], means, rtol=1e-12)


def test_no_cells(write_raster):
    file = write_raster(np.ones((1, 10, 10), np.uint8), (9.0, 49.5, 11.0, 50.5))
    means, valid = raster_cell_means(file, 1, np.empty(0, np.uint64))
    assert means.shape == valid.shape == (0,)


def test_beyond_the_projections_domain(write_raster):
    file = write_raster(np.ones((1, 10, 10), np.uint8), (0, 0, 50_000, 50_000), "EPSG:3857")
    means, valid = raster_cell_means(file, 1, cells_around(0.0, 90.0, 0))
    assert np.isnan(means).all()
    assert not valid.any()


def test_errors_name_the_file(write_raster, tmp_path):
    cells = cells_around(10.0, 50.0, 0)
    with pytest.raises(SourceError, match=r"gone\.tif.*cannot be read"):
        raster_cell_means(str(tmp_path / "gone.tif"), 1, cells)
    file = write_raster(np.ones((1, 10, 10), np.uint8), (9.0, 49.5, 11.0, 50.5))
    with pytest.raises(SourceError, match="no band 2"):
        raster_cell_means(file, 2, cells)
    rotated = write_raster(
        np.ones((1, 10, 10), np.uint8), None, transform=Affine(0.08, 0.05, 10, 0.05, -0.08, 50), name="rotated.tif"
    )
    with pytest.raises(SourceError, match="not north-up"):
        raster_cell_means(rotated, 1, cells)


def test_truncated_file(write_raster):
    rng = np.random.default_rng(0)
    file = write_raster(rng.random((1, 400, 400)).astype(np.float32), (9.9, 49.9, 10.1, 50.1))
    content = Path(file).read_bytes()
    Path(file).write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"image\.tif.*cannot be read"):
        raster_cell_means(file, 1, cells_around(10.0, 50.0, 1))
