"""What the lake publishes: the catalog, one DuckDB file of views, and maps of the whole country.

Belongs here: making them. Does not belong here: putting them in place (see `store`) and letting one step write at a
time (the orchestration does).
"""

from typing import TYPE_CHECKING

import numpy as np
import shapely

from mobclip_core.contracts import CONTRACTS
from mobclip_core.sources.tables import quote
from mobclip_core.sql import sql_text
from mobclip_core.store import Store, TableRef
from mobclip_core.table_contract import TableContract
from mobclip_core.vectors import matrix_of

if TYPE_CHECKING:
    import duckdb

    from mobclip_core.deployment import Deployment
    from mobclip_core.profile import Profile
    from mobclip_core.serving.map_page import Layer


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _files(store: Store, contract: TableContract) -> str | None:
    """The pattern that names a table's files, or None where nothing is materialised."""
    if not contract.partitioned:
        ref = TableRef(contract.name)
        return store.external(store.path(ref)) if store.exists(ref) else None
    if not store.regions(contract.name):
        return None
    return store.external(f"{store.root}/{contract.name}/region=*/part.parquet")


def write_catalog(connection: "duckdb.DuckDBPyConnection", store: Store) -> dict[str, int]:
    """Create a commented view for every table that is there, and the macros that ask about places.

    Views name the files of the lake by absolute path or URL, so the catalog works where the lake is reachable under it:
    for a lake on an object store the reader's DuckDB needs access to it too.

    Args:
        connection: An open, empty DuckDB file.
        store: The lake.

    Returns:
        Rows of each view.
    """
    if not store.is_local:
        connection.register_filesystem(store.fs)
    rows = {}
    for contract in CONTRACTS.values():
        files = _files(store, contract)
        if files is None:
            continue
        view = quote(contract.name)
        connection.execute(
            sql_text("catalog_view").format(
                view=view, files=_literal(files), partitioned=str(contract.partitioned).lower()
            )
        )
        connection.execute(f"COMMENT ON VIEW {view} IS {_literal(contract.description)}")
        for column in contract.columns:
            unit = f" ({column.unit})" if column.unit else ""
            connection.execute(
                f"COMMENT ON COLUMN {view}.{quote(column.name)} IS {_literal(column.description + unit)}"
            )
        [counted] = connection.execute(f"SELECT count(*) FROM {view}").fetchall()  # noqa: S608 - quoted above
        rows[contract.name] = int(counted[0])
    if {"embeddings", "grid_cells"} <= set(rows):
        for macro in (
            sql_text("catalog_place"),
            sql_text("catalog_similar_places"),
            sql_text("catalog_region_vectors"),
        ):
            connection.execute(macro)
    # closing writes it too, but not always before the file is renamed: what lies in the log beside it would be lost
    connection.execute("CHECKPOINT")
    return rows


def country_map(store: Store, profile: "Profile") -> bytes:
    """A PNG map of all cells, coloured by the first three principal components of their embeddings."""
    from mobclip_core.plots import embedding_map

    table = store.read_all("embeddings", ["cell", "vector"], profile.regions.region_keys)
    return embedding_map(table["cell"].to_numpy(), matrix_of(table["vector"]), f"Embeddings of {profile.name}")


def country_page(deployment: "Deployment") -> bytes:
    """The map to open in a browser: cells by vector, and by label, prediction and residual of each task scored."""
    from mobclip_core.serving import open as open_places
    from mobclip_core.serving.map_page import map_page

    profile, store = deployment.profile, deployment.store
    there = set(store.regions("embeddings"))
    places = open_places(store.url, [key for key in profile.regions.region_keys if key in there])
    layers = _task_layers(deployment, places.cells) if store.exists(TableRef("geobench_scores")) else []
    return map_page(places, profile.name, layers, region_outlines(store), profile.description)


def region_outlines(store: Store) -> list[tuple[str, shapely.Geometry]]:
    """Regions by name, in degrees; none where the lake has no `regions`."""
    if not store.exists(TableRef("regions")):
        return []
    table = store.read(TableRef("regions"), ["name", "geometry"])
    return list(zip(table["name"].to_pylist(), shapely.from_wkb(table["geometry"].to_pylist()), strict=True))


def _task_layers(deployment: "Deployment", cells: np.ndarray) -> list["Layer"]:
    from mobclip_core.evaluation.predictions import out_of_sample
    from mobclip_core.serving.map_page import Layer

    layers = []
    for one in out_of_sample(deployment):
        task = deployment.profile.tasks[one.task]
        unit = task.unit if task.transform == "identity" else f"{task.transform} of {task.unit}"
        row = np.searchsorted(cells, one.cells)

        def spread(values: np.ndarray, row: np.ndarray = row, unit: np.ndarray = one.unit) -> np.ndarray:
            found = np.full(len(cells), np.nan)
            found[row] = values[unit]
            return found

        about = f"{task.title}, {unit}"
        layers += [
            Layer(about, "label", spread(one.label)),
            Layer(about, "predicted", spread(one.prediction)),
            Layer(about, "residual (SD)", spread(one.residual), diverging=True),
        ]
    return layers
