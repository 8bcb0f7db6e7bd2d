"""A contract kept by a table that comes in batches, so that none is ever whole in memory.

Belongs here: carrying on a check from one batch to the next. Does not belong here: the rules (see `contracts`).
"""

import dataclasses

import pyarrow as pa

from mobclip_core.table_contract import TableContract, Violation


class BatchedCheck:
    """Checks the batches of one table, in order; rows are numbered over all of them.

    Args:
        contract: The table's contract.
    """

    def __init__(self, contract: TableContract) -> None:
        self.contract = contract
        self.rows = 0
        self._last: tuple[object, ...] | None = None

    def violations(self, batch: pa.Table) -> list[Violation]:
        """Every broken rule in the next batch, that of its place after the batches before included."""
        start = self.rows
        found = [
            dataclasses.replace(violation, rows=tuple(start + row for row in violation.rows))
            for violation in self.contract.violations(batch)
        ]
        keys = self.contract.keys
        if batch.num_rows and set(keys) <= set(batch.column_names):
            first, last = (tuple(batch.column(key)[row].as_py() for key in keys) for row in (0, batch.num_rows - 1))
            if self._last is not None and first <= self._last:
                problem = "1 duplicate keys" if first == self._last else "rows are not sorted by the key"
                found.append(Violation(", ".join(keys), problem, (start,)))
            self._last = last
        self.rows += batch.num_rows
        return found

    def validate(self, batch: pa.Table, where: str) -> None:
        """Raise if the next batch breaks the contract.

        Args:
            batch: The batch.
            where: Name of the partition or file, for the message.

        Raises:
            ContractError: Naming the table, the place and every violation with its first rows.
        """
        self.contract.require_none(self.violations(batch), where)
