"""The whole hidden world in one object.

Belongs here: `World` and the sampling that all modalities share. Does not belong here: any modality.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mobclip_core.demo.config import WorldConfig
from mobclip_core.demo.factors import Cities, Factors, make_factors
from mobclip_core.demo.land import STEP_M, Land, Lattice, make_land
from mobclip_core.demo.zoning import Zoning, make_zoning


@dataclass(frozen=True)
class World:
    """Everything that is true about the country and that files only hint at."""

    config: WorldConfig
    land: Land
    factors: Factors
    cities: Cities
    zoning: Zoning

    @property
    def lattice(self) -> Lattice:
        """The lattice of the fields."""
        return self.land.lattice

    @cached_property
    def x(self) -> np.ndarray:
        """UTM x of the lattice points on land, shape (points,)."""
        return np.asarray(self.lattice.positions()[0][self.land.mask])

    @cached_property
    def y(self) -> np.ndarray:
        """UTM y of the lattice points on land, shape (points,)."""
        return np.asarray(self.lattice.positions()[1][self.land.mask])

    def on_land(self, field: np.ndarray) -> np.ndarray:
        """Values of a field at the lattice points on land, shape (points,)."""
        return np.asarray(field[self.land.mask])

    def zone_means(self, field: np.ndarray) -> np.ndarray:
        """Mean of a field over each zone, weighted by people, shape (zones,)."""
        people = self.on_land(self.factors.people) + 1e-6
        values = self.lattice.sample(field, self.zoning.x, self.zoning.y)
        total = self.zoning.sums(people)
        mean = self.zoning.sums(people * self.on_land(field)) / np.maximum(total, 1e-12)
        return np.where(total > 0, mean, values)

    def scatter(self, rng: np.random.Generator, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in UTM metres, uniform within the square of each lattice point given, each of shape (n,)."""
        offset = rng.uniform(-0.5, 0.5, (2, len(point))) * STEP_M
        return self.x[point] + offset[0], self.y[point] + offset[1]


def make_world(config: WorldConfig) -> World:
    """Build the hidden world of a configuration."""
    land = make_land(config)
    factors, cities = make_factors(config, land)
    return World(config, land, factors, cities, make_zoning(config, land, factors))
