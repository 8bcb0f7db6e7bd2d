"""Vector columns and principal axes."""

import numpy as np

from mobclip_core.vectors import matrix_of, principal_axes, vector_column


def test_a_matrix_comes_back_from_its_column():
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.array_equal(matrix_of(vector_column(matrix)), matrix)


def test_the_axes_of_a_stretched_square_by_hand():
    # 3 times as far along (3, 4) / 5 as across it; the longer side says 9 / 10
    along, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    corners = np.array([3 * a * along + b * across for a in (-1, 1) for b in (-1, 1)]) + 7
    axes, shares = principal_axes(corners, corners.mean(axis=0))
    np.testing.assert_allclose(axes, np.column_stack([along, -across]), atol=1e-12)
    np.testing.assert_allclose(shares, [0.9, 0.1])


def test_vectors_in_the_origin_have_no_spread():
    axes, shares = principal_axes(np.zeros((3, 2)), 0.0)
    assert np.array_equal(shares, [0, 0])
    np.testing.assert_allclose(axes @ axes.T, np.eye(2))
