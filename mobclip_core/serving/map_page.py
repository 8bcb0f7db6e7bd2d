"""A map that people open: one HTML file with all cells, from a local disk or any static host.

Belongs here: the data of the page, put together with its script and deck.gl. Does not belong here: what the script does
with them (see `map_page.html`).

deck.gl comes from the package `pydeck`, whose bundle is put into the page: nothing is loaded from elsewhere, and the
page's content security policy forbids it. Numbers go in as gzipped binary, base64.
"""

import base64
import gzip
import html
import importlib.resources
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from h3ronpy.vector import cells_to_wkb_polygons

from mobclip_core.errors import MobclipError
from mobclip_core.serving.places import Places
from mobclip_core.vectors import principal_axes

FILE = "map.html"
TWIN_COMPONENTS = 32
"""Principal components by which the page finds the places most like one; all dimensions where there are fewer."""

_INT16 = 32_767
_LEVELS = 65_534
_NO_VALUE = 65_535
_OUTLINE_DEGREES = 0.005


@dataclass(frozen=True)
class Layer:
    """Numbers that cells can be coloured by.

    Args:
        group: What they are about, for people; layers of one group stand together.
        name: What they are in it: `label`, `predicted`, ...
        values: One a cell, NaN for none, shape (n,).
        diverging: Whether zero is the middle of the colours.
    """

    group: str
    name: str
    values: np.ndarray
    diverging: bool = False


def map_page(
    places: Places,
    title: str,
    layers: Sequence[Layer] = (),
    outlines: Sequence[tuple[str, shapely.Geometry]] = (),
    description: str = "",
) -> bytes:
    """The page.

    Args:
        places: The cells.
        title: Title.
        layers: What cells can be coloured by, beside their vectors.
        outlines: Regions' names and polygons in degrees.
        description: A sentence below the title.

    Returns:
        HTML, UTF-8.
    """
    from mobclip_core.plots import principal_colours

    colours, shares = principal_colours(places.vectors)
    twins, kept = _twin_codes(places.vectors)
    counts, corners, unit = _corners(places.cells, places.lon, places.lat)
    levels = [_levels(layer.values) for layer in layers]
    blobs = {
        "cells": places.cells.astype("<u8"),
        "centres": np.column_stack([places.lon, places.lat]).astype("<f4"),
        "corner_counts": counts,
        "corners": corners,
        "rgb": np.rint((0.04 + 0.88 * colours) * 255).astype(np.uint8),
        "region": places.region.astype("<u2"),
        "graph": places.graph.astype(np.uint8),
        "modalities": np.packbits(places.modalities, axis=1, bitorder="little")[:, 0],
        "twins": twins,
        **{f"layer_{i}": level for i, (level, _) in enumerate(levels)},
    }
    data: dict[str, Any] = {
        "title": title,
        "description": description,
        "count": len(places),
        "corner_unit": unit,
        "encoder": places.encoder,
        "regions": list(places.regions),
        "shares": [round(float(share), 4) for share in shares],
        "twin_components": twins.shape[1],
        "twin_share": round(kept, 4),
        "outlines": [{"name": name, "rings": _rings(polygon)} for name, polygon in outlines],
        "layers": [
            {"group": layer.group, "name": layer.name, "diverging": layer.diverging, **scale}
            for layer, (_, scale) in zip(layers, levels, strict=True)
        ],
        "blobs": {name: _packed(array) for name, array in blobs.items()},
    }
    page = importlib.resources.files(__package__).joinpath("map_page.html").read_text(encoding="utf-8")
    # in a script, only this sign can end it or open a comment
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"__TITLE__": html.escape(title), "__DATA__": content, "__DECK__": _deck_bundle()}
    for name, text in parts.items():
        page = page.replace(name, text, 1)
    return page.encode()


def _packed(array: np.ndarray) -> str:
    # without a time of writing: the same map is the same file
    return base64.b64encode(gzip.compress(np.ascontiguousarray(array).tobytes(), 6, mtime=0)).decode()


def _corners(cells: np.ndarray, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Corners of cells as differences from their centres.

    Returns:
        How many corners each has (six, five, or more where an edge of H3's icosahedron crosses it), uint8 (n,); the
        differences in longitude and latitude one after the other, int16 (corners, 2); and their unit in degrees.
    """
    rings = shapely.from_wkb(
        pa.array(cells_to_wkb_polygons(pa.array(cells, pa.uint64()))).to_numpy(zero_copy_only=False)
    )
    corners, owner = shapely.get_coordinates(rings, return_index=True)
    # a ring ends where it began
    inner = np.append(owner[1:] == owner[:-1], False) if len(owner) else np.zeros(0, dtype=bool)
    corners, owner = corners[inner], owner[inner]
    away = corners - np.column_stack([lon, lat])[owner]
    away[:, 0] = (away[:, 0] + 180) % 360 - 180
    unit = float(np.abs(away).max(initial=1e-9)) / _INT16
    return np.bincount(owner, minlength=len(cells)).astype(np.uint8), np.rint(away / unit).astype("<i2"), unit


def _levels(values: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Values as 16-bit levels between their smallest and largest."""
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    levels = np.full(len(values), _NO_VALUE, dtype="<u2")
    span = high - low if high > low else 1.0
    levels[finite] = np.rint((values[finite] - low) / span * _LEVELS)
    middle = np.percentile(values[finite], [2, 98]) if finite.any() else (0.0, 1.0)
    return levels, {"min": low, "span": span, "low": float(middle[0]), "high": float(middle[1])}


def _twin_codes(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Unit vectors on their first principal axes in 8 bits, int8 (n, k), and the share of their length kept."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0).astype(np.float64)
    axes, shares = principal_axes(unit, 0.0)
    kept = float(shares[:TWIN_COMPONENTS].sum())
    return np.rint(unit @ axes[:, :TWIN_COMPONENTS] * 127).astype(np.int8), kept


def _rings(polygon: shapely.Geometry) -> list[list[list[float]]]:
    rings = shapely.get_rings(shapely.get_parts(shapely.simplify(polygon, _OUTLINE_DEGREES)))
    return [np.round(shapely.get_coordinates(ring), 4).tolist() for ring in rings]


def _deck_bundle() -> str:
    """deck.gl as one script.

    Raises:
        MobclipError: If the package `pydeck` is not installed.
    """
    found = importlib.util.find_spec("pydeck")
    if found is None or found.origin is None:
        raise MobclipError("the map needs the package pydeck, which brings deck.gl: pip install pydeck")
    bundle = Path(found.origin).parent / "nbextension" / "static" / "index.js"
    text = bundle.read_text(encoding="utf-8")
    return text.replace("//# sourceMappingURL=index.js.map", "").replace("</script", "<\\/script")
