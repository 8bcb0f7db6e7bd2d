import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.errors import ContractError
from mobclip_core.row_groups import RowGroupWriter


def written(path, batches, rows, **more):
    with RowGroupWriter(path, rows, **more) as writer:
        for batch in batches:
            writer.write(batch)
    return path.read_bytes()


def numbers(*values):
    return pa.table({"x": pa.array(values, pa.int64())})


@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=6), st.integers(1, 7))
def test_bytes_depend_on_the_rows_and_not_on_the_batches(tmp_path_factory, batches, rows):
    folder = tmp_path_factory.mktemp("groups")
    flat = [value for batch in batches for value in batch]
    content = written(folder / "cut", [numbers(*batch) for batch in batches], rows)
    assert content == written(folder / "whole", [numbers(*flat)], rows)
    metadata = pq.ParquetFile(folder / "cut").metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == ([rows] * (len(flat) // rows) + ([len(flat) % rows] if len(flat) % rows else []) or [0])
    assert pq.read_table(folder / "cut")["x"].to_pylist() == flat


def test_each_group_is_checked_before_it_is_written(tmp_path):
    seen = []
    written(tmp_path / "a", [numbers(1, 2, 3), numbers(4, 5)], 2, check=lambda group: seen.append(group.num_rows))
    assert seen == [2, 2, 1]

    def refuse(group):
        raise ContractError("no")

    with pytest.raises(ContractError, match="no"):
        written(tmp_path / "b", [numbers(1, 2, 3)], 2, check=refuse)
    assert not (tmp_path / "b").exists()


def test_batches_of_other_columns_and_no_batch_at_all(tmp_path):
    with pytest.raises(ContractError, match="edges: one batch has the columns"):
        written(tmp_path / "a", [numbers(1), numbers(1).rename_columns(["y"])], 2, name="edges")
    with pytest.raises(ContractError, match="b: no batch was written, not even an empty one"):
        written(tmp_path / "b", [], 2)
