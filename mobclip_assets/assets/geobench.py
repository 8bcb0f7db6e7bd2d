"""GeoBench: labels, scores, and how the scores grow."""

import dagster as dg

from mobclip_assets.assets.sources import source_names
from mobclip_assets.making import GPU_POOL, AssetMaker, Code
from mobclip_assets.partitions import all_features, all_regions
from mobclip_core.deployment import Deployment, StepResult

GROUP = "geobench"


def make_assets(make: AssetMaker) -> list[dg.AssetsDefinition]:
    """The assets of this group."""
    profile = make.profile

    @make.whole(
        group=GROUP,
        kinds={"geopandas", "parquet"},
        deps=[all_regions("grid_cells"), all_regions("census_features"), *source_names(profile, "label_")],
        code=Code(
            ["evaluation/labels", "evaluation/label_values", "evaluation/members"],
            settings=list(profile.tasks.values()),
        ),
    )
    def geobench_labels(deployment: Deployment) -> StepResult:
        """The tasks: for every labelled cell, county or city its label and the cells that describe it."""
        from mobclip_core.evaluation.labels import build_geobench_labels

        return build_geobench_labels(deployment)

    @make.whole(
        group=GROUP,
        kinds={"scikitlearn", "parquet"},
        deps=[
            "geobench_labels",
            "node_embeddings",
            "encoder",
            "encoder_variants",
            all_regions("embeddings"),
            all_regions("poi_aggregates"),
            all_regions("imagery_features"),
            all_regions("census_features"),
            *source_names(profile, "embedding_"),
        ],
        code=Code(["evaluation"], settings=[profile.evaluation]),
    )
    def geobench_scores(deployment: Deployment) -> StepResult:
        """How well the embeddings predict each task, beside baselines, under random and spatial splits."""
        from mobclip_core.evaluation.scores import build_geobench_scores

        return build_geobench_scores(deployment)

    @make.whole(
        group=GROUP,
        kinds={"pytorch", "parquet"},
        deps=[
            "geobench_labels",
            "mobility_graph",
            *all_features(),
        ],
        code=Code(
            ["evaluation/scaling", "evaluation/power_law"],
            settings=[profile.encoder, profile.line, profile.evaluation.scaling],
        ),
        pool=GPU_POOL,
    )
    def scaling_law(deployment: Deployment) -> StepResult:
        """How the scores grow with cells, edges, inputs and width, and whether by a power law; dozens of trainings.

        Made when it is asked for: `mobclip materialize --select scaling_law`, or the job `scaling`.
        """
        from mobclip_core.evaluation.scaling import build_scaling_law

        return build_scaling_law(deployment)

    return [geobench_labels, geobench_scores, scaling_law]
