"""Strings and what turns them into vectors.

Belongs here: the interface of text encoders, how a string is normalised. Does not belong here: any encoder.
"""

import unicodedata
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class TextEncoder(Protocol):
    """What turns strings into vectors. The same string always gives the same vector.

    Attributes:
        dimensions: Length of a vector.
        fingerprint: Hexadecimal name of the encoder: two encoders with one fingerprint give the same vectors.
    """

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Name of the encoder, from everything that decides its output."""
        ...

    def encode(self, strings: Sequence[str]) -> np.ndarray:
        """Encode strings.

        Args:
            strings: Any n strings.

        Returns:
            float32, shape (n, dimensions).
        """
        ...


def normalise(text: str) -> str:
    """Unicode NFKC, case folded, runs of white space as one space: what makes two spellings one string."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
