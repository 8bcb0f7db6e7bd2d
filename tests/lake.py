"""A small deployment for tests: a profile made in memory, a lake in a temporary folder, grids made with h3."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h3
import numpy as np
import pyarrow as pa

from mobclip_core.deployment import Deployment
from mobclip_core.profile import Profile
from mobclip_core.store import Store, TableRef, Written
from mobclip_core.vectors import vector_column

RESOLUTION = 6


def disk(lat: float, lon: float, rings: int) -> list[int]:
    """Cells around a point, sorted."""
    return sorted(h3.str_to_int(c) for c in h3.grid_disk(h3.latlng_to_cell(lat, lon, RESOLUTION), rings))


def centre(cell: int) -> tuple[float, float]:
    """Longitude and latitude of a cell's centre."""
    lat, lon = h3.cell_to_latlng(h3.int_to_str(int(cell)))
    return lon, lat


def deployment(folder: Path, regions: Sequence[str], /, **sections: Any) -> Deployment:
    """A deployment with an empty lake; `sections` are sections of the profile."""
    raw: dict[str, Any] = {
        "name": "test",
        "storage": str(folder / "lake"),
        "regions": {"file": "regions.parquet", "key_column": "region", "keys": list(regions)},
        "zones": {
            "tracts": {"file": "tracts.parquet", "id_column": "geoid"},
            "blocks": {"file": "blocks.parquet", "id_column": "block"},
        },
        "census": {
            "zones": "tracts",
            "file": "census.parquet",
            "id_column": "geoid",
            "population": "people",
            "histogram": [{"column": "people"}],
        },
        "poi": {"categories": ["shop"]},
        "imagery": {"file": "image.tif"},
        "duckdb": {"memory_limit": "1GB", "threads": 2},
    }
    return Deployment(Profile.model_validate(raw | sections), Store(str(folder / "lake")))


def write_grid(lake: Deployment, region: str, cells: Sequence[int]) -> None:
    """Write grid_cells of a region."""
    cells = sorted(cells)
    centres = [centre(cell) for cell in cells]
    table = pa.table(
        {
            "cell": pa.array(cells, pa.uint64()),
            "region": pa.array([region] * len(cells), pa.string()),
            "lon": pa.array([lon for lon, _ in centres], pa.float64()),
            "lat": pa.array([lat for _, lat in centres], pa.float64()),
            "area_km2": pa.array([h3.cell_area(h3.int_to_str(c), "km^2") for c in cells], pa.float64()),
            "coverage": pa.array([1.0] * len(cells), pa.float64()),
        }
    )
    lake.store.write(TableRef("grid_cells", region), table)


def write_zones(lake: Deployment, region: str, layers: Mapping[str, Mapping[str, Mapping[int, float]]]) -> None:
    """Write zone_cells of a region from layer -> zone -> cell -> weight."""
    rows = sorted(
        (layer, zone, cell, weight)
        for layer, zones in layers.items()
        for zone, weights in zones.items()
        for cell, weight in weights.items()
    )
    table = pa.table(
        {
            "layer": pa.array([r[0] for r in rows], pa.string()),
            "zone": pa.array([r[1] for r in rows], pa.string()),
            "cell": pa.array([r[2] for r in rows], pa.uint64()),
            "area_km2": pa.array([1.0 for _ in rows], pa.float64()),
            "weight": pa.array([r[3] for r in rows], pa.float64()),
        }
    )
    lake.store.write(TableRef("zone_cells", region), table)


def write_census(lake: Deployment, region: str, population: Mapping[int, float]) -> None:
    """Write census_features of a region from cell -> people."""
    people = dict(sorted(population.items()))
    values = np.array(list(people.values()), dtype=float)
    table = pa.table(
        {
            "cell": pa.array(list(people), pa.uint64()),
            "population": pa.array(values),
            "histogram": vector_column(values.reshape(-1, 1)),
            "zone_share": pa.array(np.ones(len(values))),
        }
    )
    lake.store.write(TableRef("census_features", region), table)


def edges(count: int = 3, weight: float = 1.0) -> pa.Table:
    """A table of mobility_edges."""
    cells = pa.array(range(count), pa.uint64())
    return pa.table({"src": cells, "dst": cells, "weight": [weight] * count, "people": [9.0] * count})


def save_bundle(store: Store, name: str, content: Mapping[str, str]) -> Written:
    """Write a bundle of text files: path -> text."""
    result: list[Written] = []
    with store.write_bundle(name, result) as folder:
        for path, text in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    return result[0]
