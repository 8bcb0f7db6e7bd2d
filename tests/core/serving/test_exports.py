"""Files for other programs, read back by other programs."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from safetensors.numpy import load_file

from mobclip_core import serving
from mobclip_core.errors import MobclipError
from mobclip_core.serving.card import licences_of, write_card
from mobclip_core.serving.exports import principal, quantise
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of
from tests.places import make_places, write_lake

PLACES = make_places(rings=4, dimensions=20)


def test_geoparquet_opens_in_geopandas(tmp_path):
    written = serving.export(PLACES, tmp_path / "a.parquet")
    frame = gpd.read_parquet(written.path)
    assert frame.crs == "OGC:CRS84"
    np.testing.assert_array_equal(np.stack(frame["vector"]), PLACES.vectors)
    np.testing.assert_array_equal(frame["cell"], PLACES.cells)
    assert set(frame["region"]) == {"east", "west"}
    assert frame.geometry.is_valid.all()
    assert (written.rows, written.dimensions, written.bytes) == (len(PLACES), 20, written.path.stat().st_size)


def test_csv_arrow_and_safetensors(tmp_path):
    frame = pd.read_csv(serving.export(PLACES, tmp_path / "a.csv").path)
    np.testing.assert_allclose(frame[[f"v{i:03}" for i in range(20)]], PLACES.vectors, rtol=1e-5)
    assert [int(cell, 16) for cell in frame["cell"]] == PLACES.cells.tolist()
    with pa.memory_map(str(serving.export(PLACES, tmp_path / "a.arrow", dimensions=8).path)) as source:
        table = pa.ipc.open_file(source).read_all()
    components, *_ = principal(PLACES.vectors, 8)
    np.testing.assert_array_equal(matrix_of(table["vector"]), components)
    assert table.schema.metadata[b"encoder"].decode() == PLACES.encoder
    tensors = load_file(serving.export(PLACES, tmp_path / "a.safetensors").path)
    np.testing.assert_array_equal(tensors["vectors"], PLACES.vectors)
    np.testing.assert_array_equal(tensors["cells"].astype(np.uint64), PLACES.cells)


def test_flatgeobuf_and_raster_hold_the_cells_where_they_are(tmp_path):
    frame = gpd.read_file(serving.export(PLACES, tmp_path / "a.fgb").path)
    assert len(frame) == len(PLACES)
    assert "v015" in frame
    assert "v016" not in frame
    with rasterio.open(serving.export(PLACES, tmp_path / "a.tif", dimensions=3).path) as raster:
        assert (raster.count, raster.crs.to_epsg()) == (3, 4326)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        values = np.array(list(raster.sample(np.column_stack([PLACES.lon, PLACES.lat]))))
        corner = next(raster.sample([(raster.bounds.left + 1e-6, raster.bounds.top - 1e-6)]))
    # a pixel's centre may lie in the neighbour of the cell whose centre the pixel holds, but not often
    assert (values == principal(PLACES.vectors, 3)[0]).all(axis=1).mean() > 0.95
    assert np.isnan(corner).all()


def test_eight_bits_lose_what_they_say(tmp_path):
    for suffix in ("parquet", "arrow", "safetensors"):
        written = serving.export(PLACES, tmp_path / f"a.{suffix}", int8=True)
        assert 0.999 < written.loss["cosine"] < 1
        assert 0 < written.loss["error"] < 0.02
    tensors = load_file(tmp_path / "a.safetensors")
    back = tensors["vectors"] * tensors["scale"]
    error = np.sqrt(np.square(back - PLACES.vectors).mean() / np.square(PLACES.vectors).mean())
    assert error == pytest.approx(written.loss["error"], rel=1e-4)
    scale = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"scale"])
    np.testing.assert_allclose(scale, tensors["scale"])


def test_components_lead_back_to_the_vectors(tmp_path):
    tensors = load_file(serving.export(PLACES, tmp_path / "a.safetensors", dimensions=19).path)
    back = tensors["vectors"] @ tensors["axes"].T + tensors["mean"]
    left = np.square(back - PLACES.vectors).mean() / np.square(PLACES.vectors - PLACES.vectors.mean(axis=0)).mean()
    assert 0 < left < 1 / 20
    spread = tensors["vectors"].var(axis=0)
    assert (np.diff(spread) <= 1e-5).all()
    components, mean, axes = principal(PLACES.vectors, 20)
    np.testing.assert_allclose(components @ axes.T + mean, PLACES.vectors, atol=1e-5)


def test_quantising_by_hand():
    found = quantise(np.array([[127.0, 0.0], [-63.5, 0.0]], dtype=np.float32))
    np.testing.assert_array_equal(found.codes, [[127, 0], [-64, 0]])
    np.testing.assert_array_equal(found.scale, [1, 1])
    assert found.error == pytest.approx(np.sqrt(0.25 / 4) / np.sqrt((127**2 + 63.5**2) / 4))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.xls", {}, "suffix names the format"),
        ("a.csv", {"int8": True}, "int8 is for"),
        ("a.csv", {"dimensions": 21}, "21 dimensions asked for; the vectors have 20"),
        ("a.csv", {"dimensions": 0}, "0 dimensions"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, options, message):
    with pytest.raises(MobclipError, match=message):
        serving.export(PLACES, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_the_vectors_are(tmp_path):
    store = write_lake(PLACES, tmp_path / "lake")
    written = serving.export(PLACES, tmp_path / "a.parquet", int8=True)
    text = write_card(str(tmp_path / "lake"), written, {"census": "CC BY 4.0"}).read_text()
    assert "61 H3 cells, 20 numbers each" in text
    assert "- census: CC BY 4.0" in text
    assert "| grid_cells | 61 |" in text
    assert store.data_version(TableRef("grid_cells", "east"))[:12] in text
    assert "Not scored." in text
    assert "int8: cosine" in text
    assert "none is stated" in write_card(str(tmp_path / "lake"), written).read_text()
    assert licences_of(str(tmp_path / "lake")) == {}
