"""Vectors in tables: one vector a row, as fixed-size lists.

Belongs here: making such a column and reading it. Does not belong here: tensors of more dimensions (see `tensors`),
which tables have one (see `contracts`).
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
