"""Mobility: from records of movement to the graph and its LINE vectors."""

import dagster as dg

from mobclip_assets.assets.sources import source_names
from mobclip_assets.making import GPU_POOL, AssetMaker, Code
from mobclip_assets.partitions import all_regions
from mobclip_core.deployment import Deployment, StepResult

GROUP = "mobility"


def make_assets(make: AssetMaker) -> list[dg.AssetsDefinition]:
    """The assets of this group."""
    profile = make.profile

    @make.regional(
        group=GROUP,
        kinds={"duckdb", "parquet"},
        deps=[
            all_regions("grid_cells"),
            all_regions("zone_cells"),
            all_regions("census_features"),
            *source_names(profile, "mobility_"),
        ],
        code=Code(["mobility/edges", "crosswalk", "sources"], ["mobility_", "zone_"], [profile.mobility]),
    )
    def mobility_edges(deployment: Deployment, region: str) -> StepResult:
        """Movement between cells that begins in a region, from visits, trips and zone-to-zone flows, k-anonymous."""
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
        code=Code(["encoder/line"], settings=[profile.line]),
        pool=GPU_POOL,
    )
    def node_embeddings(deployment: Deployment) -> StepResult:
        """LINE second-order vectors of the full mobility graph: the encoder's node table begins here."""
        from mobclip_core.encoder.line import build_node_embeddings

        return build_node_embeddings(deployment)

    return [mobility_edges, mobility_graph, node_embeddings]
