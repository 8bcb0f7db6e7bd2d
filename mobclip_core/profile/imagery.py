"""Settings of imagery.

Belongs here: options of rasters and image encoders. Does not belong here: reading rasters, encoding.
"""

from typing import Annotated, Literal

from pydantic import Field

from mobclip_core.profile.base import Fraction, Settings


class RandomConvolutionalConfig(Settings):
    """Random convolutional features, whitened on the data (MOSAIKS, Rolf et al. 2021).

    Args:
        kind: Discriminator.
        features: Length of the feature vector; two values (positive and negative part) a filter.
        filter_pixels: Side of a filter.
        sample_patches: Image patches sampled over the regions to draw and whiten filters from.
        bias: Bias inside the two rectifiers, in standard deviations of a filter's response (1 in the MOSAIKS code).
        seed: Seed of the sample.
    """

    kind: Literal["random_convolutional"] = "random_convolutional"
    features: Annotated[int, Field(ge=2, multiple_of=2)] = 512
    filter_pixels: Annotated[int, Field(ge=2)] = 3
    sample_patches: Annotated[int, Field(ge=10)] = 500
    bias: Annotated[float, Field(ge=0)] = 1.0
    seed: int = 0


class TimmConfig(Settings):
    """Any timm model.

    Args:
        kind: Discriminator.
        model: timm model name.
        checkpoint: Local checkpoint file (safetensors or state dict); hub weights if None and `pretrained`.
        pretrained: Load the hub's weights.
        batch_size: Images a batch.
    """

    kind: Literal["timm"]
    model: str
    checkpoint: str | None = None
    pretrained: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 64


class ImageryConfig(Settings):
    """Imagery source and encoder.

    Args:
        file: Raster (Cloud-Optimised GeoTIFF or any raster GDAL reads) in any CRS.
        bands: 1-based band numbers; all if None.
        ground_resolution_m: Size of a patch's pixel on the ground.
        patch_pixels: Side of the square patch.
        min_valid_fraction: Below this the cell has no imagery: its modality is masked.
        encoder: Image encoder.
    """

    file: str
    bands: list[int] | None = None
    ground_resolution_m: Annotated[float, Field(gt=0)] = 500.0
    patch_pixels: Annotated[int, Field(ge=4)] = 16
    min_valid_fraction: Fraction = 0.5
    encoder: Annotated[RandomConvolutionalConfig | TimmConfig, Field(discriminator="kind")] = (
        RandomConvolutionalConfig()
    )
