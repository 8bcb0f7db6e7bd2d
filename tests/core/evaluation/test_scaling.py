import numpy as np
import pytest

from mobclip_core.contracts import SCALING_LAW
from mobclip_core.deployment import Deployment
from mobclip_core.evaluation import scaling
from mobclip_core.evaluation.scaling import build_scaling_law, laws_markdown, laws_of
from mobclip_core.store import TableRef

ENCODER = {"dimensions": 8, "factors": 3, "position_factors": 1, "feature_fusion": True, "reconstruction_weight": 1.0}


@pytest.fixture
def deployment(world):
    world.features()
    n = len(world.cells)
    random = np.random.default_rng(0)
    source = np.sort(random.integers(0, n, 4000))
    with world.store.write_bundle("mobility_graph", []) as folder:
        np.save(folder / "cells.npy", world.cells)
        np.save(folder / "indptr.npy", np.searchsorted(source, np.arange(n + 1)).astype(np.int64))
        np.save(folder / "indices.npy", random.integers(0, n, 4000).astype(np.int32))
        np.save(folder / "weight.npy", np.ones(4000, np.float32))
        np.save(folder / "keep.npy", np.ones(4000, bool))
        (folder / "graph.json").write_text("{}")
    world.label({"POP": (world.cells, world.population), "NOI": (world.cells, random.normal(size=n))})
    task = {"title": "T", "source": "s", "unit": "u", "label": {"kind": "raster", "file": "label.tif"}}
    options = {"cells": [0.3, 0.6], "edges": [0.1], "widths": [4], "repeats": 2}
    made = world.deployment(dict.fromkeys(("POP", "NOI"), task), scaling=options, block_resolution=4)
    encoder = made.profile.encoder.model_validate(
        {**ENCODER, "max_epochs": 2, "batch_size": 200, "student": None, "device": "cpu"}
    )
    line = made.profile.line.model_copy(update={"dimensions": 8, "max_samples": 2000})
    return Deployment(made.profile.model_copy(update={"encoder": encoder, "line": line}), made.store)


def test_every_size_is_trained_and_a_law_is_stated_for_each_axis(deployment, world):
    result = build_scaling_law(deployment)
    rows = deployment.store.read(TableRef("scaling_law")).to_pylist()
    assert result.counts["trainings"] == len(rows) == 2 * (3 + 2 + 4 + 2)
    sizes = {axis: sorted({row["size"] for row in rows if row["axis"] == axis}) for axis in scaling.AXES}
    assert sizes["edges"] == [400, 4000]
    assert sizes["inputs"] == [1, 2, 3, 4]
    assert sizes["width"] == [4, 8]
    assert sizes["cells"][-1] == len(world.cells)
    for row in rows:
        assert row["error"] == pytest.approx(1 - row["r2"])
        assert row["cells"] == (row["size"] if row["axis"] == "cells" else len(world.cells))
    whole = {row["r2"] for row in rows if row["seed"] == 0 and row["axis"] != "cells" and row["size"] in (4000, 4, 8)}
    assert len(whole) == 2, "all edges, all inputs and the full width are one training; half the width is another"
    assert set(laws_of(rows)) == set(scaling.AXES)
    assert laws_markdown(rows, laws_of(rows)).count("\n- ") == 4
    assert result.pictures["Scaling"].startswith(b"\x89PNG")
    assert not deployment.store.exists(TableRef("scaling_progress"))
    SCALING_LAW.validate(deployment.store.read(TableRef("scaling_law")), "test")


def test_an_interrupted_step_goes_on(deployment, monkeypatch):
    trained = []
    real = scaling.trained_vectors

    def stopped(*arguments):
        trained.append(1)
        if len(trained) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(scaling, "trained_vectors", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_scaling_law(deployment)
    build_scaling_law(deployment)
    # a repeat is 8 trainings, the one with everything once for all axes: 4 before the end and, of the first repeat, 5
    # after it, and the one with everything again
    assert len(trained) == 4 + 6 + 8
    rows = deployment.store.read(TableRef("scaling_law"))
    build_scaling_law(deployment)
    assert deployment.store.read(TableRef("scaling_law")).drop_columns(["seconds"]) == rows.drop_columns(["seconds"])


def test_sets_are_nested_and_whole_blocks(deployment):
    world = scaling._World(deployment)
    small, large = (set(world.cells_of(share, 1).tolist()) for share in (0.3, 0.6))
    assert small < large
    assert len(small) >= 0.3 * len(world.features)
    assert set(world.cells_of(1.0, 1).tolist()) == set(range(len(world.features)))
    for seed in range(20):
        order = world._order_of_inputs(seed)
        assert sorted(order) == ["census", "imagery", "mobility", "poi"]
        assert order[0] != "mobility"
