"""Tables: CSV (compressed or not), Parquet, GeoParquet, and the attributes of vector files, as DuckDB views.

Belongs here: checked, typed, lazy access to the rows of one or several files. Does not belong here: geometry (see
`polygons`).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import duckdb
import fsspec
import pyarrow as pa

from mobclip_core.errors import FILE_BITS, SourceError
from mobclip_core.profile import Files
from mobclip_core.sources.remote import file_system_for_duckdb, is_remote, reaching

MAX_UNREADABLE = 0.1
"""A column of which a larger fraction cannot be read as its type has the wrong type; below, values become null."""

PARQUET_SUFFIXES = (".parquet", ".geoparquet", ".pq")
_NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
)
_IDENTIFIER_QUOTE = '"'


@dataclass(frozen=True)
class SourceColumn:
    """A column wanted from a file.

    Args:
        source: Name in the file.
        type: DuckDB type to read it as (VARCHAR, DOUBLE, BIGINT, TIMESTAMP, BLOB).
        missing_values: Numbers that stand for "missing"; they become null.
    """

    source: str
    type: str
    missing_values: Sequence[float] = ()


def quote(identifier: str) -> str:
    """An SQL identifier, quoted; the only way a name from a profile or a file enters a statement."""
    return _IDENTIFIER_QUOTE + identifier.replace(_IDENTIFIER_QUOTE, _IDENTIFIER_QUOTE * 2) + _IDENTIFIER_QUOTE


def first_line(error: Exception) -> str:
    """The first line of an error's message, for a message of our own."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def file_suffix(file: str) -> str:
    """Lower-case ending of a file's name, without that of its compression."""
    name = PurePosixPath(file.split("?")[0]).name.lower()
    for ending in (".gz", ".zst", ".bz2"):
        name = name.removesuffix(ending)
    return PurePosixPath(name).suffix


def require_file(file: str) -> None:
    """Raise if there is no such file.

    Raises:
        SourceError: Naming the file.
    """
    with reaching(file):
        fs, path = fsspec.core.url_to_fs(file)
        # unlike `exists`, this tells a file that is not there from a server that does not answer
        fs.info(path)


def source_files(file: Files) -> list[str]:
    """The files behind a path, a URL, a glob pattern or several of these: sorted, each once.

    Raises:
        SourceError: Naming the file that is not there or the pattern that nothing matches.
    """
    found: set[str] = set()
    for name in [file] if isinstance(file, str) else file:
        with reaching(name):
            fs, path = fsspec.core.url_to_fs(name)
            if not _is_pattern(name) or fs.exists(path):
                require_file(name)
                found.add(name)
                continue
            matches = fs.glob(path)
        if not matches:
            raise SourceError(
                name, "no file matches", hint="check the pattern in the profile and the variables it uses"
            )
        found.update(str(fs.unstrip_protocol(match)) if "://" in name else str(match) for match in matches)
    return sorted(found)


_SIGNS_OF_CHANGE = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified")


def file_signature(file: str) -> str:
    """What shows that a file has changed without reading it: size, time of change or ETag, of all files of a pattern.

    Args:
        file: Path, URL or glob pattern; what is not there has the signature `absent`.

    Returns:
        One line a file.
    """
    signs = []
    with reaching(file):
        fs, path = fsspec.core.url_to_fs(file)
        for name in [path] if fs.exists(path) else sorted(fs.glob(path)) if _is_pattern(file) else []:
            info = fs.info(name)
            found = (f"{key}={info[key]}" for key in _SIGNS_OF_CHANGE if info.get(key) is not None)
            signs.append(f"{name} " + " ".join(found))
    return "\n".join(signs) or f"{file} absent"


def _is_pattern(name: str) -> bool:
    # a question mark begins the query of a web address
    return any(sign in name for sign in ("*[" if name.startswith("http") else "*?["))


@contextlib.contextmanager
def reading(file: Files) -> Iterator[None]:
    """Turn what DuckDB raises while a statement reads a damaged file into a `SourceError` that names it."""
    try:
        yield
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.OutOfMemoryException):
        raise  # a mistake of ours or a limit of the machine, not the file's fault
    except duckdb.Error as error:
        raise SourceError(
            file, f"cannot be read to its end: {first_line(error)}", hint="the file may be truncated; fetch it again"
        ) from error


def local_or_bytes(file: str) -> str | bytes:
    """What GDAL can open: the path of a local file, the content of a remote one."""
    if "://" not in file:
        return file
    with reaching(file), fsspec.open(file, "rb") as remote:
        return bytes(remote.read())


def _register_remote(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    for file in files:
        if is_remote(file):
            fs = file_system_for_duckdb(file)
            name = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
            if not connection.filesystem_is_registered(name):
                connection.register_filesystem(fs)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def open_files(connection: duckdb.DuckDBPyConnection, view: str, files: Sequence[str]) -> None:
    """Create the raw view of files: all their columns and `source_row` (see `FILE_BITS`).

    Raises:
        SourceError: Files of different kinds, or one that cannot be read.
    """
    _register_remote(connection, files)
    suffixes = sorted({file_suffix(file) for file in files})
    if len(suffixes) > 1:
        raise SourceError(
            list(files), f"files of different kinds: {', '.join(suffixes)}", hint="give each kind a source of its own"
        )
    suffix = suffixes[0]
    target = quote(view)
    try:
        if suffix in PARQUET_SUFFIXES:
            names = ", ".join(_literal(file) for file in files)
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {target} AS "  # noqa: S608 - quoted above
                f"SELECT *, file_index::BIGINT * {1 << FILE_BITS} + file_row_number AS source_row "
                f"FROM read_parquet([{names}], hive_partitioning = false)"
            )
        elif suffix in (".csv", ".tsv", ".txt"):
            parts = [
                f"SELECT *, row_number() OVER () - 1 + {i << FILE_BITS} AS source_row "  # noqa: S608 - quoted above
                f"FROM read_csv({_literal(file)}, header = true, all_varchar = true, sample_size = 1000, "
                "null_padding = false)"
                for i, file in enumerate(files)
            ]
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {target} AS {' UNION ALL BY NAME '.join(parts)}")
        else:
            import pyogrio

            tables = []
            for i, file in enumerate(files):
                _, attributes = pyogrio.read_arrow(local_or_bytes(file), read_geometry=False)
                rows = pa.array(range(i << FILE_BITS, (i << FILE_BITS) + attributes.num_rows), pa.int64())
                tables.append(attributes.append_column("source_row", rows))
            connection.register(f"{view}_arrow", pa.concat_tables(tables, promote_options="permissive"))
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {target} AS SELECT * FROM {quote(view + '_arrow')}")  # noqa: S608
        connection.execute(f"SELECT * FROM {target} LIMIT 0")  # noqa: S608 - quoted above
    except (duckdb.Error, OSError, ValueError, RuntimeError) as error:
        raise SourceError(
            list(files), f"cannot be read: {first_line(error)}", hint="the file may be truncated; fetch it again"
        ) from error


def source_columns(connection: duckdb.DuckDBPyConnection, file: str) -> dict[str, str]:
    """The columns of one file, in its order, with their DuckDB types; nothing but the head of the file is read.

    Raises:
        SourceError: Missing or unreadable file.
    """
    require_file(file)
    open_files(connection, "source_head", [file])
    found = connection.execute("DESCRIBE source_head").fetchall()
    return {row[0]: row[1] for row in found if row[0] != "source_row"}


def create_source_view(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    file: Files,
    columns: Mapping[str, SourceColumn],
    *,
    verify: bool = True,
) -> dict[str, int]:
    """Create a view over the rows of files with typed, renamed columns and `source_row`.

    Values that cannot be read as their type become null and are counted; so do empty strings and missing values.

    Args:
        connection: The step's DuckDB session.
        view: Name of the view to create.
        file: Paths, URLs or glob patterns of CSV, Parquet or vector files.
        columns: Name in the view -> column of the file.
        verify: Read every value now, so that damage in the middle of a file shows here. A caller that does not want to
            read a large file twice says False and runs its own statements inside `reading`.

    Returns:
        Counts: `rows`, and `unreadable_<name>` for each column with such values.

    Raises:
        SourceError: Missing or unreadable file, missing column, or a column of the wrong type.
    """
    raw = f"{view}_raw"
    files = source_files(file)
    open_files(connection, raw, files)
    present = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {quote(raw)}").fetchall()}
    for column in columns.values():
        if column.source not in present:
            raise SourceError(
                files,
                f"no column {column.source!r}",
                column=column.source,
                hint=f"the file has {sorted(set(present) - {'source_row'})[:40]}; name the right one in the profile",
            )
        found = present[column.source]
        if column.type == "BLOB" and not found.startswith(("BLOB", "GEOMETRY")):
            raise SourceError(
                files,
                f"holds {found}, expected WKB geometry",
                column=column.source,
                hint="name the geometry column; text such as 'POINT (x y)' goes under wkt",
            )
    expressions = {name: _typed(column, present[column.source]) for name, column in columns.items()}
    selected = ", ".join(f"{expression} AS {quote(name)}" for name, expression in expressions.items())
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {quote(view)} AS SELECT source_row, {selected} FROM {quote(raw)}"  # noqa: S608
    )
    return _check_types(connection, raw, files, columns, present, verify)


def _text(column: SourceColumn) -> str:
    return f"nullif(trim({quote(column.source)}::VARCHAR), '')"


def _typed(column: SourceColumn, present: str) -> str:
    if column.type == "VARCHAR":
        # an identifier that came through a float column is still a whole number
        number = quote(column.source)
        whole = f"CASE WHEN isfinite({number}) THEN regexp_replace({number}::VARCHAR, '\\.0$', '') END"
        return whole if present in ("FLOAT", "DOUBLE") else _text(column)
    if column.type == "BLOB" and present.startswith("GEOMETRY"):
        # DuckDB reads the geometry of a GeoParquet file as a type of its own
        expression = f"ST_AsWKB({quote(column.source)})"
    elif column.type == "BLOB" or present == column.type:
        expression = quote(column.source)
    elif present == "VARCHAR":
        expression = f"TRY_CAST({_text(column)} AS {column.type})"
    else:
        expression = f"TRY_CAST({quote(column.source)} AS {column.type})"
    if column.type in ("DOUBLE", "BIGINT") and column.missing_values:
        missing = ", ".join(repr(float(value)) for value in column.missing_values)
        expression = f"CASE WHEN {expression} IN ({missing}) THEN NULL ELSE {expression} END"
    return expression


def _always_readable(column: SourceColumn, present: str) -> bool:
    if column.type in ("VARCHAR", "BLOB") or present == column.type:
        return True
    if column.type.startswith("TIMESTAMP") and present.startswith("TIMESTAMP"):
        return True
    return column.type == "DOUBLE" and present.startswith(_NUMBERS)


def _check_types(
    connection: duckdb.DuckDBPyConnection,
    raw: str,
    files: list[str],
    columns: Mapping[str, SourceColumn],
    present: Mapping[str, str],
    verify: bool,
) -> dict[str, int]:
    suspects = {
        name: column for name, column in columns.items() if not _always_readable(column, present[column.source])
    }
    bad = {
        name: f"({_text(c)} IS NOT NULL AND TRY_CAST({_text(c)} AS {c.type}) IS NULL)" for name, c in suspects.items()
    }
    parts = ["count(*)"]
    for name, column in suspects.items():
        parts += [f"count(*) FILTER (WHERE {bad[name]})", f"count({_text(column)})"]
    # a file damaged in the middle shows only where its values are read: here, not within a later statement
    if verify:
        parts += [f"max(hash({_typed(c, present[c.source])}))" for name, c in columns.items() if name not in suspects]
    with reading(files):
        # read to the end: what is left of a result is cancelled by the next statement, which holds Python's lock while
        # a thread of DuckDB may wait for it to close a file of a Python file system
        [numbers] = connection.execute(f"SELECT {', '.join(parts)} FROM {quote(raw)}").fetchall()  # noqa: S608
    counts = {"rows": int(numbers[0])}
    for i, (name, column) in enumerate(suspects.items()):
        wrong, filled = int(numbers[1 + 2 * i]), int(numbers[2 + 2 * i])
        if not wrong:
            continue
        if wrong > MAX_UNREADABLE * filled:
            rows = connection.execute(
                f"SELECT source_row FROM {quote(raw)} WHERE {bad[name]} ORDER BY source_row LIMIT 5"  # noqa: S608
            ).fetchall()
            raise SourceError(
                files,
                f"{wrong} of {filled} values cannot be read as {column.type}",
                column=column.source,
                rows=[row[0] for row in rows],
                hint="name another column in the profile, or convert the file",
            )
        counts[f"unreadable_{name}"] = wrong
    return counts


def read_table(file: Files, columns: Mapping[str, SourceColumn]) -> tuple[pa.Table, dict[str, int]]:
    """The typed columns of whole (small) files in memory, in file order, with `source_row`.

    Returns:
        The table and the counts of `create_source_view`.

    Raises:
        SourceError: As `create_source_view`.
    """
    from mobclip_core.sql import session

    with session() as connection:
        counts = create_source_view(connection, "source", file, columns)
        table = connection.execute("SELECT * FROM source ORDER BY source_row").to_arrow_table()
    return table, counts
