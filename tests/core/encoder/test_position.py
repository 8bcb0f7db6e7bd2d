import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.embedding import embed
from mobclip_core.encoder.position import fit_position
from mobclip_core.encoder.student import student_vectors, train_student, with_student
from mobclip_core.encoder.training import train
from mobclip_core.profile import EncoderConfig, StudentConfig

from .conftest import beside


def places(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return 10 + 6 * rng.random(n), 45 + 4 * rng.random(n)


def test_factors_have_one_variance_no_correlation_and_the_first_are_the_coordinates():
    lon, lat = places()
    found = fit_position(lon, lat, np.eye(16))
    factors = found.of(lon, lat).astype(float)
    np.testing.assert_allclose(factors.T @ factors / len(factors), 0.3**2 * np.eye(16), atol=0.001)
    # the two smoothest functions of a place are, over a small country, the plane
    plane = np.column_stack([np.ones(len(lon)), lon, lat])
    left = factors[:, :2] - plane @ np.linalg.lstsq(plane, factors[:, :2], rcond=None)[0]
    assert left.var(axis=0).max() < 0.1


def test_a_place_counts_as_the_nearest_of_the_training():
    lon, lat = places()
    found = fit_position(lon, lat, np.eye(4))
    known = found.of(lon, lat)
    np.testing.assert_array_equal(found.of(lon[7:8] + 1e-7, lat[7:8]), known[7:8])
    # far to the west it is the westernmost place about there
    far = found.of(np.array([lon.min() - 5]), np.array([47.0]))
    west = np.argmin((lon - lon.min() + 5) ** 2 * np.cos(np.radians(47)) ** 2 + (lat - 47) ** 2)
    np.testing.assert_allclose(far[0], known[west], atol=0.2)
    assert (known == far).all(axis=1).sum() == 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_places_have_fewer_factors(n):
    lon, lat = places(n)
    found = fit_position(lon, lat, np.eye(8))
    assert found.axes.shape[1] <= max(n - 1, 0)
    assert np.isfinite(found.of(lon, lat)).all()
    assert found.of(lon, lat).shape == (n, 8)


FULL = {"factors": 3, "position_factors": 2, "feature_fusion": True}


def node_vectors(n):
    return np.random.default_rng(3).normal(size=(n, 8)).astype(np.float32)


def test_graph_and_student_give_the_same_position(options, world, tmp_path, monkeypatch):
    features, graph = world
    n = len(features)
    trained = train(features, graph, node_vectors(n), options(max_epochs=3, **FULL))
    edges, every = beside(features), np.arange(n)
    vectors = embed(trained, graph, edges, every, lambda _: features)
    position = trained.position.of(features.lon, features.lat)
    assert np.linalg.matrix_rank(position - position.mean(axis=0)) == 2
    student = train_student(
        features, edges, vectors - position, every >= 0, every < 5, StudentConfig(epochs=2, hidden=16)
    )
    taught = with_student(trained, student, StudentConfig(epochs=2, hidden=16))
    found = student_vectors(taught, features, edges, every)
    # along the position's directions, at right angles to all others, student and graph agree on what the place says
    axes = trained.position.rotation
    np.testing.assert_allclose(
        (vectors - position) @ axes.T, np.broadcast_to(((vectors - position) @ axes.T)[0], (n, 2)), atol=1e-4
    )
    with monkeypatch.context() as patch:
        patch.setattr(TrainedEncoder, "position", None)
        without = student_vectors(taught, features, edges, every)
    np.testing.assert_allclose(found - without, position, atol=1e-5)
    taught.save(tmp_path)
    again = TrainedEncoder.load(tmp_path)
    np.testing.assert_array_equal(again.position.of(features.lon, features.lat), position)
    np.testing.assert_array_equal(embed(again, graph, edges, every, lambda _: features, torch.device("cpu")), vectors)


def test_without_them_nothing_changes(options, world):
    features, graph = world
    plain = train(features, graph, node_vectors(40), options(max_epochs=2, factors=3, feature_fusion=True))
    assert plain.position is None
    assert not [name for name in plain.tensors if name.startswith("position")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_factors": 4}, "position_factors need factors"),
        ({"factors": 100, "position_factors": 28}, "must leave some of the 128 dimensions"),
    ],
)
def test_they_have_to_leave_room(changes, message):
    with pytest.raises(ValidationError, match=message):
        EncoderConfig(**changes)
