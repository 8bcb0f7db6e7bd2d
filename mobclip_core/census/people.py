"""What every source of people comes down to.

Belongs here: people by cell and bin, and the rule that hides small groups. Does not belong here: any source.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class People:
    """The people of a region's cells.

    Args:
        cells: H3 indices, sorted; uint64, shape (n,).
        population: People; float64, shape (n,).
        histogram: People by bin, in the profile's order; float64, shape (n, bins).
        share: Fraction of the cell that the source covers; float64, shape (n,).
    """

    cells: np.ndarray
    population: np.ndarray
    histogram: np.ndarray
    share: np.ndarray

    def few(self, minimum: float) -> np.ndarray:
        """Cells with fewer people than a minimum, but not none; bool, shape (n,)."""
        few: np.ndarray = (self.population > 0) & (self.population < minimum)
        return few

    def suppressed(self, minimum: float) -> "People":
        """The same people without the histograms of cells with fewer people than a minimum.

        The population of such a cell stays: that a few people live somewhere says nothing about them, and totals hold.
        What they are, by age and sex, is what could be read off a small group.
        """
        return replace(self, histogram=np.where(self.few(minimum)[:, None], 0.0, self.histogram))
