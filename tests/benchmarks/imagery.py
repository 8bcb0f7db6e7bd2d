"""From patches on disk to image features, against the bare model on the same batch size and device.

The patches are generated (a Parquet partition as `imagery_patches` writes it, 224 x 224 pixels of smoothed noise) and
the weights are random: nothing is downloaded. `value` is images a second through reading, decoding, batching,
normalising and encoding; `baseline` and the floor are the bare forward pass on a tensor made before, so `floor_ratio`
is the bare model's rate over ours. `reader_images_per_s` is the rate of the raster reader alone: on Blue Marble where
the real data are, else on a generated raster.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
import torch
from rasterio.transform import from_bounds

from mobclip_core.encoder.device import resolve_device
from mobclip_core.imagery.encoding import encode_patches
from mobclip_core.imagery.patches import read_patches
from mobclip_core.imagery.timm_encoder import TimmEncoder
from mobclip_core.profile import TimmConfig
from mobclip_core.store import Store, TableRef
from mobclip_core.tensors import tensor_column
from tests.benchmarks._report import median_seconds, report

import timm  # isort: skip

MODEL, SIDE = "vit_base_patch32_clip_224", 224
DATA = Path(os.environ.get("MOBCLIP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
REF = TableRef("imagery_patches", "generated")


def pictures(count: int) -> np.ndarray:
    """Noise of several scales, as compressible as photographs."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (count, 3, SIDE // 8, SIDE // 8), np.uint8).repeat(8, 2).repeat(8, 3)
    return coarse + rng.integers(0, 50, coarse.shape, np.uint8)


def write_patches(store: Store, count: int) -> None:
    """A partition as the step writes it: 32 MiB a row group."""

    def tables() -> Iterator[pa.Table]:
        for start in range(0, count, 128):
            pixels = pictures(min(128, count - start))
            cells = pa.array(range(start, start + len(pixels)), pa.uint64())
            yield pa.table({"cell": cells, "patch": tensor_column(pixels), "valid_fraction": np.ones(len(pixels))})

    store.write_batches(REF, tables(), row_group_rows=(1 << 25) // (3 * SIDE**2))


def open_encoder(folder: Path, batch: int, device: torch.device) -> TimmEncoder:
    """ViT-B/32 of CLIP with random weights."""
    torch.manual_seed(0)
    torch.save(timm.create_model(MODEL, num_classes=0).state_dict(), folder / "random.pt")
    return TimmEncoder(
        TimmConfig(kind="timm", model=MODEL, checkpoint=str(folder / "random.pt"), batch_size=batch), 3, device
    )


def bare_forward(encoder: TimmEncoder, batch: int, count: int, device: torch.device) -> None:
    """The network alone, on a ready input, as many times as the pipeline calls it."""
    images = torch.randn(batch, 3, SIDE, SIDE, device=device)
    with torch.inference_mode(), encoder._autocast:
        for _ in range(count // batch):
            encoder._network(images)
    if device.type == "cuda":
        torch.cuda.synchronize()


def reader_rate(folder: Path, count: int) -> tuple[float, str]:
    """Patches of 224 x 224 pixels a second from a raster, read in two threads as the step does."""
    file, name = str(DATA / "usa" / "bluemarble.tif"), "Blue Marble"
    west, south, east, north = -100.0, 33.0, -90.0, 43.0
    if not Path(file).is_file():
        file, name = str(folder / "raster.tif"), "generated"
        options = {"driver": "GTiff", "tiled": True, "compress": "deflate", "crs": "EPSG:4326", "dtype": "uint8"}
        transform = from_bounds(west - 2, south - 2, east + 2, north + 2, 3072, 3072)
        with rasterio.open(file, "w", width=3072, height=3072, count=3, transform=transform, **options) as sink:
            sink.write(np.random.default_rng(0).integers(0, 255, (3, 3072, 3072), np.uint8))
    # places in rows, as a region's cells lie
    side = int(np.ceil(np.sqrt(count)))
    lon, lat = (a.ravel()[:count] for a in np.meshgrid(np.linspace(west, east, side), np.linspace(north, south, side)))
    options = {"ground_resolution_m": 450.0, "patch_pixels": SIDE, "workers": 2}
    return count / median_seconds(lambda: read_patches(file, lon, lat, **options), 1), name


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    device = resolve_device("auto")
    gpu = device.type == "cuda"
    batch = 256 if gpu else 16
    count = (4_096 if quick else 16_384) if gpu else (48 if quick else 512)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/lake")
        write_patches(store, count)
        encoder = open_encoder(Path(folder), batch, device)

        def ours() -> None:
            workers = min(os.cpu_count() or 1, 8) if gpu else 2
            rows = encode_patches(store, REF, encoder, min_valid_fraction=0.5, workers=workers)
            assert sum(len(part.features) for part in rows) == count

        bare_forward(encoder, batch, batch, device)
        # in turns, so that both see the same noise of the machine
        times = [
            (median_seconds(ours, 1), median_seconds(lambda: bare_forward(encoder, batch, count, device), 1))
            for _ in range(2 if quick else 3)
        ]
        seconds, bare = (min(column) for column in zip(*times, strict=True))
        reader, raster = reader_rate(Path(folder), 24 if quick else 256)
    line = io.StringIO()
    with contextlib.redirect_stdout(line):
        report("imagery", count / seconds, "images/s", n=count, baseline=count / bare, floor_ratio=seconds / bare)
    more = {"batch": batch, "reader_images_per_s": reader, "reader_raster": raster}
    more |= {"device": torch.cuda.get_device_name() if gpu else json.loads(line.getvalue())["device"]}
    print(json.dumps(json.loads(line.getvalue()) | more))


if __name__ == "__main__":
    main()
