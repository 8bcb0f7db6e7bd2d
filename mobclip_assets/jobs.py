"""Jobs: the pieces of the graph that people start from the UI.

Belongs here: selections of assets that share their partitioning. Does not belong here: when they run.
"""

from typing import TYPE_CHECKING

import dagster as dg

from mobclip_assets.refreshing import RETRAINED

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def make_jobs() -> list["UnresolvedAssetJobDefinition"]:
    """The jobs, in the order in which a first build runs them."""
    return [
        dg.define_asset_job("geography", dg.AssetSelection.assets("grid_cells", "zone_cells")),
        dg.define_asset_job(
            "mobility_records",
            dg.AssetSelection.assets("movements"),
            description="One pass over the raw mobility records of all regions.",
        ),
        dg.define_asset_job(
            "points",
            dg.AssetSelection.assets("poi_points"),
            description="All POIs, read once; before the features of the first region.",
        ),
        dg.define_asset_job(
            "regional_features",
            dg.AssetSelection.assets("census_features", "poi_aggregates", "imagery_patches", "imagery_features"),
            description="Features of a region; back-fill it over all regions before training.",
        ),
        dg.define_asset_job(
            "mobility",
            dg.AssetSelection.assets("mobility_edges"),
            description="Movement out of a region; it needs the census of all regions.",
        ),
        dg.define_asset_job(
            "retrain",
            dg.AssetSelection.assets(*RETRAINED),
            description="Graph, LINE and encoder over all regions; then embed every region.",
        ),
        dg.define_asset_job("embed", dg.AssetSelection.assets("embeddings"), description="Vectors of a region."),
        dg.define_asset_job(
            "refresh_region",
            dg.AssetSelection.assets(
                "census_features", "poi_aggregates", "imagery_patches", "imagery_features", "embeddings"
            ),
            description="Features of a region, then its vectors by the encoder that is there.",
        ),
        dg.define_asset_job(
            "evaluate", dg.AssetSelection.assets("geobench_labels", "geobench_scores"), description="Labels and scores."
        ),
        dg.define_asset_job(
            "publish",
            dg.AssetSelection.assets("catalog", "location_encoder"),
            description="What readers outside the graph open: the catalog, the maps, the location encoder.",
        ),
        dg.define_asset_job(
            "scaling",
            dg.AssetSelection.assets("scaling_law"),
            description="Dozens of trainings: how the scores grow with cells, edges, inputs and width.",
        ),
    ]
