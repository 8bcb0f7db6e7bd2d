"""Features: what each modality says about each cell of a region."""

import dagster as dg

from mobclip_assets.assets.sources import source_key, source_names
from mobclip_assets.making import GPU_POOL, AssetMaker, Code
from mobclip_assets.partitions import all_regions
from mobclip_core.deployment import Deployment, StepResult
from mobclip_core.profile import PoiConfig


def make_assets(make: AssetMaker) -> list[dg.AssetsDefinition]:
    """The assets of the groups `poi`, `imagery` and `census`."""
    profile = make.profile

    @make.regional(
        group="census",
        kinds={"duckdb", "parquet"},
        deps=["grid_cells", "zone_cells", *source_names(profile, "census")],
        code=Code(["census", "imagery/raster", "sources"], ["census"], [profile.census]),
    )
    def census_features(deployment: Deployment, region: str) -> StepResult:
        """People of each cell: population and histogram, by mass-preserving areal weighting of zones or rasters.

        Totals of a region equal the totals of its source; a check says so. Histograms of small groups are hidden.
        """
        from mobclip_core.census import build_census_features

        return build_census_features(deployment, region)

    @make.whole(
        group="poi",
        kinds={"h3", "duckdb", "parquet"},
        deps=[all_regions("grid_cells"), *(source_key(f"poi_{name}") for name in profile.poi.points)],
        code=Code(
            ["poi_points", "poi_locating", "bulk_cells", "crosswalk", "sources"],
            ["poi_points", "sources"],
            # texts and counts by zone are read later
            [PoiConfig(categories=profile.poi.categories, points=profile.poi.points), profile.grid],
        ),
    )
    def poi_points(deployment: Deployment) -> StepResult:
        """POIs as points, from raw files to one file a region: every point source is read once for all regions.

        Points outside every region, without a position or repeated are dropped and counted.
        """
        from mobclip_core.poi_points import build_poi_points

        return build_poi_points(deployment)

    @make.regional(
        group="poi",
        kinds={"duckdb", "parquet"},
        deps=[
            all_regions("grid_cells"),
            "zone_cells",
            "census_features",
            "poi_points",
            *(source_key(f"poi_{name}") for name in profile.poi.zone_counts),
        ],
        code=Code(["poi", "text", "crosswalk", "sources"], ["poi", "crosswalk"], [profile.poi]),
    )
    def poi_aggregates(deployment: Deployment, region: str) -> StepResult:
        """POIs of each cell: counts by category and a text vector of categories and names.

        Counts by zone are added to those of points. Counts below the profile's minimum are suppressed and reported.
        """
        from mobclip_core.poi import build_poi_aggregates

        return build_poi_aggregates(deployment, region)

    @make.whole(
        group="imagery",
        kinds={"pytorch"},
        deps=["regions", *source_names(profile, "imagery")],
        code=Code(["imagery"], settings=[profile.imagery]),
        pool=GPU_POOL,
    )
    def imagery_encoder(deployment: Deployment) -> StepResult:
        """The image encoder shared by all regions: whitened random filters drawn from the imagery, or a timm model."""
        from mobclip_core.imagery.steps import build_imagery_encoder

        return build_imagery_encoder(deployment)

    @make.regional(
        group="imagery",
        kinds={"gdal", "parquet"},
        deps=["grid_cells", *source_names(profile, "imagery")],
        code=Code(["imagery"], settings=[profile.imagery]),
    )
    def imagery_patches(deployment: Deployment, region: str) -> StepResult:
        """The image patch of each cell, resampled to a stated ground resolution, with the fraction that is valid."""
        from mobclip_core.imagery.steps import build_imagery_patches

        return build_imagery_patches(deployment, region)

    @make.regional(
        group="imagery",
        kinds={"pytorch", "parquet"},
        deps=["imagery_patches", "imagery_encoder"],
        code=Code(["imagery"], settings=[profile.imagery]),
        pool=GPU_POOL,
    )
    def imagery_features(deployment: Deployment, region: str) -> StepResult:
        """The image encoder's vector of each cell's patch."""
        from mobclip_core.imagery.steps import build_imagery_features

        return build_imagery_features(deployment, region)

    return [census_features, poi_points, poi_aggregates, imagery_encoder, imagery_patches, imagery_features]
