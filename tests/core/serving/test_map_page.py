"""The page's data; what a browser makes of it is in `tests/e2e/test_map.py`."""

import base64
import gzip
import json
import re

import h3.api.numpy_int as h3
import numpy as np
import pytest
import shapely

from mobclip_core.serving.map_page import Layer, map_page
from tests.places import make_places

pytest.importorskip("pydeck")
PLACES = make_places(rings=3, dimensions=40)


def page_and_data(places=PLACES, layers=(), outlines=()):
    page = map_page(places, "A <b>map</b>", layers, outlines, "x</script><script>alert(1)").decode()
    return page, json.loads(re.search('<script type="application/json" id="data">(.*)</script>', page)[1])


def unpacked(data, name, kind):
    return np.frombuffer(gzip.decompress(base64.b64decode(data["blobs"][name])), dtype=kind)


def test_cells_their_corners_and_colours():
    page, data = page_and_data()
    np.testing.assert_array_equal(unpacked(data, "cells", "<u8"), PLACES.cells)
    counts = unpacked(data, "corner_counts", np.uint8)
    assert set(counts) == {6}
    away = unpacked(data, "corners", "<i2").reshape(-1, 6, 2) * data["corner_unit"]
    centres = unpacked(data, "centres", "<f4").reshape(-1, 2)
    for i in (0, len(PLACES) - 1):
        wanted = np.array(h3.cell_to_boundary(int(PLACES.cells[i])))[:, ::-1]
        np.testing.assert_allclose(sorted((centres[i] + away[i]).tolist()), sorted(wanted.tolist()), atol=2e-5)
    assert len(unpacked(data, "rgb", np.uint8)) == 3 * len(PLACES)
    assert page.encode() == map_page(PLACES, "A <b>map</b>", description="x</script><script>alert(1)")


def test_texts_are_text():
    page, data = page_and_data()
    assert "<title>A &lt;b&gt;map&lt;/b&gt;</title>" in page
    assert "<b>map" not in page
    assert "alert(1)</script>" not in page
    assert data["description"] == "x</script><script>alert(1)"


def test_values_come_back_from_their_levels():
    values = np.linspace(-5, 7, len(PLACES))
    values[3] = np.nan
    _, data = page_and_data(layers=[Layer("T", "label", values), Layer("T", "nothing", np.full(len(PLACES), np.nan))])
    levels = unpacked(data, "layer_0", "<u2")
    assert levels[3] == 65535
    layer = data["layers"][0]
    back = layer["min"] + levels / 65534 * layer["span"]
    np.testing.assert_allclose(np.delete(back, 3), np.delete(values, 3), atol=1e-3)
    assert set(unpacked(data, "layer_1", "<u2")) == {65535}


def test_likeness_by_components_is_nearly_that_of_the_vectors():
    places = make_places(rings=6, dimensions=40)
    # as of vectors with a structure: most of them along few directions
    mixed = np.random.default_rng(0).normal(size=(8, 40)) * np.array([[3], [2], [1], [1], [1], [1], [1], [1]])
    vectors = (places.vectors[:, :8] @ mixed + 0.05 * places.vectors).astype(np.float32)
    object.__setattr__(places, "vectors", vectors)
    _, data = page_and_data(places)
    codes = unpacked(data, "twins", np.int8).reshape(len(places), 32).astype(float)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(codes @ codes.T - unit @ unit.T).max() < 0.05
    assert data["twin_share"] > 0.99


def test_outlines_have_rings_with_holes():
    ring = shapely.box(9, 49, 11, 51).difference(shapely.box(9.5, 49.5, 10.5, 50.5))
    _, data = page_and_data(outlines=[("north", ring)])
    [outline] = data["outlines"]
    assert outline["name"] == "north"
    assert [len(one) for one in outline["rings"]] == [5, 5]


def test_a_cell_over_the_antimeridian_stays_whole_and_a_pentagon_has_five_corners():
    _, data = page_and_data(make_places(lon=180.0, lat=-17.0, rings=1))
    assert np.abs(unpacked(data, "corners", "<i2").astype(float) * data["corner_unit"]).max() < 0.5
    pentagon = h3.get_pentagons(4)[0]
    lat, lon = h3.cell_to_latlng(pentagon)
    _, data = page_and_data(make_places(lon=lon, lat=lat, resolution=4, rings=0))
    assert unpacked(data, "corner_counts", np.uint8).tolist() == [5]
