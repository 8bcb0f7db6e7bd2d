"""Character n-grams, hashed and projected: the text encoder that needs no model.

Belongs here: this one encoder. Does not belong here: encoders that load a model (see `sentences`).
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from mobclip_core.text.strings import normalise

_BUCKETS = 2**18
_NGRAMS = (3, 5)
_SIGNS = 64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def projection_signs(features: np.ndarray, block: int, seed: int) -> np.ndarray:
    """64 columns of a fixed random sign matrix, only the rows asked for, without holding the matrix.

    The bits come from the splitmix64 finaliser (Steele et al. 2014) of seed, column block and feature, so they are the
    same on every machine and in every order of asking.

    Args:
        features: Row numbers, shape (n,).
        block: Which 64 columns.
        seed: Seed of the matrix.

    Returns:
        float32 of -1 and 1, shape (n, 64).
    """
    with np.errstate(over="ignore"):
        bits = _mix(_mix(np.array([seed], dtype=np.uint64) + _GOLDEN) + np.uint64(block) * _GOLDEN)
        bits = _mix(bits + (features.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    flags = np.unpackbits(bits.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1)
    return flags.astype(np.float32) * np.float32(2.0) - np.float32(1.0)


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


class HashedNgramEncoder:
    r"""Character n-grams, hashed, then projected: similar spellings get similar vectors, with nothing to download.

    The string is normalised, cut into n-grams of 3 to 5 characters within words, counted into 2^18 signed hash buckets
    (Weinberger et al. 2009) and projected with random signs (Achlioptas 2003); the result has length 1, or 0 for a
    string without characters.

    Args:
        dimensions: Length of a vector.
        seed: Seed of the projection.

    Shapes:
        **strings:** n -> **vectors:** float32 (n, dimensions)
    """

    def __init__(self, dimensions: int, seed: int = 0) -> None:
        self._dimensions = dimensions
        self._seed = seed
        self._vectorizer = HashingVectorizer(
            preprocessor=normalise, analyzer="char_wb", ngram_range=_NGRAMS, n_features=_BUCKETS, dtype=np.float32
        )

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the encoder's settings."""
        settings = ["hashed_ngrams", 1, _NGRAMS, _BUCKETS, self._dimensions, self._seed]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def encode(self, strings: Sequence[str]) -> np.ndarray:
        """Encode strings.

        Args:
            strings: Any n strings.

        Returns:
            float32, shape (n, dimensions); rows of length 1 (0 for strings without characters).
        """
        vectors = np.zeros((len(strings), self._dimensions), dtype=np.float32)
        if not len(strings):
            return vectors
        hashed = csr_matrix(self._vectorizer.transform(strings))
        used, columns = np.unique(hashed.indices, return_inverse=True)
        compact = csr_matrix((hashed.data, columns, hashed.indptr), shape=(len(strings), len(used)))
        for block in range(-(-self._dimensions // _SIGNS)):
            start = block * _SIGNS
            projected = compact @ projection_signs(used, block, self._seed)
            vectors[:, start : start + _SIGNS] = projected[:, : self._dimensions - start]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(lengths > 0, lengths, 1)
        return vectors
