"""A table in a few numbers, small enough to be kept for every materialisation.

Belongs here: reading a table in batches and summing each column up. Does not belong here: comparing (see `comparison`).

The numbers do not depend on the order of rows, nor on how they are cut into batches: sums are exact before they are
rounded, quantiles are values of the table. Of a column with more than 8 million numbers a sample is taken for the
quantiles and for vectors, by a hash of the cell, so that the same cells are in it every time.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.contracts import CELL
from mobclip_core.table_contract import Column, TableContract
from mobclip_core.tensors import TensorType, tensors_of
from mobclip_core.vectors import matrix_of

Statistics = dict[str, Any]
"""JSON object: version, rows, and columns by name, each with some of nulls, zeros, total, quantiles, sampled and, for
vectors, mean and deviation by group of dimensions."""

Reader = Callable[[Sequence[str]], Iterable[pa.Table]]
"""Gives a table's columns in batches."""

VERSION = 1
"""Of the summary: only summaries of one version are compared."""

STEPS = 40
"""Quantiles are the values at 0, 1/40, ..., 1."""

_LARGEST_SAMPLE = 2**23
_GROUPS = 128
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def table_statistics(contract: TableContract, read: Reader) -> Statistics:
    """Sum a table up.

    Args:
        contract: The table's contract.
        read: Reads columns of the table, in batches.
    """
    keys = [key for key in contract.keys if _is_cell(contract, key)]
    rows = sum(batch.num_rows for batch in read(contract.keys[:1]))
    columns = {column.name: _column(column, keys, rows, read) for column in contract.columns}
    return {"version": VERSION, "rows": rows, "columns": columns}


def _is_cell(contract: TableContract, key: str) -> bool:
    return any(column.name == key and column.type.equals(CELL) for column in contract.columns)


def _column(column: Column, keys: Sequence[str], rows: int, read: Reader) -> Statistics:
    if column.vector or column.tensors:
        return _vector(column, keys, rows, read)
    if column.type != CELL and (
        pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    ):
        return _scalar(column, keys, rows, read)
    return {"nulls": _share(sum(batch[column.name].null_count for batch in read([column.name])), rows)}


def _is_amount(column: Column) -> bool:
    """Whether the sum of a column means something: values from 0 without an upper end."""
    return column.minimum == 0 and column.maximum is None


def _scalar(column: Column, keys: Sequence[str], rows: int, read: Reader) -> Statistics:
    nulls = zeros = 0
    sample: list[np.ndarray] = []
    halvings = _halvings(rows, keys)
    for batch in read([column.name, *keys] if halvings else [column.name]):
        array = batch[column.name].combine_chunks().cast(pa.float64())
        values = array.to_numpy(zero_copy_only=False)
        known = pc.is_valid(array).to_numpy(zero_copy_only=False) & ~np.isnan(values)
        nulls += int(len(values) - known.sum())
        zeros += int((values[known] == 0).sum())
        sample.append(values[known & _chosen(batch, keys, halvings)])
    found: Statistics = {"nulls": _share(nulls, rows), "zeros": _share(zeros, rows)}
    if _is_amount(column):
        found["total"] = _rounded(_exact_sum(column.name, read))
    return found | {"quantiles": _quantiles(np.concatenate([*sample, np.empty(0)])), "sampled": 0.5**halvings}


def _exact_sum(name: str, read: Reader) -> float:
    values = (pc.drop_null(batch[name].cast(pa.float64())).to_numpy() for batch in read([name]))
    return math.fsum(itertools.chain.from_iterable(part[np.isfinite(part)].tolist() for part in values))


def _vector(column: Column, keys: Sequence[str], rows: int, read: Reader) -> Statistics:
    parts, orders, halvings = [], [], None
    for batch in read([column.name, *keys]):
        matrix = _matrix(batch[column.name])
        if halvings is None:
            halvings = _halvings(rows * matrix.shape[1], keys)
        chosen = _chosen(batch, keys, halvings)
        parts.append(matrix[chosen])
        orders.append(np.column_stack([np.zeros(chosen.sum(), np.uint64), *(_cells(batch, k)[chosen] for k in keys)]))
    if not parts or not (taken := sum(len(part) for part in parts)):
        return {"nulls": 0.0, "zeros": 0.0, "quantiles": [], "mean": [], "deviation": [], "sampled": 1.0}
    # sums of floats in the order of the key
    matrix = np.concatenate(parts)[np.lexsort(np.concatenate(orders).T)].astype(np.float64)
    finite = np.isfinite(matrix).all(axis=1)
    matrix = matrix[finite]
    found: Statistics = {
        "nulls": _share(taken - len(matrix), taken),
        "zeros": _share(int((matrix == 0).all(axis=1).sum()), taken),
    }
    if _is_amount(column):
        found["total"] = _rounded(math.fsum(matrix.sum(axis=1).tolist()) * 2.0 ** (halvings or 0))
    lengths = np.sqrt((matrix**2).sum(axis=1))
    return found | {
        "quantiles": _quantiles(lengths),
        "mean": _by_group(matrix.mean(axis=0)) if len(matrix) else [],
        "deviation": [_rounded(math.sqrt(v), 5) for v in _by_group(matrix.var(axis=0))] if len(matrix) else [],
        "sampled": 0.5 ** (halvings or 0),
    }


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Vectors as a matrix; a vector that is null has a row of NaN."""
    array = column.combine_chunks()
    if isinstance(array.type, TensorType):
        return tensors_of(array).reshape(len(array), math.prod(array.type.shape))
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    if not storage.null_count:
        return matrix_of(storage)
    matrix = np.full((len(storage), storage.type.list_size), np.nan)
    matrix[pc.is_valid(storage).to_numpy(zero_copy_only=False)] = matrix_of(storage.drop_null())
    return matrix


def _by_group(values: np.ndarray) -> list[float]:
    """Means of at most 128 groups of consecutive dimensions."""
    groups = np.array_split(values, min(_GROUPS, len(values)))
    return [_rounded(float(group.mean()), 5) for group in groups]


def _halvings(numbers: int, keys: Sequence[str]) -> int:
    """How often to halve a column so that it fits the sample; never where there is no cell to choose by."""
    return max(0, math.ceil(math.log2(numbers / _LARGEST_SAMPLE))) if keys and numbers > _LARGEST_SAMPLE else 0


def _chosen(batch: pa.Table, keys: Sequence[str], halvings: int) -> np.ndarray:
    """Rows of the sample: those whose hash (splitmix64, Steele et al. 2014) of the key's cells ends in zeros."""
    bits = np.zeros(batch.num_rows, dtype=np.uint64)
    if halvings:
        with np.errstate(over="ignore"):
            for key in keys:
                bits = bits + _cells(batch, key) + _GOLDEN
                bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                bits = bits ^ (bits >> np.uint64(31))
    return np.asarray((bits & np.uint64(2**halvings - 1)) == 0)


def _cells(batch: pa.Table, key: str) -> np.ndarray:
    return np.asarray(batch[key].to_numpy())


def _quantiles(values: np.ndarray) -> list[float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return []
    places = np.maximum(np.ceil(np.arange(STEPS + 1) / STEPS * len(values)).astype(np.int64) - 1, 0)
    ordered = np.partition(values, np.unique(places))
    return [_rounded(float(ordered[place]), 7) for place in places]


def _share(part: int, whole: int) -> float:
    return _rounded(part / whole) if whole else 0.0


def _rounded(value: float, digits: int = 9) -> float:
    return float(f"{value:.{digits}g}")
