"""The build_* steps on a lake of two small regions, its upstream tables written through the store."""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

pytest.importorskip("pydantic")
pytest.importorskip("matplotlib")

from mobclip_core.deployment import Deployment
from mobclip_core.encoder.building import build_encoder
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.embedding import build_embeddings, check_one_encoder
from mobclip_core.encoder.features import assemble_features
from mobclip_core.encoder.line import build_node_embeddings
from mobclip_core.errors import ContractError, FingerprintError, MissingTableError
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import matrix_of

from .conftest import make_graph, random_edges
from .two_regions import CELLS, FUSED, REGION_OF, STUDENT, WITH_NEW, make_profile, write_graph, write_region


def run_all(deployment):
    results = [build_node_embeddings(deployment), build_encoder(deployment)]
    return results + [build_embeddings(deployment, region) for region in ("a", "b", "empty")]


def test_features_are_in_node_order_with_masks(open_lake):
    found = assemble_features(open_lake())
    assert np.array_equal(found.cells, CELLS)
    assert [found.regions[i] for i in found.region] == REGION_OF.tolist()
    assert len(found) == 30
    poi, imagery, census = (found.modalities[name] for name in ("poi", "imagery", "census"))
    assert (~poi.mask).nonzero()[0].tolist() == [4]
    assert (~imagery.mask).nonzero()[0].tolist() == [7]
    assert (~census.mask).nonzero()[0].tolist() == [9]
    assert not poi.values[4].any()
    assert poi.columns == ("poi:food", "poi:shop", "poi:other", "text_0", "text_1", "text_2", "text_3")
    assert census.columns == ("share:young", "share:old", "log_population_density")
    assert imagery.values.shape == (30, 6)
    np.testing.assert_allclose(census.values[census.mask].mean(0), 0, atol=1e-5)
    assert found.image_encoder == "f1"


def test_features_of_one_region_with_given_statistics(open_lake):
    deployment = open_lake()
    whole = assemble_features(deployment)
    statistics = {name: m.statistics for name, m in whole.modalities.items()}
    part = assemble_features(deployment, ["b"], statistics)
    here = REGION_OF == "b"
    assert np.array_equal(part.cells, CELLS[here])
    for name, modality in part.modalities.items():
        assert np.array_equal(modality.values, whole.modalities[name].values[here])


def test_features_refuse_two_image_encoders(open_lake):
    deployment = open_lake()
    write_region(deployment.store, "b", CELLS[REGION_OF == "b"], image_encoder="f2")
    with pytest.raises(FingerprintError, match=r"\['f1', 'f2'\].*materialise imagery_features"):
        assemble_features(deployment)


def test_features_refuse_rows_that_are_not_the_grids(open_lake):
    deployment = open_lake()
    poi = deployment.store.read(TableRef("poi_aggregates", "b"))
    deployment.store.write(TableRef("poi_aggregates", "b"), poi.slice(1))
    with pytest.raises(ContractError, match=r"poi_aggregates: .*1 cells missing"):
        assemble_features(deployment)


def test_features_refuse_another_width_than_the_encoders(open_lake):
    deployment = open_lake()
    statistics = {name: m.statistics for name, m in assemble_features(deployment).modalities.items()}
    statistics["imagery"] = statistics["poi"]
    with pytest.raises(ContractError, match="imagery_features has 6 feature columns, the encoder was trained on 7"):
        assemble_features(deployment, None, statistics)


def test_a_missing_region_is_named(open_lake):
    deployment = open_lake()
    deployment.store.fs.rm(deployment.store.path(TableRef("census_features", "b")))
    with pytest.raises(MissingTableError, match=r"census_features\[b\]"):
        assemble_features(deployment)


def test_node_embeddings(open_lake):
    deployment = open_lake()
    result = build_node_embeddings(deployment)
    table = deployment.store.read(TableRef("node_embeddings"))
    assert np.array_equal(table["cell"].to_numpy(), CELLS)
    vectors = matrix_of(table["vector"])
    assert vectors.shape == (30, 8)
    assert not vectors[29].any()
    assert table["degree"].to_numpy()[29] == 0
    assert result.counts["nodes"] == 30
    assert result.counts["isolated_nodes"] == 1
    assert result.counts["samples"] == 50 * result.counts["edges"]
    assert result.counts["samples_per_second"] > 0
    assert result.counts["loss_last"] < result.counts["loss_first"]
    assert all(picture.startswith(b"\x89PNG") for picture in result.pictures.values())
    assert build_node_embeddings(deployment).written.data_version == result.written.data_version


def test_node_embeddings_of_a_graph_without_edges(open_lake):
    deployment = open_lake()
    write_graph(deployment.store, make_graph(CELLS, []))
    result = build_node_embeddings(deployment)
    assert result.counts["isolated_nodes"] == 30
    assert result.pictures == {}
    build_encoder(deployment)
    build_embeddings(deployment, "a")
    assert not any(deployment.store.read(TableRef("embeddings", "a"))["has_mobility"].to_pylist())


@pytest.mark.parametrize("encoder", [{}, FUSED])
def test_the_whole_way(open_lake, encoder):
    deployment = open_lake(**encoder)
    _, trained, *regional = run_all(deployment)
    assert trained.counts["cells"] == 30
    assert trained.counts["cells_with_poi"] == 29
    assert trained.counts["epochs"] == 3
    assert all(picture.startswith(b"\x89PNG") for picture in trained.pictures.values())
    fingerprint = trained.counts["fingerprint"]
    tables = {region: deployment.store.read(TableRef("embeddings", region)) for region in ("a", "b", "empty")}
    for region in ("a", "b"):
        table = tables[region]
        assert np.array_equal(table["cell"].to_numpy(), CELLS[region == REGION_OF])
        assert set(table["encoder"].to_pylist()) == {fingerprint}
        vectors = matrix_of(table["vector"])
        assert vectors.shape == (len(table), 8)
        assert vectors.any(axis=1).all()
    assert tables["empty"].num_rows == 0
    assert tables["empty"].schema.field("vector").type.list_size == 8
    flags = {c: i for r in ("a", "b") for i, c in enumerate(tables[r]["cell"].to_pylist())}
    for name, absent in (("mobility", 29), ("poi", 4), ("imagery", 7), ("census", 9)):
        region = REGION_OF[absent]
        column = tables[region][f"has_{name}"].to_pylist()
        assert not column[flags[int(CELLS[absent])]]
        assert sum(column) == len(column) - 1
    assert [result.counts["cells"] for result in regional] == [20, 10, 0]
    assert regional[2].pictures == {}


@pytest.mark.parametrize("encoder", [{}, FUSED])
def test_same_input_same_bytes(open_lake, encoder):
    deployment = open_lake(**encoder)
    first, second = run_all(deployment), run_all(deployment)
    assert [r.written.data_version for r in first] == [r.written.data_version for r in second]


def test_encoder_bundle_names_its_inputs(open_lake):
    deployment = open_lake()
    run_all(deployment)
    config = json.loads((deployment.store.bundle("encoder") / "config.json").read_text())
    store = deployment.store
    assert config["inputs"]["poi_aggregates[b]"] == store.data_version(TableRef("poi_aggregates", "b"))
    assert config["inputs"]["mobility_graph"] == store.data_version(TableRef("mobility_graph"))
    assert config["inputs"]["node_embeddings"] == store.data_version(TableRef("node_embeddings"))
    assert len(config["inputs"]) == 4 * 3 + 2
    assert config["image_encoder"] == "f1"
    assert config["encoder"]["dimensions"] == 8


def test_frozen_encoder_on_new_data(open_lake):
    """A region's features change, the encoder stays: only neighbours in the graph notice."""
    deployment = open_lake(feature_fusion=True)
    run_all(deployment)
    before = matrix_of(deployment.store.read(TableRef("embeddings", "b"))["vector"])
    fingerprint = TrainedEncoder.load(deployment.store.bundle("encoder")).fingerprint
    write_region(deployment.store, "b", CELLS[REGION_OF == "b"], seed=5)
    build_embeddings(deployment, "b")
    table = deployment.store.read(TableRef("embeddings", "b"))
    assert set(table["encoder"].to_pylist()) == {fingerprint}
    assert (matrix_of(table["vector"]) != before).any(axis=1).all()


def test_check_finds_embeddings_of_an_older_encoder(open_lake):
    deployment = open_lake()
    run_all(deployment)
    assert all(check_one_encoder(deployment, region).passed for region in ("a", "b", "empty"))
    write_region(deployment.store, "b", CELLS[REGION_OF == "b"], seed=5)
    build_encoder(deployment)
    build_embeddings(deployment, "b")
    outcome = check_one_encoder(deployment, "a")
    assert not outcome.passed
    assert TrainedEncoder.load(deployment.store.bundle("encoder")).fingerprint in outcome.message
    assert check_one_encoder(deployment, "b").passed


def test_new_cells_ask_for_retraining_where_there_is_no_student(open_lake):
    deployment = open_lake(student=None)
    run_all(deployment)
    write_region(deployment.store, "b", WITH_NEW)
    with pytest.raises(MissingTableError, match=r"region b has 1 cells .*encoder.student.*retrain"):
        build_embeddings(deployment, "b")


def test_encoder_refuses_vectors_of_another_graph(open_lake):
    deployment = open_lake()
    build_node_embeddings(deployment)
    write_graph(deployment.store, make_graph(CELLS[:20], random_edges(20, 50)))
    with pytest.raises(ContractError, match="node_embeddings is not about the cells of mobility_graph"):
        build_encoder(deployment)


def test_steps_need_their_upstream(tmp_path):
    deployment = Deployment(make_profile(), Store(str(tmp_path)))
    for step, name in (
        (build_node_embeddings, "mobility_graph"),
        (build_encoder, "grid_cells"),
        (lambda d: build_embeddings(d, "a"), "encoder"),
    ):
        with pytest.raises(MissingTableError, match=name):
            step(deployment)


def sources(store, region):
    table = store.read(TableRef("embeddings", region))
    return dict(zip(table["cell"].to_pylist(), table["source"].to_pylist(), strict=True))


@pytest.mark.parametrize("replaces", ["unknown", "without_mobility"])
def test_the_table_says_whose_vector_it_is(open_lake, replaces):
    deployment = open_lake(**FUSED, student={**STUDENT, "replaces": replaces})
    results = run_all(deployment)
    isolated = int(CELLS[29])
    whose = sources(deployment.store, "a") | sources(deployment.store, "b")
    assert whose.pop(isolated) == ("student" if replaces == "without_mobility" else "graph")
    assert set(whose.values()) == {"graph"}
    by_student = sum(result.counts["cells_by_student"] for result in results[2:])
    assert by_student == (replaces == "without_mobility")
    assert np.isfinite(results[1].counts["student_validation_loss"])
    assert "Loss of the student" in results[1].pictures


@pytest.mark.parametrize("encoder", [{}, FUSED])
def test_new_cells_get_vectors_and_change_no_others(open_lake, encoder):
    deployment = open_lake(**encoder)
    run_all(deployment)
    store = deployment.store
    before = {region: store.read(TableRef("embeddings", region)) for region in ("a", "b")}
    write_region(store, "b", WITH_NEW)
    edges = [*random_edges(30, 150, isolated=[29]), (0, 30, 9.0), (30, 1, 9.0)]
    # with and without the new cell in the graph, which has mobility to cells that the encoder knows
    for graph in (None, make_graph(np.sort(np.append(CELLS, WITH_NEW[-1])), edges)):
        if graph is not None:
            write_graph(store, graph)
        result = build_embeddings(deployment, "b")
        assert result.counts["cells_by_student"] == 1 + (29 in np.flatnonzero(REGION_OF == "b"))
        found = store.read(TableRef("embeddings", "b"))
        assert sources(store, "b")[int(WITH_NEW[-1])] == "student"
        assert found["has_mobility"].to_pylist()[-1] == (graph is not None)
        assert np.isfinite(matrix_of(found["vector"])).all()
        assert found["encoder"].unique().to_pylist() == before["b"]["encoder"].unique().to_pylist()
        build_embeddings(deployment, "a")
        if not encoder:  # the features of b are drawn anew: fused ones reach the neighbours, as the student's rings do
            of_graph = pc.equal(before["a"]["source"], "graph")
            assert store.read(TableRef("embeddings", "a")).filter(of_graph).equals(before["a"].filter(of_graph))
            assert found.slice(0, 10)["vector"].to_pylist() == before["b"]["vector"].to_pylist()


def test_a_new_region_gets_vectors_with_the_encoder_frozen(open_lake):
    deployment = open_lake(**FUSED)
    store = deployment.store
    write_region(store, "b", CELLS[:0])
    inside = np.flatnonzero(REGION_OF == "a")
    write_graph(store, make_graph(CELLS[inside], random_edges(20, 80)))
    run_all(deployment)
    before = store.read(TableRef("embeddings", "a"))
    write_region(store, "b", CELLS[REGION_OF == "b"])
    result = build_embeddings(deployment, "b")
    assert result.counts["cells_by_student"] == 10
    build_embeddings(deployment, "a")
    assert store.read(TableRef("embeddings", "a")).equals(before)
    assert check_one_encoder(deployment, "b").passed


def test_cells_that_are_gone_leave_the_others(open_lake):
    deployment = open_lake(**FUSED)
    run_all(deployment)
    fewer = CELLS[REGION_OF == "b"][:-1]
    write_region(deployment.store, "b", fewer)
    build_embeddings(deployment, "b")
    assert deployment.store.read(TableRef("embeddings", "b"))["cell"].to_pylist() == fewer.tolist()


def test_student_refuses_another_image_encoder(open_lake):
    deployment = open_lake()
    run_all(deployment)
    write_region(deployment.store, "a", CELLS[REGION_OF == "a"], image_encoder="f2")
    write_region(deployment.store, "b", WITH_NEW, image_encoder="f2")
    with pytest.raises(FingerprintError, match="retrain"):
        build_embeddings(deployment, "b")


def test_a_retrained_encoder_is_compared_with_the_one_before(open_lake):
    deployment = open_lake(**FUSED)
    first = run_all(deployment)[1]
    assert first.counts["alignment"].startswith("none")
    before = matrix_of(deployment.store.read(TableRef("embeddings", "a"))["vector"])
    again = run_all(deployment)
    assert again[1].counts["alignment"] == "measured, not applied"
    assert again[1].counts["alignment_residual_before"] == 0
    other = Deployment(make_profile(**FUSED, seed=1, align_to_previous=True), deployment.store)
    retrained = build_encoder(other)
    assert retrained.counts["alignment"] == "applied"
    assert retrained.counts["alignment_cells"] == 30
    assert 0 < retrained.counts["alignment_residual"] < retrained.counts["alignment_residual_before"]
    assert retrained.counts["alignment_cosine"] > retrained.counts["alignment_cosine_before"]
    build_embeddings(other, "a")
    build_embeddings(other, "b")
    turned = matrix_of(deployment.store.read(TableRef("embeddings", "a"))["vector"])
    encoder = TrainedEncoder.load(deployment.store.bundle("encoder"))
    rotation = encoder.tensors["alignment"]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(8), atol=1e-5)
    assert np.linalg.norm(turned - before) < np.linalg.norm(turned @ rotation.T - before)
    # the same inputs once more keep the rotation, to the bit
    assert build_encoder(other).written.data_version == retrained.written.data_version


def test_nothing_to_align_to(open_lake):
    deployment = open_lake(align_to_previous=True)
    build_node_embeddings(deployment)
    build_encoder(deployment)
    # there is an encoder, of which no vectors were made
    assert build_encoder(deployment).counts["alignment"].startswith("none: no vectors")
    assert "alignment" not in TrainedEncoder.load(deployment.store.bundle("encoder")).tensors


def test_a_damaged_region_does_not_keep_an_encoder_from_being_compared(open_lake, caplog):
    deployment = open_lake(**FUSED)
    run_all(deployment)
    Path(deployment.store.path(TableRef("embeddings", "b"))).write_bytes(b"PAR1 cut short")
    again = build_encoder(deployment)
    assert again.counts["alignment_cells"] == (REGION_OF == "a").sum()
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "embeddings[b]" in warning


def test_inductive_validation_from_line_to_vectors(open_lake):
    deployment = open_lake(**FUSED, validation="inductive", validation_fraction=0.4)
    store = deployment.store
    results = run_all(deployment)
    plain = open_lake(**FUSED)
    assert results[0].counts["edges"] < run_all(plain)[0].counts["edges"]
    assert results[1].counts["edges_kept"] == results[0].counts["edges"]
    # all have vectors, with the edges that they have
    assert sources(store, "a") | sources(store, "b") == dict.fromkeys(CELLS.tolist(), "graph")
