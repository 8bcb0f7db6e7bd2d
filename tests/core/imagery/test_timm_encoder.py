import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from mobclip_core.errors import MobclipError, SourceError
from mobclip_core.imagery.timm_encoder import TimmEncoder
from mobclip_core.profile import TimmConfig

import timm  # isort: skip

MODEL = "test_vit"  # 0.3 million weights


def open_encoder(model=MODEL, bands=3, **options):
    return TimmEncoder(TimmConfig(kind="timm", model=model, **options), bands)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model(MODEL).state_dict(), str(path))
    return str(path)


def images(n=3, bands=3, side=16):
    return np.random.default_rng(0).integers(0, 256, (n, bands, side, side)).astype(np.uint8)


def test_features_are_those_of_the_model(checkpoint):
    encoder = open_encoder(checkpoint=checkpoint, batch_size=2)
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


def test_one_band_is_repeated(checkpoint):
    grey = images(bands=1)
    found = open_encoder(checkpoint=checkpoint, bands=1).encode(grey)
    expected = open_encoder(checkpoint=checkpoint).encode(np.repeat(grey, 3, axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bands_must_be_those_of_the_weights(checkpoint):
    with pytest.raises(SourceError, match=r"weights are for 3 bands, the imagery has 4; way out: choose 3 bands"):
        open_encoder(checkpoint=checkpoint, bands=4, normalisation="none")
    with pytest.raises(MobclipError, match="opened for 3 bands, the patches have 2"):
        open_encoder(checkpoint=checkpoint).encode(images(bands=2))


def test_many_bands_with_a_stated_normalisation(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(MODEL, in_chans=5, num_classes=0).eval()
    safetensors.torch.save_file(model.state_dict(), str(tmp_path / "five.safetensors"))
    stated = {"mean": [0.1, 0.2, 0.3, 0.4, 0.5], "std": [1.0, 0.5, 0.25, 2.0, 1.5], "scale": 10_000}
    options = {"checkpoint": str(tmp_path / "five.safetensors"), "bands": 5}
    encoder = open_encoder(**options, normalisation=stated)
    reflectance = np.random.default_rng(0).integers(0, 16_000, (2, 5, 160, 160)).astype(np.float32)
    mean, std = (torch.tensor(stated[key])[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        expected = model((torch.from_numpy(reflectance) / 10_000 - mean) / std).numpy()
    np.testing.assert_allclose(encoder.encode(reflectance), expected, atol=1e-4)
    other = open_encoder(**options, normalisation=stated | {"scale": 5_000})
    assert other.fingerprint != encoder.fingerprint
    with pytest.raises(MobclipError, match="the one stated is for 3 bands, the imagery has 5"):
        open_encoder(**options, normalisation={"mean": [0, 0, 0], "std": [1, 1, 1]})
    with pytest.raises(MobclipError, match="the model's own is for 3 bands, the imagery has 5"):
        open_encoder(**options)


def test_pixels_that_are_not_8_bits_need_a_stated_normalisation(checkpoint):
    encoder = open_encoder(checkpoint=checkpoint)
    with pytest.raises(MobclipError, match=r"hold float32 values.*imagery.encoder.normalisation"):
        encoder.encode(images().astype(np.float32))
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3, "scale": 255}
    as_float = open_encoder(checkpoint=checkpoint, normalisation=stated).encode(images(side=160).astype(np.float32))
    np.testing.assert_allclose(as_float, encoder.encode(images(side=160)), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("none", (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_named_normalisations(checkpoint, name, mean, std):
    found = open_encoder(checkpoint=checkpoint, normalisation=name)
    stated = open_encoder(checkpoint=checkpoint, normalisation={"mean": mean, "std": std, "scale": 255})
    pixels = images(side=160)
    np.testing.assert_allclose(found.encode(pixels), stated.encode(pixels), atol=1e-5)
    assert found.fingerprint != open_encoder(checkpoint=checkpoint).fingerprint


def test_clip_models_have_clips_own_normalisation():
    config = timm.get_pretrained_cfg("vit_base_patch32_clip_224")
    assert config.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert config.std == pytest.approx((0.26862954, 0.26130258, 0.27577711))


def test_batches_do_not_change_an_image(checkpoint):
    pixels = images(n=7)
    found = open_encoder(checkpoint=checkpoint, batch_size=3).encode(pixels)
    np.testing.assert_allclose(open_encoder(checkpoint=checkpoint, batch_size=64).encode(pixels), found, atol=1e-5)
    # the same size, other companions: the same bits
    order = np.array([6, 4, 2, 0, 1, 3, 5])
    np.testing.assert_array_equal(
        open_encoder(checkpoint=checkpoint, batch_size=7).encode(pixels)[order],
        open_encoder(checkpoint=checkpoint, batch_size=7).encode(pixels[order]),
    )
    assert open_encoder(checkpoint=checkpoint).encode(pixels[:0]).shape == (0, 64)


def test_bfloat16_where_asked_for(checkpoint):
    exact = open_encoder(checkpoint=checkpoint)
    half = open_encoder(checkpoint=checkpoint, precision="bfloat16")
    expected, found = exact.encode(images()), half.encode(images())
    assert found.dtype == np.float32
    assert (found != expected).any()
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert half.fingerprint != exact.fingerprint
    np.testing.assert_array_equal(open_encoder(checkpoint=checkpoint, precision="float32").encode(images()), expected)


def test_fingerprint_is_of_the_weights_whatever_the_file_format(checkpoint, tmp_path):
    encoder = open_encoder(checkpoint=checkpoint)
    state = safetensors.torch.load_file(checkpoint)
    torch.save({"state_dict": state}, tmp_path / "same.pth")
    assert open_encoder(checkpoint=str(tmp_path / "same.pth")).fingerprint == encoder.fingerprint
    state["pos_embed"] = state["pos_embed"] + 1
    torch.save(state, tmp_path / "other.pth")
    assert open_encoder(checkpoint=str(tmp_path / "other.pth")).fingerprint != encoder.fingerprint


def test_checkpoint_of_another_model(checkpoint):
    with pytest.raises(SourceError, match=r"not a checkpoint of test_resnet.*weights are missing"):
        open_encoder("test_resnet", checkpoint=checkpoint)


def test_checkpoint_with_other_shapes(checkpoint, tmp_path):
    state = safetensors.torch.load_file(checkpoint)
    state["norm.weight"] = torch.ones(3)
    safetensors.torch.save_file(state, str(tmp_path / "bad.safetensors"))
    with pytest.raises(SourceError, match=r"bad\.safetensors: not a checkpoint of test_vit"):
        open_encoder(checkpoint=str(tmp_path / "bad.safetensors"))


def test_unreadable_checkpoints(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.pth: no such file"):
        open_encoder(checkpoint=str(tmp_path / "gone.pth"))
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
        with pytest.raises(SourceError, match=f"{name}: not a checkpoint"):
            open_encoder(checkpoint=str(tmp_path / name))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("code of the file has run",))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(SourceError, match="not a checkpoint"):
        open_encoder(checkpoint=str(tmp_path / "harmful.pth"))


def test_no_weights_and_no_such_model(checkpoint):
    with pytest.raises(SourceError, match=r"no weights.*name a checkpoint"):
        open_encoder()
    with pytest.raises(SourceError, match="no model of this name"):
        open_encoder("test_vitt", checkpoint=checkpoint)


def test_hub_weights_without_a_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(SourceError, match=r"hub's weights cannot be loaded: no network.*local checkpoint"):
        open_encoder(pretrained=True)


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
