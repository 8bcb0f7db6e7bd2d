"""NASA's Blue Marble and the elevation raster over New York State's cells."""

import os
import time
from pathlib import Path

import geopandas
import h3
import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mobclip_core.cells import parents
from mobclip_core.imagery.patches import read_patches
from mobclip_core.imagery.raster import raster_cell_means
from mobclip_core.imagery.steps import build_imagery_encoder, build_imagery_features, build_imagery_patches
from mobclip_core.store import TableRef
from mobclip_core.tensors import tensors_of
from mobclip_core.vectors import matrix_of
from tests import lake as lakes

DATA = Path(os.environ.get("MOBCLIP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DATA / "usa").is_dir(), reason=f"no real data at {DATA}: set MOBCLIP_DATA"),
]
PLACES = {"Mount Marcy": (-73.924, 44.113), "Manhattan": (-73.97, 40.78), "Lake Ontario": (-77.5, 43.55)}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    states = geopandas.read_parquet(DATA / "usa" / "states.parquet")
    polygon = states[states.state == "36"].geometry.iloc[0]
    encoder = {"kind": "random_convolutional", "features": 256}
    imagery = {"file": str(DATA / "usa" / "bluemarble.tif"), "encoder": encoder}
    lake = lakes.deployment(tmp_path_factory.mktemp("new_york"), ["36"], imagery=imagery)
    regions = {"region": ["36"], "name": ["New York"], "geometry": pa.array([polygon.wkb], pa.binary())}
    counts = {"area_km2": [128_000.0], "source_features": pa.array([1], pa.int64())}
    lake.store.write(TableRef("regions"), pa.table(regions | counts))
    lakes.write_grid(lake, "36", [h3.str_to_int(cell) for cell in h3.geo_to_cells(polygon, 6)])
    return lake


@pytest.fixture(scope="module")
def steps(lake):
    start = time.perf_counter()
    results = [build_imagery_encoder(lake), build_imagery_patches(lake, "36"), build_imagery_features(lake, "36")]
    return results, time.perf_counter() - start


def test_every_cell_has_an_image_and_features(lake, steps):
    (encoder, patches, features), seconds = steps
    assert encoder.counts["patches_used"] == 500
    assert 3_200 < patches.counts["cells"] < 3_500
    assert patches.counts["cells_covered"] == patches.counts["cells"]
    table = lake.store.read(TableRef("imagery_patches", "36"))
    images = tensors_of(table["patch"])
    assert images.dtype == np.uint8
    assert images.shape[1:] == (3, 16, 16)
    assert features.counts["dimensions"] == 256
    # a few seconds alone; the machine may be shared
    assert seconds < 60


def test_colours_are_those_of_the_places():
    lon, lat = np.array(list(PLACES.values())).T
    images = read_patches(
        str(DATA / "usa" / "bluemarble.tif"), lon, lat, ground_resolution_m=500.0, patch_pixels=8
    ).pixels.astype(float)
    red, green, blue = images.mean(axis=(2, 3)).T
    mountain, city, water = range(3)
    assert green[mountain] > max(red[mountain], blue[mountain])
    assert red[city] > red[mountain]
    assert blue[water] > max(red[water], green[water])


def test_patches_of_elevation_agree_with_cell_means_and_with_the_map(lake):
    grid = lake.store.read(TableRef("grid_cells", "36"))
    cells, file = grid["cell"].to_numpy(), str(DATA / "usa" / "elevation.tif")
    means, valid = raster_cell_means(file, 1, cells)
    np.testing.assert_allclose(valid, 1.0, atol=1e-6)
    # 14 x 500 m is about a cell; the raster is as coarse as a cell, and one interpolates where the other does not
    patches = read_patches(
        file, grid["lon"].to_numpy(), grid["lat"].to_numpy(), ground_resolution_m=500.0, patch_pixels=14
    )
    assert np.corrcoef(patches.pixels.mean(axis=(1, 2, 3)), means)[0, 1] > 0.99
    marcy = cells == h3.str_to_int(h3.latlng_to_cell(44.113, -73.924, 6))
    assert means[marcy][0] > 700
    assert np.median(means) == pytest.approx(330, abs=60)


def test_woody_cover_has_gaps_where_the_source_has(lake):
    cells = lake.store.read(TableRef("grid_cells", "36"))["cell"].to_numpy()
    means, valid = raster_cell_means(str(DATA / "usa" / "woody_cover.tif"), 1, cells)
    np.testing.assert_array_equal(np.isnan(means), valid == 0)
    assert np.nanmin(means) >= 0
    assert np.nanmax(means) <= 100
    assert (valid > 0).mean() > 0.95


def test_features_tell_forest_from_farmland(lake, steps):
    """Predicted in blocks that the probe has not seen, and better than from the bands' means."""
    cells = lake.store.read(TableRef("grid_cells", "36"))["cell"].to_numpy()
    cover, _ = raster_cell_means(str(DATA / "usa" / "woody_cover.tif"), 1, cells)
    known = np.isfinite(cover)
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 6)))
    features = matrix_of(lake.store.read(TableRef("imagery_features", "36"))["features"])
    means = tensors_of(lake.store.read(TableRef("imagery_patches", "36"))["patch"]).mean(axis=(2, 3))
    blocks = parents(cells, 3)[known]
    score, baseline = (
        cross_val_score(probe, x[known], cover[known], groups=blocks, cv=GroupKFold(5), scoring="r2").mean()
        for x in (features, means)
    )
    assert score > baseline > 0
