"""A glance at a table for people: its first rows as Markdown.

Belongs here: shortening values so that a row fits on a screen. Does not belong here: pictures (see `plots`).
"""

from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from mobclip_core.store import Store, TableRef

_SHOWN_VALUES = 3
_SHOWN_CHARACTERS = 40


def _shorten(value: Any) -> str:
    if isinstance(value, list):
        head = ", ".join(_shorten(item) for item in value[:_SHOWN_VALUES])
        return f"[{head}, ... {len(value)}]" if len(value) > _SHOWN_VALUES else f"[{head}]"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:12]}..."
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return str(value)


def _cell_name(column: str, value: Any) -> str:
    return f"{value:x}" if column in ("cell", "src", "dst") else _shorten(value)


def first_rows(store: Store, ref: TableRef, rows: int = 5) -> str:
    """The first rows of a table or partition as a Markdown table; H3 cells in their usual hexadecimal form."""
    with store.fs.open(store.path(ref), "rb") as file:
        parquet = pq.ParquetFile(file)
        names: Sequence[str] = parquet.schema_arrow.names
        batch = next(parquet.iter_batches(batch_size=rows), None)
        records = [] if batch is None else batch.to_pylist()
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell_name(name, record[name]) for name in names) + " |" for record in records]
    return "\n".join(lines)
