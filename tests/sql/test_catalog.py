import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mobclip_core.catalog import write_catalog
from mobclip_core.sql import session, sql_text
from tests.places import make_places, write_lake


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


def test_macros_by_hand():
    with session() as connection:
        connection.execute(
            "CREATE TABLE embeddings AS FROM (VALUES (1::UBIGINT, 'a', [1.0, 0.0]::FLOAT[]), (2, 'a', [0.0, 2.0]), "
            "(3, 'b', [1.0, 1.0])) t(cell, region, vector)"
        )
        connection.execute(
            "CREATE TABLE grid_cells AS FROM (VALUES (1::UBIGINT, 5.0, 50.0, 10.0, 1.0), (2, 6.0, 51.0, 10.0, 0.5), "
            "(3, 7.0, 52.0, 10.0, 1.0)) t(cell, lon, lat, area_km2, coverage)"
        )
        for name in ("catalog_place", "catalog_similar_places", "catalog_region_vectors"):
            connection.execute(sql_text(name))
        assert connection.execute("FROM place(2)").fetchall() == [(6.0, 51.0, 10.0, 0.5, 2, "a", [0.0, 2.0])]
        similar = connection.execute("FROM similar_places(1, 1)").fetchall()
        assert [(cell, region) for cell, region, _ in similar] == [(3, "b")]
        assert abs(similar[0][2] - 0.5**0.5) < 1e-6
        # region a: the first cell counts twice the second
        found = connection.execute("FROM region_vectors()").fetchall()
        assert found == [("a", [2 / 3, 2 / 3]), ("b", [1.0, 1.0])]


def test_macros_answer_as_python_does(tmp_path):
    places = make_places(rings=4)
    store = write_lake(places, tmp_path)
    with store.writing_catalog() as aside, duckdb.connect(str(aside)) as connection:
        write_catalog(connection, store)
    cell = int(places.cells[30])
    with duckdb.connect(str(store.catalog_path), read_only=True) as catalog:
        [row] = catalog.sql(f"FROM place({cell})").fetchall()
        assert row[:2] == (places.lon[30], places.lat[30])
        similar = catalog.sql(f"FROM similar_places({cell}, 5)").fetchall()
        regions = catalog.sql("FROM region_vectors()").fetchall()
        assert catalog.sql("FROM place(5)").fetchall() == []
    wanted = places.similar(cell=cell, k=5)
    assert [row[0] for row in similar] == wanted.cells.tolist()
    assert [row[1] for row in similar] == wanted.region.tolist()
    np.testing.assert_allclose([row[2] for row in similar], wanted.similarity, atol=1e-5)
    assert [name for name, _ in regions] == ["east", "west"]
    for number, (_, vector) in enumerate(regions):
        own = places.region == number
        weight = (places.area_km2 * places.coverage)[own]
        np.testing.assert_allclose(vector, weight @ places.vectors[own] / weight.sum(), rtol=1e-4)
