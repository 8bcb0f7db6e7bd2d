"""Vectors in tables: one vector a row, as fixed-size lists; their principal axes.

Belongs here: making such a column and reading it; the axes along which vectors differ most. Does not belong here:
tensors of more dimensions (see `tensors`), which tables have one (see `contracts`).
"""

import numpy as np
import pyarrow as pa


def vector_column(matrix: np.ndarray) -> pa.Array:
    """A matrix as an Arrow column of fixed-size lists.

    Args:
        matrix: Shape (rows, width), any numeric type.

    Returns:
        Fixed-size list array of length `rows`, without copying the values.
    """
    matrix = np.ascontiguousarray(matrix)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def matrix_of(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The matrix in a column of fixed-size lists: the inverse of `vector_column`.

    Returns:
        Shape (rows, width).
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    matrix: np.ndarray = array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
    return matrix


def principal_axes(vectors: np.ndarray, origin: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """The axes along which vectors lie farthest from an origin: principal axes, where that is their mean.

    Args:
        vectors: Shape (n, d).
        origin: Shape (d,), or a number for all dimensions.

    Returns:
        Axes as columns, float64 (d, d), the most spread first, each with a positive largest entry; and the share of the
        squared distances from the origin along each, float64 (d,), zeros where all vectors lie in it.
    """
    centred = np.asarray(vectors, dtype=np.float64) - origin
    spread, axes = np.linalg.eigh(centred.T @ centred)
    spread, axes = np.maximum(spread[::-1], 0.0), axes[:, ::-1]
    return signed(axes), spread / max(float(spread.sum()), np.finfo(np.float64).tiny)


def signed(directions: np.ndarray) -> np.ndarray:
    """The same directions, the largest entry of each above zero: an eigenvector's sign means nothing."""
    largest = np.abs(directions).argmax(axis=0) if len(directions) else np.zeros(0, dtype=np.int64)
    return np.asarray(directions * np.where(directions[largest, np.arange(directions.shape[1])] < 0, -1, 1))
