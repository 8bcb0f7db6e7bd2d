"""What every table of the lake is: columns, types, keys, units, ranges.

Belongs here: every instance of `TableContract`. The name of a contract is the name of the asset, of the directory in
the lake and of the view in the catalog. Does not belong here: how a table is checked (see `table_contract`), reading,
writing, computing.
"""

import pyarrow as pa

from mobclip_core.table_contract import Column, TableContract

CELL = pa.uint64()
VECTOR = pa.list_(pa.float32())
"""Type of a vector column; in the file it is a fixed-size list whose length the profile decides."""

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
        Column("source", pa.string(), "graph, or student: from the features alone"),
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
            "method",
            pa.string(),
            "representation: embeddings, coordinates, spherical_harmonics, spatial_neighbours, raw_features, pca_128, "
            "one modality, a variant of the encoder, or an external embedding",
        ),
        Column(
            "probe",
            pa.string(),
            "ridge, lightgbm, lightgbm_published, or neighbours (of the method spatial_neighbours)",
        ),
        Column("split", pa.string(), "random, random_5% (from few labels), spatial or region"),
        Column("seed", pa.int64(), "seed of split and probe", minimum=0),
        Column("n", pa.int64(), "labelled units", minimum=1),
        Column("n_test", pa.int64(), "units predicted out of sample", minimum=1),
        Column("r2", pa.float64(), "coefficient of determination on the units predicted out of sample", maximum=1.0),
        Column("r2_low", pa.float64(), "2.5% bound of the bootstrap interval", maximum=1.0),
        Column("r2_high", pa.float64(), "97.5% bound of the bootstrap interval", maximum=1.0),
        Column("leak", pa.bool_(), "whether an input of the method overlaps with the label"),
        Column("encoder", pa.string(), "fingerprint of the encoder scored in this run"),
        Column("label_version", pa.string(), "hash of the task's labels and of the cells of its units"),
        Column("input_version", pa.string(), "hash of the method's matrix"),
        Column(
            "resampled",
            VECTOR,
            "R2 on each bootstrap resample, NaN where it has none; a resample draws the same units, blocks or regions "
            "for every method, seed and task on the same units",
            nullable=True,
            vector=True,
        ),
    ),
    ("task", "method", "probe", "split", "seed"),
    partitioned=False,
)

SCALING_LAW = TableContract(
    "scaling_law",
    "One encoder trained on a part of what there is, and its score.",
    (
        Column("axis", pa.string(), "what grows: cells, edges, inputs or width"),
        Column("size", pa.float64(), "how many of them", minimum=1.0),
        Column("seed", pa.int64(), "seed of the nested sets, the training and the split: one repeat", minimum=0),
        Column("cells", pa.int64(), "cells that the encoder learnt from", "cells", minimum=1),
        Column("edges", pa.int64(), "mobility edges that it learnt from", "edges", minimum=0),
        Column("r2", pa.float64(), "mean R2 over tasks on spatial blocks, ridge", maximum=1.0),
        Column("error", pa.float64(), "1 - r2", minimum=0.0),
        Column("seconds", pa.float64(), "time of training and scoring", "s", minimum=0.0),
    ),
    ("axis", "size", "seed"),
    partitioned=False,
)

ON_REQUEST = frozenset({"scaling_law"})
"""Tables that are made when somebody asks for them, not with the rest."""

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
        SCALING_LAW,
    )
}
