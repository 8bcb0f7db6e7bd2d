"""Model: the encoder and the embeddings, which are the product."""

from collections.abc import Sequence

import dagster as dg
from pydantic import BaseModel

from mobclip_assets.making import GPU_POOL, AssetMaker, Code
from mobclip_assets.partitions import all_features, all_regions
from mobclip_core.deployment import Deployment, StepResult

GROUP = "model"
_ENCODER_MODULES = [
    "vectors",
    "encoder/building",
    "encoder/training",
    "encoder/trainer",
    "encoder/validation",
    "encoder/modules",
    "encoder/loss",
    "encoder/tiled",
    "encoder/propagation",
    "encoder/features",
    "encoder/readout",
    "encoder/position",
    "encoder/checkpoint",
    "encoder/student",
    "encoder/alignment",
]


class _Variants(BaseModel):
    """The part of the evaluation's settings that decides what is trained."""

    names: Sequence[str]


def make_assets(make: AssetMaker) -> list[dg.AssetsDefinition]:
    """The assets of this group."""
    profile = make.profile

    @make.whole(
        group=GROUP,
        kinds={"pytorch"},
        deps=[
            "mobility_graph",
            "node_embeddings",
            *all_features(),
        ],
        code=Code(_ENCODER_MODULES, settings=[profile.encoder]),
        pool=GPU_POOL,
    )
    def encoder(deployment: Deployment) -> StepResult:
        """The encoder: LightGCN over the mobility graph, aligned to POI, imagery and census by contrastive losses.

        A checkpoint (safetensors), its configuration, its curves and its fingerprint. Source: arXiv 2506.01297.
        """
        from mobclip_core.encoder.building import build_encoder

        return build_encoder(deployment)

    @make.regional(
        group=GROUP,
        kinds={"pytorch", "parquet"},
        deps=["encoder", "mobility_graph", "grid_cells", "poi_aggregates", "imagery_features", "census_features"],
        code=Code(
            [f"encoder/{name}" for name in ("embedding", "propagation", "modules", "readout", "position", "student")]
        ),
    )
    def embeddings(deployment: Deployment, region: str) -> StepResult:
        """The product: one vector for each cell of a region, its source, the encoder's fingerprint, the modalities."""
        from mobclip_core.encoder.embedding import build_embeddings

        return build_embeddings(deployment, region)

    @make.whole(
        group=GROUP,
        kinds={"pytorch"},
        deps=[
            "mobility_graph",
            "node_embeddings",
            *all_features(),
        ],
        code=Code(
            [*_ENCODER_MODULES, "encoder/variants", "encoder/lightgcn", "encoder/line", "encoder/line_blocks"],
            settings=[profile.encoder, profile.line, _Variants(names=profile.evaluation.variants)],
        ),
        pool=GPU_POOL,
    )
    def encoder_variants(deployment: Deployment) -> StepResult:
        """Encoders with one part of the method changed, for the scores: those of `evaluation.variants`, often none."""
        from mobclip_core.encoder.variants import build_encoder_variants

        return build_encoder_variants(deployment)

    @make.whole(
        group=GROUP,
        kinds={"pytorch"},
        deps=[all_regions("embeddings"), all_regions("grid_cells"), "geobench_labels"],
        code=Code(
            ["encoder/distil", "serving/location_encoder", "evaluation/unseen"], settings=[profile.location_encoder]
        ),
        pool=GPU_POOL,
    )
    def location_encoder(deployment: Deployment) -> StepResult:
        """The embeddings as a function of longitude and latitude: safetensors, ONNX and a module of PyTorch alone.

        Its quality is told on cells that it did not learn from.
        """
        from mobclip_core.encoder.distil import build_location_encoder

        return build_location_encoder(deployment)

    return [encoder, encoder_variants, embeddings, location_encoder]
