"""The image encoder on a GPU agrees with the CPU."""

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-3), ("auto", 5e-2)])
def test_features_equal_those_of_the_cpu(tmp_path, precision, tolerance):
    from mobclip_core.imagery.timm_encoder import TimmEncoder, timm
    from mobclip_core.profile import TimmConfig

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pt")
    config = TimmConfig(
        kind="timm", model="test_vit", checkpoint=str(tmp_path / "weights.pt"), batch_size=4, precision=precision
    )
    pixels = np.random.default_rng(0).integers(0, 256, (19, 3, 40, 40)).astype(np.uint8)
    expected, found = (TimmEncoder(config, 3, device).encode(pixels) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert TimmEncoder(config, 3, "cuda").fingerprint == TimmEncoder(config, 3, "cpu").fingerprint
