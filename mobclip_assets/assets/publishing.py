"""Publishing: what readers outside the graph open."""

import dagster as dg
from dagster_duckdb import DuckDBResource

from mobclip_assets.making import AssetMaker, freshness
from mobclip_assets.metadata import numbers, picture
from mobclip_assets.partitions import all_regions
from mobclip_assets.resources import DeploymentResource
from mobclip_assets.versions import code_version
from mobclip_core.contracts import CONTRACTS, ON_REQUEST

CATALOG_POOL = "catalog"


def make_assets(make: AssetMaker) -> list[dg.AssetsDefinition]:
    """The assets of this group."""

    @dg.asset(
        group_name="publishing",
        kinds={"duckdb"},
        owners=make.profile.owners,
        pool=CATALOG_POOL,
        freshness_policy=freshness(make.profile),
        code_version=code_version(["catalog", "contracts", "serving/map_page"], ["catalog"], []),
        deps=[all_regions(c.name) if c.partitioned else c.name for c in CONTRACTS.values() if c.name not in ON_REQUEST],
    )
    def catalog(deployment: DeploymentResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """One DuckDB file of commented views over every table, and two maps; written aside and then put in place.

        Open it with any DuckDB: `duckdb catalog.duckdb "SELECT * FROM embeddings LIMIT 5"`.
        """
        from mobclip_core.catalog import country_map, country_page, write_catalog
        from mobclip_core.serving.map_page import FILE

        opened = deployment.open()
        store = opened.store
        with (
            store.writing_catalog() as aside,
            DuckDBResource(database=str(aside)).get_connection() as connection,
        ):
            rows = write_catalog(connection, store)
        drawn = country_map(store, opened.profile)
        return dg.MaterializeResult(
            metadata={
                "file": dg.MetadataValue.path(str(store.catalog_path)),
                "map": dg.MetadataValue.path(store.publish("map.png", drawn)),
                "page": dg.MetadataValue.path(store.publish(FILE, country_page(opened))),
                "views": len(rows),
                **numbers(rows),
                "Embeddings": picture(drawn),
            }
        )

    return [catalog]
