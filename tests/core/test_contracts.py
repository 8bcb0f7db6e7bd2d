import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import ContractError
from mobclip_core.table_contract import Column, TableContract
from mobclip_core.tensors import tensor_column
from mobclip_core.vectors import matrix_of, vector_column

CONTRACT = TableContract(
    "things",
    "One thing.",
    (
        Column("key", pa.string(), "identifier"),
        Column("part", pa.int64(), "part of it", minimum=0),
        Column("size_m", pa.float64(), "its size", "m", minimum=0.0, maximum=10.0),
        Column("note", pa.float32(), "may be missing", nullable=True),
        Column("vector", pa.list_(pa.float32()), "a vector", vector=True, minimum=-1.0),
    ),
    ("key", "part"),
)


def good(**changes):
    columns = {
        "key": pa.array(["a", "a", "b"]),
        "part": pa.array([1, 2, 1], pa.int64()),
        "size_m": pa.array([0.0, 10.0, 5.0]),
        "note": pa.array([1.0, None, math.nan], pa.float32()),
        "vector": vector_column(np.zeros((3, 2), dtype=np.float32)),
    }
    return pa.table(columns | changes)


def problems(table):
    return [str(violation) for violation in CONTRACT.violations(table)]


def test_a_good_table_has_no_violations():
    assert problems(good()) == []
    CONTRACT.validate(good(), "here")
    CONTRACT.validate(good().slice(0, 0), "empty")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"part": pa.array([1, 2, 1], pa.int32())}, "part: is int32, expected int64"),
        ({"size_m": pa.array([0.0, None, 1.0])}, "size_m: 1 nulls (first rows: 1)"),
        ({"size_m": pa.array([0.0, 1.0, math.nan])}, "size_m: 1 values that are not finite (first rows: 2)"),
        ({"size_m": pa.array([-1.0, 1.0, -2.0])}, "size_m: 2 values below 0.0 (first rows: 0, 2)"),
        ({"size_m": pa.array([1.0, 10.5, 1.0])}, "size_m: 1 values above 10.0 (first rows: 1)"),
        ({"part": pa.array([-1, 2, 1], pa.int64())}, "part: 1 values below 0 (first rows: 0)"),
        ({"note": pa.array([1.0, math.inf, None], pa.float32())}, "note: 1 values that are not finite (first rows: 1)"),
        ({"extra": pa.array([1, 2, 3])}, "extra: not in the contract"),
        ({"vector": pa.array([[0.0], [0.0], [0.0]], pa.list_(pa.float32()))}, "vector: is list<"),
        ({"vector": vector_column(np.zeros((3, 2)))}, "vector: holds double, expected float"),
        ({"key": pa.array(["b", "a", "a"])}, "key, part: rows are not sorted by the key (first rows: 0, 2)"),
        ({"part": pa.array([1, 1, 1], pa.int64())}, "key, part: 1 duplicate keys (first rows: 1)"),
    ],
)
def test_each_broken_rule_is_named_with_its_rows(changes, expected):
    table = good()
    for name, column in changes.items():
        index = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, column) if index is None else table.set_column(index, name, column)
    (found,) = problems(table)
    assert found.startswith(expected)


def test_offending_elements_of_a_vector_give_their_rows():
    matrix = np.zeros((3, 2), dtype=np.float32)
    matrix[1] = -5
    matrix[2, 1] = np.nan
    found = problems(good(vector=vector_column(matrix)))
    assert found == [
        "vector: 1 values that are not finite (first rows: 2)",
        "vector: 2 values below -1.0 (first rows: 1)",
    ]


def test_null_vectors_are_reported_without_reading_their_values():
    array = pa.array([[1.0, 1.0], None, [1.0, 1.0]], pa.list_(pa.float32(), 2))
    assert problems(good(vector=array)) == ["vector: 1 nulls (first rows: 1)"]


def test_a_sliced_table_is_judged_by_its_own_rows():
    bad = good(size_m=pa.array([-1.0, 1.0, 1.0]))
    assert problems(bad.slice(1)) == []
    matrix = np.array([[-9, 0], [0, 0], [0, 0]], dtype=np.float32)
    assert problems(good(vector=vector_column(matrix)).slice(1)) == []


def test_a_missing_column_and_the_message_as_a_whole():
    with pytest.raises(ContractError) as caught:
        CONTRACT.validate(good().drop(["part"]), "region 36")
    assert str(caught.value).startswith("things (region 36) breaks its contract:\n  - part: missing; the table has")


def test_schema_says_what_the_contract_says():
    assert CONTRACT.schema().field("note").nullable
    assert not CONTRACT.schema().field("size_m").nullable


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=str)
def test_every_contract_is_sound(contract):
    names = [column.name for column in contract.columns]
    assert len(set(names)) == len(names)
    assert set(contract.keys) <= set(names)
    assert contract.name in CONTRACTS
    assert all(column.description for column in contract.columns)
    empty = contract.schema().empty_table()
    for column in contract.columns:
        if column.vector:
            index = names.index(column.name)
            empty = empty.set_column(index, column.name, pa.array([], pa.list_(column.type.value_type, 4)))
        if column.tensors:
            tensors = tensor_column(np.zeros((0, 3, 4, 4), column.tensors[0]))
            empty = empty.set_column(names.index(column.name), column.name, tensors)
    assert contract.violations(empty) == []


@given(st.integers(0, 5), st.integers(1, 5), st.sampled_from([np.float32, np.float64, np.int64]))
def test_vectors_come_back_as_they_went_in(rows, width, dtype):
    matrix = np.arange(rows * width, dtype=dtype).reshape(rows, width)
    column = vector_column(matrix)
    assert matrix_of(column).dtype == dtype
    np.testing.assert_array_equal(matrix_of(column), matrix)
    np.testing.assert_array_equal(matrix_of(pa.chunked_array([column, column])), np.vstack([matrix, matrix]))


def test_vectors_of_slices_transposes_and_tensors():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(matrix_of(vector_column(matrix)[1:]), matrix[1:])
    np.testing.assert_array_equal(matrix_of(vector_column(matrix.T)), matrix.T)
    tensor = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 2)), vector_column(matrix))
    np.testing.assert_array_equal(matrix_of(tensor), matrix)
    assert problems(good(vector=tensor)) == []
