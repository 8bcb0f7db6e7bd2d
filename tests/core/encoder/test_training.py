import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import deterministic, resolve_device
from mobclip_core.encoder.embedding import embed
from mobclip_core.encoder.modules import MobCLIP
from mobclip_core.encoder.trainer import optimiser_of
from mobclip_core.encoder.training import initial_table, train
from mobclip_core.encoder.validation import training_graph, validation_mask
from mobclip_core.errors import ContractError, FingerprintError, MissingTableError, ProfileError

from .conftest import beside, make_cells, make_features, make_graph, permuted, random_edges

FULL = {
    "factors": 5,
    "feature_fusion": True,
    "fusion_hidden": 6,
    "reconstruction_weight": 2.0,
    "spatial_edges_weight": 0.5,
}


def vectors(n, isolated=(), seed=3):
    found = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[list(isolated)] = 0
    return found


@pytest.mark.parametrize("changes", [{}, FULL, {**FULL, "modality_dropout": 0.3, "batch_size": 7}])
def test_deterministic_and_loss_falls(options, world, changes):
    features, graph = world
    config = options(max_epochs=15, **changes)
    first = train(features, graph, vectors(40, [39]), config)
    second = train(features, graph, vectors(40, [39]), config)
    assert first.fingerprint == second.fingerprint
    assert first.history == second.history
    assert first.history["train"][-1] < first.history["train"][0]
    other = train(features, graph, vectors(40, [39]), options(max_epochs=15, **{**changes, "seed": 1}))
    assert other.fingerprint != first.fingerprint


def test_training_leaves_the_global_generator_alone(options, world):
    features, graph = world
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(features, graph, vectors(40), options(max_epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("changes", [{}, {**FULL, "modality_dropout": 0.3, "batch_size": 7}])
def test_renumbering_permutes_the_embeddings_and_nothing_else(options, world, changes):
    features, graph = world
    config = options(max_epochs=4, **changes)
    order = np.random.default_rng(0).permutation(40)
    moved_features, moved_graph = permuted(features, graph, order)
    table = vectors(40, [39])
    plain = train(features, graph, table, config, dtype=torch.float64)
    moved = train(moved_features, moved_graph, table[order], config, dtype=torch.float64)
    np.testing.assert_allclose(moved.history["train"], plain.history["train"], rtol=1e-9)
    np.testing.assert_allclose(moved.tensors["node_table"], plain.tensors["node_table"][order], atol=1e-8)
    shared = [name for name in plain.tensors if name != "node_table"]
    for name in shared:
        # the readout is found in single precision
        tolerance = 1e-4 if name.startswith("readout.") else 1e-8
        np.testing.assert_allclose(moved.tensors[name], plain.tensors[name], atol=tolerance, err_msg=name)


def embed_all(trained, graph, features):
    return embed(trained, graph, beside(features), np.arange(len(features)), lambda _: features)


def in_float32(trained):
    return replace(trained, tensors={name: value.astype(np.float32) for name, value in trained.tensors.items()})


def test_embedding_is_equivariant(options, world):
    features, graph = world
    trained = train(features, graph, vectors(40), options(max_epochs=2, **FULL))
    order = np.random.default_rng(1).permutation(40)
    moved_features, moved_graph = permuted(features, graph, order)
    tensors = {**trained.tensors, "node_table": trained.tensors["node_table"][order]}
    moved = replace(trained, tensors=tensors, cells=trained.cells[order])
    found = embed_all(moved, moved_graph, moved_features)
    np.testing.assert_allclose(found, embed_all(trained, graph, features)[order], atol=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("factors", [0, 5])
def test_some_nodes_need_those_within_reach_only(options, world, layers, factors):
    features, graph = world
    trained = train(features, graph, vectors(40), options(max_epochs=1, layers=layers, **{**FULL, "factors": factors}))
    nodes = np.array([3, 17])
    asked = []

    def features_of(cells):
        asked.append(set(cells.tolist()))
        return features

    found = embed(trained, graph, beside(features), nodes, features_of)
    np.testing.assert_allclose(found, embed_all(trained, graph, features)[nodes], atol=1e-6)
    [cells] = asked
    assert set(graph.cells[nodes].tolist()) <= cells
    if layers == 0:
        # the factors average over the cells beside
        assert len(cells) == 2 if factors == 0 else 2 < len(cells) < 15
    # what lies beyond has no part in it
    values = {
        k: replace(m, values=np.where(np.isin(features.cells, list(cells))[:, None], m.values, 7))
        for k, m in features.modalities.items()
    }
    blind = replace(features, modalities=values)
    assert np.array_equal(embed(trained, graph, beside(features), nodes, lambda _: blind), found)


def test_early_stopping_restores_the_best_epoch(options, world):
    features, graph = world
    # noise has nothing to teach: the validation loss soon rises
    trained = train(features, graph, vectors(40), options(max_epochs=200, patience=3, learning_rate=0.1))
    validation = trained.history["validation"]
    assert len(validation) == trained.best_epoch + 4 < 200
    assert np.argmin(validation) == trained.best_epoch
    shorter = train(
        features, graph, vectors(40), options(max_epochs=trained.best_epoch + 1, patience=3, learning_rate=0.1)
    )
    assert np.array_equal(shorter.tensors["node_table"], trained.tensors["node_table"])


@pytest.mark.parametrize("changes", [{}, FULL])
def test_a_modality_that_nobody_has(options, changes):
    cells = make_cells(20)
    features = make_features(cells, empty=["imagery"])
    trained = train(features, make_graph(cells, random_edges(20, 60)), vectors(20), options(**changes))
    assert all(np.isfinite(value).all() for value in trained.tensors.values())
    assert "imagery" not in trained.history
    assert np.isfinite(trained.history["train"]).all()


def test_no_modality_anywhere_leaves_weights_finite(options):
    cells = make_cells(20)
    features = make_features(cells, empty=["imagery", "poi", "census"])
    trained = train(features, make_graph(cells, random_edges(20, 60)), vectors(20), options(**FULL))
    assert all(np.isfinite(value).all() for value in trained.tensors.values())


def test_no_mobility(options):
    cells = make_cells(20)
    trained = train(make_features(cells), make_graph(cells, []), np.zeros((20, 8), np.float32), options())
    assert np.isfinite(trained.history["train"]).all()


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_worlds(options, n):
    cells = make_cells(n, blocks=n)
    trained = train(make_features(cells), make_graph(cells, []), np.zeros((n, 8), np.float32), options(**FULL))
    assert np.isfinite(trained.tensors["node_table"]).all()


def test_weight_decay_on_matrices_only(options):
    model = MobCLIP(5, {"poi": 3}, options())
    matrices, others = optimiser_of(model, options()).param_groups
    assert {p.dim() for p in matrices["params"]} == {2}
    assert {p.dim() for p in others["params"]} == {1}
    assert (matrices["weight_decay"], others["weight_decay"]) == (1e-3, 0)


def test_validation_blocks_are_whole_and_follow_cells_not_order(options):
    cells = make_cells(80, blocks=8)
    held = validation_mask(cells, options())
    assert held.sum() == 20
    block = np.arange(80) // 10
    assert all(held[block == b].all() or not held[block == b].any() for b in range(8))
    order = np.random.default_rng(0).permutation(80)
    assert np.array_equal(validation_mask(cells[order], options()), held[order])
    assert not np.array_equal(validation_mask(cells, options(seed=1)), held)


def test_validation_blocks_get_finer_where_there_is_one(options):
    held = validation_mask(make_cells(49, blocks=1), options())
    assert 0 < held.sum() < 49
    assert not validation_mask(make_cells(1), options()).any()


def test_nodes_that_are_no_cells_are_trained_on_with_any_modalities(options, world):
    features, graph = world
    ids = np.arange(100, 140, dtype=np.uint64)
    held = validation_mask(ids, options(validation_fraction=0.25))
    assert held.sum() == 10
    assert np.array_equal(validation_mask(ids[::-1], options(validation_fraction=0.25)), held[::-1])
    modalities = {"land_use": features.modalities["census"], "poi": features.modalities["poi"]}
    zones = replace(features, cells=ids, modalities=modalities)
    flows = SimpleNamespace(**{**vars(graph), "cells": ids})
    trained = train(zones, flows, vectors(40), options(max_epochs=5))
    assert {"land_use", "poi"} <= set(trained.history)
    assert trained.history["train"][-1] < trained.history["train"][0]


def test_initial_table_fills_only_empty_rows():
    cells = make_cells(10)
    given = vectors(10, [2, 7])
    table = initial_table(cells, given, 0)
    filled = [i for i in range(10) if i not in (2, 7)]
    assert np.array_equal(table[filled], given[filled])
    assert (np.linalg.norm(table[[2, 7]], axis=1) > 0).all()
    assert (np.linalg.norm(table[[2, 7]], axis=1) < 0.3).all()
    assert not given[2].any()


def test_other_cells_are_an_error(options, world):
    features, graph = world
    with pytest.raises(ContractError, match="materialise mobility_graph again"):
        train(make_features(make_cells(30)), graph, vectors(40), options())
    with pytest.raises(ContractError, match=r"\(40, 3\).*encoder.dimensions"):
        train(features, graph, np.zeros((40, 3), np.float32), options())


def test_save_and_load(options, world, tmp_path):
    features, graph = world
    trained = train(features, graph, vectors(40), options(max_epochs=2, **FULL))
    trained.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cells.npy",
        "config.json",
        "history.json",
        "model.safetensors",
    ]
    loaded = TrainedEncoder.load(tmp_path)
    assert loaded.fingerprint == trained.fingerprint
    assert loaded.history == trained.history
    assert loaded.best_epoch == trained.best_epoch
    assert np.array_equal(loaded.cells, trained.cells)
    assert loaded.cells.dtype == np.uint64
    assert np.array_equal(loaded.statistics["poi"].mean, features.modalities["poi"].statistics.mean)
    assert np.array_equal(embed_all(loaded, graph, features), embed_all(trained, graph, features))
    assert json.loads((tmp_path / "config.json").read_text())["image_encoder"] == "image-encoder"


def test_fingerprint_changes_with_content(options, world):
    features, graph = world
    trained = train(features, graph, vectors(40), options(max_epochs=1))
    table = trained.tensors["node_table"].copy()
    table[0, 0] += 1e-3
    assert replace(trained, tensors={**trained.tensors, "node_table": table}).fingerprint != trained.fingerprint
    assert replace(trained, config={**trained.config, "inputs": {"a": "b"}}).fingerprint != trained.fingerprint
    assert replace(trained, history={}).fingerprint == trained.fingerprint


def test_paper_encoder_embeds_without_features(options, world):
    features, graph = world
    trained = train(features, graph, vectors(40, [39]), options(max_epochs=2))
    assert not trained.reads_features

    def never(cells):
        raise AssertionError(f"features of {cells} were read")

    z = embed(trained, graph, beside(features), np.arange(40), never)
    assert z.dtype == np.float32
    assert np.array_equal(z, embed_all(trained, graph, features))
    assert np.array_equal(z[39], trained.tensors["node_table"][39])


def test_normalised_output(options, world):
    features, graph = world
    trained = train(features, graph, vectors(40), options(max_epochs=1, normalise_output=True, **FULL))
    np.testing.assert_allclose(np.linalg.norm(embed_all(trained, graph, features), axis=1), 1, rtol=1e-5)


def test_embed_refuses_what_it_was_not_trained_for(options, world):
    features, graph = world
    trained = train(features, graph, vectors(40), options(max_epochs=1, **FULL))
    assert trained.reads_features
    with pytest.raises(FingerprintError, match="retrain"):
        embed_all(trained, graph, replace(features, image_encoder="another"))
    others = make_cells(50)
    with pytest.raises(MissingTableError, match=r"not trained on.*retrain"):
        embed_all(trained, make_graph(others, random_edges(50, 90)), make_features(others))


def test_inductive_validation_takes_cells_out_of_the_graph(options, world):
    _, graph = world
    assert training_graph(graph, options()) is graph
    held = validation_mask(graph.cells, options())
    seen = training_graph(graph, options(validation="inductive"))
    source = np.repeat(np.arange(40), np.diff(seen.indptr))
    assert not held[source].any()
    assert not held[seen.indices].any()
    every = np.repeat(np.arange(40), np.diff(graph.indptr))
    kept = ~held[every] & ~held[graph.indices]
    assert 0 < kept.sum() < len(kept)
    assert np.array_equal(seen.weight, graph.weight[kept])
    assert np.array_equal(seen.indices, graph.indices[kept])


def test_devices():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device("cpu") == torch.device("cpu")
    with deterministic(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_losses_for_tensorboard(options, world, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    features, graph = world
    trained = train(features, graph, vectors(40), options(max_epochs=3, tensorboard=str(tmp_path)))
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    for name, values in trained.history.items():
        found = events.Scalars(f"loss/{name}")
        assert [event.step for event in found] == [0, 1, 2]
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6)
    # where the numbers go changes nothing about the encoder
    assert trained.fingerprint == train(features, graph, vectors(40), options(max_epochs=3)).fingerprint


def test_tensorboard_that_is_not_installed_is_asked_for(options, world, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    features, graph = world
    with pytest.raises(ProfileError, match=r"pip install 'mobclip\[tensorboard\]'"):
        train(features, graph, vectors(40), options(tensorboard=str(tmp_path)))


@pytest.mark.parametrize(
    "changes",
    [
        {"learned_temperatures": True},
        {"contrast": "sigmoid"},
        {"negatives_apart": 3},
        {"precision": "bf16"},
        {"modality_weights": {"poi": 3.0, "imagery": 0.0}},
    ],
)
def test_options_of_the_loss_change_the_vectors(options, world, changes):
    features, graph = world
    plain, other = (train(features, graph, vectors(40), options(max_epochs=4, **c)) for c in ({}, changes))
    assert np.isfinite(other.history["train"]).all()
    assert not np.array_equal(plain.tensors["node_table"], other.tensors["node_table"])
    if "learned_temperatures" in changes:
        learned = np.exp([other.tensors[f"log_temperatures.{name}"] for name in ("poi", "census", "imagery")])
        assert not np.allclose(learned, [0.5, 0.7, 0.2])
        np.testing.assert_allclose(learned, [0.5, 0.7, 0.2], atol=0.1)
