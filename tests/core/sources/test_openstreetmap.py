from pathlib import Path

import duckdb
import osmium
import pytest

from mobclip_core.errors import SourceError
from mobclip_core.profile import OpenStreetMap
from mobclip_core.sources.openstreetmap import open_openstreetmap
from mobclip_core.sources.point_batches import POINT_COLUMNS


def extract(path: Path, *, nodes=(), ways=()) -> str:
    """An OpenStreetMap file of nodes (id, lon, lat, tags) and ways (id, node ids, tags)."""
    with osmium.SimpleWriter(str(path), overwrite=True) as writer:
        for ident, lon, lat, tags in nodes:
            writer.add_node(osmium.osm.mutable.Node(id=ident, location=(lon, lat), tags=tags))
        for ident, members, tags in ways:
            writer.add_way(osmium.osm.mutable.Way(id=ident, nodes=members, tags=tags))
    return str(path)


NODES = [
    (1, -74.0, 40.7, {"amenity": "cafe", "name": "Rose"}),
    (2, -74.1, 40.7, {"highway": "crossing"}),
    (3, -74.0, 40.6, {}),
    (4, -73.8, 40.8, {}),
    (5, -73.9, 40.9, {"shop": "bakery", "amenity": "cafe"}),
    (6, -73.9, 40.9, {"name": "no category"}),
]
WAYS = [
    (7, [3, 4, 3], {"amenity": "school", "name": "Elm", "building": "yes"}),
    (8, [3, 4], {"highway": "residential"}),
    (9, [98, 99], {"shop": "mall"}),  # its nodes lie outside the extract
    (10, [3, 99], {"tourism": "hotel"}),
]


def read(file, tmp_path, **options):
    folder = tmp_path / "scratch"
    folder.mkdir(exist_ok=True)
    settings = OpenStreetMap(kind="openstreetmap", file=file, **{"keys": ["amenity", "shop", "tourism"]} | options)
    with duckdb.connect() as connection:
        source = open_openstreetmap(connection, settings, folder, 1000)
        batches = list(source.batches)
    rows = {}
    for batch in batches:
        assert batch.schema.names == list(POINT_COLUMNS)
        rows |= {row["id"]: (row["category"], row["name"], row["lon"], row["lat"]) for row in batch.to_pylist()}
    assert not [path for path in folder.iterdir() if path.suffix != ".parquet"]
    return rows, source


@pytest.mark.parametrize("suffix", ["osm.pbf", "osm", "osm.bz2"])
def test_nodes_and_ways_become_points(tmp_path, suffix):
    rows, source = read(extract(tmp_path / f"a.{suffix}", nodes=NODES, ways=WAYS), tmp_path)
    assert rows.pop("w7") == ("school", "Elm", pytest.approx(-73.9), pytest.approx(40.7))
    assert rows == {
        "n1": ("cafe", "Rose", -74.0, 40.7),
        "n5": ("cafe", None, -73.9, 40.9),  # the first key of the profile counts
        "w9": ("mall", None, None, None),
        "w10": ("hotel", None, -74.0, 40.6),
    }
    assert source.counts == {"osm_nodes": 2, "osm_ways": 3}
    assert (source.has_id, source.has_name) == (True, True)


def test_keys_and_the_form_of_categories_are_the_profiles(tmp_path):
    file = extract(tmp_path / "a.osm.pbf", nodes=NODES, ways=WAYS)
    rows, _ = read(file, tmp_path, keys=["shop", "amenity"], category="key=value")
    assert {ident: row[0] for ident, row in rows.items()} == {
        "n1": "amenity=cafe",
        "n5": "shop=bakery",
        "w7": "amenity=school",
        "w9": "shop=mall",
    }


def test_several_files_are_one_source(tmp_path):
    extract(tmp_path / "a.osm.pbf", nodes=NODES[:1])
    extract(tmp_path / "b.osm.pbf", nodes=NODES[4:5])
    rows, source = read(str(tmp_path / "*.osm.pbf"), tmp_path)
    assert set(rows) == {"n1", "n5"}
    assert source.counts == {"osm_nodes": 2, "osm_ways": 0}


def test_many_points_come_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("mobclip_core.sources.openstreetmap._ROWS_AT_ONCE", 7)
    nodes = [(i, -74 + i / 1000, 40.7, {"shop": "x"}) for i in range(1, 51)]
    rows, _ = read(extract(tmp_path / "a.osm.pbf", nodes=nodes), tmp_path)
    assert len(rows) == 50


def test_a_file_without_pois_has_no_points(tmp_path):
    assert read(extract(tmp_path / "a.osm.pbf", nodes=NODES[1:4]), tmp_path)[0] == {}


def test_a_remote_file_is_copied_and_the_copy_removed(tmp_path):
    import fsspec

    file = extract(tmp_path / "a.osm.pbf", nodes=NODES)
    memory = fsspec.filesystem("memory")
    memory.put(file, "/osm/a.osm.pbf")
    assert set(read("memory://osm/a.osm.pbf", tmp_path)[0]) == {"n1", "n5"}
    memory.rm("/osm", recursive=True)


def test_a_truncated_file_is_an_error(tmp_path):
    nodes = [(i, -74 + i / 1000, 40.7, {"shop": f"x{i}"}) for i in range(1, 2000)]
    path = Path(extract(tmp_path / "a.osm.pbf", nodes=nodes))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(SourceError, match=r"a\.osm\.pbf: cannot be read.*truncated"):
        read(str(path), tmp_path)


def test_a_missing_file_and_another_kind_of_file_are_errors(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        read(str(tmp_path / "no.osm.pbf"), tmp_path)
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(SourceError, match=r"is no OpenStreetMap file.*\.osm\.pbf"):
        read(str(tmp_path / "a.csv"), tmp_path)
