import numpy as np
import pytest
from scipy.special import sph_harm_y

from mobclip_core.sphere import spherical_harmonics, unit_vectors


def test_harmonics_of_degree_one_are_the_coordinates_on_the_sphere():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 20), rng.uniform(-90, 90, 20)
    x, y, z = unit_vectors(lon, lat).T
    found = spherical_harmonics(lon, lat, 3)
    assert found.shape == (20, 9)
    np.testing.assert_allclose(found[:, 0], np.sqrt(1 / (4 * np.pi)), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1:4], np.sqrt(3 / (4 * np.pi)) * np.column_stack([y, z, x]), atol=1e-6)
    # degree 2 by hand: order -2 is 1/2 sqrt(15/pi) x y, order 0 is 1/4 sqrt(5/pi) (3 z^2 - 1)
    np.testing.assert_allclose(found[:, 4], np.sqrt(15 / np.pi) / 2 * x * y, atol=1e-6)
    np.testing.assert_allclose(found[:, 6], np.sqrt(5 / np.pi) / 4 * (3 * z**2 - 1), atol=1e-6)


def test_harmonics_are_orthonormal_over_the_sphere():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(200_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    lon, lat = np.degrees(np.arctan2(points[:, 1], points[:, 0])), np.degrees(np.arcsin(points[:, 2]))
    found = spherical_harmonics(lon, lat, 5).astype(float)
    np.testing.assert_allclose(found.T @ found / len(found) * 4 * np.pi, np.eye(25), atol=0.03)


def by_scipy(lon, lat, degrees):
    columns = []
    for degree in range(degrees):
        for order in range(-degree, degree + 1):
            wave = sph_harm_y(degree, abs(order), np.radians(90 - lat), np.radians(lon)) * (-1) ** order
            part = wave.real if order >= 0 else wave.imag
            columns.append(part * (np.sqrt(2) if order else 1))
    return np.column_stack(columns)


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-11), (np.float32, 1e-5)])
def test_harmonics_of_high_degree_are_those_of_scipy(dtype, error):
    rng = np.random.default_rng(2)
    lon, lat = rng.uniform(-180, 180, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    lon[:4], lat[:4] = [0, 180, -180, 90], [90, -90, 0, 0]
    wanted = by_scipy(lon, lat, 33)
    found = spherical_harmonics(lon, lat, 33, dtype)
    assert found.dtype == dtype
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < error
