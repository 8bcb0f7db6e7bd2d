"""What every table of the lake is: columns, types, keys, units, ranges.

Belongs here: `TableContract` and every instance of it. The name of a contract is the name of the asset, of the
directory in the lake and of the view in the catalog. Does not belong here: reading, writing, computing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.errors import ContractError
from mobclip_core.tensors import TensorType, tensors_of

CELL = pa.uint64()
VECTOR = pa.list_(pa.float32())
"""Type of a vector column; in the file it is a fixed-size list whose length the profile decides."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: Column name, with its unit as a suffix where it has one.
        type: Arrow type. `pa.list_(T)` with `vector=True` stands for a fixed-size list of T of any one length.
        description: What the value means.
        unit: Unit in words, if any.
        minimum: Smallest value allowed (elements of vectors included).
        maximum: Largest value allowed.
        nullable: Whether nulls are allowed. NaN counts as null in float columns.
        vector: Whether the column holds vectors of one common length.
        tensors: Element types that a column of tensors of one common shape (`tensors.TensorType`) may hold.
    """

    name: str
    type: pa.DataType
    description: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    nullable: bool = False
    vector: bool = False
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Violation:
    """One broken rule: the column, what is wrong, and the first rows concerned."""

    column: str
    problem: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" (first rows: {', '.join(map(str, self.rows))})" if self.rows else ""
        return f"{self.column}: {self.problem}{where}"


def _first_rows(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask)[:5])


@dataclass(frozen=True)
class TableContract:
    """The definition of one table.

    Args:
        name: Name of asset, directory, view and table alike.
        description: What one row is.
        columns: The columns, in order.
        keys: Columns that together identify a row. Rows are sorted by them.
        partitioned: Whether the table is partitioned by region.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    partitioned: bool = True
    _by_name: dict[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {column.name: column for column in self.columns})

    def schema(self) -> pa.Schema:
        """The Arrow schema; vector columns appear with variable-size list types."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

    def violations(self, table: pa.Table) -> list[Violation]:
        """Every broken rule in a table; an empty list means that the table keeps its contract."""
        found: list[Violation] = []
        for column in self.columns:
            if column.name not in table.column_names:
                found.append(Violation(column.name, f"missing; the table has {table.column_names}"))
                continue
            found += _column_violations(column, table.column(column.name).combine_chunks())
        unknown = [name for name in table.column_names if name not in self._by_name]
        found += [Violation(name, "not in the contract") for name in unknown]
        if not found and table.num_rows:
            found += self._key_violations(table)
        return found

    def _key_violations(self, table: pa.Table) -> list[Violation]:
        keys = table.select(list(self.keys))
        name = ", ".join(self.keys)
        order = pc.sort_indices(keys, sort_keys=[(k, "ascending") for k in self.keys]).to_numpy()
        found = []
        displaced = order != np.arange(len(order))
        if displaced.any():
            found.append(Violation(name, "rows are not sorted by the key", _first_rows(displaced)))
        ordered = keys.take(pa.array(order))
        same = np.ones(len(order) - 1, dtype=bool)
        for key in self.keys:
            values = ordered.column(key).combine_chunks()
            same &= pc.equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
        if same.any():
            found.append(
                Violation(
                    name,
                    f"{int(same.sum())} duplicate keys",
                    tuple(int(order[i + 1]) for i in np.flatnonzero(same)[:5]),
                )
            )
        return found

    def validate(self, table: pa.Table, where: str) -> None:
        """Raise if the table breaks the contract.

        Args:
            table: The table to check.
            where: Name of the partition or file, for the message.

        Raises:
            ContractError: Naming the table, the place and every violation with its first rows.
        """
        self.require_none(self.violations(table), where)

    def require_none(self, found: Sequence[Violation], where: str) -> None:
        """Raise a `ContractError` that names the table, the place and every violation, if there is one."""
        if found:
            lines = "".join(f"\n  - {violation}" for violation in found)
            raise ContractError(f"{self.name} ({where}) breaks its contract:{lines}")


def _column_violations(column: Column, array: pa.Array) -> list[Violation]:
    if column.tensors:
        return _tensor_violations(column, array)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if column.vector:
        if not pa.types.is_fixed_size_list(array.type):
            return [Violation(column.name, f"is {array.type}, expected a fixed-size list of {column.type.value_type}")]
        if array.type.value_type != column.type.value_type:
            return [Violation(column.name, f"holds {array.type.value_type}, expected {column.type.value_type}")]
    elif array.type != column.type:
        return [Violation(column.name, f"is {array.type}, expected {column.type}")]
    found = []
    if array.null_count and not column.nullable:
        found.append(
            Violation(column.name, f"{array.null_count} nulls", _first_rows(pc.is_null(array).to_numpy(False)))
        )
    values, width = array, 1
    if column.vector:
        values, width = array.flatten(), array.type.list_size
        if array.null_count and len(values) != len(array) * width:
            return found
    if len(values) and (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        found += _range_violations(column, values, max(width, 1))
    return found


def _tensor_violations(column: Column, array: pa.Array) -> list[Violation]:
    expected = " or ".join(column.tensors)
    if not isinstance(array.type, TensorType):
        return [Violation(column.name, f"is {array.type}, expected tensors of {expected}")]
    if array.type.dtype.name not in column.tensors:
        return [Violation(column.name, f"holds {array.type.dtype.name}, expected {expected}")]
    if array.null_count:
        return [Violation(column.name, f"{array.null_count} nulls", _first_rows(pc.is_null(array).to_numpy(False)))]
    tensors = tensors_of(array)
    if tensors.dtype.kind != "f":
        return []
    wrong = ~np.isfinite(tensors).all(axis=tuple(range(1, tensors.ndim)))
    problem = f"{int(wrong.sum())} tensors with values that are not finite"
    return [Violation(column.name, problem, _first_rows(wrong))] if wrong.any() else []


def _range_violations(column: Column, values: pa.Array, width: int) -> list[Violation]:
    numbers = values.to_numpy(zero_copy_only=False)
    valid = ~pc.is_null(values).to_numpy(zero_copy_only=False)
    checks = []
    if pa.types.is_floating(values.type):
        wrong = np.isinf(numbers) if column.nullable else ~np.isfinite(numbers)
        checks.append(("values that are not finite", wrong))
    if column.minimum is not None:
        checks.append((f"values below {column.minimum}", numbers < column.minimum))
    if column.maximum is not None:
        checks.append((f"values above {column.maximum}", numbers > column.maximum))
    found = []
    for problem, mask in checks:
        wrong = mask & valid
        if wrong.any():
            rows = tuple(dict.fromkeys(int(i) // width for i in np.flatnonzero(wrong)[:50]))[:5]
            found.append(Violation(column.name, f"{int(wrong.sum())} {problem}", rows))
    return found


_CELL = Column("cell", CELL, "H3 index of the cell")

REGIONS = TableContract(
    "regions",
    "One region of the deployment: the unit of partitioning. Every cell belongs to exactly one region.",
    (
        Column("region", pa.string(), "partition key"),
        Column("name", pa.string(), "name for people"),
        Column("geometry", pa.binary(), "polygon or multipolygon, WKB, EPSG:4326"),
        Column("area_km2", pa.float64(), "geodesic area of the polygon", "km2", minimum=0.0),
        Column("source_features", pa.int64(), "polygons of the source merged into the region", minimum=1),
    ),
    ("region",),
    partitioned=False,
)

GRID_CELLS = TableContract(
    "grid_cells",
    "One H3 cell of a region.",
    (
        _CELL,
        Column("region", pa.string(), "the one region that the cell belongs to"),
        Column("lon", pa.float64(), "longitude of the cell's centre", "degrees", -180.0, 180.0),
        Column("lat", pa.float64(), "latitude of the cell's centre", "degrees", -90.0, 90.0),
        Column("area_km2", pa.float64(), "area of the whole cell on the sphere, from H3", "km2", minimum=0.0),
        Column(
            "coverage",
            pa.float64(),
            "fraction of the cell's area inside the deployment's regions",
            minimum=0.0,
            maximum=1.0,
        ),
    ),
    ("cell",),
)

ZONE_CELLS = TableContract(
    "zone_cells",
    "The crosswalk: how much of a zone goes to each cell. A zone belongs to the region that holds most of it, and its "
    "weights over that region's cells sum to 1.",
    (
        Column("layer", pa.string(), "zone layer of the profile"),
        Column("zone", pa.string(), "zone identifier"),
        _CELL,
        Column(
            "area_km2",
            pa.float64(),
            "area of the zone inside the cell (0 for a zone snapped to its nearest cell)",
            "km2",
            minimum=0.0,
        ),
        Column("weight", pa.float64(), "share of the zone that goes to the cell", minimum=0.0, maximum=1.0),
    ),
    ("layer", "zone", "cell"),
)

POI_AGGREGATES = TableContract(
    "poi_aggregates",
    "The POIs of one cell. Every grid cell has a row; a cell without POIs has zeros.",
    (
        _CELL,
        Column(
            "poi_count",
            pa.float64(),
            "POIs in the cell (fractional where counts by zone were spread)",
            "POIs",
            minimum=0.0,
        ),
        Column(
            "counts", VECTOR, "POIs by category, in the profile's order of categories", "POIs", minimum=0.0, vector=True
        ),
        Column("text_vector", VECTOR, "count-weighted mean of the text vectors of categories and names", vector=True),
    ),
    ("cell",),
)

IMAGERY_PATCHES = TableContract(
    "imagery_patches",
    "The image of one cell: a square patch centred on it. Every grid cell has a row.",
    (
        _CELL,
        Column(
            "patch",
            pa.binary(),
            "bands x rows x columns (tensor), resampled; 0 where not valid; uint8 where the raster is",
            tensors=("uint8", "float32"),
        ),
        Column(
            "valid_fraction",
            pa.float64(),
            "fraction of the patch's pixels that the raster covers with data",
            minimum=0.0,
            maximum=1.0,
        ),
    ),
    ("cell",),
)

IMAGERY_FEATURES = TableContract(
    "imagery_features",
    "The image encoder's vector of one cell. Every grid cell has a row; zeros where the image is not valid.",
    (
        _CELL,
        Column("features", VECTOR, "output of the image encoder", vector=True),
        Column("valid_fraction", pa.float64(), "fraction of the patch with data", minimum=0.0, maximum=1.0),
        Column("image_encoder", pa.string(), "fingerprint of the image encoder"),
    ),
    ("cell",),
)

CENSUS_FEATURES = TableContract(
    "census_features",
    "The people of one cell, by mass-preserving areal weighting of zones. Every grid cell has a row.",
    (
        _CELL,
        Column("population", pa.float64(), "people in the cell", "people", minimum=0.0),
        Column(
            "histogram",
            pa.list_(pa.float64()),
            "people by bin, in the profile's order of bins",
            "people",
            minimum=0.0,
            vector=True,
        ),
        Column(
            "zone_share",
            pa.float64(),
            "area of the cell that zones with census data cover, over the cell's area",
            minimum=0.0,
        ),
    ),
    ("cell",),
)

MOBILITY_EDGES = TableContract(
    "mobility_edges",
    "Movement from one cell to another, k-anonymous. Partitioned by the region of the origin.",
    (
        Column("src", CELL, "origin cell"),
        Column("dst", CELL, "destination cell"),
        Column("weight", pa.float64(), "movements", "movements", minimum=0.0),
        Column(
            "people",
            pa.float64(),
            "smallest group of people that any contribution to the edge comes from",
            "people",
            minimum=0.0,
        ),
    ),
    ("src", "dst"),
)

NODE_EMBEDDINGS = TableContract(
    "node_embeddings",
    "LINE second-order vector of one node of the mobility graph, in node order.",
    (
        _CELL,
        Column("vector", VECTOR, "LINE vertex vector", vector=True),
        Column("degree", pa.float64(), "summed weight of the node's edges, both directions", minimum=0.0),
    ),
    ("cell",),
    partitioned=False,
)

EMBEDDINGS = TableContract(
    "embeddings",
    "The product: one vector for one cell.",
    (
        _CELL,
        Column("vector", VECTOR, "the cell's embedding", vector=True),
        Column("encoder", pa.string(), "fingerprint of the encoder that made the vector"),
        Column("has_mobility", pa.bool_(), "the cell has an edge in the mobility graph"),
        Column("has_poi", pa.bool_(), "the cell has POIs"),
        Column("has_imagery", pa.bool_(), "the cell has a valid image"),
        Column("has_census", pa.bool_(), "zones with census data reach the cell"),
    ),
    ("cell",),
)

GEOBENCH_LABELS = TableContract(
    "geobench_labels",
    "One labelled unit (cell, county or city) of one task, with the cells whose mean vector describes it.",
    (
        Column("task", pa.string(), "task code, e.g. POP"),
        Column("unit", pa.string(), "identifier of the unit within the task"),
        Column("scale", pa.string(), "cell, county or city"),
        Column("value", pa.float64(), "label in the unit of its source"),
        Column("target", pa.float64(), "label after the task's transform: what the probes predict"),
        Column("lon", pa.float64(), "longitude of the unit's weighted centre", "degrees", -180.0, 180.0),
        Column("lat", pa.float64(), "latitude of the unit's weighted centre", "degrees", -90.0, 90.0),
        Column("cells", pa.list_(CELL), "cells of the unit"),
        Column("weights", pa.list_(pa.float64()), "weight of each cell in the unit's mean; sums to 1"),
    ),
    ("task", "unit"),
    partitioned=False,
)

GEOBENCH_SCORES = TableContract(
    "geobench_scores",
    "One score: a task predicted from one representation by one probe under one split.",
    (
        Column("profile", pa.string(), "profile name"),
        Column("task", pa.string(), "task code"),
        Column(
            "method", pa.string(), "representation: embeddings, coordinates, raw_features, pca_128, or one modality"
        ),
        Column("probe", pa.string(), "ridge or lightgbm"),
        Column("split", pa.string(), "random or spatial"),
        Column("seed", pa.int64(), "seed of split and probe", minimum=0),
        Column("n", pa.int64(), "labelled units", minimum=1),
        Column("n_test", pa.int64(), "units predicted out of sample", minimum=1),
        Column("r2", pa.float64(), "coefficient of determination on the units predicted out of sample", maximum=1.0),
        Column("r2_low", pa.float64(), "2.5% bound of the bootstrap interval", maximum=1.0),
        Column("r2_high", pa.float64(), "97.5% bound of the bootstrap interval", maximum=1.0),
        Column("leak", pa.bool_(), "whether an input of the method overlaps with the label"),
        Column("encoder", pa.string(), "fingerprint of the encoder scored in this run"),
    ),
    ("task", "method", "probe", "split", "seed"),
    partitioned=False,
)

CONTRACTS: dict[str, TableContract] = {
    contract.name: contract
    for contract in (
        REGIONS,
        GRID_CELLS,
        ZONE_CELLS,
        POI_AGGREGATES,
        IMAGERY_PATCHES,
        IMAGERY_FEATURES,
        CENSUS_FEATURES,
        MOBILITY_EDGES,
        NODE_EMBEDDINGS,
        EMBEDDINGS,
        GEOBENCH_LABELS,
        GEOBENCH_SCORES,
    )
}


def vector_column(matrix: np.ndarray) -> pa.Array:
    """A matrix as an Arrow column of fixed-size lists.

    Args:
        matrix: Shape (rows, width), any numeric type.

    Returns:
        Fixed-size list array of length `rows`, without copying the values.
    """
    matrix = np.ascontiguousarray(matrix)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def matrix_of(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The matrix in a column of fixed-size lists: the inverse of `vector_column`.

    Returns:
        Shape (rows, width).
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    matrix: np.ndarray = array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
    return matrix
