import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.encoder.loss import StarLoss
from mobclip_core.encoder.tiled import tiled_info_nce


def reference(a, b, temperature):
    """Row by row, in float64, straight from the formula."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.asarray(a), np.asarray(b)))
    s = a @ b.T / temperature
    by_row = [-np.log(np.exp(s[i, i]) / np.exp(s[i]).sum()) for i in range(len(s))]
    by_column = [-np.log(np.exp(s[i, i]) / np.exp(s[:, i]).sum()) for i in range(len(s))]
    return (np.mean(by_row) + np.mean(by_column)) / 2


def test_two_cells_by_hand():
    # cosines: 1 and 0 on the diagonal's sides, so each term is log(1 + e^-2)
    a = torch.tensor([[3.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    assert tiled_info_nce(a, a, 0.5).item() == pytest.approx(np.log1p(np.exp(-2)), abs=1e-12)


@given(st.integers(1, 7), st.integers(1, 5), st.floats(0.1, 2), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_matches_the_formula(rows, width, temperature, seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, rows, width))
    found = tiled_info_nce(torch.from_numpy(a), torch.from_numpy(b), temperature).item()
    assert found == pytest.approx(reference(a, b, temperature), rel=1e-9, abs=1e-12)


def test_symmetric():
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(tiled_info_nce(a, b, 0.3), tiled_info_nce(b, a, 0.3))


def test_renumbering_changes_nothing():
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)
    order = torch.randperm(6)
    torch.testing.assert_close(tiled_info_nce(a[order], b[order], 0.3), tiled_info_nce(a, b, 0.3))


def star_inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(6, 4, generator=generator, dtype=dtype, requires_grad=True)
    views = {n: torch.randn(6, 4, generator=generator, dtype=dtype, requires_grad=True) for n in ("poi", "census")}
    masks = {"poi": torch.tensor([1, 1, 0, 1, 0, 1]).bool(), "census": torch.tensor([0, 1, 1, 1, 1, 1]).bool()}
    return centre, views, masks


def test_star_is_the_mean_over_present_cells():
    centre, views, masks = star_inputs()
    total, parts = StarLoss()(centre, views, masks, {"poi": 0.5, "census": 0.7})
    by_hand = {
        name: reference(centre.detach()[masks[name]], views[name].detach()[masks[name]], t)
        for name, t in (("poi", 0.5), ("census", 0.7))
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(by_hand)
    assert total.item() == pytest.approx(np.mean(list(by_hand.values())))


def test_masked_cells_get_no_gradient_and_are_no_negatives():
    centre, views, masks = star_inputs()
    total, _ = StarLoss()(centre, views, masks, {"poi": 0.5, "census": 0.7})
    total.backward()
    for name, view in views.items():
        assert not view.grad[~masks[name]].any()
        assert view.grad[masks[name]].any(dim=1).all()
    moved = {name: torch.where(masks[name][:, None], view, 1e3) for name, view in views.items()}
    again, _ = StarLoss()(centre, moved, masks, {"poi": 0.5, "census": 0.7})
    assert again.item() == total.item()


def test_modality_of_fewer_than_two_cells_is_left_out_of_the_mean():
    centre, views, masks = star_inputs()
    masks["poi"] = torch.tensor([1, 0, 0, 0, 0, 0]).bool()
    total, parts = StarLoss()(centre, views, masks, {"poi": 0.5, "census": 0.7})
    assert list(parts) == ["census"]
    assert total.item() == parts["census"].item()


def test_no_modality_at_all():
    centre, views, masks = star_inputs()
    nothing = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    total, parts = StarLoss()(centre, views, nothing, {"poi": 0.5, "census": 0.7})
    total.backward()
    assert parts == {}
    assert total.item() == 0
    assert not centre.grad.any()
