"""The profile: one YAML file describes one deployment, and this package is its schema.

Belongs here: every option a data team can set, with its default and its range. Does not belong here: reading the
sources that a profile names.
"""

from mobclip_core.profile.base import Files
from mobclip_core.profile.census import CensusConfig, HistogramBin
from mobclip_core.profile.imagery import ImageryConfig, RandomConvolutionalConfig, TimmConfig
from mobclip_core.profile.learning import (
    CityLabel,
    EncoderConfig,
    EvaluationConfig,
    InputName,
    LineConfig,
    MethodName,
    PointLabel,
    RasterLabel,
    TaskConfig,
    ZoneLabel,
)
from mobclip_core.profile.loading import PROFILES_DIR, load_profile, profile_path
from mobclip_core.profile.mobility import Flows, MobilityConfig, Trips, Visits
from mobclip_core.profile.model import DuckDBConfig, Profile
from mobclip_core.profile.places import GridConfig, RegionMembers, RegionsConfig, ZoneLayer
from mobclip_core.profile.poi import PoiConfig, PoiPoints, PoiZoneCounts
from mobclip_core.profile.text import HashedNgramsConfig, SentenceTransformerConfig, TextEncoderConfig

__all__ = [
    "PROFILES_DIR",
    "CensusConfig",
    "CityLabel",
    "DuckDBConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "Files",
    "Flows",
    "GridConfig",
    "HashedNgramsConfig",
    "HistogramBin",
    "ImageryConfig",
    "InputName",
    "LineConfig",
    "MethodName",
    "MobilityConfig",
    "PoiConfig",
    "PoiPoints",
    "PoiZoneCounts",
    "PointLabel",
    "Profile",
    "RandomConvolutionalConfig",
    "RasterLabel",
    "RegionMembers",
    "RegionsConfig",
    "SentenceTransformerConfig",
    "TaskConfig",
    "TextEncoderConfig",
    "TimmConfig",
    "Trips",
    "Visits",
    "ZoneLabel",
    "ZoneLayer",
    "load_profile",
    "profile_path",
]
