"""Using the vectors: `open` a lake, then ask it.

Belongs here: what a user of the vectors imports. Nothing below needs Dagster or torch.

    from mobclip_core import serving

    places = serving.open("demo")                      # a profile, a folder, s3://bucket/lake, catalog.duckdb
    places.lookup(lon=[-3.7], lat=[40.4]).vectors      # float32 (1, 128)
"""

from mobclip_core.serving.answers import MODALITIES, Answers
from mobclip_core.serving.exports import Exported, export
from mobclip_core.serving.index import LikenessIndex
from mobclip_core.serving.places import Likeness, Places
from mobclip_core.serving.places import open_places as open

__all__ = ["MODALITIES", "Answers", "Exported", "Likeness", "LikenessIndex", "Places", "export", "open"]
