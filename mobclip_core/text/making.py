"""Making the text encoder that a profile asks for.

Belongs here: choosing. Does not belong here: the encoders; that of a model is imported only where it is asked for,
since loading its library takes seconds.
"""

from mobclip_core.profile import HashedNgramsConfig, SentenceTransformerConfig
from mobclip_core.store import Store
from mobclip_core.text.cache import CachedTextEncoder
from mobclip_core.text.ngrams import HashedNgramEncoder
from mobclip_core.text.strings import TextEncoder


def make_text_encoder(config: HashedNgramsConfig | SentenceTransformerConfig, store: Store) -> TextEncoder:
    """The text encoder that a profile asks for; that of a model keeps its vectors in the lake's cache.

    Args:
        config: `poi.text` of the profile.
        store: The lake.

    Raises:
        MobclipError: If the optional packages of sentence encoders are not installed.
        SourceError: If the model cannot be loaded.
    """
    if isinstance(config, HashedNgramsConfig):
        return HashedNgramEncoder(config.dimensions, config.seed)
    from mobclip_core.text.sentences import SentenceEncoder

    return CachedTextEncoder(SentenceEncoder(config), store)
