"""Short strings (POI categories and names) as vectors.

Belongs here: encoders and the cache of their vectors. Does not belong here: which strings a cell has (see `poi`).
"""

from mobclip_core.text.cache import CachedTextEncoder
from mobclip_core.text.making import make_text_encoder
from mobclip_core.text.ngrams import HashedNgramEncoder, projection_signs
from mobclip_core.text.strings import TextEncoder, normalise

__all__ = [
    "CachedTextEncoder",
    "HashedNgramEncoder",
    "TextEncoder",
    "make_text_encoder",
    "normalise",
    "projection_signs",
]
