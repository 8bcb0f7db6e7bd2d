"""A lake of two small regions and an empty one, its upstream tables written through the store."""

import numpy as np
import pyarrow as pa

from mobclip_core.deployment import Deployment
from mobclip_core.profile import Profile
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import vector_column

from .conftest import make_cells, make_graph, random_edges

FUSED = {
    "factors": 4,
    "feature_fusion": True,
    "reconstruction_weight": 1.0,
    "spatial_edges_weight": 0.2,
    "modality_dropout": 0.2,
}
CELLS = make_cells(30)
REGION_OF = np.where(np.arange(30) % 3 == 0, "b", "a")
WITH_NEW = np.sort(np.append(CELLS[REGION_OF == "b"], CELLS[-1] + np.uint64(1 << 27)))
STUDENT = {"epochs": 3, "hidden": 16, "layers": 1}


def make_profile(**encoder):
    return Profile.model_validate(
        {
            "name": "tiny",
            "regions": {"file": "r.parquet", "key_column": "k", "keys": ["a", "b", "empty"]},
            "zones": {"tract": {"file": "z.parquet", "id_column": "id"}},
            "census": {
                "zones": "tract",
                "file": "c.parquet",
                "id_column": "id",
                "population": "p",
                "histogram": [{"column": "young"}, {"column": "old"}],
            },
            "poi": {"categories": ["food", "shop"]},
            "imagery": {"file": "i.tif"},
            "line": {"dimensions": 8, "samples_per_edge": 50, "batch_size": 32},
            "encoder": {"dimensions": 8, "max_epochs": 3, "device": "cpu", "learning_rate": 0.01, "student": STUDENT}
            | encoder,
        }
    )


def write_region(store, region, cells, image_encoder="f1", seed=0):
    random = np.random.default_rng([seed, len(region), len(cells)])
    n = len(cells)
    rank = np.searchsorted(CELLS, cells)

    def put(table, **columns):
        store.write(TableRef(table, region), pa.table({"cell": cells, **columns}))

    names = pa.array([region] * n, pa.string())
    area, coverage = np.full(n, 36.0), np.full(n, 0.5)
    put("grid_cells", region=names, lon=rank % 6 * 0.1, lat=rank // 6 * 0.0866, area_km2=area, coverage=coverage)
    counts = random.poisson(2.0, (n, 3)).astype(np.float32)
    counts[rank == 4] = 0
    text = random.normal(size=(n, 4)).astype(np.float32)
    put(
        "poi_aggregates",
        poi_count=counts.sum(1).astype(np.float64),
        counts=vector_column(counts),
        text_vector=vector_column(text),
    )
    valid = np.where(rank == 7, 0.2, 1.0)
    encoder = pa.array([image_encoder] * n, pa.string())
    features = vector_column(random.normal(size=(n, 6)).astype(np.float32))
    put("imagery_features", features=features, valid_fraction=valid, image_encoder=encoder)
    histogram = random.uniform(0, 50, (n, 2))
    histogram[rank == 9] = 0
    put(
        "census_features",
        population=histogram.sum(1),
        histogram=vector_column(histogram),
        zone_share=np.where(rank == 9, 0.0, 1.0),
    )


def write_graph(store, graph):
    with store.write_bundle("mobility_graph", []) as folder:
        for name in ("cells", "indptr", "indices", "weight", "keep"):
            np.save(folder / f"{name}.npy", getattr(graph, name))
        (folder / "graph.json").write_text("{}")


def open_lake(path, **encoder):
    """The lake in a folder, with some options of the encoder."""
    deployment = Deployment(make_profile(**encoder), Store(str(path)))
    for region in ("a", "b"):
        write_region(deployment.store, region, CELLS[region == REGION_OF])
    write_region(deployment.store, "empty", CELLS[:0])
    write_graph(deployment.store, make_graph(CELLS, random_edges(30, 150, isolated=[29])))
    return deployment
