import logging

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MobclipError
from mobclip_core.imagery import encoding
from mobclip_core.imagery.encoding import encode_patches
from mobclip_core.store import Store, TableRef
from mobclip_core.tensors import tensor_column

REF = TableRef("imagery_patches", "36")


class MeanEncoder:
    """Mean and largest pixel of each band; notes the sizes of its batches."""

    dimensions, fingerprint = 4, "mean"

    def __init__(self, batch_size):
        self.batch_size, self.sizes = batch_size, []

    def encode(self, patches):
        return np.concatenate([patches.mean(axis=(2, 3)), patches.max(axis=(2, 3))], axis=1).astype(np.float32)

    def encode_stream(self, batches):
        for batch in batches:
            self.sizes.append(len(batch))
            yield self.encode(batch)


def write(folder, fractions, row_group_rows):
    store = Store(str(folder))
    n = len(fractions)
    pixels = np.random.default_rng(0).integers(1, 255, (n, 2, 3, 3)).astype(np.uint8)
    pixels[np.asarray(fractions) < 1, :, 0] = 0
    columns = {"cell": pa.array(range(n), pa.uint64()), "patch": tensor_column(pixels)}
    table = pa.table(columns | {"valid_fraction": pa.array(fractions, pa.float64())})
    store.write_batches(REF, [table], row_group_rows=row_group_rows)
    return store, pixels


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.6, 1.0]), max_size=24),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5]),
)
def test_rows_keep_their_place_whatever_the_groups_and_batches(
    tmp_path_factory, fractions, group, batch, workers, minimum
):
    store, pixels = write(tmp_path_factory.mktemp("lake"), fractions, group)
    encoder = MeanEncoder(batch)
    parts = list(encode_patches(store, REF, encoder, min_valid_fraction=minimum, workers=workers))
    valid = np.array(fractions)
    covered = (valid >= minimum) & (valid > 0)
    expected = np.where(covered[:, None], encoder.encode(pixels), 0) if len(valid) else np.empty((0, 4))
    found = np.concatenate([part.features for part in parts]) if parts else np.empty((0, 4))
    whole = valid == 1
    np.testing.assert_array_equal(found[whole], expected[whole].astype(np.float32))
    np.testing.assert_array_equal(found.any(axis=1), covered)
    assert [cell for part in parts for cell in part.cells] == list(range(len(fractions)))
    assert all(len(part.cells) <= group for part in parts)
    # full batches, the last one excepted: they do not depend on the row groups
    count = int(covered.sum())
    assert encoder.sizes == [batch] * (count // batch) + ([count % batch] if count % batch else [])


def test_no_more_than_a_few_row_groups_are_in_memory(tmp_path, monkeypatch):
    store, _ = write(tmp_path, [1.0] * 60, 2)
    read = 0
    original = Store.read_row_group

    def spy(*args, **options):
        nonlocal read
        read += 1
        return original(*args, **options)

    monkeypatch.setattr(Store, "read_row_group", spy)
    for done, _ in enumerate(encode_patches(store, REF, MeanEncoder(2), min_valid_fraction=0.5, workers=2), 1):
        assert read <= done + 8
    assert read == 30


def test_progress_is_logged_and_rows_become_a_table(tmp_path, caplog):
    store, _ = write(tmp_path, [1.0] * 4, 2)
    with caplog.at_level(logging.INFO, encoding.__name__):
        parts = list(encode_patches(store, REF, MeanEncoder(2), min_valid_fraction=0.5, workers=1))
    assert [record.getMessage() for record in caplog.records] == [
        "imagery: 2 cells encoded",
        "imagery: 4 cells encoded",
    ]
    table = parts[1].table("print")
    assert table["cell"].to_pylist() == [2, 3]
    assert table["image_encoder"].to_pylist() == ["print"] * 2


def test_an_encoders_error_is_raised(tmp_path):
    store, _ = write(tmp_path, [1.0] * 4, 2)

    class Refusing(MeanEncoder):
        def encode(self, patches):
            raise MobclipError("other bands")

    with pytest.raises(MobclipError, match="other bands"):
        list(encode_patches(store, REF, Refusing(2), min_valid_fraction=0.5, workers=2))
