"""Settings of places: cells, regions, zone layers.

Belongs here: options of the geography. Does not belong here: reading polygons.
"""

from typing import Annotated

from pydantic import Field

from mobclip_core.profile.base import Files, Fraction, Settings


class GridConfig(Settings):
    """The tokens: H3 cells.

    Args:
        resolution: H3 resolution (the paper: 6, about 36 km2 a cell).
        min_coverage: A cell belongs to the deployment when at least this fraction of it lies in the regions. 0 keeps
            every cell that touches land; 0.5 is what centre containment gives on straight borders.
    """

    resolution: Annotated[int, Field(ge=0, le=15)] = 6
    min_coverage: Fraction = 0.5


class RegionMembers(Settings):
    """One region made of several polygons of the source.

    Args:
        name: Name for people.
        members: Values of the group column that make the region.
    """

    name: str
    members: Annotated[list[str], Field(min_length=1)]


class RegionsConfig(Settings):
    """Where the regions come from.

    Args:
        file: Polygons (GeoParquet, GeoPackage, shapefile, GeoJSON), e.g. one file a state.
        key_column: Column whose values name a polygon's region, or its group's member.
        name_column: Column with the name for people; the key if None.
        keys: The regions wanted: a list of values of `key_column`, or a mapping from region key to a group of them.
        max_overlap: Two regions may overlap by this fraction of the smaller one (slivers); more is an error.
    """

    file: Files
    key_column: str
    name_column: str | None = None
    keys: list[str] | dict[str, RegionMembers]
    max_overlap: Fraction = 0.05

    @property
    def region_keys(self) -> list[str]:
        """The partition keys, in the profile's order."""
        return list(self.keys)


class ZoneLayer(Settings):
    """A layer of zone polygons, such as census tracts.

    Args:
        file: Polygons (GeoParquet, GeoPackage, shapefile, GeoJSON), e.g. one file a state.
        id_column: Zone identifier, unique.
        where: Keep only zones whose column value starts with the prefix given, e.g. `{county_fips: "36"}`.
        dasymetric: Raster whose values share a zone out among its cells in place of area (e.g. built-up area).
    """

    file: Files
    id_column: str
    where: dict[str, str] = {}
    dasymetric: str | None = None
