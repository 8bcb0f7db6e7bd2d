"""Small sets of places, generated, with random vectors."""

from pathlib import Path

import h3.api.numpy_int as h3
import numpy as np
import pyarrow as pa

from mobclip_core.grid import cell_centres
from mobclip_core.serving import Places
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import vector_column


def make_places(*, lon=10.0, lat=50.0, resolution=5, rings=8, dimensions=6, seed=0, coverage=None) -> Places:
    """The cells within some rings of a place, in two regions."""
    random = np.random.default_rng(seed)
    cells = np.sort(np.array(h3.grid_disk(h3.latlng_to_cell(lat, lon, resolution), rings), dtype=np.uint64))
    n = len(cells)
    centres = cell_centres(cells)
    return Places(
        cells=cells,
        vectors=random.normal(size=(n, dimensions)).astype(np.float32),
        graph=random.random(n) < 0.7,
        modalities=random.random((n, 4)) < 0.6,
        region=(np.arange(n) >= n // 2).astype(np.int64),
        regions=("east", "west"),
        lon=centres[0],
        lat=centres[1],
        area_km2=np.array([h3.cell_area(int(cell), "km^2") for cell in cells]),
        coverage=random.uniform(0.2, 1.0, n) if coverage is None else np.full(n, float(coverage)),
        population=np.where(random.random(n) < 0.3, 0.0, random.uniform(0, 100, n)),
        encoder="f" * 64,
    )


def write_lake(places: Places, folder: Path, *, encoders=None, census=True) -> Store:
    """A lake that holds these places."""
    store = Store(str(folder))
    for number, region in enumerate(places.regions):
        own = np.flatnonzero(places.region == number)
        cells = pa.array(places.cells[own], pa.uint64())
        masks = {
            f"has_{name}": places.modalities[own, i] for i, name in enumerate(("mobility", "poi", "imagery", "census"))
        }
        embeddings = {
            "cell": cells,
            "vector": vector_column(places.vectors[own]),
            "encoder": [(encoders or {}).get(region, places.encoder)] * len(own),
            "source": np.where(places.graph[own], "graph", "student"),
            **masks,
        }
        grid = {
            "cell": cells,
            "region": [region] * len(own),
            "lon": places.lon[own],
            "lat": places.lat[own],
            "area_km2": places.area_km2[own],
            "coverage": places.coverage[own],
        }
        store.write(TableRef("embeddings", region), pa.table(embeddings))
        store.write(TableRef("grid_cells", region), pa.table(grid))
        if census:
            people = {
                "cell": cells,
                "population": places.population[own],
                "histogram": vector_column(places.population[own][:, None]),
                "zone_share": np.ones(len(own)),
            }
            store.write(TableRef("census_features", region), pa.table(people))
    return store
