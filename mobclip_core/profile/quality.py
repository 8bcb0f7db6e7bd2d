"""Settings of data quality.

Belongs here: how much a table may change before someone is told. Does not belong here: what its values may be (see
`mobclip_core.contracts`), measuring.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mobclip_core.contracts import CONTRACTS
from mobclip_core.profile.base import Fraction, Settings

Limit = Annotated[float, Field(ge=0)]

# these change their axes whenever the model is trained again: means by dimension say nothing there
_NEW_AXES = ("node_embeddings", "embeddings")


class QualityLimits(Settings):
    """Largest changes from one materialisation of a partition to the next. null compares nothing.

    Args:
        rows: Of the number of rows, relative.
        nulls: Of a column's share of nulls and NaN, absolute.
        zeros: Of a column's share of zeros (of rows of zeros, for vectors), absolute.
        total: Of the sum of a column that holds amounts, relative.
        drift: Of a column's distribution (of the vectors' lengths, for vectors): the Kolmogorov-Smirnov distance,
            which is the largest difference between the shares of rows below any value.
        shift: Of the mean of any dimension of a vector, in its standard deviations.
        severity: `warn` shows a change over a limit and goes on; `error` stops what comes after.
    """

    rows: Limit | None = 0.1
    nulls: Fraction | None = 0.01
    zeros: Fraction | None = 0.05
    total: Limit | None = 0.1
    drift: Fraction | None = 0.1
    shift: Limit | None = 0.25
    severity: Literal["warn", "error"] = "warn"


class QualityConfig(Settings):
    """Limits of changes, by table.

    Args:
        limits: For every table.
        tables: For tables by name: what is set here replaces what `limits` sets.
    """

    limits: QualityLimits = QualityLimits()
    tables: dict[str, QualityLimits] = {}

    @field_validator("tables")
    @classmethod
    def _tables_exist(cls, tables: dict[str, QualityLimits]) -> dict[str, QualityLimits]:
        unknown = sorted(set(tables) - set(CONTRACTS))
        if unknown:
            raise ValueError(f"no tables {unknown}; tables: {sorted(CONTRACTS)}")
        return tables

    def limits_of(self, table: str) -> QualityLimits:
        """The limits of one table."""
        limits = self.limits.model_copy(update={"shift": None} if table in _NEW_AXES else {})
        own = self.tables.get(table)
        return limits if own is None else limits.model_copy(update=own.model_dump(exclude_unset=True))
