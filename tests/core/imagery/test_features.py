import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MobclipError
from mobclip_core.imagery import features as features_module
from mobclip_core.imagery.features import RandomConvolutionalEncoder, fill_invalid, zca_whitening


def smooth_patches(n=40, bands=3, side=12, seed=0):
    """Patches with correlated neighbours and bands, as images have."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, 1, side, side)) + 0.3 * rng.normal(size=(n, bands, side, side))
    noise += np.roll(noise, 1, axis=2) + np.roll(noise, 1, axis=3)
    return np.clip(100 + 20 * noise, 0, 255).astype(np.uint8)


def fitted(patches, **changes):
    options = {"features": 16, "filter_pixels": 3, "bias": 0.5, "seed": 1}
    return RandomConvolutionalEncoder.fit(patches, **options | changes)


def test_whitening_gives_the_identity_covariance():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(5000, 6)) @ rng.normal(size=(6, 6)) + 3
    mean, whitening = zca_whitening(samples, 0.0)
    white = (samples - mean) @ whitening
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(6), atol=1e-6)
    np.testing.assert_allclose(whitening, whitening.T, atol=1e-9)


def test_regularised_whitening_damps_small_directions_by_the_formula():
    samples = np.random.default_rng(0).normal(size=(20_000, 3)) * np.array([10.0, 1.0, 0.01])
    mean, whitening = zca_whitening(samples, 0.1)
    covariance = np.cov(samples.T, bias=True)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    expected = vectors @ np.diag((eigenvalues + 0.1 * eigenvalues.mean()) ** -0.5) @ vectors.T
    np.testing.assert_allclose(whitening, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(mean, samples.mean(axis=0))


def test_features_equal_a_float64_reference_on_windows():
    patches = smooth_patches()
    encoder = fitted(patches)
    normal = (patches - patches.mean(axis=(0, 2, 3))[:, None, None]) / patches.std(axis=(0, 2, 3))[:, None, None]
    windows = np.lib.stride_tricks.sliding_window_view(normal, (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    flat = windows.reshape(-1, 27)
    mean, whitening = zca_whitening(flat, 1e-3)
    drawn = np.random.default_rng(1).choice(len(flat), 8, replace=False)
    filters = (flat[drawn] - mean) @ whitening
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    response = ((flat - mean) @ whitening @ filters.T).reshape(len(patches), -1, 8)
    expected = np.concatenate(
        [np.maximum(response - 0.5, 0).mean(axis=1), np.maximum(-response - 0.5, 0).mean(axis=1)], axis=1
    )
    found = encoder.encode(patches)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_responses_have_unit_variance_over_the_sample():
    patches = smooth_patches(200)
    encoder = fitted(patches, bias=0.0, features=64)
    found = encoder.encode(patches)
    # without a bias the sum of both parts is the mean absolute response: about 0.8 for a unit normal
    assert (found[:, :32] + found[:, 32:]).mean() == pytest.approx(0.8, abs=0.1)


def test_encoding_does_not_depend_on_the_batch(monkeypatch):
    patches = smooth_patches()
    encoder = fitted(patches)
    whole = encoder.encode(patches)
    monkeypatch.setitem(features_module._ACTIVATIONS_AT_A_TIME, "cpu", 1)
    np.testing.assert_allclose(encoder.encode(patches), whole, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(patches[::-1]), whole[::-1], atol=1e-6)


def test_same_sample_and_seed_give_the_same_encoder():
    patches = smooth_patches()
    first, second = fitted(patches), fitted(patches)
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first.encode(patches), second.encode(patches))


@pytest.mark.parametrize(
    "changes", [{"seed": 2}, {"bias": 0.25}, {"filter_pixels": 2}, {"features": 18}, {"regularisation": 0.1}]
)
def test_fingerprint_changes_with_what_decides_the_vectors(changes):
    patches = smooth_patches()
    assert fitted(patches, **changes).fingerprint != fitted(patches).fingerprint


def test_fingerprint_changes_with_the_images():
    assert fitted(smooth_patches(seed=1)).fingerprint != fitted(smooth_patches()).fingerprint


def test_save_and_load(tmp_path):
    patches = smooth_patches()
    encoder = fitted(patches)
    encoder.save(tmp_path)
    loaded = RandomConvolutionalEncoder.load(tmp_path)
    assert loaded.fingerprint == encoder.fingerprint
    assert loaded.dimensions == encoder.dimensions == 16
    np.testing.assert_array_equal(loaded.encode(patches), encoder.encode(patches))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "filters.safetensors"]


@settings(max_examples=15, deadline=None)
@given(n=st.integers(10, 14), bands=st.integers(1, 4), side=st.integers(4, 9), value=st.integers(0, 255))
def test_images_of_one_colour_give_finite_features(n, bands, side, value):
    patches = np.full((n, bands, side, side), value, np.uint8)
    found = fitted(patches).encode(patches)
    assert found.shape == (n, 16)
    assert np.isfinite(found).all()


def test_more_filters_than_windows():
    encoder = fitted(smooth_patches(n=10, side=4), features=512)
    assert encoder.dimensions == 512


def test_many_windows_are_sampled(monkeypatch):
    monkeypatch.setattr(features_module, "_WHITENING_SAMPLES", 300)
    patches = smooth_patches()
    assert fitted(patches).fingerprint == fitted(patches).fingerprint
    assert features_module._sample_windows(patches, 3, np.random.default_rng(0)).shape == (300, 3, 3, 3)


def test_filters_larger_than_patches():
    with pytest.raises(MobclipError, match=r"filter_pixels is 5, larger than the patches \(4 pixels\)"):
        fitted(smooth_patches(side=4), filter_pixels=5)


def test_other_bands_than_fitted():
    with pytest.raises(MobclipError, match="fitted to 3 bands, the patches have 1"):
        fitted(smooth_patches()).encode(smooth_patches(bands=1))


def test_no_patches():
    assert fitted(smooth_patches()).encode(np.empty((0, 3, 12, 12), np.uint8)).shape == (0, 16)


def test_fill_invalid_takes_the_mean_of_the_patchs_own_data():
    patches = np.zeros((3, 2, 2, 2), np.uint8)
    patches[0] = 9
    patches[1, 0, 0] = [10, 20]
    patches[1, 1, 0] = [1, 4]
    filled = fill_invalid(patches, np.array([1.0, 0.5, 0.0]))
    np.testing.assert_array_equal(filled[0], patches[0])
    np.testing.assert_array_equal(filled[1], [[[10, 20], [15, 15]], [[1, 4], [2, 2]]])
    assert not filled[2].any()
    assert filled.dtype == np.uint8
    assert not patches[1, :, 1].any()
    whole = patches[:1]
    assert fill_invalid(whole, np.array([1.0])) is whole
