"""Tensors in tables: one image a row, as fixed-size bytes that know their element type and shape.

Belongs here: the Arrow type of such a column, making one and reading it. Does not belong here: which tables have one
(see `contracts`).

Parquet decodes bytes some 30 times as fast as lists of numbers (3,000 against 80 images of 224 x 224 x 3 a second on
one core), which would take as long as an image encoder. Programs that do not know the type see fixed-size binary: the
values in C order, little-endian; the field's metadata state element type and shape as JSON.
"""

import json
import math
from typing import Any, cast

import numpy as np
import pyarrow as pa

_NAME = "mobclip.tensor"


class TensorType(pa.ExtensionType):
    """Arrow type of tensors of one element type and shape, stored as fixed-size binary.

    Args:
        dtype: Element type; bytes are little-endian.
        shape: Shape of one tensor.
    """

    def __init__(self, dtype: Any, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = np.dtype(dtype).newbyteorder("<"), tuple(int(length) for length in shape)
        super().__init__(pa.binary(self.dtype.itemsize * math.prod(self.shape)), _NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return json.dumps({"dtype": self.dtype.name, "shape": self.shape}).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "TensorType":
        stated = json.loads(serialized)
        return cls(stated["dtype"], tuple(stated["shape"]))


pa.register_extension_type(TensorType("uint8", (1,)))


def tensor_column(tensors: np.ndarray) -> pa.Array:
    """Tensors as an Arrow column of `TensorType`, without copying the values.

    Args:
        tensors: Shape (n, ...), of any numeric type.
    """
    kind = TensorType(tensors.dtype, tensors.shape[1:])
    values = np.ascontiguousarray(tensors, dtype=kind.dtype)
    storage = pa.FixedSizeBinaryArray.from_buffers(kind.storage_type, len(values), [None, pa.py_buffer(values)])
    return pa.ExtensionArray.from_storage(kind, storage)


def tensors_of(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The inverse of `tensor_column`: shape (n, ...); a view, where the column is one chunk."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    count = math.prod(kind.shape)
    values = np.frombuffer(array.storage.buffers()[1] or b"", dtype=kind.dtype)
    start = array.offset * count
    return cast(np.ndarray, values[start : start + len(array) * count].reshape(len(array), *kind.shape))
