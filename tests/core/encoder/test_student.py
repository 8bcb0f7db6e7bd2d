import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.encoder.alignment import align
from mobclip_core.encoder.features import Modality, ModalityFeatures
from mobclip_core.encoder.student import Student, student_inputs, student_vectors, train_student, with_student
from mobclip_core.encoder.subgraphs import graph_among
from mobclip_core.encoder.training import train
from mobclip_core.profile import StudentConfig

from .conftest import beside, make_cells, make_features, make_graph, random_edges

STUDENT = {"rings": 1, "hidden": 32, "layers": 1, "dropout": 0.0, "batch_size": 64, "learning_rate": 5e-3}


def student_options(**changes):
    return StudentConfig(**{**STUDENT, **changes})


def country(n=400, seed=0):
    """Cells in a row of eight and vectors that their features and their neighbours' decide, but for noise."""
    features = make_features(make_cells(n, blocks=8), seed)
    values, _ = student_inputs(features, beside(features), student_options())
    random = np.random.default_rng(9)
    known = np.concatenate([values[name].numpy() for name in ("poi", "imagery", "census", "poi_1")], axis=1)
    vectors = known @ random.normal(size=(known.shape[1], 8)) + 0.3 * random.normal(size=(n, 8)) + 2
    return features, vectors.astype(np.float32)


def learnt(features, vectors, held, **changes):
    everywhere = np.ones(len(features), dtype=bool)
    return train_student(features, beside(features), vectors, everywhere, held, student_options(**changes))


@pytest.mark.parametrize("coordinates", [False, True])
def test_learns_what_the_features_say(coordinates):
    features, vectors = country()
    held = np.arange(400) >= 320
    result = learnt(features, vectors, held, coordinates=coordinates)
    student = Student({"poi": 5, "imagery": 7, "census": 4}, 8, student_options(coordinates=coordinates))
    student.load_state_dict({k.removeprefix("student."): torch.from_numpy(v) for k, v in result.tensors.items()})
    values, masks = student_inputs(features, beside(features), student_options(coordinates=coordinates))
    with torch.no_grad():
        found = student.eval()(values, masks).numpy()[held]
    error = np.square(found - vectors[held]).sum()
    assert error < 0.4 * np.square(vectors[held] - vectors[~held].mean(0)).sum()
    assert result.history["validation"][result.best_epoch] == min(result.history["validation"])


def test_same_arguments_same_bytes_and_the_seed_counts():
    features, vectors = country(80)
    held = np.arange(80) < 20
    first, second = (learnt(features, vectors, held, epochs=3, dropout=0.2) for _ in range(2))
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    everywhere = np.ones(80, dtype=bool)
    other = train_student(
        features, beside(features), vectors, everywhere, held, student_options(epochs=3, dropout=0.2), seed=1
    )
    assert not np.array_equal(other.tensors["student.out.weight"], first.tensors["student.out.weight"])


def test_learns_from_cells_with_mobility_alone():
    features, vectors = country(80)
    has = np.arange(80) % 2 == 0
    nowhere = np.zeros(80, dtype=bool)
    spoilt = np.where(has[:, None], vectors, 1e6).astype(np.float32)
    results = [
        train_student(features, beside(features), v, has, nowhere, student_options(epochs=2)) for v in (vectors, spoilt)
    ]
    assert all(np.array_equal(results[0].tensors[name], results[1].tensors[name]) for name in results[0].tensors)


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_worlds(n):
    features = make_features(make_cells(n, blocks=n))
    none = np.zeros(n, dtype=bool)
    result = train_student(
        features, beside(features), np.ones((n, 8), np.float32), none, none, student_options(epochs=2)
    )
    assert all(np.isfinite(value).all() for value in result.tensors.values())


def masked(features, shown):
    modalities = {
        name: m if name in shown else replace(m, values=np.zeros_like(m.values), mask=np.zeros_like(m.mask))
        for name, m in features.modalities.items()
    }
    return replace(features, modalities=modalities)


def test_every_subset_of_the_modalities_has_a_vector(options, world):
    features, graph = world
    table = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    trained = train(features, graph, table, options(max_epochs=1, normalise_output=True))
    vectors, held = np.asarray(trained.tensors["node_table"]), np.arange(40) < 8
    student = train_student(features, beside(features), vectors, held | ~held, held, student_options(epochs=2))
    trained = with_student(trained, student, student_options(epochs=2))
    names = list(features.modalities)
    found = []
    for shown in itertools.chain.from_iterable(itertools.combinations(names, k) for k in range(4)):
        found.append(student_vectors(trained, masked(features, shown), beside(features), np.arange(40)))
        np.testing.assert_allclose(np.linalg.norm(found[-1], axis=1), 1, rtol=1e-5)
    assert len({vectors.tobytes() for vectors in found}) == 8
    # a cell of which nothing is known
    assert len(np.unique(found[0].round(6), axis=0)) == 1


def test_an_encoder_without_a_student_says_so(options, world):
    features, graph = world
    trained = train(features, graph, np.ones((40, 8), np.float32), options(max_epochs=1))
    with pytest.raises(ValueError, match="without a student"):
        student_vectors(trained, features, beside(features), np.arange(2))


def test_rings_are_means_over_walks_to_cells_with_the_modality():
    # a row of four cells; the second lacks the modality
    values = np.array([[1.0], [0.0], [3.0], [5.0]], dtype=np.float32)
    mask = np.array([True, False, True, True])
    modalities = {"poi": Modality(values, mask, ("poi",), None)}
    lon = np.arange(4) * 0.1
    features = ModalityFeatures(make_cells(4), np.zeros(4, np.int32), ("a",), lon, np.zeros(4), modalities)
    found, present = student_inputs(features, beside(features), student_options(rings=2))
    assert present["poi_1"].tolist() == [False, True, True, True]
    assert found["poi_1"][:, 0].tolist() == [0, 2, 5, 3]
    # two steps: 0-1-0, 0-1-2; 1-0-1, 1-2-1, 1-2-3; 2-1-0, 2-1-2, 2-3-2; 3-2-1, 3-2-3
    assert found["poi_2"][:, 0].tolist() == pytest.approx([2, 5, 7 / 3, 5])
    assert "coordinates" not in found
    sphere = student_inputs(features, beside(features), student_options(coordinates=True))[0]["coordinates"]
    np.testing.assert_allclose(np.linalg.norm(sphere.numpy(), axis=1), 1, rtol=1e-6)


def test_a_graph_among_other_cells():
    cells = make_cells(6)
    graph = make_graph(cells[:5], [(0, 1, 1.0), (1, 4, 2.0), (3, 0, 3.0), (4, 1, 4.0)], [True, False, True, True])
    found = graph_among(graph, cells[1:])
    assert np.array_equal(found.cells, cells[1:])
    assert found.indptr.tolist() == [0, 1, 1, 1, 2, 2]
    assert found.indices.tolist() == [3, 0]
    assert found.weight.tolist() == [2, 4]
    assert found.keep.tolist() == [False, True]
    assert graph_among(graph, cells[:5]) is graph
    assert graph_among(make_graph(cells, random_edges(6, 9)), cells[:0]).indptr.tolist() == [0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 20), st.floats(0.01, 100))
def test_alignment_finds_the_rotation_that_was_made(seed, d, extra, length):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(d + extra, d)) * length
    rotation, _ = np.linalg.qr(random.normal(size=(d, d)))
    found = align(vectors, vectors @ rotation)
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(d), atol=1e-5)
    assert found.residual < 1e-6
    assert found.cosine == pytest.approx(1)
    assert found.residual <= found.residual_before + 1e-9
    same = align(vectors, vectors)
    assert same.residual_before == 0
    np.testing.assert_allclose(vectors @ same.rotation, vectors, rtol=1e-4, atol=1e-4 * length)


def test_alignment_needs_the_same_shape():
    with pytest.raises(ValueError, match="cannot be aligned"):
        align(np.zeros((3, 2)), np.zeros((3, 4)))
