"""The steps that make the imagery tables: `imagery_encoder`, `imagery_patches`, `imagery_features`.

Belongs here: reading and writing tables around the pure functions of this package. Does not belong here: rasters (see
`patches`), encoders (see `features`).
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.encoder.device import resolve_device
from mobclip_core.errors import MobclipError, SourceError
from mobclip_core.imagery.encoding import EncodedRows, encode_patches
from mobclip_core.imagery.features import ImageEncoder, RandomConvolutionalEncoder
from mobclip_core.imagery.mosaic import Mosaic
from mobclip_core.imagery.patches import Patches, stream_patches
from mobclip_core.imagery.scenes import ImageSource, open_source
from mobclip_core.plots import embedding_map, patch_sheet
from mobclip_core.profile import ImageryConfig, TimmConfig
from mobclip_core.store import TableRef, Written
from mobclip_core.tensors import tensor_column

ENCODER_BUNDLE = "imagery_encoder"
_SHEET_PATCHES = 48
_MINIMUM_PATCHES = 10
_MAP_CELLS = 20_000
_ROW_GROUP_BYTES, _ROW_GROUP_ROWS = 1 << 25, 1 << 13
"""What is written, and later read and decoded, at a time."""


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
    parts = list(_stream(config, open_source(config), lon, lat))
    sample = Patches(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.valid_fraction for part in parts])
    )
    usable = sample.valid_fraction == 1.0
    if usable.sum() < _MINIMUM_PATCHES:
        raise SourceError(
            config.files,
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
    with Mosaic(open_source(deployment.profile.imagery)) as mosaic:
        encoder = _timm_encoder(config, mosaic.bands, "cpu")
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
    """Read the patch of every cell of a region and write them as they come; never all are in memory.

    A cell that no raster covers has a patch of zeros and a valid fraction of 0.

    Raises:
        SourceError: Missing, unreadable or truncated raster, no CRS, or a band that the file does not have.
    """
    config = deployment.profile.imagery
    grid = deployment.store.read(TableRef("grid_cells", region), ["cell", "lon", "lat"])
    source = open_source(config)
    # every so-manieth cell, so that the sheet shows the whole region
    shown = np.unique(np.linspace(0, max(grid.num_rows - 1, 0), _SHEET_PATCHES).astype(int))
    sheet: list[np.ndarray] = []
    fractions: list[np.ndarray] = []

    def tables() -> Iterator[pa.Table]:
        start = 0
        for patches in _stream(config, source, grid["lon"].to_numpy(), grid["lat"].to_numpy()):
            end = start + len(patches.pixels)
            sheet.append(patches.pixels[shown[(shown >= start) & (shown < end)] - start])
            fractions.append(patches.valid_fraction)
            yield pa.table(
                {
                    "cell": grid["cell"].slice(start, end - start),
                    "patch": tensor_column(patches.pixels),
                    "valid_fraction": patches.valid_fraction,
                }
            )
            start = end

    stream = tables()
    first = next(stream)
    rows = min(max(_ROW_GROUP_BYTES // first["patch"].type.storage_type.byte_width, 1), _ROW_GROUP_ROWS)
    written = deployment.store.write_batches(
        TableRef("imagery_patches", region), itertools.chain([first], stream), row_group_rows=rows
    )
    pictures = {}
    if grid.num_rows:
        title = f"{region}: image patches of {len(shown)} cells"
        pictures["patches"] = patch_sheet(np.concatenate(sheet), title)
    counts = _coverage_counts(np.concatenate(fractions), config.min_valid_fraction)
    return StepResult(written, counts | source.counts, pictures)


def build_imagery_features(deployment: Deployment, region: str) -> StepResult:
    """Encode the patches of a region; zeros where too little of a patch is valid.

    Patches are read, encoded and written as they come; never all are in memory.

    Raises:
        MissingTableError: If the patches or the encoder are not materialised.
        MobclipError: If the encoder is not the one that the profile asks for, or was made for other patches.
    """
    config, store = deployment.profile.imagery, deployment.store
    device = resolve_device("auto")
    ref = TableRef("imagery_patches", region)
    bands = store.row_groups(ref)[1].field("patch").type.shape[0]
    encoder = load_image_encoder(store.bundle(ENCODER_BUNDLE), config, str(device), bands)
    valid_fraction = store.read(ref, ["valid_fraction"])["valid_fraction"].to_numpy()
    stride = -(-len(valid_fraction) // _MAP_CELLS) or 1
    shown: list[EncodedRows] = []

    def tables() -> Iterator[pa.Table]:
        nothing = np.empty((0, encoder.dimensions), np.float32)
        yield EncodedRows(np.empty(0), nothing, np.empty(0), np.empty(0)).table(encoder.fingerprint)
        row = 0
        parts = encode_patches(
            store, ref, encoder, min_valid_fraction=config.min_valid_fraction, workers=config.workers
        )
        for part in parts:
            kept = (np.arange(row, row + len(part.cells)) % stride == 0) & part.covered
            shown.append(EncodedRows(part.cells[kept], part.features[kept], part.valid_fraction[kept], kept[kept]))
            row += len(part.cells)
            yield part.table(encoder.fingerprint)

    rows = min(max(_ROW_GROUP_BYTES // (4 * encoder.dimensions), 1), _ROW_GROUP_ROWS)
    written = store.write_batches(TableRef("imagery_features", region), tables(), row_group_rows=rows)
    counts = _coverage_counts(valid_fraction, config.min_valid_fraction)
    counts |= {"dimensions": encoder.dimensions, "image_encoder": encoder.fingerprint}
    pictures = {}
    if sum(len(part.cells) for part in shown) > 3:
        cells, features = (np.concatenate([getattr(part, name) for part in shown]) for name in ("cells", "features"))
        title = f"{region}: image features, first three principal components"
        pictures["features"] = embedding_map(cells, features, title)
    return StepResult(written, counts, pictures)


def load_image_encoder(directory: Path, config: ImageryConfig, device: str, bands: int) -> ImageEncoder:
    """The image encoder of the bundle, checked against the profile.

    Args:
        directory: The bundle `imagery_encoder`.
        config: The profile's imagery.
        device: Where to compute.
        bands: Bands of the patches.

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
    encoder = _timm_encoder(config.encoder, bands, device)
    if encoder.fingerprint != record["fingerprint"]:
        raise MobclipError(
            f"the weights of {config.encoder.model}, or how it is fed, are not those of imagery_encoder; {stale}"
        )
    return encoder


def _timm_encoder(config: TimmConfig, bands: int, device: str) -> ImageEncoder:
    # timm takes seconds to import
    from mobclip_core.imagery.timm_encoder import TimmEncoder

    return TimmEncoder(config, bands, device)


def _stream(config: ImageryConfig, source: ImageSource, lon: np.ndarray, lat: np.ndarray) -> Iterator[Patches]:
    return stream_patches(
        source,
        lon,
        lat,
        ground_resolution_m=config.ground_resolution_m,
        patch_pixels=config.patch_pixels,
        workers=config.workers,
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
