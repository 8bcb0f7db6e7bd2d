"""The encoder and LINE on a GPU agree with the CPU, and repeat themselves."""

import numpy as np
import pytest
import torch

from mobclip_core.encoder.distil import distil
from mobclip_core.encoder.embedding import embed
from mobclip_core.encoder.line import train_line
from mobclip_core.encoder.propagation import LightGCN
from mobclip_core.encoder.tiled import tiled_info_nce
from mobclip_core.encoder.training import train
from mobclip_core.profile import LineConfig, LocationEncoderConfig
from tests.benchmarks._encoder import country
from tests.core.encoder.conftest import beside, encoder_options, make_cells, make_features, make_graph, random_edges
from tests.places import make_places

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

FULL = {
    "feature_fusion": True,
    "reconstruction_weight": 1.0,
    "spatial_edges_weight": 0.5,
    "factors": 4,
    "batch_size": 90,
}


def test_rows_of_a_batch_equal_those_of_the_cpu():
    adjacency = country(2_000, 40_000)
    batch = torch.randperm(2_000)[:300].sort().values
    found = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        x = torch.randn(2_000, 32, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
        there = adjacency.to(device)
        z = LightGCN(2)(x, there, there.rows(batch.to(device)))
        z.square().sum().backward()
        found.append((z.detach().cpu(), x.grad.cpu()))
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-5)


def test_the_tiled_loss_equals_that_of_the_cpu():
    found = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.randn(3_000, 64, generator=generator).to(device).requires_grad_() for _ in range(2))
        loss = tiled_info_nce(a, b, 0.2)
        loss.backward()
        found.append((loss.item(), a.grad.cpu()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-6)


def test_training_equals_that_of_the_cpu_and_repeats_itself():
    cells = make_cells(200, blocks=8)
    features, graph = make_features(cells), make_graph(cells, random_edges(200, 1500))
    table = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    trained = [train(features, graph, table, encoder_options(**FULL, device=name)) for name in ("cpu", "cuda", "cuda")]
    assert trained[1].fingerprint == trained[2].fingerprint
    for name, values in trained[0].history.items():
        np.testing.assert_allclose(trained[1].history[name], values, rtol=1e-3)
    vectors = [
        embed(encoder, graph, beside(features), np.arange(200), lambda _: features, torch.device(device))
        for encoder, device in zip(trained, ("cpu", "cuda", "cuda"), strict=True)
    ]
    assert np.array_equal(vectors[1], vectors[2])


def test_line_repeats_itself_and_learns():
    graph = make_graph(make_cells(300), random_edges(300, 3000))
    config = LineConfig(dimensions=16, samples_per_edge=100, batch_size=256)
    first, second = (train_line(graph, config, torch.device("cuda")) for _ in range(2))
    assert np.array_equal(first.vertex, second.vertex)
    assert first.loss[-1] < first.loss[0]


def test_the_location_encoder_learns_as_on_the_cpu():
    places = make_places(rings=12, dimensions=8)
    options = LocationEncoderConfig(steps=20, batch_size=64, hidden=32, degrees=4)
    everywhere = np.ones(len(places), dtype=bool)
    found = [distil(places, options, everywhere, device=torch.device(name))[1]["train"] for name in ("cpu", "cuda")]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)
