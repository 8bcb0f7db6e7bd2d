"""What all settings share.

Belongs here: the base class of the schema and the types it uses in several places. Does not belong here: any setting.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]

Files = str | Annotated[list[str], Field(min_length=1)]
"""One path, URL or glob pattern, or several: the rows of all files together are one source."""


class Settings(BaseModel):
    """A part of a profile: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
