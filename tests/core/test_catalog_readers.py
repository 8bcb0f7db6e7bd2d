"""Thirty processes read the catalog and the tables behind it while both are published twenty times."""

import json
import subprocess
import sys
import textwrap

import duckdb
import pyarrow as pa
import pytest

from mobclip_core.catalog import write_catalog
from mobclip_core.store import Store, TableRef
from tests.lake import edges

READERS, TIMES = 30, 20
REGIONS = ("east", "north", "west")
READER = textwrap.dedent(
    """
    import json, pathlib, sys
    import duckdb

    catalog, stop = map(pathlib.Path, sys.argv[1:])
    reads, seen, mixed = 0, set(), []
    print("ready", flush=True)
    while reads == 0 or not stop.exists():
        with duckdb.connect(str(catalog), read_only=True) as connection:
            views = connection.execute("SELECT comment FROM duckdb_views() WHERE NOT internal").fetchall()
            rows = connection.execute(
                "SELECT region, count(*), count(DISTINCT people) FROM mobility_edges GROUP BY 1"
            ).fetchall()
        comments = {comment for comment, in views}
        if len(comments) != 1 or len(rows) != 3 or any(distinct != 1 for _, _, distinct in rows):
            mixed.append([sorted(comments), rows])
        seen |= comments
        reads += 1
    print(json.dumps({"reads": reads, "seen": len(seen), "mixed": mixed[:3]}))
    """
)


def publish(store: Store, number: int) -> None:
    """Tables and catalog of one version: the number is every edge's people and every view's comment."""
    table = edges(50)
    column = table.column_names.index("people")
    people = pa.array([number + 10.0] * table.num_rows)
    for region in REGIONS:
        store.write(TableRef("mobility_edges", region), table.set_column(column, "people", people))
    with store.writing_catalog() as aside, duckdb.connect(str(aside)) as connection:
        for view in write_catalog(connection, store):
            connection.execute(f"COMMENT ON VIEW {view} IS 'version {number}'")


@pytest.mark.slow
def test_readers_see_whole_versions_only(tmp_path):
    store, stop = Store(str(tmp_path / "lake")), tmp_path / "stop"
    publish(store, 0)
    command = [sys.executable, "-c", READER, str(store.catalog_path), str(stop)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(READERS)]
    try:
        for reader in readers:
            assert reader.stdout.readline() == b"ready\n"
        for number in range(1, TIMES + 1):
            publish(store, number)
    finally:
        stop.touch()
    for reader in readers:
        out, error = reader.communicate(timeout=120)
        assert reader.returncode == 0, error.decode()
        found = json.loads(out)
        assert found["mixed"] == []
        assert found["reads"] >= 1
