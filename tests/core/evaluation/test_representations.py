import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.errors import ContractError, FingerprintError, MissingTableError
from mobclip_core.evaluation.representations import (
    METHOD_INPUTS,
    VARIANT_INPUTS,
    load_representations,
    principal_components,
)
from mobclip_core.store import TableRef
from mobclip_core.vectors import vector_column


def test_every_method_has_a_matrix_over_all_cells(world):
    vectors = world.features()
    found = load_representations(world.deployment({}))
    np.testing.assert_array_equal(found.cells, world.cells)
    assert set(found.matrices) == set(METHOD_INPUTS) - set(VARIANT_INPUTS)
    widths = {name: matrix.shape[1] for name, matrix in found.matrices.items()}
    # features and one column for presence: 3 counts + 8 text, 6 image, 2 shares + density, 4 LINE
    assert widths == {
        "embeddings": 12,
        "coordinates": 5,
        "spherical_harmonics": 400,
        "spatial_neighbours": 3,
        "poi": 12,
        "imagery": 7,
        "census": 4,
        "mobility": 5,
        "raw_features": 28,
        "pca_128": 28,
    }
    assert {len(matrix) for matrix in found.matrices.values()} == {len(world.cells)}
    np.testing.assert_array_equal(found.matrices["embeddings"], vectors)
    parts = [found.matrices[name] for name in ("poi", "imagery", "census", "mobility")]
    np.testing.assert_array_equal(found.matrices["raw_features"], np.concatenate(parts, axis=1))


def test_coordinates_are_lon_lat_and_the_unit_sphere(world):
    world.features()
    coordinates = load_representations(world.deployment({})).matrices["coordinates"]
    np.testing.assert_array_equal(coordinates[:, :2], np.column_stack([world.lon, world.lat]))
    np.testing.assert_allclose((coordinates[:, 2:] ** 2).sum(axis=1), 1)
    np.testing.assert_allclose(np.degrees(np.arcsin(coordinates[:, 4])), world.lat)


def test_absent_modalities_are_zeros_with_a_zero_flag_and_present_ones_standardised(world):
    world.features()
    matrices = load_representations(world.deployment({})).matrices
    for name, absent in {
        "imagery": np.arange(len(world.cells)) % 5 == 0,
        "mobility": np.arange(len(world.cells)) % 7 == 0,
    }.items():
        assert (matrices[name][absent] == 0).all()
        assert (matrices[name][~absent, -1] == 1).all()
        np.testing.assert_allclose(matrices[name][~absent, :-1].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(matrices[name][~absent, :-1].std(axis=0), 1, atol=1e-5)


def test_embeddings_of_another_encoder_are_refused(world):
    vectors = world.features()
    deployment = world.deployment({})
    good = world.store.read(TableRef("embeddings", "east"))
    world.embed(vectors, "an old encoder")
    with pytest.raises(FingerprintError, match=r"regions \['east', 'west'\]"):
        load_representations(deployment)
    world.store.write(TableRef("embeddings", "east"), good)
    with pytest.raises(FingerprintError, match=r"regions \['west'\].*materialise embeddings"):
        load_representations(deployment)


def test_missing_and_misfitting_tables_are_errors(world):
    world.features()
    deployment = world.deployment({})
    nodes = {
        "cell": pa.array(world.cells[:3]),
        "vector": vector_column(np.ones((3, 4), np.float32)),
        "degree": np.ones(3),
    }
    world.store.write(TableRef("node_embeddings"), pa.table(nodes))
    with pytest.raises(ContractError, match="node_embeddings has other cells"):
        load_representations(deployment)
    world.store.fs.rm(world.store.path(TableRef("embeddings", "west")))
    with pytest.raises(MissingTableError, match=r"embeddings\[west\]"):
        load_representations(deployment)


def test_principal_components_equal_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(60, 3)) @ rng.normal(size=(3, 9)) + 0.01 * rng.normal(size=(60, 9)) + 4).astype(
        np.float32
    )
    found = principal_components(matrix, 5)
    u, s, _ = np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u * s)[:, :5], atol=1e-4)
    assert principal_components(matrix[:4], 128).shape == (4, 4)
    np.testing.assert_array_equal(found, principal_components(matrix, 5))
