import pyarrow as pa
import pyarrow.parquet as pq

from mobclip_core.sql import session, sql_text


def test_catalog_view(tmp_path):
    for region, cell in (("7", 1), ("b", 2)):
        folder = tmp_path / f"region={region}"
        folder.mkdir()
        pq.write_table(pa.table({"cell": [cell]}), folder / "part.parquet")
    files = f"['{tmp_path}/region=7/part.parquet', '{tmp_path}/region=b/part.parquet']"
    with session() as connection:
        connection.execute(sql_text("catalog_view").format(view='"a view"', files=files, partitioned="true"))
        # a region that looks like a number is text all the same
        assert connection.execute('FROM "a view" ORDER BY cell').fetchall() == [(1, "7"), (2, "b")]
        connection.execute(sql_text("catalog_view").format(view='"a view"', files=files, partitioned="false"))
        assert connection.execute('FROM "a view" ORDER BY cell').fetchall() == [(1,), (2,)]
