import hashlib
import logging
import multiprocessing
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobclip_core.store import Store
from mobclip_core.text import CachedTextEncoder, HashedNgramEncoder

STRINGS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=6)


class CountingEncoder:
    """Vectors from a hash of the string; remembers what it was asked."""

    dimensions = 4
    fingerprint = "f" * 64

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, strings):
        self.asked += strings
        rows = [np.frombuffer(hashlib.sha256(s.encode()).digest()[:8], dtype="<u2") for s in strings]
        return np.array(rows, dtype=np.float32).reshape(-1, 4)


def cached(lake: Path | str) -> tuple[CachedTextEncoder, CountingEncoder]:
    encoder = CountingEncoder()
    return CachedTextEncoder(encoder, Store(str(lake))), encoder


def shards(lake: Path) -> list[Path]:
    return sorted((lake / "cache" / "text_vectors" / CountingEncoder.fingerprint).glob("*.parquet"))


def truth(strings) -> np.ndarray:
    return CountingEncoder().encode(list(strings))


def test_a_string_is_encoded_once_across_runs_and_regions(tmp_path):
    first, encoder = cached(tmp_path)
    np.testing.assert_array_equal(first.encode(["bank", "shop", "bank"]), truth(["bank", "shop", "bank"]))
    assert encoder.asked == ["bank", "shop"]
    np.testing.assert_array_equal(first.encode(["shop", "cafe"]), truth(["shop", "cafe"]))
    assert (first.hits, first.misses) == (1, 3)
    second, encoder = cached(tmp_path)
    np.testing.assert_array_equal(second.encode(["shop", "cafe", "bank"]), truth(["shop", "cafe", "bank"]))
    assert encoder.asked == []
    assert (second.hits, second.misses) == (3, 0)
    assert len(shards(tmp_path)) == 2


def test_no_strings_touch_nothing(tmp_path):
    encoder, _ = cached(tmp_path)
    assert encoder.encode([]).shape == (0, 4)
    assert not (tmp_path / "cache").exists()


def test_another_encoder_has_a_cache_of_its_own(tmp_path):
    store = Store(str(tmp_path))
    small, large = (CachedTextEncoder(HashedNgramEncoder(n), store) for n in (8, 16))
    assert small.encode(["a"]).shape == (1, 8)
    assert large.encode(["a"]).shape == (1, 16)
    assert (small.misses, large.misses, large.hits) == (1, 1, 0)
    assert (small.dimensions, small.fingerprint) == (8, HashedNgramEncoder(8).fingerprint)


def test_a_shard_is_named_by_its_content(tmp_path):
    cached(tmp_path)[0].encode(["b", "a"])
    [shard] = shards(tmp_path)
    assert shard.stem == hashlib.sha256(shard.read_bytes()).hexdigest()
    assert pq.read_table(shard)["text"].to_pylist() == ["a", "b"]


def test_only_row_groups_that_may_hold_a_string_are_read(tmp_path, monkeypatch):
    strings = [f"{i:05}" for i in range(3000)]
    cached(tmp_path)[0].encode(strings)
    encoder, _ = cached(tmp_path)
    read = []
    whole = CachedTextEncoder._read
    monkeypatch.setattr(CachedTextEncoder, "_read", lambda self, path, n: read.append(n) or whole(self, path, n))
    np.testing.assert_array_equal(encoder.encode(strings[1030:1040]), truth(strings[1030:1040]))
    encoder.encode(["zzz"])
    assert read == [[1]]


def test_texts_too_long_for_statistics_are_found(tmp_path):
    long = ["a" * 10_000, "b" * 10_000]
    cached(tmp_path)[0].encode(long)
    encoder, counting = cached(tmp_path)
    np.testing.assert_array_equal(encoder.encode(long), truth(long))
    assert counting.asked == []


@pytest.mark.parametrize("harm", ["truncated", "empty", "bit flipped", "other columns", "other width"])
def test_a_shard_that_cannot_be_read_is_passed_over_with_a_warning(tmp_path, caplog, harm):
    strings = [f"name {i}" for i in range(500)]
    cached(tmp_path)[0].encode(strings)
    [shard] = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    if harm == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif harm == "empty":
        shard.write_bytes(b"")
    elif harm == "bit flipped":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif harm == "other columns":
        pq.write_table(pa.table({"text": strings}), shard)
    else:
        wide = pa.array([[1.0] * 5] * len(strings), pa.list_(pa.float32(), 5))
        pq.write_table(pa.table({"text": sorted(strings), "vector": wide}), shard)
    encoder, counting = cached(tmp_path)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(encoder.encode(strings), truth(strings))
    assert sorted(counting.asked) == sorted(strings)
    assert shard.name in caplog.text
    assert "delete it" in caplog.text
    # what was encoded again is kept; where its shard has the damaged one's name, it replaces it
    again, counting = cached(tmp_path)
    np.testing.assert_array_equal(again.encode(strings), truth(strings))
    assert counting.asked == []


def test_a_shard_deleted_meanwhile_is_passed_over(tmp_path, caplog):
    encoder, counting = cached(tmp_path)
    encoder.encode(["a"])
    shards(tmp_path)[0].unlink()
    np.testing.assert_array_equal(encoder.encode(["a"]), truth(["a"]))
    assert counting.asked == ["a", "a"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=6), max_size=8), max_size=5)
)
def test_vectors_are_the_encoders_whatever_was_cached_before(tmp_path_factory, calls):
    encoder, counting = cached(tmp_path_factory.mktemp("lake"))
    for strings in calls:
        np.testing.assert_array_equal(encoder.encode(strings), truth(strings))
    assert len(counting.asked) == len(set(counting.asked)) == encoder.misses


def test_the_cache_lies_on_any_file_system():
    lake = "memory://text-cache"
    cached(lake)[0].encode(["a", "b"])
    encoder, counting = cached(lake)
    np.testing.assert_array_equal(encoder.encode(["b", "a"]), truth(["b", "a"]))
    assert counting.asked == []


def _encode_many(lake: str, start: int, ready) -> None:
    ready.wait()
    encoder = CachedTextEncoder(CountingEncoder(), Store(lake))
    for batch in range(start, start + 10):
        encoder.encode([f"name {i}" for i in range(batch * 20, batch * 20 + 40)])


def test_two_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writers = [context.Process(target=_encode_many, args=(str(tmp_path), start, ready)) for start in (0, 5)]
    for writer in writers:
        writer.start()
    ready.set()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    strings = [f"name {i}" for i in range(320)]
    encoder, counting = cached(tmp_path)
    np.testing.assert_array_equal(encoder.encode(strings), truth(strings))
    assert counting.asked == []
    assert not list(tmp_path.rglob(".aside-*"))


def _write_until_killed(lake: str, started) -> None:
    encoder = CachedTextEncoder(CountingEncoder(), Store(lake))
    number = 0
    while True:
        encoder.encode([f"{number} {i}" for i in range(2000)])
        number += 1
        started.set()


def test_a_killed_write_leaves_only_whole_shards(tmp_path, caplog):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    writer = context.Process(target=_write_until_killed, args=(str(tmp_path), started))
    writer.start()
    assert started.wait(60)
    writer.kill()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    # a write cut off before its rename
    (shards(tmp_path)[0].parent / ".aside-cut").write_bytes(b"PAR1")
    encoder, counting = cached(tmp_path)
    with caplog.at_level(logging.WARNING):
        strings = [f"0 {i}" for i in range(2000)]
        np.testing.assert_array_equal(encoder.encode(strings), truth(strings))
    assert counting.asked == []
    assert caplog.text == ""
