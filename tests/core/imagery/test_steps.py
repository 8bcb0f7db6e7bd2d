import json

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import safetensors.torch
import shapely
import torch

from mobclip_core.errors import MissingTableError, MobclipError, SourceError
from mobclip_core.imagery import patches as patches_module
from mobclip_core.imagery import steps as steps_module
from mobclip_core.imagery.steps import (
    build_imagery_encoder,
    build_imagery_features,
    build_imagery_patches,
    sample_positions,
)
from mobclip_core.sql import session
from mobclip_core.store import TableRef
from mobclip_core.tensors import tensors_of
from mobclip_core.vectors import matrix_of
from tests import lake as lakes

BOUNDS = (9.0, 49.0, 11.0, 51.0)
REGIONS = {"north": shapely.box(9.2, 50.0, 10.8, 50.8), "south": shapely.box(9.2, 49.2, 10.8, 50.0)}


def open_lake(folder, file, encoder=None, **changes):
    encoder = encoder or {"features": 32, "sample_patches": 60}
    imagery = {"file": file, "ground_resolution_m": 300.0, "patch_pixels": 8, "encoder": encoder} | changes
    encoder.setdefault("kind", "random_convolutional")
    lake = lakes.deployment(folder, list(REGIONS), imagery=imagery)
    geod = pyproj.Geod(ellps="WGS84")
    table = pa.table(
        {
            "region": list(REGIONS),
            "name": list(REGIONS),
            "geometry": pa.array([polygon.wkb for polygon in REGIONS.values()], pa.binary()),
            "area_km2": [abs(geod.geometry_area_perimeter(polygon)[0]) / 1e6 for polygon in REGIONS.values()],
            "source_features": pa.array([1] * len(REGIONS), pa.int64()),
        }
    )
    lake.store.write(TableRef("regions"), table)
    lakes.write_grid(lake, "north", lakes.disk(50.4, 10.0, 3))
    lakes.write_grid(lake, "south", lakes.disk(49.6, 10.0, 2))
    return lake


@pytest.fixture
def photo(write_raster):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 500, 500)).cumsum(axis=2)
    return write_raster(np.clip(120 + 10 * noise, 1, 255).astype(np.uint8), BOUNDS)


def test_the_three_steps_in_a_row(photo, tmp_path):
    lake = open_lake(tmp_path, photo)
    encoder = build_imagery_encoder(lake)
    assert encoder.counts["positions_sampled"] == encoder.counts["patches_used"] == 60
    assert encoder.counts["dimensions"] == 32
    assert encoder.pictures["sampled patches"].startswith(b"\x89PNG")
    patches = build_imagery_patches(lake, "north")
    assert patches.counts == {
        "cells": 37,
        "cells_covered": 37,
        "cells_partly_covered": 0,
        "cells_without_imagery": 0,
        "cells_below_min_valid_fraction": 0,
        "mean_valid_fraction": 1.0,
    }
    assert set(patches.pictures) == {"patches"}
    table = lake.store.read(TableRef("imagery_patches", "north"))
    assert tensors_of(table["patch"]).shape == (37, 3, 8, 8)
    assert tensors_of(table["patch"]).dtype == np.uint8
    features = build_imagery_features(lake, "north")
    assert features.counts["cells_covered"] == 37
    assert set(features.pictures) == {"features"}
    table = lake.store.read(TableRef("imagery_features", "north"))
    assert table["cell"].to_pylist() == lakes.disk(50.4, 10.0, 3)
    vectors = matrix_of(table["features"])
    assert vectors.shape == (37, 32)
    assert (vectors.std(axis=0) > 0).all()
    assert set(table["image_encoder"].to_pylist()) == {encoder.counts["image_encoder"]}


def test_same_input_gives_the_same_bytes(photo, tmp_path):
    versions = []
    for name in ("one", "two"):
        lake = open_lake(tmp_path / name, photo)
        results = [
            build_imagery_encoder(lake),
            build_imagery_patches(lake, "south"),
            build_imagery_features(lake, "south"),
        ]
        versions.append([result.written.data_version for result in results])
        pictures = [result.pictures for result in results]
    assert versions[0] == versions[1]
    assert pictures[1] == build_imagery_patches(lake, "south").pictures


def test_cells_without_imagery_have_zeros(write_raster, tmp_path):
    # the raster ends in the middle of the region
    rng = np.random.default_rng(0)
    data = rng.integers(1, 255, (3, 200, 400)).astype(np.uint8)
    lake = open_lake(tmp_path, write_raster(data, (9.0, 50.4, 11.0, 51.0)))
    encoder = build_imagery_encoder(lake)
    assert encoder.counts["patches_without_imagery"] >= 30
    assert encoder.counts["patches_used"] < 30
    result = build_imagery_patches(lake, "north")
    counts = result.counts
    assert min(counts["cells_covered"], counts["cells_partly_covered"], counts["cells_without_imagery"]) > 0
    parts = ("cells_covered", "cells_partly_covered", "cells_without_imagery")
    assert sum(counts[name] for name in parts) == counts["cells"] == 37
    build_imagery_features(lake, "north")
    table = lake.store.read(TableRef("imagery_features", "north"))
    valid = table["valid_fraction"].to_numpy()
    has_vector = matrix_of(table["features"]).any(axis=1)
    np.testing.assert_array_equal(has_vector, valid >= 0.5)
    assert has_vector.any()
    assert not has_vector.all()


def test_no_imagery_is_no_imagery_even_at_a_minimum_of_zero(write_raster, tmp_path):
    rng = np.random.default_rng(0)
    data = rng.integers(1, 255, (3, 200, 400)).astype(np.uint8)
    lake = open_lake(tmp_path, write_raster(data, (9.0, 50.4, 11.0, 51.0)), min_valid_fraction=0.0)
    build_imagery_encoder(lake)
    build_imagery_patches(lake, "south")
    build_imagery_features(lake, "south")
    assert not matrix_of(lake.store.read(TableRef("imagery_features", "south"))["features"]).any()


def test_raster_of_another_country(write_raster, tmp_path):
    lake = open_lake(tmp_path, write_raster(np.ones((3, 50, 50), np.uint8), (-80, 40, -79, 41)))
    with pytest.raises(SourceError, match=r"image\.tif: the raster covers 0 of 60 patches.*at least 10"):
        build_imagery_encoder(lake)
    assert not lake.store.exists(TableRef("imagery_encoder"))
    # patches are still made: the modality is masked
    assert build_imagery_patches(lake, "north").counts["cells_without_imagery"] == 37


def test_float_raster(write_raster, tmp_path):
    rng = np.random.default_rng(0)
    lake = open_lake(tmp_path, write_raster(rng.random((1, 400, 400)).astype(np.float32), BOUNDS))
    build_imagery_encoder(lake)
    build_imagery_patches(lake, "north")
    table = lake.store.read(TableRef("imagery_patches", "north"))
    assert tensors_of(table["patch"]).dtype == np.float32
    assert build_imagery_features(lake, "north").counts["cells_covered"] == 37


def test_region_without_cells(photo, tmp_path):
    lake = open_lake(tmp_path, photo)
    build_imagery_encoder(lake)
    lakes.write_grid(lake, "south", [])
    result = build_imagery_patches(lake, "south")
    assert result.counts["cells"] == 0
    assert not result.pictures
    assert build_imagery_features(lake, "south").counts["mean_valid_fraction"] == 0.0
    table = lake.store.read(TableRef("imagery_features", "south"))
    assert table.num_rows == 0
    assert table.schema.field("features").type.list_size == 32
    build_imagery_patches(lake, "north")
    both = lake.store.read_all("imagery_patches")
    assert both.num_rows == 37


def test_patches_can_be_queried_in_duckdb(photo, tmp_path):
    lake = open_lake(tmp_path, photo)
    build_imagery_patches(lake, "north")
    files = lake.store.scan("imagery_patches")
    with session() as connection:
        query = "SELECT octet_length(patch), count(*), min(valid_fraction) FROM read_parquet($files) GROUP BY 1"
        assert connection.execute(query, {"files": files}).fetchall() == [(3 * 8 * 8, 37, 1.0)]


def test_stale_encoder_is_refused(photo, tmp_path):
    lake = open_lake(tmp_path, photo)
    build_imagery_patches(lake, "north")
    with pytest.raises(MissingTableError, match="imagery_encoder is not materialised"):
        build_imagery_features(lake, "north")
    build_imagery_encoder(lake)
    other = open_lake(tmp_path, photo, {"kind": "timm", "model": "test_vit", "checkpoint": "unused.pth"})
    with pytest.raises(MobclipError, match="is random_convolutional, the profile asks for timm"):
        build_imagery_features(other, "north")
    one_band = open_lake(tmp_path, photo, bands=[1])
    build_imagery_patches(one_band, "north")
    with pytest.raises(MobclipError, match="fitted to 3 bands, the patches have 1"):
        build_imagery_features(one_band, "north")


def test_timm_encoder(photo, tmp_path):
    from mobclip_core.imagery import timm_encoder

    torch.manual_seed(0)
    state = timm_encoder.timm.create_model("test_vit").state_dict()
    checkpoint = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, str(checkpoint))
    lake = open_lake(tmp_path, photo, {"kind": "timm", "model": "test_vit", "checkpoint": str(checkpoint)})
    encoder = build_imagery_encoder(lake)
    assert encoder.counts["dimensions"] == 64
    record = json.loads((lake.store.bundle("imagery_encoder") / "encoder.json").read_text())
    assert record == {"kind": "timm", "model": "test_vit", "fingerprint": encoder.counts["image_encoder"]}
    build_imagery_patches(lake, "south")
    assert build_imagery_features(lake, "south").counts["image_encoder"] == record["fingerprint"]
    assert matrix_of(lake.store.read(TableRef("imagery_features", "south"))["features"]).any(axis=1).all()
    # other weights under the same name: the encoder must be made again
    state["norm.weight"] += 1
    safetensors.torch.save_file(state, str(checkpoint))
    with pytest.raises(MobclipError, match="weights of test_vit, or how it is fed, are not those"):
        build_imagery_features(lake, "south")


def test_sampled_positions_are_uniform_over_the_area():
    polygons = np.array([shapely.box(0, 0, 10, 60), shapely.Point(30, 0).buffer(5)])
    area = np.array([3000.0, 1000.0])
    lon, lat = sample_positions(polygons, area, 4000, seed=0)
    inside = [shapely.contains_xy(polygon, lon, lat).sum() for polygon in polygons]
    assert inside == [3000, 1000]
    # a sphere's zone from 0 to 30 degrees has sin(30) / sin(60) = 0.577 of the zone to 60
    assert (lat[:3000] < 30).mean() == pytest.approx(0.577, abs=0.03)
    again = sample_positions(polygons, area, 4000, seed=0)
    np.testing.assert_array_equal(again[0], lon)
    assert (sample_positions(polygons, area, 4000, seed=1)[0] != lon).any()


def test_shares_of_many_small_polygons_sum_to_the_count():
    polygons = np.array([shapely.box(i, 0, i + 1, 1) for i in range(7)])
    lon, _ = sample_positions(polygons, np.ones(7), 10, seed=0)
    assert len(lon) == 10
    assert len(set(np.floor(lon))) == 7


def test_small_row_groups_and_threads_change_no_bit(photo, tmp_path, monkeypatch):
    versions = set()
    for name, workers in (("one", 1), ("two", 3)):
        lake = open_lake(tmp_path / name, photo, workers=workers)
        monkeypatch.setattr(patches_module, "_POINTS_AT_A_TIME", 8 * 8 * (3 + workers))
        # five patches a row group
        monkeypatch.setattr(steps_module, "_ROW_GROUP_BYTES", 5 * 3 * 8 * 8)
        build_imagery_encoder(lake)
        patches = build_imagery_patches(lake, "north").written
        assert lake.store.row_groups(TableRef("imagery_patches", "north"))[0] == 8
        features = build_imagery_features(lake, "north").written
        versions.add((patches.data_version, features.data_version))
    assert len(versions) == 1


def test_a_large_region_maps_some_of_its_cells(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(steps_module, "_MAP_CELLS", 10)
    lake = open_lake(tmp_path, photo)
    build_imagery_encoder(lake)
    build_imagery_patches(lake, "north")
    shown = []
    monkeypatch.setattr(steps_module, "embedding_map", lambda cells, features, title: shown.append(len(cells)) or b"")
    build_imagery_features(lake, "north")
    assert shown == [10]


def test_a_mosaic_through_the_steps(write_raster, tmp_path):
    rng = np.random.default_rng(0)
    for name, west in (("west", 9.0), ("east", 10.0)):
        data = rng.integers(1, 255, (3, 250, 125)).astype(np.uint8)
        write_raster(data, (west, 49.0, west + 1, 51.0), name=f"{name}.tif")
    lake = open_lake(tmp_path, str(tmp_path / "*st.tif"))
    build_imagery_encoder(lake)
    counts = build_imagery_patches(lake, "north").counts
    assert counts["cells_covered"] == 37
    assert counts["scenes"] == 2
