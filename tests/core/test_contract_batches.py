import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.contract_batches import BatchedCheck
from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import ContractError
from mobclip_core.tensors import tensor_column


def edges(pairs, weight=1.0):
    src, dst = (pa.array([pair[i] for pair in pairs], pa.uint64()) for i in (0, 1))
    return pa.table({"src": src, "dst": dst, "weight": [weight] * len(pairs), "people": [9.0] * len(pairs)})


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_batches_pass_where_the_whole_table_passes(pairs, cuts):
    table = edges(pairs)
    bounds = [0, *sorted(min(cut, len(pairs)) for cut in cuts), len(pairs)]
    check = BatchedCheck(CONTRACTS["mobility_edges"])
    found = [v for a, b in itertools.pairwise(bounds) for v in check.violations(table.slice(a, b - a))]
    assert bool(found) == bool(CONTRACTS["mobility_edges"].violations(table))
    assert check.rows == len(pairs)


def test_rows_are_numbered_over_all_batches():
    check = BatchedCheck(CONTRACTS["mobility_edges"])
    check.validate(edges([(1, 1), (1, 2)]), "36")
    with pytest.raises(ContractError, match=r"mobility_edges \(36\) breaks.*\n  - weight: 1 values below 0.*rows: 2"):
        check.validate(edges([(1, 3)], weight=-1.0), "36")
    assert [str(v) for v in check.violations(edges([(1, 3)]))] == ["src, dst: 1 duplicate keys (first rows: 3)"]
    assert [str(v) for v in check.violations(edges([(0, 9)]))] == [
        "src, dst: rows are not sorted by the key (first rows: 4)"
    ]


def test_tensors_of_the_contract():
    def found(patch):
        columns = {"cell": pa.array(range(len(patch)), pa.uint64()), "patch": patch}
        table = pa.table(columns | {"valid_fraction": [1.0] * len(patch)})
        return [str(v) for v in CONTRACTS["imagery_patches"].violations(table)]

    pixels = np.zeros((3, 1, 4, 4))
    assert found(tensor_column(pixels.astype(np.uint8))) == []
    assert found(tensor_column(pixels.astype(np.float32))) == []
    assert found(tensor_column(pixels)) == ["patch: holds float64, expected uint8 or float32"]
    pixels[1, 0, 0, 0], pixels[2, 0, 3, 3] = np.nan, np.inf
    assert found(tensor_column(pixels.astype(np.float32))) == [
        "patch: 2 tensors with values that are not finite (first rows: 1, 2)"
    ]
    assert found(pa.array([b"1", b"2"])) == ["patch: is binary, expected tensors of uint8 or float32"]
    kind = tensor_column(pixels).type
    nulls = pa.ExtensionArray.from_storage(kind, pa.array([None, b"\0" * 128], pa.binary(128)))
    assert found(nulls) == ["patch: holds float64, expected uint8 or float32"]
    kind = tensor_column(np.zeros((1, 1, 4, 4), np.uint8)).type
    nulls = pa.ExtensionArray.from_storage(kind, pa.array([None, b"\0" * 16], pa.binary(16)))
    assert found(nulls) == ["patch: 1 nulls (first rows: 0)"]
