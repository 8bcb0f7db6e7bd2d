"""The numbers that decide the demo country, and its sources of randomness.

Belongs here: `WorldConfig` and the named random streams. Does not belong here: any generating.
"""

import zlib
from dataclasses import dataclass

import numpy as np

VERSION = 1
"""Raise it when the same configuration gives other files: `ensure_demo` then writes the country anew."""

REGION_NAMES = ("norvik", "aldmoor", "brenta", "calden", "solmar", "estvale")


@dataclass(frozen=True)
class WorldConfig:
    """Size and seed of the demo country. The defaults give about 5,000 H3 cells of resolution 6.

    Args:
        seed: Seed of everything.
        radius_km: Mean radius of the main island.
        regions: Regions, at most as many as there are `REGION_NAMES`.
        zones: Census zones, about.
        counties: Counties, about; each is a group of zones.
        cities: Cities.
        population: People.
        pois: Points of interest, about.
        facilities: Health and education facilities in their own source, about.
        persons: People whose visits are recorded.
        days: Days recorded; three visits a person and day.
        trips: Ride trips recorded, about.
        terminals: Payment terminals, about.
    """

    seed: int = 0
    radius_km: float = 252.0
    regions: int = 6
    zones: int = 1200
    counties: int = 160
    cities: int = 78
    population: int = 12_000_000
    pois: int = 180_000
    facilities: int = 6_000
    persons: int = 25_000
    days: int = 10
    trips: int = 30_000
    terminals: int = 90_000

    def __post_init__(self) -> None:
        if not 2 <= self.regions <= len(REGION_NAMES):
            raise ValueError(f"regions is {self.regions}, expected 2 to {len(REGION_NAMES)}")
        if not self.regions <= self.counties <= self.zones:
            raise ValueError(
                f"expected regions <= counties <= zones, found {self.regions}, {self.counties}, {self.zones}"
            )

    @property
    def region_keys(self) -> tuple[str, ...]:
        """Keys of the regions."""
        return REGION_NAMES[: self.regions]

    @property
    def sparse_region(self) -> int:
        """Index of the region where few people have their visits recorded."""
        return 1

    @property
    def island_region(self) -> int:
        """Index of the region that the offshore island belongs to."""
        return self.regions - 1

    @property
    def dirty_regions(self) -> tuple[int, ...]:
        """Indices of the regions whose facility register is badly kept."""
        return tuple(dict.fromkeys((0, self.regions // 2)))

    def rng(self, stream: str) -> np.random.Generator:
        """The random numbers of one named part; streams do not depend on each other or on their order."""
        return np.random.default_rng([self.seed, zlib.crc32(stream.encode())])


TINY = WorldConfig(
    radius_km=52.0,
    regions=3,
    zones=60,
    counties=12,
    cities=6,
    population=500_000,
    pois=6_000,
    facilities=300,
    persons=700,
    days=6,
    trips=1_000,
    terminals=2_000,
)
"""A country of some 200 cells that takes a second or two: for tests and for trying things out."""
