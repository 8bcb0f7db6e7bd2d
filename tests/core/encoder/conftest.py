from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from mobclip_core.encoder.features import Modality, ModalityFeatures, standardise, statistics_of
from mobclip_core.encoder.propagation import neighbour_edges
from mobclip_core.profile import EncoderConfig

DEFAULTS = {
    "dimensions": 8,
    "demographics_hidden": 6,
    "batch_size": 1000,
    "learning_rate": 1e-2,
    "max_epochs": 5,
    "validation_fraction": 0.25,
    "device": "cpu",
    "student": None,
}


def encoder_options(**changes):
    return EncoderConfig(**{**DEFAULTS, **changes})


def make_cells(n, blocks=4):
    """Sorted H3-shaped indices of resolution 6 spread over parents of resolution 3."""
    i = np.arange(n, dtype=np.uint64)
    block, inner = i * np.uint64(blocks) // np.uint64(max(n, 1)), i % np.uint64(343)
    digits = np.zeros(n, dtype=np.uint64)
    for position in range(3):  # digits of resolutions 4 to 6
        digits |= ((inner // np.uint64(7**position)) % np.uint64(7)) << np.uint64(27 + 3 * position)
    fixed = np.uint64((1 << 59) | (6 << 52) | (20 << 45) | ((1 << 27) - 1))
    return np.unique(fixed | (block << np.uint64(36)) | digits)


def make_graph(cells, edges, keep=None):
    """CSR graph from (source, destination, weight) triples."""
    edges = sorted(edges)
    source = np.array([e[0] for e in edges], dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=len(cells)))]).astype(np.int64)
    return SimpleNamespace(
        cells=cells,
        indptr=indptr,
        indices=np.array([e[1] for e in edges], dtype=np.int32),
        weight=np.array([e[2] for e in edges], dtype=np.float32),
        keep=np.ones(len(edges), dtype=bool) if keep is None else np.asarray(keep),
    )


def random_edges(n, m, seed=0, isolated=()):
    random = np.random.default_rng(seed)
    allowed = np.setdiff1d(np.arange(n), isolated)
    pairs = {tuple(pair) for pair in random.choice(allowed, size=(m, 2)).tolist() if pair[0] != pair[1]}
    return [(i, j, float(random.integers(1, 50))) for i, j in sorted(pairs)]


def make_features(cells, seed=0, empty=()):
    random = np.random.default_rng(seed)
    n = len(cells)
    modalities = {}
    for name, width in {"poi": 5, "imagery": 7, "census": 4}.items():
        values = random.normal(size=(n, width)).astype(np.float32)
        mask = np.zeros(n, dtype=bool) if name in empty else random.random(n) > 0.2
        used = statistics_of(values, mask)
        columns = tuple(f"{name}_{i}" for i in range(width))
        modalities[name] = Modality(standardise(values, mask, used), mask, columns, used)
    lon, lat = np.arange(n) % 8 * 0.1, np.arange(n) // 8 * 0.0866
    return ModalityFeatures(cells, np.zeros(n, np.int32), ("a",), lon, lat, modalities, "image-encoder")


def beside(features):
    """Edges between adjacent cells, (2, E)."""
    return neighbour_edges(features.lon, features.lat).numpy()


def permuted(features, graph, order):
    """The same cells in another node order: new node k is old node order[k]."""
    modalities = {
        name: Modality(m.values[order], m.mask[order], m.columns, m.statistics)
        for name, m in features.modalities.items()
    }
    f = features
    moved = ModalityFeatures(
        f.cells[order], f.region[order], f.regions, f.lon[order], f.lat[order], modalities, f.image_encoder
    )
    new = np.argsort(order)
    source = np.repeat(np.arange(len(f)), np.diff(graph.indptr))
    edges = [(new[i], new[j], w) for i, j, w in zip(source, graph.indices, graph.weight, strict=True)]
    return moved, make_graph(f.cells[order], edges)


@pytest.fixture
def options():
    return encoder_options


@pytest.fixture
def world():
    """40 cells of which the last is isolated."""
    cells = make_cells(40)
    return make_features(cells), make_graph(cells, random_edges(40, 200, isolated=[39]))


@pytest.fixture
def open_lake(tmp_path):
    """A function that opens a lake of two regions with some options of the encoder."""
    # what it needs is above
    from .two_regions import open_lake

    return partial(open_lake, tmp_path)
