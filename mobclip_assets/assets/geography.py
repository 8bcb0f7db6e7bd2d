"""Geography: regions, cells, and the crosswalk from zones to cells."""

import dagster as dg

from mobclip_assets.assets.sources import source_names
from mobclip_assets.making import AssetMaker, Code
from mobclip_core.deployment import Deployment, StepResult

GROUP = "geography"


def make_assets(make: AssetMaker) -> list[dg.AssetsDefinition]:
    """The assets of this group."""
    profile = make.profile
    zone_settings = (profile.regions, profile.grid, *profile.zones.values())

    @make.whole(
        group=GROUP,
        kinds={"geopandas", "parquet"},
        deps=source_names(profile, "regions"),
        code=Code(["grid", "sources"], settings=[profile.regions]),
    )
    def regions(deployment: Deployment) -> StepResult:
        """The regions of the deployment: the unit of partitioning and of refresh.

        Polygons are read, repaired and merged as the profile says. Overlaps beyond slivers are an error.
        """
        from mobclip_core.grid import build_regions

        return build_regions(deployment)

    @make.regional(
        group=GROUP,
        kinds={"h3", "parquet"},
        deps=["regions"],
        code=Code(["grid", "subdivide"], settings=[profile.grid, profile.regions]),
    )
    def grid_cells(deployment: Deployment, region: str) -> StepResult:
        """The H3 cells of a region: the tokens of the model. Every cell belongs to exactly one region.

        A cell on a border belongs to the region that holds most of it; one on a coast exists when enough of it is land.
        """
        from mobclip_core.grid import build_grid_cells

        return build_grid_cells(deployment, region)

    @make.regional(
        group=GROUP,
        kinds={"geopandas", "parquet"},
        deps=["regions", "grid_cells", *source_names(profile, "zones_")],
        code=Code(["areal", "sphere", "subdivide", "sources"], settings=zone_settings),
    )
    def zone_cells(deployment: Deployment, region: str) -> StepResult:
        """The crosswalk from zones to cells: the share of each zone that lies in each cell, by area or by a raster.

        A zone's shares sum to 1 over its region, so that whatever is spread by them keeps its total.
        """
        from mobclip_core.areal import build_zone_cells

        return build_zone_cells(deployment, region)

    return [regions, grid_cells, zone_cells]
