import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.profile import HashedNgramsConfig
from mobclip_core.store import Store
from mobclip_core.text import HashedNgramEncoder, make_text_encoder, normalise, projection_signs


def test_one_row_of_length_one_for_every_string():
    vectors = HashedNgramEncoder(64).encode(["shop: Corner Store", "bank", ""])
    assert vectors.shape == (3, 64)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0], atol=1e-6)


def test_no_strings_give_no_rows():
    assert HashedNgramEncoder(16).encode([]).shape == (0, 16)


@pytest.mark.parametrize("dimensions", [8, 64, 100, 130])
def test_any_number_of_dimensions(dimensions):
    vectors = HashedNgramEncoder(dimensions).encode(["grocery: Smith & Sons"])
    assert vectors.shape == (1, dimensions)
    assert np.count_nonzero(vectors) > dimensions / 2


def test_similar_spellings_are_nearer_than_different_words():
    a, b, c = HashedNgramEncoder(256).encode(["pharmacy: Main Street", "pharmacy: Main St", "hotel: Grand Plaza"])
    assert a @ b > 0.5
    assert a @ b > a @ c + 0.3


def test_spellings_that_mean_the_same_are_the_same_string():
    assert normalise("  CAFÉ\u00a0 Noir\n") == normalise("café noir")
    encoder = HashedNgramEncoder(32)
    np.testing.assert_array_equal(encoder.encode(["Shop:  A"]), encoder.encode(["shop: a"]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6), st.data())
def test_a_string_has_one_vector_whatever_stands_beside_it(strings, data):
    encoder = HashedNgramEncoder(16, seed=3)
    i = data.draw(st.integers(0, len(strings) - 1))
    np.testing.assert_allclose(encoder.encode(strings)[i], encoder.encode([strings[i]])[0], atol=1e-6)


def test_projection_signs_are_balanced_and_differ_by_block_seed_and_feature():
    features = np.arange(4000)
    signs = projection_signs(features, 0, seed=0)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    # 256,000 fair signs: the mean has a standard deviation of 0.002, of a column 0.016
    assert abs(signs.mean()) < 0.01
    assert np.abs(signs.mean(axis=0)).max() < 0.08
    for other in (
        projection_signs(features, 1, 0),
        projection_signs(features, 0, 1),
        projection_signs(features + 1, 0, 0),
    ):
        assert abs((signs * other).mean()) < 0.01
    np.testing.assert_array_equal(projection_signs(features[[7, 3]], 0, 0), signs[[7, 3]])


def test_projection_signs_are_the_same_on_every_machine():
    # golden values: the first bits of splitmix64, computed with Python's own integers
    def mix(x):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    seed, block, feature = 5, 2, 11
    state = mix((mix((seed + golden) % 2**64) + block * golden) % 2**64)
    bits = mix((state + (feature + 1) * golden) % 2**64).to_bytes(8, "little")
    expected = [1.0 if byte >> (7 - i) & 1 else -1.0 for byte in bits for i in range(8)]
    assert projection_signs(np.array([feature]), block, seed)[0].tolist() == expected


def test_projection_keeps_inner_products():
    encoder = HashedNgramEncoder(4096)
    vectors = encoder.encode(["bakery: Rose", "bakery: Roses"])
    hashed = encoder._vectorizer.transform(["bakery: Rose", "bakery: Roses"]).toarray()
    hashed /= np.linalg.norm(hashed, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] == pytest.approx(hashed[0] @ hashed[1], abs=0.06)


def test_fingerprint_names_dimensions_and_seed(tmp_path):
    encoder = make_text_encoder(HashedNgramsConfig(dimensions=16, seed=1), Store(str(tmp_path)))
    assert encoder.dimensions == 16
    assert encoder.fingerprint == HashedNgramEncoder(16, 1).fingerprint
    others = {HashedNgramEncoder(16, 2).fingerprint, HashedNgramEncoder(17, 1).fingerprint}
    assert encoder.fingerprint not in others
    assert len(others) == 2
