"""Settings of the census.

Belongs here: options of the sources and features of people. Does not belong here: reading them.
"""

from typing import Annotated

from pydantic import Field

from mobclip_core.profile.base import Settings


class HistogramBin(Settings):
    """One bin of the census histogram.

    Args:
        column: Column of the table.
        percent_of: The column is a percentage of this other column (else it is a count of people).
    """

    column: str
    percent_of: str | None = None


class CensusConfig(Settings):
    """Census table on a zone layer.

    Args:
        zones: Zone layer.
        file: Attribute table (Parquet, CSV, GeoPackage); may be the polygon file itself.
        id_column: Zone identifier in the table.
        population: Column with the people of a zone.
        histogram: Bins (the paper: 40).
        missing_values: Numbers that stand for "missing".
    """

    zones: str
    file: str
    id_column: str
    population: str
    histogram: Annotated[list[HistogramBin], Field(min_length=1)]
    missing_values: list[float] = [-999.0]
