"""The table of vectors as a function of coordinates, and its files."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from mobclip_core.encoder.distil import distil, fidelity, grid_shapes, held_out_cells, save, vectors_of, window_of
from mobclip_core.evaluation.units import UnitSet
from mobclip_core.evaluation.unseen import unseen_markdown, unseen_scores
from mobclip_core.profile import LocationEncoderConfig
from mobclip_core.serving.location_encoder import LocationEncoder, harmonics
from mobclip_core.sphere import spherical_harmonics
from tests.places import make_places

OPTIONS = LocationEncoderConfig(features=4, degrees=6, hidden=64, steps=400, batch_size=128, held_out=0.2)


@pytest.fixture(scope="module")
def world():
    """Places with smooth vectors, those held out, and the model."""
    places = make_places(rings=12, dimensions=8)
    x, y = (places.lon - 10) / 1.5, places.lat - 50
    waves = np.column_stack([f(a * x + b * y) for f in (np.sin, np.cos) for a, b in [(1, 2), (3, 0), (0, 4), (2, -3)]])
    places = dataclasses.replace(places, vectors=(5 + 2 * waves).astype(np.float32))
    held_out = held_out_cells(places.cells, OPTIONS.held_out)
    model, history = distil(places, OPTIONS, ~held_out, seed=3)
    return places, held_out, model, history


def test_cells_held_out_are_about_as_many_as_asked_for_and_always_the_same():
    cells = make_places(rings=40).cells
    found = held_out_cells(cells, 0.1)
    assert found.mean() == pytest.approx(0.1, abs=0.015)
    np.testing.assert_array_equal(held_out_cells(cells[::3], 0.1), found[::3])
    assert not held_out_cells(cells, 0).any()


def test_the_window_goes_over_the_antimeridian_where_the_places_do():
    assert window_of(np.array([5.0, 9.0]), np.array([1.0, 2.0])) == pytest.approx([4.75, 0.75, 9.25, 2.25])
    assert window_of(np.array([178.0, -179.0]), np.array([89.9, 90.0])) == pytest.approx([177.75, 89.65, 181.25, 90])
    shapes = grid_shapes([0, 0, 10, 5], 0.5)
    assert shapes[-1] == [11, 21]
    assert shapes[0] == [2, 3]


def test_harmonics_are_those_of_the_core():
    random = np.random.default_rng(0)
    lon, lat = random.uniform(-180, 180, 200), random.uniform(-90, 90, 200)
    found = harmonics(torch.tensor(lon, dtype=torch.float32), torch.tensor(lat, dtype=torch.float32), 20)
    np.testing.assert_allclose(found.numpy(), spherical_harmonics(lon, lat, 20), atol=3e-5)


def test_places_between_those_learnt_have_the_vectors_between_theirs(world):
    places, held_out, model, history = world
    found = vectors_of(model, places.lon, places.lat)
    unseen = fidelity(found[held_out], places.vectors[held_out])
    assert unseen.cells == held_out.sum() > 50
    assert unseen.r2 > 0.95
    assert unseen.cosine > 0.99
    assert len(history["train"]) == len(history["validation"]) == 40
    assert history["train"][-1] < history["train"][0] / 10
    # a whole turn changes nothing
    np.testing.assert_allclose(vectors_of(model, places.lon + 360, places.lat), found, atol=2e-3)


def test_the_same_seed_gives_the_same_model(world):
    places, held_out, *_ = world
    options = OPTIONS.model_copy(update={"steps": 7})
    first, second = (distil(places, options, ~held_out, seed=1)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_its_files_agree_wherever_they_are_opened(world, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    places, _, model, _ = world
    save(model, tmp_path, {"encoder": "x"})
    wanted = vectors_of(model, places.lon, places.lat)
    spec = importlib.util.spec_from_file_location("shipped", tmp_path / "location_encoder.py")
    shipped = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shipped)
    lon, lat = places.lon.astype(np.float32), places.lat.astype(np.float32)
    loaded = shipped.LocationEncoder.load(tmp_path)
    assert not isinstance(loaded, LocationEncoder)
    with torch.no_grad():
        np.testing.assert_array_equal(loaded(torch.from_numpy(lon), torch.from_numpy(lat)).numpy(), wanted)
    session = onnxruntime.InferenceSession(str(tmp_path / "location_encoder.onnx"))
    for n in (1, len(lon)):
        [found] = session.run(None, {"lon": lon[:n], "lat": lat[:n]})
        assert np.abs(found - wanted[:n]).max() / np.abs(wanted).max() < 1e-5
    assert json.loads((tmp_path / "location_encoder.json").read_text())["encoder"] == "x"


def test_scores_on_what_was_never_seen(world):
    places, held_out, *_ = world
    n = len(places)
    random = np.random.default_rng(0)
    label = places.vectors @ random.normal(size=8)
    by_cell = UnitSet(("A",), csr_array(np.eye(n)), places.cells, label[:, None], "cell", ("v",))
    county = np.arange(n) // 12
    weights = csr_array((np.full(n, 1 / 12), (county, np.arange(n))))
    means = weights @ label
    by_county = UnitSet(("B",), weights, places.cells[::12], means[:, None], "county", ("v",))
    few = UnitSet(("C",), csr_array(np.eye(n)[:9]), places.cells[:9], label[:9, None], "cell", ("v",))
    noisy = places.vectors + random.normal(scale=2, size=places.vectors.shape)
    noise, same = (
        unseen_scores([by_cell, by_county, few], places.vectors, function, held_out)
        for function in (noisy, places.vectors)
    )
    assert [score.task for score in same] == ["A", "B"]
    assert same[0].units == held_out.sum()
    assert same[0].table == same[0].function > 0.99
    assert noise[0].function < 0.9
    assert noise[0].table == same[0].table
    assert "| **mean** |" in unseen_markdown(same)
