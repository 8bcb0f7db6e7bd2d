"""What the encoder sees of each cell: one matrix and one mask for each modality, in node order.

Belongs here: joining the feature tables of all regions into matrices, the presence rules, the standardisation. Does not
belong here: making the features (see `poi`, `imagery`, `census`). The raw-feature baselines of the evaluation read the
same matrices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.errors import ContractError, FingerprintError
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import matrix_of

if TYPE_CHECKING:
    from mobclip_core.deployment import Deployment
    from mobclip_core.profile import Profile

MODALITIES = ("poi", "imagery", "census")
FEATURE_TABLES = {"poi": "poi_aggregates", "imagery": "imagery_features", "census": "census_features"}


@dataclass(frozen=True)
class Statistics:
    """Mean and scale of each column over the cells that have the modality.

    Args:
        mean: float32 (D,).
        scale: Standard deviation, float32 (D,); 0 marks a constant column.
    """

    mean: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Modality:
    """One modality of all cells.

    Args:
        values: Standardised float32 (N, D); 0 where the cell lacks the modality or the value is unknown.
        mask: Whether the cell has the modality, bool (N,).
        columns: Name of each of the D columns.
        statistics: What `values` were standardised with.
    """

    values: np.ndarray
    mask: np.ndarray
    columns: tuple[str, ...]
    statistics: Statistics


@dataclass(frozen=True)
class ModalityFeatures:
    """The features of all cells, sorted by cell.

    Args:
        cells: uint64 (N,).
        region: Index into `regions` of each cell, int32 (N,).
        regions: Region keys.
        lon: Degrees, (N,).
        lat: Degrees, (N,).
        modalities: `poi`, `imagery` and `census`.
        image_encoder: Fingerprint of the image encoder behind `imagery`, None without imagery rows.
    """

    cells: np.ndarray
    region: np.ndarray
    regions: tuple[str, ...]
    lon: np.ndarray
    lat: np.ndarray
    modalities: Mapping[str, Modality]
    image_encoder: str | None = None

    def __len__(self) -> int:
        return len(self.cells)

    def among(self, rows: np.ndarray) -> "ModalityFeatures":
        """Those of some of the cells, by their numbers, ascending; standardised as they were."""
        parts = {name: replace(m, values=m.values[rows], mask=m.mask[rows]) for name, m in self.modalities.items()}
        return replace(
            self,
            cells=self.cells[rows],
            region=self.region[rows],
            lon=self.lon[rows],
            lat=self.lat[rows],
            modalities=parts,
        )


def statistics_of(values: np.ndarray, mask: np.ndarray) -> Statistics:
    """Mean and standard deviation of the known values of the cells that have the modality.

    Args:
        values: (N, D); NaN is unknown.
        mask: bool (N,).
    """
    present = values[mask].astype(np.float64)
    known = np.isfinite(present)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, present, 0).sum(0) / count
    scale = np.sqrt((np.where(known, present - mean, 0) ** 2).sum(0) / count)
    # rounding leaves a constant column a tiny deviation
    scale[scale <= 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 0
    return Statistics(mean.astype(np.float32), scale.astype(np.float32))


def standardise(values: np.ndarray, mask: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Zero mean and unit deviation; 0 for constant columns, unknown values and cells without the modality.

    Args:
        values: (N, D); NaN is unknown.
        mask: bool (N,).
        statistics: Of the same D columns.

    Returns:
        float32 (N, D).
    """
    known = np.isfinite(values) & mask[:, None] & (statistics.scale > 0)
    scale = np.where(statistics.scale > 0, statistics.scale, 1)
    return np.where(known, (values - statistics.mean) / scale, 0).astype(np.float32)


def poi_matrix(counts: np.ndarray, text: np.ndarray) -> np.ndarray:
    """log(1 + POIs) of each category beside the text vector: (N, C + T)."""
    return np.concatenate([np.log1p(counts), text], axis=1)


def census_matrix(population: np.ndarray, histogram: np.ndarray, land_km2: np.ndarray) -> np.ndarray:
    """Share of the people in each bin, and log(1 + people per km2): (N, B + 1).

    Shares are unknown (NaN) where nobody lives and where no bin is known; so is the density where there is no land.
    """
    known = (population > 0) & histogram.any(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(known[:, None], histogram / population[:, None], np.nan)
        density = np.where(land_km2 > 0, np.log1p(population / land_km2), np.nan)
    return np.column_stack([shares, density])


def _read(store: Store, table: str, columns: Sequence[str], regions: Sequence[str], cells: np.ndarray) -> pa.Table:
    """Rows of all regions in the order of `cells` (sorted); raises if the rows are not those of the grid."""
    rows = store.read_all(table, columns=["cell", *columns], regions=regions)
    found = rows["cell"].to_numpy()
    order = np.argsort(found, kind="stable")
    if not np.array_equal(found[order], cells):
        missing, extra = np.setdiff1d(cells, found), np.setdiff1d(found, cells)
        raise ContractError(
            f"{table}: rows do not match grid_cells: {len(missing)} cells missing {missing[:5].tolist()}, "
            f"{len(extra)} unknown {extra[:5].tolist()}; materialise {table} again for the regions concerned"
        )
    return rows.take(pa.array(order))


def _poi(rows: pa.Table, profile: "Profile", _: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    counts, text = matrix_of(rows["counts"]), matrix_of(rows["text_vector"])
    names = [f"poi:{name}" for name in profile.poi.all_categories[: counts.shape[1]]]
    names += [f"poi_{i}" for i in range(len(names), counts.shape[1])] + [f"text_{i}" for i in range(text.shape[1])]
    return poi_matrix(counts, text), rows["poi_count"].to_numpy() > 0, names


def _imagery(rows: pa.Table, profile: "Profile", _: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    values = matrix_of(rows["features"])
    mask = rows["valid_fraction"].to_numpy() >= profile.imagery.min_valid_fraction
    return values, mask, [f"image_{i}" for i in range(values.shape[1])]


def _census(rows: pa.Table, profile: "Profile", land_km2: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    histogram = matrix_of(rows["histogram"])
    values = census_matrix(rows["population"].to_numpy(), histogram, land_km2)
    names = [f"share:{name}" for name in profile.census.bin_names(histogram.shape[1])]
    return values, rows["zone_share"].to_numpy() > 0, [*names, "log_population_density"]


_COLUMNS: dict[str, tuple[str, ...]] = {
    "poi": ("poi_count", "counts", "text_vector"),
    "imagery": ("features", "valid_fraction", "image_encoder"),
    "census": ("population", "histogram", "zone_share"),
}
_MATRICES: dict[str, Any] = {"poi": _poi, "imagery": _imagery, "census": _census}


def _one_image_encoder(rows: pa.Table) -> str | None:
    found = pc.unique(rows["image_encoder"]).to_pylist()
    if len(found) > 1:
        raise FingerprintError(
            f"imagery_features mixes the image encoders {sorted(found)}; materialise imagery_features for all regions"
        )
    return found[0] if found else None


def assemble_features(
    deployment: "Deployment",
    regions: Sequence[str] | None = None,
    statistics: Mapping[str, Statistics] | None = None,
) -> ModalityFeatures:
    """Read the feature tables into matrices.

    Args:
        deployment: Profile and lake.
        regions: Only these regions; all of the profile's if None.
        statistics: Standardise with these (a trained encoder's); computed from the cells read if None.

    Raises:
        MissingTableError: If a partition has not been materialised.
        ContractError: If a table's cells are not the grid's, or its width is not that of `statistics`.
        FingerprintError: If imagery features come from different image encoders.
    """
    store, profile = deployment.store, deployment.profile
    regions = list(profile.regions.region_keys if regions is None else regions)
    grid = store.read_all("grid_cells", ["cell", "region", "lon", "lat", "area_km2", "coverage"], regions)
    grid = grid.take(pa.array(np.argsort(grid["cell"].to_numpy(), kind="stable")))
    cells = grid["cell"].to_numpy()
    land_km2 = grid["area_km2"].to_numpy() * grid["coverage"].to_numpy()
    modalities, image_encoder = {}, None
    for name in MODALITIES:
        rows = _read(store, FEATURE_TABLES[name], _COLUMNS[name], regions, cells)
        values, mask, columns = _MATRICES[name](rows, profile, land_km2)
        used = statistics_of(values, mask) if statistics is None else statistics[name]
        if len(used.mean) != values.shape[1]:
            raise ContractError(
                f"{FEATURE_TABLES[name]} has {values.shape[1]} feature columns, the encoder was trained on "
                f"{len(used.mean)}; materialise the encoder again"
            )
        modalities[name] = Modality(standardise(values, mask, used), mask, tuple(columns), used)
        if name == "imagery":
            image_encoder = _one_image_encoder(rows)
    region = pc.index_in(grid["region"], pa.array(regions)).to_numpy().astype(np.int32)
    lon, lat = grid["lon"].to_numpy(), grid["lat"].to_numpy()
    return ModalityFeatures(cells, region, tuple(regions), lon, lat, modalities, image_encoder)


def input_versions(store: Store, regions: Sequence[str], *others: str) -> dict[str, str]:
    """Data version, by name, of each partition that `assemble_features` reads, and of other tables and bundles."""
    tables = ["grid_cells", *FEATURE_TABLES.values()]
    refs = [TableRef(table, region) for table in tables for region in regions]
    return {str(ref): store.data_version(ref) for ref in [*refs, *map(TableRef, others)]}
