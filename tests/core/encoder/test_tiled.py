import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from mobclip_core.encoder import tiled
from mobclip_core.encoder.tiled import tiled_info_nce, tiled_sigmoid


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that batches of a few rows have several tiles, whole and cut off."""
    monkeypatch.setattr(tiled, "TILE_ROWS", 3)
    monkeypatch.setattr(tiled, "TILE_COLUMNS", 4)


def dense_info_nce(a, b, temperature, groups=None):
    logits = normalize(a) @ normalize(b).T / temperature
    if groups is not None:
        logits = logits.masked_fill((groups[:, None] == groups) & ~torch.eye(len(a), dtype=torch.bool), -torch.inf)
    labels = torch.arange(len(a))
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def dense_sigmoid(a, b, temperature, bias, groups=None):
    logits = normalize(a) @ normalize(b).T / temperature + bias
    own = torch.eye(len(a), dtype=torch.bool)
    losses = -logsigmoid(torch.where(own, logits, -logits))
    if groups is not None:
        losses = losses[(groups[:, None] != groups) | own]
    return losses.sum() / len(a)


def inputs(rows, width, seed, dtype=torch.float64, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(2, rows, width, generator=generator, dtype=dtype) * spread).unbind()
    return a.requires_grad_(), b.requires_grad_()


def gradients(loss, *leaves):
    return torch.autograd.grad(loss * 1.7, leaves)


cases = given(
    st.integers(1, 11),
    st.integers(1, 5),
    st.floats(0.002, 2),
    st.lists(st.integers(0, 3), min_size=11, max_size=11) | st.none(),
    st.integers(0, 1000),
)


@settings(max_examples=60)
@cases
def test_info_nce_and_gradients_equal_the_dense_ones(rows, width, temperature, groups, seed):
    a, b = inputs(rows, width, seed)
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    kept = None if groups is None else torch.tensor(groups[:rows])
    expected, found = dense_info_nce(a, b, tau, kept), tiled_info_nce(a, b, tau, kept)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(found, a, b, tau), gradients(expected, a, b, tau), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10 / temperature)


@settings(max_examples=60)
@cases
def test_sigmoid_and_gradients_equal_the_dense_ones(rows, width, temperature, groups, seed):
    a, b = inputs(rows, width, seed)
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.5, dtype=torch.float64, requires_grad=True)
    kept = None if groups is None else torch.tensor(groups[:rows])
    expected, found = dense_sigmoid(a, b, tau, bias, kept), tiled_sigmoid(a, b, tau, bias, kept)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(found, a, b, tau, bias), gradients(expected, a, b, tau, bias), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 / temperature)


@pytest.mark.parametrize("temperature", [0.5, 0.2, 0.07, 0.01])
def test_single_precision(temperature):
    a, b = inputs(200, 16, 0, torch.float32)
    x, y = (value.detach().double().requires_grad_() for value in (a, b))
    expected, found = dense_info_nce(x, y, temperature), tiled_info_nce(a, b, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(gradients(found, a, b), gradients(expected, x, y), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_opposite_views_at_a_low_temperature_stay_finite():
    a, _ = inputs(5, 3, 0, torch.float32)
    loss = tiled_info_nce(a, -a.detach(), 0.005)
    assert loss.item() == pytest.approx(dense_info_nce(a.double(), -a.detach().double(), 0.005).item(), rel=1e-5)
    assert torch.isfinite(gradients(loss, a)[0]).all()


def test_rows_of_one_group_alone_have_no_negatives():
    a, b = inputs(6, 4, 0)
    loss = tiled_info_nce(a, b, 0.3, torch.zeros(6, dtype=torch.int64))
    assert loss.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradients(loss, a)[0], torch.zeros_like(a))


def test_the_order_of_rows_plays_no_part():
    a, b = inputs(10, 4, 0)
    groups = torch.tensor([2, 0, 1, 2, 2, 0, 3, 4, 4, 1])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        tiled_info_nce(a[order], b[order], 0.3, groups[order]), tiled_info_nce(a, b, 0.3, groups)
    )
