"""Settings of text encoders.

Belongs here: options of turning strings into vectors. Does not belong here: doing it.
"""

from typing import Annotated, Literal

from pydantic import Field

from mobclip_core.profile.base import Settings


class TextEncoderConfig(Settings):
    """How category and name strings become vectors.

    Args:
        kind: `hashed_ngrams`: character n-grams hashed and projected; needs no download.
        dimensions: Length of the vector.
        seed: Seed of the projection.
    """

    kind: Literal["hashed_ngrams"] = "hashed_ngrams"
    dimensions: Annotated[int, Field(ge=8, le=4096)] = 64
    seed: int = 0
