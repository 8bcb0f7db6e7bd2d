"""The profile: one YAML file describes one deployment, and this package is its schema.

Belongs here: every option a data team can set, with its default and its range. Does not belong here: reading the
sources that a profile names.
"""

from mobclip_core.profile.base import Files
from mobclip_core.profile.census import CensusConfig, CensusZones, HistogramBin, WorldPopCensus
from mobclip_core.profile.evaluation import (
    CityLabel,
    EvaluationConfig,
    ExternalEmbedding,
    InputName,
    Label,
    MethodName,
    PointLabel,
    PopulationLabel,
    RasterLabel,
    ScalingConfig,
    TaskConfig,
    VariantName,
    ZoneLabel,
)
from mobclip_core.profile.imagery import ImageryConfig, RandomConvolutionalConfig, TimmConfig
from mobclip_core.profile.learning import EncoderConfig, LineConfig, LocationEncoderConfig, StudentConfig
from mobclip_core.profile.loading import PROFILES_DIR, load_profile, profile_path
from mobclip_core.profile.mobility import (
    Flows,
    Lodes,
    Mitma,
    MobilityConfig,
    MobilitySource,
    Noise,
    NycTlc,
    Trips,
    UkCensusFlows,
    Visits,
    ZoneTrips,
)
from mobclip_core.profile.model import DuckDBConfig, Profile
from mobclip_core.profile.operations import AlertsConfig, EmailConfig, OperationsConfig
from mobclip_core.profile.places import GridConfig, RegionMembers, RegionsConfig, ZoneLayer
from mobclip_core.profile.poi import (
    FoursquarePlaces,
    OpenStreetMap,
    OverturePlaces,
    PoiConfig,
    PoiPoints,
    PoiSource,
    PoiZoneCounts,
)
from mobclip_core.profile.quality import QualityConfig, QualityLimits
from mobclip_core.profile.text import HashedNgramsConfig, SentenceTransformerConfig, TextEncoderConfig

__all__ = [
    "PROFILES_DIR",
    "AlertsConfig",
    "CensusConfig",
    "CensusZones",
    "CityLabel",
    "DuckDBConfig",
    "EmailConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "ExternalEmbedding",
    "Files",
    "Flows",
    "FoursquarePlaces",
    "GridConfig",
    "HashedNgramsConfig",
    "HistogramBin",
    "ImageryConfig",
    "InputName",
    "Label",
    "LineConfig",
    "LocationEncoderConfig",
    "Lodes",
    "MethodName",
    "Mitma",
    "MobilityConfig",
    "MobilitySource",
    "Noise",
    "NycTlc",
    "OpenStreetMap",
    "OperationsConfig",
    "OverturePlaces",
    "PoiConfig",
    "PoiPoints",
    "PoiSource",
    "PoiZoneCounts",
    "PointLabel",
    "PopulationLabel",
    "Profile",
    "QualityConfig",
    "QualityLimits",
    "RandomConvolutionalConfig",
    "RasterLabel",
    "RegionMembers",
    "RegionsConfig",
    "ScalingConfig",
    "SentenceTransformerConfig",
    "StudentConfig",
    "TaskConfig",
    "TextEncoderConfig",
    "TimmConfig",
    "Trips",
    "UkCensusFlows",
    "VariantName",
    "Visits",
    "WorldPopCensus",
    "ZoneLabel",
    "ZoneLayer",
    "ZoneTrips",
    "load_profile",
    "profile_path",
]
