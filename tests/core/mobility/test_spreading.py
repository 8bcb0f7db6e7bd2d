import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.mobility.spreading import MOST_FILES, Spreader


def batch(values):
    return pa.RecordBatch.from_pydict({"value": pa.array(values, pa.int64())})


def test_rows_are_read_back_by_number(tmp_path):
    with Spreader(tmp_path / "spread", 4) as spread:
        spread.add(batch([10, 11, 12, 13]), np.array([2, 0, 2, 3], dtype=np.uint16))
        spread.add(batch([14]), np.array([2], dtype=np.uint16))
    found = []
    for i in range(4):
        with spread.reading(i) as rows:
            found.append(None if rows is None else rows.read_all()["value"].to_pylist())
    assert found == [[11], None, [10, 12, 14], [13]]
    assert [spread.rows(i) for i in range(4)] == [1, 0, 3, 1]
    spread.forget(2)
    spread.forget(1)
    with spread.reading(2) as rows:
        assert rows is None


@pytest.mark.parametrize("number", [0, MOST_FILES + 1])
def test_the_number_of_files_is_bounded(tmp_path, number):
    with pytest.raises(ValueError, match="files asked for"):
        Spreader(tmp_path / "spread", number)
