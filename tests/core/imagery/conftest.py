import numpy as np
import pytest
import rasterio
from rasterio.transform import from_bounds


@pytest.fixture
def write_raster(tmp_path):
    """Writes a tiled GeoTIFF of `data` (bands, rows, columns) over `bounds` (west, south, east, north)."""

    def write(data, bounds, crs="EPSG:4326", name="image.tif", overviews=(), **options):
        data = np.asarray(data)
        path = tmp_path / name
        transform = options.pop("transform", None) or from_bounds(*bounds, data.shape[2], data.shape[1])
        profile = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
        shape = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
        with rasterio.open(path, "w", crs=crs, transform=transform, **profile | shape | options) as sink:
            sink.write(data)
        if overviews:
            with rasterio.open(path, "r+") as sink:
                sink.build_overviews(list(overviews), rasterio.enums.Resampling.average)
        return str(path)

    return write
