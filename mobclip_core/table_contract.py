"""The definition of a table, and the check of a table against it.

Belongs here: `TableContract` and what it is made of. Does not belong here: the tables of the lake (see `contracts`),
tables that come in batches (see `contract_batches`), distributions (see `quality`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.errors import ContractError
from mobclip_core.tensors import TensorType, tensors_of


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: Column name, with its unit as a suffix where it has one.
        type: Arrow type. `pa.list_(T)` with `vector=True` stands for a fixed-size list of T of any one length.
        description: What the value means.
        unit: Unit in words, if any.
        minimum: Smallest value allowed (elements of vectors included).
        maximum: Largest value allowed.
        nullable: Whether nulls are allowed. NaN counts as null in float columns.
        vector: Whether the column holds vectors of one common length.
        tensors: Element types that a column of tensors of one common shape (`tensors.TensorType`) may hold.
    """

    name: str
    type: pa.DataType
    description: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    nullable: bool = False
    vector: bool = False
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Violation:
    """One broken rule: the column, what is wrong, and the first rows concerned."""

    column: str
    problem: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" (first rows: {', '.join(map(str, self.rows))})" if self.rows else ""
        return f"{self.column}: {self.problem}{where}"


def _first_rows(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask)[:5])


@dataclass(frozen=True)
class TableContract:
    """The definition of one table.

    Args:
        name: Name of asset, directory, view and table alike.
        description: What one row is.
        columns: The columns, in order.
        keys: Columns that together identify a row. Rows are sorted by them.
        partitioned: Whether the table is partitioned by region.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    partitioned: bool = True
    _by_name: dict[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {column.name: column for column in self.columns})

    def schema(self) -> pa.Schema:
        """The Arrow schema; vector columns appear with variable-size list types."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

    def violations(self, table: pa.Table) -> list[Violation]:
        """Every broken rule in a table; an empty list means that the table keeps its contract."""
        found: list[Violation] = []
        for column in self.columns:
            if column.name not in table.column_names:
                found.append(Violation(column.name, f"missing; the table has {table.column_names}"))
                continue
            found += _column_violations(column, table.column(column.name).combine_chunks())
        unknown = [name for name in table.column_names if name not in self._by_name]
        found += [Violation(name, "not in the contract") for name in unknown]
        if not found and table.num_rows:
            found += self._key_violations(table)
        return found

    def _key_violations(self, table: pa.Table) -> list[Violation]:
        keys = table.select(list(self.keys))
        name = ", ".join(self.keys)
        order = pc.sort_indices(keys, sort_keys=[(k, "ascending") for k in self.keys]).to_numpy()
        found = []
        displaced = order != np.arange(len(order))
        if displaced.any():
            found.append(Violation(name, "rows are not sorted by the key", _first_rows(displaced)))
        ordered = keys.take(pa.array(order))
        same = np.ones(len(order) - 1, dtype=bool)
        for key in self.keys:
            values = ordered.column(key).combine_chunks()
            same &= pc.equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
        if same.any():
            found.append(
                Violation(
                    name,
                    f"{int(same.sum())} duplicate keys",
                    tuple(int(order[i + 1]) for i in np.flatnonzero(same)[:5]),
                )
            )
        return found

    def validate(self, table: pa.Table, where: str) -> None:
        """Raise if the table breaks the contract.

        Args:
            table: The table to check.
            where: Name of the partition or file, for the message.

        Raises:
            ContractError: Naming the table, the place and every violation with its first rows.
        """
        self.require_none(self.violations(table), where)

    def require_none(self, found: Sequence[Violation], where: str) -> None:
        """Raise a `ContractError` that names the table, the place and every violation, if there is one."""
        if found:
            lines = "".join(f"\n  - {violation}" for violation in found)
            raise ContractError(f"{self.name} ({where}) breaks its contract:{lines}")


def _column_violations(column: Column, array: pa.Array) -> list[Violation]:
    if column.tensors:
        return _tensor_violations(column, array)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if column.vector:
        if not pa.types.is_fixed_size_list(array.type):
            return [Violation(column.name, f"is {array.type}, expected a fixed-size list of {column.type.value_type}")]
        if array.type.value_type != column.type.value_type:
            return [Violation(column.name, f"holds {array.type.value_type}, expected {column.type.value_type}")]
    elif array.type != column.type:
        return [Violation(column.name, f"is {array.type}, expected {column.type}")]
    found = []
    if array.null_count and not column.nullable:
        found.append(
            Violation(column.name, f"{array.null_count} nulls", _first_rows(pc.is_null(array).to_numpy(False)))
        )
    values, width = array, 1
    if column.vector:
        values, width = array.flatten(), array.type.list_size
        if array.null_count and len(values) != len(array) * width:
            return found
    if len(values) and (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        found += _range_violations(column, values, max(width, 1))
    return found


def _tensor_violations(column: Column, array: pa.Array) -> list[Violation]:
    expected = " or ".join(column.tensors)
    if not isinstance(array.type, TensorType):
        return [Violation(column.name, f"is {array.type}, expected tensors of {expected}")]
    if array.type.dtype.name not in column.tensors:
        return [Violation(column.name, f"holds {array.type.dtype.name}, expected {expected}")]
    if array.null_count:
        return [Violation(column.name, f"{array.null_count} nulls", _first_rows(pc.is_null(array).to_numpy(False)))]
    tensors = tensors_of(array)
    if tensors.dtype.kind != "f":
        return []
    wrong = ~np.isfinite(tensors).all(axis=tuple(range(1, tensors.ndim)))
    problem = f"{int(wrong.sum())} tensors with values that are not finite"
    return [Violation(column.name, problem, _first_rows(wrong))] if wrong.any() else []


def _range_violations(column: Column, values: pa.Array, width: int) -> list[Violation]:
    numbers = values.to_numpy(zero_copy_only=False)
    valid = ~pc.is_null(values).to_numpy(zero_copy_only=False)
    checks = []
    if pa.types.is_floating(values.type):
        wrong = np.isinf(numbers) if column.nullable else ~np.isfinite(numbers)
        checks.append(("values that are not finite", wrong))
    if column.minimum is not None:
        checks.append((f"values below {column.minimum}", numbers < column.minimum))
    if column.maximum is not None:
        checks.append((f"values above {column.maximum}", numbers > column.maximum))
    found = []
    for problem, mask in checks:
        wrong = mask & valid
        if wrong.any():
            rows = tuple(dict.fromkeys(int(i) // width for i in np.flatnonzero(wrong)[:50]))[:5]
            found.append(Violation(column.name, f"{int(wrong.sum())} {problem}", rows))
    return found
