"""Settings of imagery.

Belongs here: options of rasters and image encoders. Does not belong here: reading rasters, encoding.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mobclip_core.profile.base import Files, Fraction, Settings


class StacItems(Settings):
    """Scenes of a STAC item list (SpatioTemporal Asset Catalog 1.0 or 1.1), least cloudy and newest on top.

    Args:
        file: ItemCollection (`"type": "FeatureCollection"`), a single Item, or one Item a line (ndjson).
        assets: Keys of the assets whose bands, one after the other, are the image's bands, e.g. red, green, blue.
    """

    file: Files
    assets: Annotated[list[str], Field(min_length=1)]


class TileFolder(Settings):
    """A folder of XYZ map tiles (EPSG:3857; PNG, JPEG or WebP). A tile that is not there has no data.

    Args:
        folder: Folder or URL that the pattern starts at.
        zoom: Zoom level to read.
        pattern: Path of a tile below the folder, with {z}, {x} and {y}, or {-y} where rows count from the south (TMS).
        tile_pixels: Side of a tile in pixels.
    """

    folder: str
    zoom: Annotated[int, Field(ge=0, le=24)]
    pattern: str = "{z}/{x}/{y}.png"
    tile_pixels: Annotated[int, Field(ge=1)] = 256

    @field_validator("pattern")
    @classmethod
    def _has_a_place_for_column_and_row(cls, pattern: str) -> str:
        found = sorted(re.findall(r"\{(.*?)\}", pattern))
        if [name for name in found if name != "z"] not in (["x", "y"], ["-y", "x"]) or found.count("z") > 1:
            raise ValueError("write {x} and {y} (or {-y}) once each, and {z} at most once")
        return pattern


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


class BandNormalisation(Settings):
    """How a pixel becomes the model's input: (pixel / scale - mean) / std, band by band.

    Args:
        mean: Mean of each band, in the order of the bands, after the division.
        std: Standard deviation of each band, after the division.
        scale: What pixels are divided by, e.g. 10000 for Sentinel-2 reflectance, 255 for 8-bit images.
    """

    mean: Annotated[list[float], Field(min_length=1)]
    std: list[Annotated[float, Field(gt=0)]]
    scale: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _as_many_means_as_deviations(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means but {len(self.std)} standard deviations")
        return self


class TimmConfig(Settings):
    """Any timm model.

    Args:
        kind: Discriminator.
        model: timm model name, e.g. `vit_base_patch32_clip_224` for RemoteCLIP and other OpenCLIP ViT-B/32 files,
            `vit_base_patch14_dinov2`, `vit_base_patch16_224.dino`, `resnet50.a1_in1k`.
        checkpoint: Local checkpoint file (safetensors or state dict); hub weights if None and `pretrained`.
        pretrained: Load the hub's weights.
        output: `pooled`: what the model pools before its last linear layer. `projected`: CLIP's image embedding, after
            its projection into the space shared with texts. RemoteCLIP's ViT-B/32 pools 768 values and projects 512,
            its ViT-L/14 pools 1,024 and projects 768.
        normalisation: The model's own if None; that of CLIP or ImageNet; `none` for 0..1; or one stated by band, which
            images of another type than 8 bits need.
        batch_size: Images a batch.
        precision: Numbers of the forward pass; `auto` takes bfloat16 on a GPU and float32 on a CPU.
    """

    kind: Literal["timm"]
    model: str
    checkpoint: str | None = None
    pretrained: bool = False
    output: Literal["pooled", "projected"] = "pooled"
    normalisation: Literal["clip", "imagenet", "none"] | BandNormalisation | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class ImageryConfig(Settings):
    """Imagery source (exactly one of `file`, `stac` and `tiles`) and encoder.

    Args:
        file: Raster (Cloud-Optimised GeoTIFF, VRT or any raster GDAL reads) in any CRS; several, or a glob pattern, are
            a mosaic, the first by name on top.
        stac: STAC item list.
        tiles: Folder of XYZ tiles.
        bands: 1-based band numbers; all if None.
        ground_resolution_m: Size of a patch's pixel on the ground.
        patch_pixels: Side of the square patch.
        min_valid_fraction: Below this the cell has no imagery: its modality is masked.
        workers: Threads that read rasters, or patches ahead of the encoder. Results do not depend on it.
        encoder: Image encoder.
    """

    file: Files | None = None
    stac: StacItems | None = None
    tiles: TileFolder | None = None
    bands: list[int] | None = None
    ground_resolution_m: Annotated[float, Field(gt=0)] = 500.0
    patch_pixels: Annotated[int, Field(ge=4)] = 16
    min_valid_fraction: Fraction = 0.5
    # how, not what: left out of what a code version is made of
    workers: Annotated[int, Field(ge=1, exclude=True)] = 2
    encoder: Annotated[RandomConvolutionalConfig | TimmConfig, Field(discriminator="kind")] = (
        RandomConvolutionalConfig()
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = [name for name in ("file", "stac", "tiles") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"name exactly one of file, stac and tiles; found {named or 'none'}")
        if self.stac is not None and len(self.stac.assets) > 1 and self.bands is not None:
            raise ValueError("stac.assets are the bands, in their order: leave bands out")
        return self

    @property
    def files(self) -> list[str]:
        """The paths, URLs and patterns that the profile names: rasters, item lists or a tile folder."""
        if self.tiles is not None:
            return [self.tiles.folder]
        file = self.stac.file if self.stac is not None else self.file
        assert file is not None
        return [file] if isinstance(file, str) else list(file)
