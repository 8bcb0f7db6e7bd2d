"""The profile as a whole.

Belongs here: `Profile`, and the rules that join its parts. Does not belong here: the options of the parts.
"""

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from mobclip_core.profile.base import Settings
from mobclip_core.profile.census import CensusConfig, CensusZones
from mobclip_core.profile.evaluation import EvaluationConfig, TaskConfig
from mobclip_core.profile.imagery import ImageryConfig
from mobclip_core.profile.learning import EncoderConfig, LineConfig, LocationEncoderConfig
from mobclip_core.profile.mobility import MobilityConfig, Trips, Visits
from mobclip_core.profile.operations import OperationsConfig
from mobclip_core.profile.places import GridConfig, RegionsConfig, ZoneLayer
from mobclip_core.profile.poi import PoiConfig
from mobclip_core.profile.quality import QualityConfig


class DuckDBConfig(Settings):
    """Limits of each step's own in-memory DuckDB.

    Args:
        memory_limit: DuckDB size, e.g. `3GB`.
        threads: Threads.
        spill_directory: Folder for what does not fit in memory; the system's folder for temporary files if None.
    """

    memory_limit: str = "3GB"
    threads: Annotated[int, Field(ge=1)] = 2
    spill_directory: str | None = None


class Profile(Settings):
    """One deployment.

    Args:
        name: Name; also the folder of the lake.
        description: One line for people.
        storage: Root of the lake, any fsspec URL; `dagster_home/lake/<name>` beside the profiles if None.
        owners: Owners shown in the UI: e-mail addresses or `team:name`.
        licences: Licence of each source, in words; they go into the cards of exports.
        grid: Cells.
        regions: Regions.
        zones: Zone layers by name.
        census: Census.
        poi: POIs.
        imagery: Imagery.
        mobility: Mobility.
        line: LINE.
        encoder: Encoder.
        location_encoder: Location encoder.
        tasks: GeoBench tasks by code.
        evaluation: Scoring.
        quality: Limits of changes from one materialisation to the next.
        duckdb: Limits of DuckDB.
        operations: Schedules, freshness and alerts.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]
    description: str = ""
    storage: str | None = None
    owners: list[str] = ["team:geospatial-data"]
    licences: dict[str, str] = {}
    grid: GridConfig = GridConfig()
    regions: RegionsConfig
    zones: dict[str, ZoneLayer] = {}
    census: CensusConfig
    poi: PoiConfig
    imagery: ImageryConfig
    mobility: MobilityConfig = MobilityConfig()
    line: LineConfig = LineConfig()
    encoder: EncoderConfig = EncoderConfig()
    location_encoder: LocationEncoderConfig = LocationEncoderConfig()
    tasks: dict[str, TaskConfig] = {}
    evaluation: EvaluationConfig = EvaluationConfig()
    quality: QualityConfig = QualityConfig()
    duckdb: DuckDBConfig = DuckDBConfig()
    operations: OperationsConfig = OperationsConfig()

    @field_validator("regions")
    @classmethod
    def _region_keys_are_names(cls, regions: RegionsConfig) -> RegionsConfig:
        keys = regions.region_keys
        if not keys:
            raise ValueError("name at least one region")
        bad = [key for key in keys if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", key)]
        if bad:
            raise ValueError(f"region keys become directory names: use letters, digits, '_' and '-'; found {bad}")
        if len(set(keys)) != len(keys):
            raise ValueError("region keys repeat")
        return regions

    @model_validator(mode="after")
    def _zone_layers_exist(self) -> Self:
        wanted = {"census.zones": self.census.zones} if isinstance(self.census, CensusZones) else {}
        wanted |= {f"poi.zone_counts.{name}.zones": s.zones for name, s in self.poi.zone_counts.items()}
        wanted |= {
            f"mobility.sources.{name}.zones": s.zones
            for name, s in self.mobility.sources.items()
            if not isinstance(s, Visits | Trips) and s.zones is not None
        }
        missing = {key: layer for key, layer in wanted.items() if layer not in self.zones}
        if missing:
            raise ValueError(f"zone layers not declared under zones: {missing}; declared: {sorted(self.zones)}")
        return self
