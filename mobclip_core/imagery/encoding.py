"""From patches on disk to vectors, a few row groups in memory at a time.

Belongs here: the stream from `imagery_patches` through an encoder. Does not belong here: encoders (see `features` and
`timm_encoder`), steps (see `steps`).

Row groups are read and decoded in threads; patches with enough data are cut into batches of the encoder's size, across
row groups and leaving out the others, so that the batches depend on the region's rows only.
"""

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mobclip_core.imagery.features import ImageEncoder, fill_invalid
from mobclip_core.store import Store, TableRef
from mobclip_core.tensors import tensors_of
from mobclip_core.vectors import vector_column
from mobclip_core.workers import ordered_map

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedRows:
    """Vectors of consecutive rows of `imagery_patches`.

    Args:
        cells: uint64 H3 indices, shape (n,).
        features: float32, shape (n, dimensions); zeros where not covered.
        valid_fraction: float64, shape (n,).
        covered: Whether enough of the patch has data, shape (n,).
    """

    cells: np.ndarray
    features: np.ndarray
    valid_fraction: np.ndarray
    covered: np.ndarray

    def table(self, fingerprint: str) -> pa.Table:
        """The rows as a table of `imagery_features`."""
        return pa.table(
            {
                "cell": pa.array(self.cells, pa.uint64()),
                "features": vector_column(self.features),
                "valid_fraction": self.valid_fraction,
                "image_encoder": pa.array([fingerprint] * len(self.cells), pa.string()),
            }
        )


@dataclass(frozen=True)
class _Group:
    cells: np.ndarray
    valid_fraction: np.ndarray
    covered: np.ndarray


def encode_patches(
    store: Store, ref: TableRef, encoder: ImageEncoder, *, min_valid_fraction: float, workers: int
) -> Iterator[EncodedRows]:
    """Encode the patches of a partition, row group by row group.

    Args:
        store: The lake.
        ref: Partition of `imagery_patches`.
        encoder: The encoder.
        min_valid_fraction: Below this a patch is not encoded; neither is one without any data.
        workers: Threads that read ahead.

    Returns:
        The rows in order; nothing where there are none.
    """
    begun: deque[_Group] = deque()
    ready: list[np.ndarray] = []
    count = done = 0
    batches = _batches(store, ref, begun, encoder.batch_size, min_valid_fraction, workers)
    for vectors in encoder.encode_stream(batches):
        ready.append(vectors)
        count += len(vectors)
        while begun and (needed := int(begun[0].covered.sum())) <= count:
            joined = np.concatenate(ready)
            group, ready, count = begun.popleft(), [joined[needed:]], count - needed
            yield _rows(group, joined[:needed])
            done += len(group.cells)
            _log.info("imagery: %d cells encoded", done)
    # groups after the last patch that has data
    for group in begun:
        yield _rows(group, np.empty((0, encoder.dimensions), np.float32))


def _rows(group: _Group, vectors: np.ndarray) -> EncodedRows:
    features = np.zeros((len(group.cells), vectors.shape[1]), np.float32)
    features[group.covered] = vectors
    return EncodedRows(group.cells, features, group.valid_fraction, group.covered)


def _batches(
    store: Store, ref: TableRef, begun: deque[_Group], size: int, minimum: float, workers: int
) -> Iterator[np.ndarray]:
    def read(number: int) -> tuple[_Group, np.ndarray]:
        table = store.read_row_group(ref, number)
        valid_fraction = table["valid_fraction"].to_numpy()
        # a fraction of 0 is no imagery even where the profile asks for none
        covered = (valid_fraction >= minimum) & (valid_fraction > 0)
        patches = fill_invalid(tensors_of(table["patch"])[covered], valid_fraction[covered])
        return _Group(table["cell"].to_numpy(), valid_fraction, covered), patches

    waiting: list[np.ndarray] = []
    for group, patches in ordered_map(read, range(store.row_groups(ref)[0]), workers):
        # before its last batch is: the vectors' reader takes it from there
        begun.append(group)
        waiting.append(patches)
        count = sum(map(len, waiting))
        if count >= size:
            joined = np.concatenate(waiting)
            whole = count - count % size
            yield from (joined[start : start + size] for start in range(0, whole, size))
            waiting = [joined[whole:]]
    rest = np.concatenate(waiting) if waiting else np.empty(0)
    if len(rest):
        yield rest
