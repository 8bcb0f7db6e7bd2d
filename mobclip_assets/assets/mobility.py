"""Mobility: from records of movement to the graph and its LINE vectors."""

import dagster as dg

from mobclip_assets.assets.sources import source_names
from mobclip_assets.making import GPU_POOL, AssetMaker, Code
from mobclip_assets.partitions import all_regions
from mobclip_core.deployment import Deployment, StepResult

GROUP = "mobility"
_MOVEMENTS = [
    f"mobility/{name}" for name in ("movements", "buckets", "locating", "spreading", "flows", "noise", "privacy")
]


def make_assets(make: AssetMaker) -> list[dg.AssetsDefinition]:
    """The assets of this group."""
    profile = make.profile

    @make.whole(
        group=GROUP,
        kinds={"duckdb", "parquet"},
        deps=[all_regions("grid_cells"), all_regions("zone_cells"), *source_names(profile, "mobility_")],
        code=Code(
            [*_MOVEMENTS, "sources/tables", "sources/origin_destination", "bulk_cells", "crosswalk"],
            _MOVEMENTS,
            [profile.grid, profile.mobility],
        ),
    )
    def movements(deployment: Deployment) -> StepResult:
        """Movements of the whole country from one pass over the raw records: edges and flows, by region of origin.

        Nothing that fewer people made than the profile's minimum leaves this step; noise, where the profile asks for
        it, is drawn anew at every materialisation. The report says what was suppressed.
        """
        from mobclip_core.mobility.movements import build_movements

        return build_movements(deployment)

    @make.regional(
        group=GROUP,
        kinds={"duckdb", "parquet"},
        deps=["movements", all_regions("grid_cells"), all_regions("zone_cells"), all_regions("census_features")],
        code=Code(["mobility/edges", "crosswalk"], ["mobility/edges", "crosswalk"], [profile.mobility]),
    )
    def mobility_edges(deployment: Deployment, region: str) -> StepResult:
        """Movement between cells that begins in a region: movements, and flows spread over cells, k-anonymous."""
        from mobclip_core.mobility.edges import build_mobility_edges

        return build_mobility_edges(deployment, region)

    @make.whole(
        group=GROUP,
        kinds={"numpy"},
        deps=[all_regions("grid_cells"), all_regions("mobility_edges")],
        code=Code(["mobility/graph"], settings=[profile.mobility]),
    )
    def mobility_graph(deployment: Deployment) -> StepResult:
        """The graph over all cells as memory-mapped CSR arrays, nodes in H3 order."""
        from mobclip_core.mobility.graph import build_mobility_graph

        return build_mobility_graph(deployment)

    @make.whole(
        group=GROUP,
        kinds={"pytorch", "parquet"},
        deps=["mobility_graph"],
        code=Code(
            ["encoder/line", "encoder/line_blocks", "encoder/validation"],
            settings=[profile.line, *([profile.encoder] if profile.encoder.validation == "inductive" else [])],
        ),
        pool=GPU_POOL,
    )
    def node_embeddings(deployment: Deployment) -> StepResult:
        """LINE second-order vectors of the full mobility graph: the encoder's node table begins here."""
        from mobclip_core.encoder.line import build_node_embeddings

        return build_node_embeddings(deployment)

    return [movements, mobility_edges, mobility_graph, node_embeddings]
