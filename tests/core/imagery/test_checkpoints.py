"""OpenCLIP's published names and formulas, written out in a few lines, against timm's converted model."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from mobclip_core.errors import SourceError
from mobclip_core.imagery.timm_encoder import TimmEncoder
from mobclip_core.profile import TimmConfig

import timm  # isort: skip

MODEL = "vit_tiny_clip_for_tests"
WIDTH, LAYERS, HEADS, EMBEDDING, PATCH, SIDE = 64, 2, 4, 24, 16, 32


@pytest.fixture(scope="module", autouse=True)
def tiny_model():
    """A CLIP ViT like timm's, too small to be published."""

    def build(pretrained=False, **options):
        sizes = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS}
        sizes |= {
            "pre_norm": True,
            "norm_layer": nn.LayerNorm,
            "pretrained_cfg_overlay": {"input_size": (3, SIDE, SIDE)},
        }
        return timm.models.vision_transformer._create_vision_transformer(
            "vit_base_patch32_clip_224", pretrained=False, **options | sizes
        )

    build.__name__, build.__module__ = MODEL, "timm.models.vision_transformer"
    timm.models.register_model(build)


def open_clip_state(seed=0, layers=LAYERS):
    """The state dict of open_clip's CLIP with a ViT (model.py, transformer.py), text tower included."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator) * 0.2

    state = {
        "visual.class_embedding": random(WIDTH),
        "visual.positional_embedding": random((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.conv1.weight": random(WIDTH, 3, PATCH, PATCH),
        "visual.proj": random(WIDTH, EMBEDDING),
        "logit_scale": torch.tensor(4.6),
        "token_embedding.weight": random(10, 8),
        "transformer.resblocks.0.ln_1.weight": random(8),
    }
    for norm in ("ln_pre", "ln_post"):
        state |= {f"visual.{norm}.weight": 1 + random(WIDTH), f"visual.{norm}.bias": random(WIDTH)}
    for i in range(layers):
        block = f"visual.transformer.resblocks.{i}."
        for norm in ("ln_1", "ln_2"):
            state |= {f"{block}{norm}.weight": 1 + random(WIDTH), f"{block}{norm}.bias": random(WIDTH)}
        for name, rows, columns in (
            ("attn.in_proj_", 3 * WIDTH, WIDTH),
            ("attn.out_proj.", WIDTH, WIDTH),
            ("mlp.c_fc.", 4 * WIDTH, WIDTH),
            ("mlp.c_proj.", WIDTH, 4 * WIDTH),
        ):
            state |= {f"{block}{name}weight": random(rows, columns), f"{block}{name}bias": random(rows)}
    return state


def open_clip_features(state, images):
    """The forward pass of open_clip's VisionTransformer: pooled (after ln_post) and projected."""
    f = nn.functional
    x = f.conv2d(images, state["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = x + state["visual.positional_embedding"]

    def norm(x, name):
        return f.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])

    x = norm(x, "visual.ln_pre")
    for i in range(LAYERS):
        block = f"visual.transformer.resblocks.{i}."
        h = norm(x, f"{block}ln_1")
        h, _ = f.multi_head_attention_forward(
            h.transpose(0, 1),
            h.transpose(0, 1),
            h.transpose(0, 1),
            WIDTH,
            HEADS,
            state[f"{block}attn.in_proj_weight"],
            state[f"{block}attn.in_proj_bias"],
            None,
            None,
            False,
            0.0,
            state[f"{block}attn.out_proj.weight"],
            state[f"{block}attn.out_proj.bias"],
            need_weights=False,
        )
        x = x + h.transpose(0, 1)
        h = f.linear(norm(x, f"{block}ln_2"), state[f"{block}mlp.c_fc.weight"], state[f"{block}mlp.c_fc.bias"])
        x = x + f.linear(f.gelu(h), state[f"{block}mlp.c_proj.weight"], state[f"{block}mlp.c_proj.bias"])
    pooled = norm(x[:, 0], "visual.ln_post")
    return pooled.numpy(), (pooled @ state["visual.proj"]).numpy()


def open_encoder(checkpoint, **options):
    return TimmEncoder(
        TimmConfig(kind="timm", model=options.pop("model", MODEL), checkpoint=str(checkpoint), **options)
    )


@pytest.mark.parametrize("form", ["plain", "training"])
def test_remote_clip_and_other_open_clip_files(tmp_path, form):
    state = open_clip_state()
    # RemoteCLIP's files are plain state dicts; open_clip's own training wraps them
    torch.save(
        state if form == "plain" else {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
        tmp_path / "RemoteCLIP.pt",
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, SIDE, SIDE)).astype(np.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pooled, projected = open_clip_features(state, (torch.from_numpy(pixels) / 255 - mean) / std)
    encoder = open_encoder(tmp_path / "RemoteCLIP.pt")
    assert encoder.dimensions == WIDTH
    np.testing.assert_allclose(encoder.encode(pixels), pooled, atol=1e-4)
    other = open_encoder(tmp_path / "RemoteCLIP.pt", output="projected")
    assert other.dimensions == EMBEDDING
    np.testing.assert_allclose(other.encode(pixels), projected, atol=1e-4)
    assert other.fingerprint != encoder.fingerprint


def test_a_checkpoint_with_more_layers_is_of_another_model(tmp_path):
    torch.save(open_clip_state(layers=3), tmp_path / "deep.pt")
    with pytest.raises(
        SourceError, match=rf"deep\.pt: not a checkpoint of {MODEL}: it has 12 weights more, first blocks"
    ):
        open_encoder(tmp_path / "deep.pt")


def test_no_projection_to_take(tmp_path):
    state = open_clip_state()
    del state["visual.proj"]
    torch.save(state, tmp_path / "bare.pt")
    with pytest.raises(SourceError, match=r"bare\.pt: no projection.*set imagery.encoder.output to pooled"):
        open_encoder(tmp_path / "bare.pt", output="projected")
    torch.manual_seed(0)
    classifier = timm.create_model("test_vit").state_dict()
    classifier["head.bias"] += 1
    safetensors.torch.save_file(classifier, str(tmp_path / "classifier.safetensors"))
    with pytest.raises(SourceError, match="its last layer is no projection"):
        open_encoder(tmp_path / "classifier.safetensors", model="test_vit", output="projected")
