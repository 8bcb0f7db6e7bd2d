import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from mobclip_core.errors import SourceError
from mobclip_core.imagery.timm_encoder import TimmEncoder

import timm  # isort: skip

MODEL = "test_vit"  # 0.3 million weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model(MODEL).state_dict(), str(path))
    return str(path)


def images(n=3, bands=3, side=16):
    return np.random.default_rng(0).integers(0, 256, (n, bands, side, side)).astype(np.uint8)


def test_features_are_those_of_the_model(checkpoint):
    encoder = TimmEncoder(MODEL, checkpoint=checkpoint, batch_size=2)
    found = encoder.encode(images())
    assert encoder.dimensions == 64
    assert found.shape == (3, 64)
    assert found.dtype == np.float32
    model = timm.create_model(MODEL, num_classes=0).eval()
    model.load_state_dict(safetensors.torch.load_file(checkpoint), strict=False)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(images()).float() / 255, size=(160, 160), mode="bicubic", antialias=True
    )
    with torch.inference_mode():
        expected = model((resized.clamp(0, 1) - 0.5) / 0.5).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_fewer_and_more_bands_and_float_pixels(checkpoint):
    encoder = TimmEncoder(MODEL, checkpoint=checkpoint)
    grey = images(bands=1)
    np.testing.assert_allclose(encoder.encode(grey), encoder.encode(np.repeat(grey, 3, axis=1)), atol=1e-5)
    more = np.concatenate([images(), grey], axis=1)
    np.testing.assert_allclose(encoder.encode(more), encoder.encode(images()), atol=1e-5)
    as_float = images().astype(np.float32) / 255
    np.testing.assert_allclose(encoder.encode(as_float), encoder.encode(images()), atol=1e-4)


def test_fingerprint_is_of_the_weights_whatever_the_file_format(checkpoint, tmp_path):
    encoder = TimmEncoder(MODEL, checkpoint=checkpoint)
    state = safetensors.torch.load_file(checkpoint)
    torch.save({"state_dict": state}, tmp_path / "same.pth")
    assert TimmEncoder(MODEL, checkpoint=str(tmp_path / "same.pth")).fingerprint == encoder.fingerprint
    state["pos_embed"] = state["pos_embed"] + 1
    torch.save(state, tmp_path / "other.pth")
    assert TimmEncoder(MODEL, checkpoint=str(tmp_path / "other.pth")).fingerprint != encoder.fingerprint


def test_checkpoint_of_another_model(checkpoint):
    with pytest.raises(SourceError, match=r"not a checkpoint of test_resnet.*weights are missing"):
        TimmEncoder("test_resnet", checkpoint=checkpoint)


def test_checkpoint_with_other_shapes(checkpoint, tmp_path):
    state = safetensors.torch.load_file(checkpoint)
    state["norm.weight"] = torch.ones(3)
    safetensors.torch.save_file(state, str(tmp_path / "bad.safetensors"))
    with pytest.raises(SourceError, match=r"bad\.safetensors: not a checkpoint of test_vit"):
        TimmEncoder(MODEL, checkpoint=str(tmp_path / "bad.safetensors"))


def test_unreadable_checkpoints(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.pth: no such file"):
        TimmEncoder(MODEL, checkpoint=str(tmp_path / "gone.pth"))
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
        with pytest.raises(SourceError, match=f"{name}: not a checkpoint"):
            TimmEncoder(MODEL, checkpoint=str(tmp_path / name))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("code of the file has run",))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(SourceError, match="not a checkpoint"):
        TimmEncoder(MODEL, checkpoint=str(tmp_path / "harmful.pth"))


def test_no_weights_and_no_such_model(checkpoint):
    with pytest.raises(SourceError, match=r"no weights.*name a checkpoint"):
        TimmEncoder(MODEL)
    with pytest.raises(SourceError, match="no model of this name"):
        TimmEncoder("test_vitt", checkpoint=checkpoint)


def test_hub_weights_without_a_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(SourceError, match=r"hub's weights cannot be loaded: no network.*local checkpoint"):
        TimmEncoder(MODEL, pretrained=True)


def test_torchvision_imports_in_a_fresh_process():
    code = (
        "import mobclip_core.imagery.vision, torch, torchvision;"
        "from torchvision.transforms.v2 import functional as f;"
        "print(tuple(f.resize(torch.zeros(3, 8, 8), [4, 4]).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(3, 4, 4)", done.stderr


def test_operators_are_declared_where_the_library_does_not_load(monkeypatch, tmp_path):
    from mobclip_core.imagery import vision

    assert hasattr(torch.ops.torchvision, "nms")
    assert hasattr(torch.ops.torchvision, "qnms")
    monkeypatch.setattr(vision.importlib.util, "find_spec", lambda name: None)
    assert vision._load_torchvision_library() is False
    # declaring twice is harmless
    vision._declare_operators()
