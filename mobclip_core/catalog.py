"""The catalog: one DuckDB file of views over the lake.

Belongs here: writing that file. Does not belong here: putting it in place (see `store`) and letting one step write at a
time (the orchestration does).
"""

from typing import TYPE_CHECKING

from mobclip_core.contracts import CONTRACTS, TableContract
from mobclip_core.sources.tables import quote
from mobclip_core.sql import sql_text
from mobclip_core.store import Store, TableRef

if TYPE_CHECKING:
    import duckdb


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _files(store: Store, contract: TableContract) -> str | None:
    """The pattern that names a table's files, or None where nothing is materialised."""
    if not contract.partitioned:
        ref = TableRef(contract.name)
        return store.external(store.path(ref)) if store.exists(ref) else None
    if not store.regions(contract.name):
        return None
    return store.external(f"{store.root}/{contract.name}/region=*/part.parquet")


def write_catalog(connection: "duckdb.DuckDBPyConnection", store: Store) -> dict[str, int]:
    """Create a commented view for every table that is there.

    Views name the files of the lake by absolute path, so the catalog works where the lake is reachable under it.

    Args:
        connection: An open, empty DuckDB file.
        store: The lake.

    Returns:
        Rows of each view.
    """
    rows = {}
    for contract in CONTRACTS.values():
        files = _files(store, contract)
        if files is None:
            continue
        view = quote(contract.name)
        connection.execute(
            sql_text("catalog_view").format(
                view=view, files=_literal(files), partitioned=str(contract.partitioned).lower()
            )
        )
        connection.execute(f"COMMENT ON VIEW {view} IS {_literal(contract.description)}")
        for column in contract.columns:
            unit = f" ({column.unit})" if column.unit else ""
            connection.execute(
                f"COMMENT ON COLUMN {view}.{quote(column.name)} IS {_literal(column.description + unit)}"
            )
        counted = connection.execute(f"SELECT count(*) FROM {view}").fetchone()  # noqa: S608 - quoted above
        rows[contract.name] = int(counted[0]) if counted else 0
    return rows
