"""Published schemas: what the columns of a publisher's files are, and views over files that have them.

Belongs here: stating a published schema, and the error that says where a file departs from it. Does not belong here:
any particular schema (see `overture`, `foursquare`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from mobclip_core.errors import SourceError
from mobclip_core.sources.tables import open_files, quote


@dataclass(frozen=True)
class PublishedColumn:
    """A column, or a field inside one, of a published schema.

    Args:
        path: Name of the column, then of the field inside it: `names.primary`.
        types: DuckDB types that it may have, without lengths and fields; the published one comes first.
        optional: Whether older or newer versions of the schema lack it.
    """

    path: str
    types: Sequence[str]
    optional: bool = False


@dataclass(frozen=True)
class PublishedSchema:
    """A schema that a publisher documents.

    Args:
        title: Publisher and data set, with the version that this is.
        url: Where it is documented.
    """

    title: str
    url: str


def create_published_view(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    files: Sequence[str],
    schema: PublishedSchema,
    columns: Mapping[str, Sequence[PublishedColumn]],
) -> None:
    """Create a view over files in a published schema: `source_row` and the columns wanted.

    Args:
        connection: The step's DuckDB session.
        view: Name of the view to create.
        files: The files, see `tables.source_files`.
        schema: The schema, for messages.
        columns: Name in the view -> the column of the schema, or several of which the first that the files have is
            taken (versions of the schema). An optional column that is not there is null.

    Raises:
        SourceError: Unreadable files, or a column that is missing or has another type: the message names the column and
            the schema that expects it.
    """
    raw = f"{view}_raw"
    open_files(connection, raw, files)
    relation = connection.table(raw)
    present = dict(zip(relation.columns, relation.types, strict=True))
    selected = [f"{_expression(files, schema, present, some)} AS {quote(name)}" for name, some in columns.items()]
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {quote(view)} AS SELECT source_row, {', '.join(selected)} FROM {quote(raw)}"  # noqa: S608 - quoted
    )


def _expression(
    files: Sequence[str],
    schema: PublishedSchema,
    present: Mapping[str, duckdb.sqltypes.DuckDBPyType],
    alternatives: Sequence[PublishedColumn],
) -> str:
    for column in alternatives:
        found = _type_of(present, column.path)
        if found is None:
            continue
        kind = found.split("(")[0].removesuffix("[]") + ("[]" if found.endswith("[]") else "")
        if kind not in column.types:
            raise SourceError(
                files,
                f"holds {found[:80]}; {schema.title} has {column.path} as {column.types[0]}",
                column=column.path,
                hint=f"the publisher may have changed its schema: compare with {schema.url}, or read it as a table",
            )
        value = ".".join(quote(part) for part in column.path.split("."))
        return f"ST_AsWKB({value})" if kind == "GEOMETRY" else value
    first = alternatives[0]
    if all(column.optional for column in alternatives):
        return f"NULL::{first.types[0]}"
    older = " or ".join(column.path for column in alternatives[1:])
    raise SourceError(
        files,
        f"no column {first.path}" + (f" (nor {older})" if older else "") + f", which {schema.title} has as "
        f"{first.types[0]}",
        column=first.path,
        hint=f"the file has {sorted(set(present) - {'source_row'})[:40]}; the publisher may have changed its schema: "
        f"compare with {schema.url}, or read the file as a table",
    )


def _type_of(present: Mapping[str, duckdb.sqltypes.DuckDBPyType], path: str) -> str | None:
    """DuckDB type of a column or of a field inside it; None where there is none."""
    name, *fields = path.split(".")
    found = present.get(name)
    for field in fields:
        children: dict[str, Any] = dict(found.children) if found is not None and found.id == "struct" else {}
        found = children.get(field)
    return None if found is None else str(found)
