"""The location encoder: the table of vectors distilled into a function of longitude and latitude.

Belongs here: which cells it learns from, its training, how well it does on cells it never saw, its files. Does not
belong here: the model itself (see `serving.location_encoder`, which is shipped as it is).

Source: Klemmer et al., "SatCLIP" (https://arxiv.org/abs/2311.17179) for harmonics of the sphere as a basis; these alone
cannot follow anything smaller than some 20,000 km over their degree, so that grids over the deployment's window, each
half as wide as the one before (Mueller et al. 2022, https://arxiv.org/abs/2201.05989, but dense), carry the detail.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from mobclip_core.encoder.device import deterministic, resolve_device
from mobclip_core.serving import location_encoder
from mobclip_core.serving.location_encoder import LocationEncoder

if TYPE_CHECKING:
    from mobclip_core.deployment import Count, Deployment, StepResult
    from mobclip_core.profile import LocationEncoderConfig
    from mobclip_core.serving import Places

NAME = "location_encoder"
_MARGIN_DEGREES = 0.25
_COARSEST_NODES = 3
_LOOKS = 40
"""Times that the losses are looked at."""


def held_out_cells(cells: np.ndarray, share: float) -> np.ndarray:
    """Cells that the location encoder does not learn from: the same whatever other cells there are.

    Args:
        cells: uint64, shape (n,).
        share: Their share, about.

    Returns:
        bool, shape (n,).
    """
    # Fibonacci hashing: the low bits of H3 indices are all ones
    mixed = (cells >> np.uint64(3)) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray((mixed >> np.uint64(40)).astype(np.float64) / 2**24 < share)


def window_of(lon: np.ndarray, lat: np.ndarray) -> list[float]:
    """West, south, east, north around places; east lies beyond 180 where the places do not end at the antimeridian."""
    turned = np.sort(lon % 360)
    gaps = np.diff(np.append(turned, turned[0] + 360))
    last = int(gaps.argmax())
    west = turned[(last + 1) % len(turned)]
    width = (turned[last] - west) % 360
    west = float(west if west <= 180 else west - 360) - _MARGIN_DEGREES
    south, north = max(float(lat.min()) - _MARGIN_DEGREES, -90.0), min(float(lat.max()) + _MARGIN_DEGREES, 90.0)
    return [west, south, west + float(width) + 2 * _MARGIN_DEGREES, north]


def grid_shapes(window: list[float], spacing: float) -> list[list[int]]:
    """Rows and columns of grids whose nodes lie `spacing` degrees apart, twice that, and so on; the coarsest first."""
    west, south, east, north = window
    shapes = []
    step = spacing
    while True:
        shape = [max(2, round(side / step) + 1) for side in (north - south, east - west)]
        shapes.append(shape)
        if max(shape) <= _COARSEST_NODES:
            return shapes[::-1]
        step *= 2


@dataclass(frozen=True)
class Fidelity:
    """How near the location encoder's vectors come to the table's, on some cells.

    Args:
        r2: Of all dimensions together: 1 - squared error over squared distance from the mean vector.
        cosine: Mean cosine between the two vectors of a cell.
        cells: How many cells.
    """

    r2: float
    cosine: float
    cells: int


def fidelity(found: np.ndarray, wanted: np.ndarray) -> Fidelity:
    """Compare vectors, both (n, d)."""
    error, spread = np.square(found - wanted).sum(), np.square(wanted - wanted.mean(axis=0)).sum()
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return Fidelity(float(1 - error / spread), float(((found * wanted).sum(axis=1) / norms).mean()), len(found))


def distil(
    places: "Places",
    options: "LocationEncoderConfig",
    learnt: np.ndarray,
    seed: int = 0,
    device: torch.device | None = None,
) -> tuple[LocationEncoder, dict[str, list[float]]]:
    """Train a location encoder on the vectors of some cells.

    Args:
        places: The table.
        options: Options.
        learnt: Cells to learn from, bool, shape (n,).
        seed: Of everything random.
        device: Where it is trained; the CPU if None.

    Returns:
        The model, on the CPU, and its loss along the training: `train`, and `validation` on the other cells, which
        nothing is chosen by.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    window = window_of(places.lon, places.lat)
    spacing = options.spacing * float(np.sqrt(np.median(places.area_km2))) / 111.2
    grids = grid_shapes(window, spacing)
    model = LocationEncoder(window, grids, options.features, options.degrees, options.hidden, places.dimensions)
    model = model.to(device)
    vectors = torch.from_numpy(places.vectors).to(device)
    lon, lat = (torch.from_numpy(values.astype(np.float32)).to(device) for values in (places.lon, places.lat))
    rows, others = np.flatnonzero(learnt), torch.from_numpy(np.flatnonzero(~learnt)).to(device)
    known = vectors[torch.from_numpy(rows).to(device)]
    model.mean.copy_(known.mean(0))
    model.scale.copy_((known - model.mean).square().mean().sqrt().clamp_min(1e-12))
    rest = [value for name, value in model.named_parameters() if not name.startswith("grids.")]
    optimiser = torch.optim.AdamW(
        [{"params": list(model.grids), "weight_decay": options.grid_decay}, {"params": rest, "weight_decay": 1e-4}],
        lr=options.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=options.learning_rate, total_steps=options.steps)

    def loss(part: torch.Tensor) -> torch.Tensor:
        found, goal = model(lon[part], lat[part]), vectors[part]
        error: torch.Tensor = ((found - goal) / model.scale).square().mean()
        return error + 1 - cosine_similarity(found, goal).mean()

    history: dict[str, list[float]] = {"train": [], "validation": []}
    batches = _batches(rows, options.batch_size, random)
    for steps in np.diff(np.linspace(0, options.steps, min(options.steps, _LOOKS) + 1).astype(int)):
        model.train()
        total = 0.0
        for _ in range(steps):
            optimiser.zero_grad()
            value = loss(torch.from_numpy(next(batches)).to(device))
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += float(value.detach())
        model.eval()
        history["train"].append(total / steps)
        with torch.no_grad():
            history["validation"].append(float(loss(others)) if len(others) else float("nan"))
    return model.cpu(), history


def _batches(rows: np.ndarray, size: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows in random order, again and again, a part at a time."""
    while True:
        order = random.permutation(rows)
        for start in range(0, max(len(order) - size, 0) + 1, size):
            yield order[start : start + size]


@torch.no_grad()
def vectors_of(model: LocationEncoder, lon: np.ndarray, lat: np.ndarray, at_once: int = 65_536) -> np.ndarray:
    """Vectors of places, float32 (n, d)."""
    parts = []
    for start in range(0, len(lon), at_once):
        part = (torch.from_numpy(values[start : start + at_once].astype(np.float32)) for values in (lon, lat))
        parts.append(model(*part).numpy())
    return np.concatenate(parts)


def save(model: LocationEncoder, folder: Path, about: dict[str, object]) -> None:
    """Write the model as safetensors with its module, and as ONNX.

    Args:
        model: The model.
        folder: Where to.
        about: What `location_encoder.json` says beside the model's options.
    """
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / f"{NAME}.safetensors")
    options = {
        "window": model.window,
        "grids": [list(grid.shape[2:]) for grid in model.grids],
        "features": model.features,
        "degrees": model.degrees,
        "hidden": model.hidden,
        "dimensions": int(model.mean.shape[0]),
    }
    (folder / f"{NAME}.json").write_text(json.dumps({"model": options, **about}, indent=2, sort_keys=True) + "\n")
    shutil.copy(str(location_encoder.__file__), folder / f"{NAME}.py")
    example = (torch.zeros(3), torch.zeros(3))
    # torch's newer exporter takes half a minute for the recurrence of the harmonics, this one a second
    torch.onnx.export(
        model.eval(),
        example,
        str(folder / f"{NAME}.onnx"),
        input_names=["lon", "lat"],
        output_names=["vector"],
        dynamic_axes={"lon": {0: "places"}, "lat": {0: "places"}, "vector": {0: "places"}},
        opset_version=18,
        dynamo=False,
    )


def build_location_encoder(deployment: "Deployment") -> "StepResult":
    """Distil the embeddings of all regions and write the bundle `location_encoder`.

    Raises:
        MissingTableError: If the embeddings of a region, or the labels, are not there yet.
        FingerprintError: If the embeddings are of several encoders.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.evaluation.units import enough_units, unit_sets
    from mobclip_core.evaluation.unseen import unseen_markdown, unseen_scores
    from mobclip_core.plots import loss_curves
    from mobclip_core.serving import open as open_places
    from mobclip_core.store import TableRef

    profile, store = deployment.profile, deployment.store
    places = open_places(store.url, profile.regions.region_keys)
    options = profile.location_encoder
    held_out = held_out_cells(places.cells, options.held_out)
    started = time.perf_counter()
    device = resolve_device(profile.encoder.device)
    with deterministic(device):
        model, history = distil(places, options, ~held_out, options.seed, device)
    seconds = time.perf_counter() - started
    found = vectors_of(model, places.lon, places.lat)
    seen, unseen = (fidelity(found[which], places.vectors[which]) for which in (~held_out, held_out))
    labels = enough_units(store.read(TableRef("geobench_labels")), profile, {})
    scores = unseen_scores(unit_sets(labels, places.cells), places.vectors, found, held_out, options.seed)
    about = {
        "encoder": places.encoder,
        "held_out_share": options.held_out,
        "fidelity": {"seen": vars(seen), "unseen": vars(unseen)},
        "geobench_unseen": [vars(score) for score in scores],
        "axis_order": "longitude, latitude; degrees",
    }
    with store.write_bundle(NAME, []) as folder:
        save(model, folder, about)
    counts: dict[str, Count] = {
        "cells_learnt": seen.cells,
        "cells_held_out": unseen.cells,
        "parameters": sum(value.numel() for value in model.parameters()),
        "seconds": round(seconds, 1),
        "r2_seen": round(seen.r2, 4),
        "r2_unseen": round(unseen.r2, 4),
        "cosine_seen": round(seen.cosine, 4),
        "cosine_unseen": round(unseen.cosine, 4),
        "encoder": places.encoder,
    }
    tables = {}
    if scores:
        tables["R2 on cells that it never saw"] = unseen_markdown(scores)
        counts["geobench_unseen_table"] = round(float(np.mean([score.table for score in scores])), 4)
        counts["geobench_unseen_function"] = round(float(np.mean([score.function for score in scores])), 4)
    pictures = {"Loss": loss_curves(history, "Location encoder: loss along the training")}
    return StepResult(store.written(NAME), counts, pictures, tables)
