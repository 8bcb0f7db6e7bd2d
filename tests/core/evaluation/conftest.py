from types import SimpleNamespace

import h3
import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.contracts import GEOBENCH_LABELS
from mobclip_core.deployment import Deployment
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.profile import Profile
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import vector_column

REGIONS = ["east", "west"]


def profile(tasks, **evaluation):
    return Profile.model_validate(
        {
            "name": "tiny",
            "grid": {"resolution": 6},
            "regions": {"file": "regions.gpkg", "key_column": "key", "keys": REGIONS},
            "zones": {"tracts": {"file": "tracts.gpkg", "id_column": "id"}},
            "census": {
                "zones": "tracts",
                "file": "census.csv",
                "id_column": "id",
                "population": "people",
                "histogram": [{"column": "young"}, {"column": "old"}],
            },
            "poi": {"categories": ["school", "shop"]},
            "imagery": {"file": "image.tif"},
            "tasks": tasks,
            "evaluation": {"bootstrap": 50, **evaluation},
        }
    )


@pytest.fixture
def world(tmp_path):
    """A disk of cells in two regions, with a store and helpers to fill it."""
    cells = np.sort(
        np.array([h3.str_to_int(c) for c in h3.grid_disk(h3.latlng_to_cell(45.0, 10.0, 6), 11)], dtype=np.uint64)
    )
    centres = np.array([h3.cell_to_latlng(h3.int_to_str(int(c))) for c in cells])
    lat, lon = centres.T
    area = np.array([h3.cell_area(h3.int_to_str(int(c)), unit="km^2") for c in cells])
    region = np.where(lon < 10.0, "west", "east")
    population = np.random.default_rng(0).integers(0, 500, len(cells)).astype(float)
    store = Store(str(tmp_path / "lake"))

    def write(table, **columns):
        for key in REGIONS:
            rows = {name: values[region == key] for name, values in columns.items()}
            arrays = {k: vector_column(v) if v.ndim == 2 else pa.array(v) for k, v in rows.items()}
            store.write(TableRef(table, key), pa.table(arrays))

    write("grid_cells", cell=cells, region=region, lon=lon, lat=lat, area_km2=area, coverage=np.ones(len(cells)))
    histogram = np.column_stack([population / 4, 3 * population / 4])
    write("census_features", cell=cells, population=population, histogram=histogram, zone_share=np.ones(len(cells)))

    def features(seed=0):
        """Random features, node vectors, embeddings and an encoder; gives back the embeddings."""
        rng, n = np.random.default_rng(seed), len(cells)

        def vectors(width):
            return rng.normal(size=(n, width)).astype(np.float32)

        counts = rng.integers(0, 3, (n, 3)).astype(np.float32)
        write(
            "poi_aggregates",
            cell=cells,
            poi_count=counts.sum(axis=1).astype(float),
            counts=counts,
            text_vector=vectors(8),
        )
        valid = np.where(np.arange(n) % 5 == 0, 0.0, 1.0)
        image = np.full(n, "image encoder", dtype=object)
        write("imagery_features", cell=cells, features=vectors(6), valid_fraction=valid, image_encoder=image)
        degree = np.where(np.arange(n) % 7 == 0, 0.0, 3.0)
        nodes = {"cell": pa.array(cells), "vector": vector_column(vectors(4)), "degree": pa.array(degree)}
        store.write(TableRef("node_embeddings"), pa.table(nodes))
        config = {"encoder": {}, "widths": {}, "image_encoder": None, "inputs": {}}
        trained = TrainedEncoder({"nodes": vectors(2)}, cells, config, {"train": [1.0], "validation": [1.0]})
        with store.write_bundle("encoder", []) as directory:
            trained.save(directory)
        return embed(vectors(12), trained.fingerprint)

    def embed(vector, encoder):
        flags = {f"has_{name}": np.ones(len(cells), dtype=bool) for name in ("mobility", "poi", "imagery", "census")}
        names = {"encoder": encoder, "source": "graph"}
        texts = {name: np.full(len(cells), value, dtype=object) for name, value in names.items()}
        write("embeddings", cell=cells, vector=vector, **texts, **flags)
        return vector

    def label(tasks):
        """Write labels: task -> (cells, values)."""
        tables = [GEOBENCH_LABELS.schema().empty_table()]
        for code, (members, values) in sorted(tasks.items()):
            n, zeros = len(members), np.zeros(len(members))
            columns = [[code] * n, [f"{c:x}" for c in members], ["cell"] * n, values, values, zeros, zeros]
            columns += [[[c] for c in members.tolist()], [[1.0]] * n]
            tables.append(pa.table(columns, names=GEOBENCH_LABELS.schema().names).cast(GEOBENCH_LABELS.schema()))
        store.write(TableRef("geobench_labels"), pa.concat_tables(tables))

    return SimpleNamespace(
        features=features,
        embed=embed,
        label=label,
        path=tmp_path,
        cells=cells,
        lon=lon,
        lat=lat,
        area=area,
        region=region,
        population=population,
        store=store,
        write=write,
        deployment=lambda tasks, **evaluation: Deployment(profile(tasks, **evaluation), store),
    )
