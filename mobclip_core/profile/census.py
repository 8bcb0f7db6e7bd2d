"""Settings of the census.

Belongs here: options of the sources and features of people. Does not belong here: reading them.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from mobclip_core.profile.base import Files, Settings

WORLDPOP_AGES = {
    "2000-2020": (0, 1, *range(5, 85, 5)),
    "Global2": (0, 1, *range(5, 95, 5)),
}
"""Lowest age of each published age group, by series; the last group has no upper end."""

SEXES = ("f", "m", "t")
"""Female, male, both together: in the order of the bins."""

Sex = Literal["f", "m", "t"]


class HistogramBin(Settings):
    """One bin of the census histogram.

    Args:
        column: Column of the table.
        percent_of: The column is a percentage of this other column (else it is a count of people).
    """

    column: str
    percent_of: str | None = None


class _Census(Settings):
    minimum_people: Annotated[float, Field(ge=0)] = 0


class CensusZones(_Census):
    """Census table on a zone layer.

    Args:
        kind: Discriminator; may be left out.
        zones: Zone layer.
        file: Attribute tables (Parquet, CSV, GeoPackage, shapefile); may be the polygon files themselves.
        id_column: Zone identifier in the table.
        population: Column with the people of a zone.
        histogram: Bins (the paper: 40).
        missing_values: Numbers that stand for "missing".
        minimum_people: A cell with fewer people, but not none, keeps its population and loses its histogram.
    """

    kind: Literal["zones"] = "zones"
    zones: str
    file: Files
    id_column: str
    population: str
    histogram: Annotated[list[HistogramBin], Field(min_length=1)]
    missing_values: list[float] = [-999.0]

    def bin_names(self, bins: int) -> list[str]:
        """Names of the first `bins` bins."""
        return [item.column for item in self.histogram[:bins]]


class WorldPopCensus(_Census):
    """WorldPop's age and sex structures: one raster of people for each sex and age group.

    The files keep the names under which they are published: `gbr_f_0_2020.tif` and `gbr_f_0_2020_constrained.tif` in
    the series of 2000 to 2020, `gbr_f_00_2025_CN_1km_R2025A_UA_v1.tif` in Global2. Bins come by sex (f, m, t), then by
    age; the population of a cell is the sum of its bins.

    Args:
        kind: Discriminator.
        file: Rasters, of one year and release; of several countries where the deployment has several.
        sexes: Sexes to take: female and male, or both together (`t`, Global2 only). Files of the others are left alone.
        ages: Lowest ages of the groups to take; all that the series publishes if None.
        minimum_people: A cell with fewer people, but not none, keeps its population and loses its histogram.
    """

    kind: Literal["worldpop"]
    file: Files
    sexes: Annotated[list[Sex], Field(min_length=1)] = ["f", "m"]
    ages: Annotated[list[int], Field(min_length=1)] | None = None

    @field_validator("sexes")
    @classmethod
    def _nobody_counts_twice(cls, sexes: list[Sex]) -> list[Sex]:
        if "t" in sexes and len(sexes) > 1:
            raise ValueError("t is f and m together: take either t or the two")
        return sorted(set(sexes), key=SEXES.index)

    @field_validator("ages")
    @classmethod
    def _ages_are_published(cls, ages: list[int] | None) -> list[int] | None:
        unknown = sorted(set(ages or []) - set(WORLDPOP_AGES["Global2"]))
        if unknown:
            raise ValueError(f"WorldPop's age groups begin at {list(WORLDPOP_AGES['Global2'])}; found {unknown}")
        return None if ages is None else sorted(set(ages))

    def bin_names(self, bins: int) -> list[str]:
        """Names of `bins` bins, such as `f_05`: the width of the histogram tells the series."""
        if self.ages is not None:
            ages = tuple(self.ages)
        else:
            ages = next((known for known in WORLDPOP_AGES.values() if len(known) * len(self.sexes) == bins), ())
        return [f"{sex}_{age:02}" for sex in self.sexes for age in ages][:bins]


def _kind(value: Any) -> str:
    kind = value.get("kind", "zones") if isinstance(value, dict) else getattr(value, "kind", "zones")
    return f"kind:{kind}"


CensusConfig = Annotated[
    Annotated[CensusZones, Tag("kind:zones")] | Annotated[WorldPopCensus, Tag("kind:worldpop")],
    Discriminator(
        _kind,
        custom_error_type="census_kind",
        custom_error_message="kind `zones` (the default) or `worldpop`",
    ),
]
"""Where people come from: a table by zone, or WorldPop's rasters."""
