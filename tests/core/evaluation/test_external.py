import sys
from types import ModuleType

import h3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from mobclip_core.errors import ProfileError, SourceError
from mobclip_core.evaluation.external import external_vectors
from mobclip_core.evaluation.representations import load_representations
from mobclip_core.evaluation.scores import build_geobench_scores, read_scores
from mobclip_core.profile import EvaluationConfig, ExternalEmbedding


def vectors(world, **config):
    return external_vectors("theirs", ExternalEmbedding(**config), world.cells, world.lon, world.lat)


def table(world, name, **columns):
    path = world.path / name
    pq.write_table(pa.table(columns), path)
    return str(path)


def names(cells):
    return [f"{c:x}" for c in cells.tolist()]


def test_lists_by_cell_in_any_order_and_gaps_are_counted(world):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(world.cells), 3))
    values[4, 1] = np.nan
    order = rng.permutation(len(world.cells))[:-2]
    elsewhere = h3.str_to_int(h3.latlng_to_cell(-30.0, 20.0, 6))
    ids = [*world.cells[order].tolist(), elsewhere]
    rows = [*values[order].tolist(), [1.0, 2.0, 3.0]]
    by_number = table(world, "numbers.parquet", cell=pa.array(ids, pa.uint64()), vector=rows)
    by_name = table(world, "names.parquet", h3=[f"{c:x}" for c in ids], vector=rows)
    found = vectors(world, file=by_number, cell="cell")
    known = np.isin(world.cells, world.cells[order]) & (world.cells != world.cells[4])
    np.testing.assert_array_equal(found.known, known)
    np.testing.assert_allclose(found.values[known], values[known], rtol=1e-6)
    assert (found.values[~known] == 0).all()
    rest = int((~known).sum())
    incomplete = int(4 in order)
    assert found.counts == {
        "rows": len(ids),
        "rows_incomplete": incomplete,
        "rows_outside": 1,
        "cells_without": rest,
    }
    np.testing.assert_array_equal(vectors(world, file=by_name, cell="h3").values, found.values)


def test_finer_cells_and_points_are_averaged(world):
    children = [[h3.str_to_int(c) for c in h3.cell_to_children(name, 7)] for name in names(world.cells)]
    flat = np.array(children, dtype=np.uint64).ravel()
    value = np.arange(len(flat), dtype=float)
    expected = value.reshape(len(world.cells), 7).mean(axis=1)
    file = table(world, "finer.parquet", cell=flat, a_0=value, a_1=-value)
    found = vectors(world, file=file, cell="cell", vector="a_*")
    np.testing.assert_allclose(found.values, np.column_stack([expected, -expected]), rtol=1e-6)
    path = world.path / "points.csv"
    pd.DataFrame({"x": np.r_[world.lon, 999], "y": np.r_[world.lat, 45], "v": np.r_[expected, 1]}).to_csv(
        path, index=False
    )
    found = vectors(world, file=str(path), lon="x", lat="y", vector=["v"])
    np.testing.assert_allclose(found.values[:, 0], expected, rtol=1e-6)
    assert found.counts["rows_incomplete"] == 1


def test_a_function_of_coordinates(world, monkeypatch):
    module = ModuleType("their_encoder")
    module.encode = lambda lon, lat: np.column_stack([lon, lat, lon * lat])
    module.flat = lambda lon, lat: lon
    monkeypatch.setitem(sys.modules, "their_encoder", module)
    found = vectors(world, function="their_encoder:encode")
    np.testing.assert_allclose(found.values[:, 2], world.lon * world.lat, rtol=1e-6)
    assert found.known.all()
    with pytest.raises(ProfileError, match=r"external\.theirs\.function.*shape \(\d+,\).*expected"):
        vectors(world, function="their_encoder:flat")
    with pytest.raises(ProfileError, match=r"external\.theirs\.function: no 'their_encoder:nothing'"):
        vectors(world, function="their_encoder:nothing")
    with pytest.raises(ProfileError, match="no 'no_such_module:f'"):
        vectors(world, function="no_such_module:f")


def test_what_is_wrong_with_a_table_is_named(world):
    cells = world.cells[:6]
    good = {"cell": cells, "vector": [[1.0, 2.0]] * 6}
    with pytest.raises(SourceError, match=r"nowhere\.parquet"):
        vectors(world, file=str(world.path / "nowhere.parquet"), cell="cell")
    with pytest.raises(SourceError, match=r"no column 'hex'.*\['cell', 'vector'\]"):
        vectors(world, file=table(world, "a.parquet", **good), cell="hex")
    with pytest.raises(SourceError, match=r"no column 'v\*'"):
        vectors(world, file=table(world, "b.parquet", cell=cells, w=np.ones(6)), cell="cell", vector="v*")
    ragged = [[1.0, 2.0], [1.0], *[[1.0, 2.0]] * 4]
    with pytest.raises(SourceError, match="several lengths"):
        vectors(world, file=table(world, "c.parquet", cell=cells, vector=ragged), cell="cell")
    coarse = np.array([h3.str_to_int(h3.cell_to_parent(name, 5)) for name in names(cells)], np.uint64)
    file = table(world, "d.parquet", cell=coarse, v=np.ones(6))
    with pytest.raises(SourceError, match="resolution 6 or finer"):
        vectors(world, file=file, cell="cell", vector="v*")
    with pytest.raises(SourceError, match="no H3 cells"):
        vectors(world, file=table(world, "e.parquet", cell=["x"] * 6, v=np.ones(6)), cell="cell", vector="v*")
    far = np.array([h3.str_to_int(h3.latlng_to_cell(-30.0, 20.0, 6))], np.uint64)
    with pytest.raises(SourceError, match="no row lies on a cell"):
        vectors(world, file=table(world, "f.parquet", cell=far, v=[1.0]), cell="cell", vector="v*")
    with pytest.raises(SourceError, match="holds no numbers"):
        vectors(world, file=table(world, "g.parquet", cell=cells, v=["a"] * 6), cell="cell", vector="v*")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "either file or function"),
        ({"file": "a", "function": "b:c", "cell": "d"}, "either file or function"),
        ({"file": "a"}, "either cell, or lon and lat"),
        ({"file": "a", "cell": "c", "lon": "x", "lat": "y"}, "either cell, or lon and lat"),
        ({"function": "no colon"}, "pattern"),
    ],
)
def test_settings_that_make_no_sense(config, message):
    with pytest.raises(ValidationError, match=message):
        ExternalEmbedding(**config)


def test_names_of_this_projects_methods_are_taken():
    with pytest.raises(ValidationError, match="pca_128: the name of a method of this project"):
        EvaluationConfig(external={"pca_128": {"function": "a:b"}})


def test_an_external_embedding_is_scored_beside_the_others(world):
    world.features()
    label = np.random.default_rng(5).normal(size=len(world.cells))
    file = table(
        world, "theirs.parquet", cell=world.cells[:-9], vector=np.column_stack([label, label**2])[:-9].tolist()
    )
    world.label({"KNO": (world.cells, label), "OTH": (world.cells, np.random.default_rng(6).normal(size=len(label)))})
    options = {"title": "T", "source": "s", "unit": "u", "label": {"kind": "raster", "file": "label.tif"}}
    external = {"theirs": {"file": file, "cell": "cell", "overlaps": ["KNO"]}}
    deployment = world.deployment(
        {"KNO": options, "OTH": options}, external=external, seeds=[0], block_resolution=4, probes=["ridge"]
    )
    assert load_representations(deployment).matrices["theirs"].shape == (len(world.cells), 3)
    result = build_geobench_scores(deployment)
    rows = {(row["task"], row["split"]): row for row in read_scores(deployment) if row["method"] == "theirs"}
    assert rows["KNO", "spatial"]["r2"] > 0.9
    assert rows["KNO", "spatial"]["leak"]
    assert not rows["OTH", "spatial"]["leak"]
    assert rows["OTH", "spatial"]["r2"] <= 0.02
    assert result.counts["theirs_cells_without"] == 9
    assert result.markdown["R2, spatial split, ridge"].splitlines()[0].endswith("| mobility | theirs |")
