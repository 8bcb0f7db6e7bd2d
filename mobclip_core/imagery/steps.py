"""The steps that make the imagery tables: `imagery_encoder`, `imagery_patches`, `imagery_features`.

Belongs here: reading and writing tables around the pure functions of this package. Does not belong here: rasters (see
`patches`), encoders (see `features`).
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from mobclip_core.contracts import vector_column
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.encoder.device import resolve_device
from mobclip_core.errors import MobclipError, SourceError
from mobclip_core.imagery.features import ImageEncoder, RandomConvolutionalEncoder, fill_invalid
from mobclip_core.imagery.patches import Patches, read_patches
from mobclip_core.plots import embedding_map, patch_sheet
from mobclip_core.profile import ImageryConfig, TimmConfig
from mobclip_core.store import TableRef, Written
from mobclip_core.tensors import tensor_column, tensors_of

ENCODER_BUNDLE = "imagery_encoder"
_SHEET_PATCHES = 48
_MINIMUM_PATCHES = 10


def build_imagery_encoder(deployment: Deployment) -> StepResult:
    """Fit the image encoder to a sample of the regions' imagery, or record which model's weights are used.

    The sample's positions are uniform over the regions' area. The encoder depends on the profile, the regions and the
    raster, not on the grid.

    Raises:
        SourceError: An unreadable raster, one that covers fewer than 10 of the sampled patches fully, or an unusable
            checkpoint.
    """
    config, store = deployment.profile.imagery, deployment.store
    if isinstance(config.encoder, TimmConfig):
        return _record_timm_encoder(deployment, config.encoder)
    regions = store.read(TableRef("regions"), ["region", "geometry", "area_km2"])
    polygons = shapely.from_wkb(regions["geometry"].to_numpy())
    lon, lat = sample_positions(
        polygons, regions["area_km2"].to_numpy(), config.encoder.sample_patches, config.encoder.seed
    )
    sample = _read(config, lon, lat)
    usable = sample.valid_fraction == 1.0
    if usable.sum() < _MINIMUM_PATCHES:
        raise SourceError(
            config.file,
            f"the raster covers {int(usable.sum())} of {len(lon)} patches sampled over the regions; "
            f"the image encoder needs at least {_MINIMUM_PATCHES}",
            hint="check that the raster and the regions are of the same country, and the raster's nodata value",
        )
    encoder = RandomConvolutionalEncoder.fit(
        sample.pixels[usable],
        features=config.encoder.features,
        filter_pixels=config.encoder.filter_pixels,
        bias=config.encoder.bias,
        seed=config.encoder.seed,
    )
    written: list[Written] = []
    with store.write_bundle(ENCODER_BUNDLE, written) as directory:
        encoder.save(directory)
    counts: dict[str, Count] = {
        "positions_sampled": len(lon),
        "patches_used": int(usable.sum()),
        "patches_partly_covered": int(((sample.valid_fraction > 0) & ~usable).sum()),
        "patches_without_imagery": int((sample.valid_fraction == 0).sum()),
        "bands": encoder.bands,
        "dimensions": encoder.dimensions,
        "image_encoder": encoder.fingerprint,
    }
    sheet = patch_sheet(sample.pixels[usable][:_SHEET_PATCHES], "Patches the image encoder was fitted to")
    return StepResult(written[0], counts, {"sampled patches": sheet})


def _record_timm_encoder(deployment: Deployment, config: TimmConfig) -> StepResult:
    encoder = _timm_encoder(config, "cpu")
    written: list[Written] = []
    with deployment.store.write_bundle(ENCODER_BUNDLE, written) as directory:
        record = {"kind": "timm", "model": config.model, "fingerprint": encoder.fingerprint}
        (directory / "encoder.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return StepResult(written[0], {"dimensions": encoder.dimensions, "image_encoder": encoder.fingerprint})


def sample_positions(
    polygons: np.ndarray, area_km2: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random positions, uniform over the area of polygons.

    Args:
        polygons: Shapely polygons in lon/lat, shape (r,).
        area_km2: Their areas, shape (r,): a polygon's share of the positions.
        count: Positions wanted.
        seed: Seed; each polygon draws from a stream of its own.

    Returns:
        Longitudes and latitudes in degrees, each of shape (count,), grouped by polygon.
    """
    bounds = np.floor(np.cumsum(area_km2) / np.sum(area_km2) * count + 0.5).astype(int)
    shares = np.diff(bounds, prepend=0)
    found = [
        _positions_in(p, int(n), np.random.default_rng([seed, i]))
        for i, (p, n) in enumerate(zip(polygons, shares, strict=True))
    ]
    lon, lat = np.concatenate(found, axis=1)
    return lon, lat


def _positions_in(polygon: shapely.Geometry, count: int, generator: np.random.Generator) -> np.ndarray:
    """Uniform positions in a polygon by rejection from its bounding box, shape (2, count)."""
    west, south, east, north = shapely.bounds(polygon)
    shapely.prepare(polygon)
    found = np.empty((2, 0))
    while found.shape[1] < count:
        lon = generator.uniform(west, east, 4096)
        # uniform in the sine of latitude is uniform in area on the sphere
        lat = np.degrees(np.arcsin(generator.uniform(np.sin(np.radians(south)), np.sin(np.radians(north)), 4096)))
        inside = shapely.contains_xy(polygon, lon, lat)
        found = np.concatenate([found, np.stack([lon, lat])[:, inside]], axis=1)
    return found[:, :count]


def build_imagery_patches(deployment: Deployment, region: str) -> StepResult:
    """Read the patch of every cell of a region.

    A cell that the raster does not cover has a patch of zeros and a valid fraction of 0.

    Raises:
        SourceError: Missing, unreadable or truncated raster, no CRS, or a band that the file does not have.
    """
    config = deployment.profile.imagery
    grid = deployment.store.read(TableRef("grid_cells", region), ["cell", "lon", "lat"])
    patches = _read(config, grid["lon"].to_numpy(), grid["lat"].to_numpy())
    table = pa.table(
        {"cell": grid["cell"], "patch": tensor_column(patches.pixels), "valid_fraction": patches.valid_fraction}
    )
    written = deployment.store.write(TableRef("imagery_patches", region), table)
    pictures = {}
    if grid.num_rows:
        # every so-manieth cell, so that the sheet shows the whole region
        shown = np.unique(np.linspace(0, grid.num_rows - 1, _SHEET_PATCHES).astype(int))
        pictures["patches"] = patch_sheet(patches.pixels[shown], f"{region}: image patches of {len(shown)} cells")
    return StepResult(written, _coverage_counts(patches.valid_fraction, config.min_valid_fraction), pictures)


def build_imagery_features(deployment: Deployment, region: str) -> StepResult:
    """Encode the patches of a region; zeros where too little of a patch is valid.

    Raises:
        MobclipError: If the image encoder of the lake is not the one that the profile describes, or was fitted to other
            bands than the patches have.
        SourceError: If the checkpoint of a timm model cannot be read.
    """
    config, store = deployment.profile.imagery, deployment.store
    device = resolve_device(deployment.profile.encoder.device)
    encoder = load_image_encoder(store.bundle(ENCODER_BUNDLE), config, str(device))
    table = store.read(TableRef("imagery_patches", region))
    patches = tensors_of(table["patch"])
    valid_fraction = table["valid_fraction"].to_numpy()
    covered = valid_fraction >= config.min_valid_fraction
    # a fraction of 0 is no imagery even where the profile asks for none
    covered &= valid_fraction > 0
    features = np.zeros((len(patches), encoder.dimensions), dtype=np.float32)
    if covered.any():
        features[covered] = encoder.encode(fill_invalid(patches[covered], valid_fraction[covered]))
    result = pa.table(
        {
            "cell": table["cell"],
            "features": vector_column(features),
            "valid_fraction": table["valid_fraction"],
            "image_encoder": pa.array([encoder.fingerprint] * len(patches), pa.string()),
        }
    )
    written = store.write(TableRef("imagery_features", region), result)
    counts = _coverage_counts(valid_fraction, config.min_valid_fraction)
    counts |= {"dimensions": encoder.dimensions, "image_encoder": encoder.fingerprint}
    pictures = {}
    if covered.sum() > 3:
        title = f"{region}: image features, first three principal components"
        pictures["features"] = embedding_map(table["cell"].to_numpy()[covered], features[covered], title)
    return StepResult(written, counts, pictures)


def load_image_encoder(directory: Path, config: ImageryConfig, device: str) -> ImageEncoder:
    """The image encoder of the bundle, checked against the profile.

    Args:
        directory: The bundle `imagery_encoder`.
        config: The profile's imagery.
        device: Where to compute.

    Raises:
        MobclipError: If the bundle was made for another kind of encoder, or with other weights.
    """
    record = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
    stale = "materialise imagery_encoder again"
    if record["kind"] != config.encoder.kind:
        raise MobclipError(
            f"the image encoder is {record['kind']}, the profile asks for {config.encoder.kind}; {stale}"
        )
    if not isinstance(config.encoder, TimmConfig):
        return RandomConvolutionalEncoder.load(directory, device)
    encoder = _timm_encoder(config.encoder, device)
    if encoder.fingerprint != record["fingerprint"]:
        raise MobclipError(f"the weights of {config.encoder.model} are not those of imagery_encoder; {stale}")
    return encoder


def _timm_encoder(config: TimmConfig, device: str) -> ImageEncoder:
    # timm takes seconds to import
    from mobclip_core.imagery.timm_encoder import TimmEncoder

    return TimmEncoder(
        config.model,
        checkpoint=config.checkpoint,
        pretrained=config.pretrained,
        batch_size=config.batch_size,
        device=device,
    )


def _read(config: ImageryConfig, lon: np.ndarray, lat: np.ndarray) -> Patches:
    return read_patches(
        config.file,
        lon,
        lat,
        ground_resolution_m=config.ground_resolution_m,
        patch_pixels=config.patch_pixels,
        bands=config.bands,
    )


def _coverage_counts(valid_fraction: np.ndarray, minimum: float) -> dict[str, Count]:
    return {
        "cells": len(valid_fraction),
        "cells_covered": int((valid_fraction == 1).sum()),
        "cells_partly_covered": int(((valid_fraction > 0) & (valid_fraction < 1)).sum()),
        "cells_without_imagery": int((valid_fraction == 0).sum()),
        "cells_below_min_valid_fraction": int(((valid_fraction > 0) & (valid_fraction < minimum)).sum()),
        "mean_valid_fraction": round(float(valid_fraction.mean()), 6) if len(valid_fraction) else 0.0,
    }
