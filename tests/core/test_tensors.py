import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mobclip_core.tensors import TensorType, tensor_column, tensors_of


@given(
    st_numpy.arrays(
        st.sampled_from([np.uint8, np.float32]),
        st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
        elements=st.integers(0, 255),
    ),
    st.integers(0, 5),
)
def test_tensors_come_back_from_parquet_and_from_slices(tensors, cut):
    file = io.BytesIO()
    pq.write_table(pa.table({"image": tensor_column(tensors)}), file)
    column = pq.read_table(file)["image"]
    assert column.type == TensorType(tensors.dtype, tensors.shape[1:])
    np.testing.assert_array_equal(tensors_of(column), tensors)
    np.testing.assert_array_equal(tensors_of(column.slice(cut)), tensors[cut:])
    np.testing.assert_array_equal(tensors_of(tensor_column(tensors).slice(cut)), tensors[cut:])
    joined = pa.chunked_array([column.chunk(0), column.chunk(0)])
    np.testing.assert_array_equal(tensors_of(joined), np.concatenate([tensors, tensors]))


def test_programs_without_the_type_see_bytes_and_read_its_metadata():
    pixels = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    file = io.BytesIO()
    pq.write_table(pa.table({"image": tensor_column(pixels)}), file)
    assert pq.ParquetFile(file).schema.column(0).physical_type == "FIXED_LEN_BYTE_ARRAY"
    kind = tensor_column(pixels).type
    assert kind.__arrow_ext_serialize__() == b'{"dtype": "float32", "shape": [2, 3, 4]}'
    assert np.frombuffer(tensor_column(pixels).storage[0].as_py(), "<f4").tolist() == pixels.ravel().tolist()


def test_no_copy_of_one_chunk():
    pixels = np.zeros((3, 1, 2, 2), np.uint8)
    column = tensor_column(pixels)
    pixels[1] = 7
    assert (tensors_of(column)[1] == 7).all()
