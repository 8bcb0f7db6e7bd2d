import pytest
import torch

from mobclip_core.encoder.modules import MobCLIP, ModalityHead
from mobclip_core.encoder.propagation import graph_adjacency
from mobclip_core.encoder.training import feature_tensors

WIDTHS = {"poi": 5, "imagery": 7, "census": 4}


@pytest.mark.parametrize(("hidden", "name"), [(None, "ModalityHead(5, 8)"), (6, "ModalityHead(5, 6, 8)")])
def test_head(hidden, name):
    head = ModalityHead(5, 8, hidden)
    assert str(head) == name
    assert head(torch.randn(3, 5)).shape == (3, 8)
    before = [p.clone() for p in head.parameters()]
    head.reset_parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))


def test_linear_head_by_hand():
    head = ModalityHead(2, 1)
    with torch.no_grad():
        head.mlp.lins[0].weight.copy_(torch.tensor([[2.0, -1.0]]))
        head.mlp.lins[0].bias.fill_(0.5)
    assert head(torch.tensor([[3.0, 4.0]])).item() == 2.5


def test_hidden_head_is_rectified_by_hand():
    head = ModalityHead(1, 1, 2)
    with torch.no_grad():
        head.mlp.lins[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        head.mlp.lins[0].bias.zero_()
        head.mlp.lins[1].weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.mlp.lins[1].bias.zero_()
    assert head(torch.tensor([[3.0], [-2.0]])).flatten().tolist() == [3, 20]


def test_paper_model(options):
    model = MobCLIP(40, WIDTHS, options())
    assert str(model.heads["census"]) == "ModalityHead(4, 6, 8)"
    assert str(model.heads["poi"]) == "ModalityHead(5, 8)"
    assert "LightGCN(num_layers=2)" in str(model)
    assert not model.fusion
    assert not model.decoders
    assert model.node_table.shape == (40, 8)


def test_paper_node_input_is_the_table(options, world):
    features, graph = world
    model = MobCLIP(40, WIDTHS, options(layers=0))
    model.reset_parameters()
    torch.nn.init.normal_(model.node_table)
    values, masks = feature_tensors(features)
    assert torch.equal(model(values, masks, graph_adjacency(graph)), model.node_table)


@pytest.mark.parametrize("hidden", [None, 3])
def test_fusion_adds_present_modalities_only(options, world, hidden):
    features, graph = world
    model = MobCLIP(40, WIDTHS, options(layers=0, feature_fusion=True, fusion_hidden=hidden))
    values, masks = feature_tensors(features)
    expected = torch.zeros(40, 8)
    for name in WIDTHS:
        for i in masks[name].nonzero().flatten():
            expected[i] += model.fusion[name](values[name][i])
    found = model(values, masks, graph_adjacency(graph))
    torch.testing.assert_close(found, expected)
    nobody = torch.stack(list(masks.values())).any(0).logical_not()
    assert not found[nobody].any()


def test_absent_features_have_no_gradient(options, world):
    features, graph = world
    model = MobCLIP(40, WIDTHS, options(feature_fusion=True, reconstruction_weight=1.0))
    values, masks = feature_tensors(features)
    values = {name: value.clone().requires_grad_() for name, value in values.items()}
    torch.nn.init.normal_(model.node_table)
    loss, _ = model.loss(model(values, masks, graph_adjacency(graph)), values, masks)
    loss.backward()
    for name, value in values.items():
        assert not value.grad[~masks[name]].any()
        assert value.grad[masks[name]].any(dim=1).all()


def test_loss_is_the_weighted_sum_of_its_terms(options, world):
    features, _ = world
    model = MobCLIP(40, WIDTHS, options(reconstruction_weight=3.0, contrastive_weight=0.5))
    values, masks = feature_tensors(features)
    z = torch.randn(40, 8)
    total, terms = model.loss(z, values, masks)
    assert set(terms) == {*WIDTHS, *(f"reconstruction_{name}" for name in WIDTHS)}
    error = (model.decoders["poi"](z) - values["poi"])[masks["poi"]].square().mean()
    torch.testing.assert_close(terms["reconstruction_poi"], error)
    contrast = sum(terms[name] for name in WIDTHS) / 3
    errors = sum(terms[f"reconstruction_{name}"] for name in WIDTHS) / 3
    torch.testing.assert_close(total, 0.5 * contrast + 3 * errors)


def test_reset_parameters_follows_the_generator(options):
    model = MobCLIP(10, WIDTHS, options(feature_fusion=True, reconstruction_weight=1.0))
    torch.manual_seed(1)
    model.reset_parameters()
    first = {name: value.clone() for name, value in model.state_dict().items()}
    torch.nn.init.normal_(model.node_table)
    torch.manual_seed(1)
    model.reset_parameters()
    for name, value in model.state_dict().items():
        assert torch.equal(value, first[name]), name
    assert not model.node_table.any()
