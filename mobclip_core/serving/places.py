"""Places: the vectors of a lake, asked by position, cell, polygon or likeness.

Belongs here: reading a lake once and answering in bulk. Does not belong here: files for other programs (see `exports`),
printing (see the command line). Nothing here needs Dagster or torch.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h3.api.numpy_int as h3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from mobclip_core.bulk_cells import cells_of_points
from mobclip_core.cells import parents, resolution_of
from mobclip_core.errors import FingerprintError, MissingTableError, MobclipError, listed
from mobclip_core.serving.answers import MODALITIES, Answers
from mobclip_core.serving.index import LikenessIndex
from mobclip_core.serving.overlaps import clean_polygons, overlaps, sphere_areas
from mobclip_core.store import Store
from mobclip_core.vectors import matrix_of

Weighting = Literal["area", "population"]
"""How cells weigh in a mean: by their area inside the deployment's regions, or by the people in them."""

_POINTS_AT_ONCE = 131_072


@dataclass(frozen=True)
class Likeness:
    """The cells most like one place, the most similar first.

    Args:
        cells: uint64, shape (k,).
        similarity: Cosine of the angle between the vectors, shape (k,).
        region: Region of each, shape (k,).
        lon: Longitude of the cells' centres in degrees, shape (k,).
        lat: Latitude of the cells' centres in degrees, shape (k,).
    """

    cells: np.ndarray
    similarity: np.ndarray
    region: np.ndarray
    lon: np.ndarray
    lat: np.ndarray

    def table(self) -> pa.Table:
        """As an Arrow table."""
        return pa.table(vars(self))


@dataclass(frozen=True, eq=False)
class Places:
    """The cells of a lake with their vectors, sorted by cell. Made by `open_places`.

    Args:
        cells: H3 indices of one resolution, uint64, shape (n,).
        vectors: float32, shape (n, d).
        graph: Whether the graph, not the student, gave the vector; bool, shape (n,).
        modalities: Whether the cell has each of `answers.MODALITIES`, bool, shape (n, 4).
        region: Number of the cell's region in `regions`, int64, shape (n,).
        regions: Region keys.
        lon: Longitude of the centres in degrees, shape (n,).
        lat: Latitude of the centres in degrees, shape (n,).
        area_km2: Area of the cell on the sphere, shape (n,).
        coverage: Fraction of that area inside the deployment's regions, shape (n,).
        population: People in the cell, shape (n,), or None where the lake has no census.
        encoder: Fingerprint of the encoder that made the vectors.
    """

    cells: np.ndarray
    vectors: np.ndarray
    graph: np.ndarray
    modalities: np.ndarray
    region: np.ndarray
    regions: tuple[str, ...]
    lon: np.ndarray
    lat: np.ndarray
    area_km2: np.ndarray
    coverage: np.ndarray
    population: np.ndarray | None
    encoder: str

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def dimensions(self) -> int:
        """Length of a vector, d."""
        return int(self.vectors.shape[1])

    @functools.cached_property
    def resolution(self) -> int:
        """H3 resolution of the cells."""
        return int(resolution_of(self.cells[:1])[0])

    # ---- by position and by cell ----

    def rows_of(self, cells: np.ndarray) -> np.ndarray:
        """Positions of cells of the lake's resolution in `cells`: int64, shape (n,); -1 where the lake has none."""
        cells = np.asarray(cells, dtype=np.uint64)
        row = np.minimum(np.searchsorted(self.cells, cells), len(self.cells) - 1)
        return np.where(self.cells[row] == cells, row, -1)

    def lookup(
        self, *, lon: np.ndarray | Sequence[float] | float, lat: np.ndarray | Sequence[float] | float
    ) -> Answers:
        """Vectors of the cells that points lie in.

        Args:
            lon: Longitudes in degrees, a number or shape (n,).
            lat: Latitudes in degrees, likewise.

        Returns:
            One answer a point; none for a point in no cell of the lake, or whose coordinates are no place.
        """
        lon = np.atleast_1d(np.asarray(lon, dtype=np.float64))
        lat = np.atleast_1d(np.asarray(lat, dtype=np.float64))
        if lon.shape != lat.shape or lon.ndim != 1:
            raise MobclipError(f"lon and lat are one number a point each; got shapes {lon.shape} and {lat.shape}")
        # converted and sought a part at a time, within the processor's cache
        rows = np.empty(len(lon), dtype=np.int64)
        for start in range(0, len(lon), _POINTS_AT_ONCE):
            part = slice(start, start + _POINTS_AT_ONCE)
            rows[part] = self.rows_of(cells_of_points(lon[part], lat[part], self.resolution))
        return self._of_rows(rows)

    def lookup_cells(self, cells: np.ndarray | Sequence[int], weighting: Weighting = "area") -> Answers:
        """Vectors of H3 cells of any resolution.

        A finer cell has the vector of its parent in the lake; a coarser one the weighted mean of its children there.

        Args:
            cells: H3 indices, shape (n,).
            weighting: How children weigh.

        Raises:
            MobclipError: If an index is no H3 cell, or the lake has no people to weigh by.
        """
        cells = np.atleast_1d(np.asarray(cells, dtype=np.uint64))
        bad = [int(cell) for cell in cells if not h3.is_valid_cell(int(cell))]
        if bad:
            raise MobclipError(f"no H3 cells: {listed([f'{cell:x}' for cell in bad], 5)}")
        level = resolution_of(cells)
        rows = np.full(len(cells), -1)
        fine = level >= self.resolution
        rows[fine] = self.rows_of(parents(cells[fine], self.resolution))
        answers = self._of_rows(rows)
        for resolution in np.unique(level[~fine]):
            which = np.flatnonzero(level == resolution)
            own = parents(self.cells, int(resolution))
            wanted, back = np.unique(cells[which], return_inverse=True)
            place = np.minimum(np.searchsorted(wanted, own), len(wanted) - 1)
            child = np.flatnonzero(wanted[place] == own)
            area = np.bincount(place[child], self.coverage[child] * self.area_km2[child], minlength=len(wanted))
            whole = np.array([h3.cell_area(int(cell), "km^2") for cell in wanted])
            covered = np.minimum(area / whole, 1.0)
            means = self._means(place[child], child, self.coverage[child], len(wanted), covered, weighting)
            for name in ("vectors", "cell_count", "covered", "graph", "modalities"):
                getattr(answers, name)[which] = getattr(means, name)[back]
            answers.cells[which] = np.where(means.found[back], cells[which], 0)
        return answers

    def _of_rows(self, rows: np.ndarray) -> Answers:
        found = rows >= 0
        shown = np.where(found, rows, 0)
        # one pass over the answers, which are most of the work
        vectors = self.vectors.take(shown, axis=0, mode="clip")
        vectors[~found] = np.nan
        return Answers(
            vectors=vectors,
            cells=np.where(found, self.cells[shown], np.uint64(0)),
            cell_count=found.astype(np.int64),
            covered=found.astype(np.float64),
            graph=(found & self.graph[shown]).astype(np.float64),
            modalities=(found[:, None] & self.modalities[shown]).astype(np.float64),
            encoder=self.encoder,
        )

    # ---- by polygon ----

    def aggregate(self, polygons: Sequence[shapely.Geometry] | np.ndarray, weighting: Weighting = "area") -> Answers:
        """The mean vector of each polygon, weighted by the area or the people of the parts of cells inside it.

        A cell counts with the part of it that lies in the polygon, but with no more than lies in the deployment's
        regions: the rest is sea, or another country. People are taken as spread evenly over the part in the regions.
        A polygon in which nobody lives is weighted by area.

        Args:
            polygons: Shapely polygons in degrees, longitude first.
            weighting: How cells weigh.

        Raises:
            MobclipError: Naming the polygon that cannot be answered for and why (see `overlaps.clean_polygons`), or if
                the lake has no people to weigh by.
        """
        clean = clean_polygons(polygons)
        found = overlaps(clean, self.polygons, *self._index)
        return self._means(found.polygon, found.cell, found.fraction, len(clean), found.covered, weighting)

    def whole(self, weighting: Weighting = "area") -> Answers:
        """One answer for all cells together."""
        every = np.arange(len(self))
        return self._means(np.zeros_like(every), every, self.coverage, 1, np.ones(1), weighting)

    @functools.cached_property
    def polygons(self) -> np.ndarray:
        """Polygons of the cells in degrees, object array of shape (n,); see `grid.cell_polygons`."""
        from mobclip_core.grid import cell_polygons

        return cell_polygons(self.cells)

    @functools.cached_property
    def _index(self) -> tuple[shapely.STRtree, np.ndarray]:
        """Index of the cells' polygons, their areas on the unit sphere."""
        return shapely.STRtree(self.polygons), sphere_areas(self.polygons)

    def _means(
        self,
        group: np.ndarray,
        row: np.ndarray,
        fraction: np.ndarray,
        groups: int,
        covered: np.ndarray,
        weighting: Weighting,
    ) -> Answers:
        """Weighted means over groups of cells.

        Args:
            group: Group of each pair, sorted or not, shape (pairs,).
            row: Position of its cell, shape (pairs,).
            fraction: Fraction of the cell's area in the group, shape (pairs,).
            groups: How many groups.
            covered: Of each group.
            weighting: How cells weigh.
        """
        from scipy.sparse import csr_array

        inside = np.minimum(fraction, self.coverage[row])
        weight = inside * self.area_km2[row]
        if weighting == "population":
            if self.population is None:
                raise MobclipError("the lake has no census_features: nothing to weigh by; weigh by area")
            people = inside / self.coverage[row] * self.population[row]
            inhabited = np.bincount(group, people, minlength=groups)[group] > 0
            weight = np.where(inhabited, people, weight)
        total = np.bincount(group, weight, minlength=groups)
        count = np.bincount(group, weight > 0, minlength=groups).astype(np.int64)
        shares = csr_array((weight / total[group], (group, row)), shape=(groups, len(self)))
        vectors = np.asarray(shares @ self.vectors, dtype=np.float32)
        vectors[count == 0] = np.nan
        single = np.zeros(groups, dtype=np.uint64)
        only = count[group] == 1
        single[group[only]] = self.cells[row[only]]
        return Answers(
            vectors=vectors,
            cells=single,
            cell_count=count,
            covered=np.asarray(covered, dtype=np.float64),
            graph=np.asarray(shares @ self.graph.astype(np.float64)),
            modalities=np.asarray(shares @ self.modalities.astype(np.float64)),
            encoder=self.encoder,
        )

    # ---- by likeness ----

    def similar(
        self,
        *,
        cell: int | None = None,
        vector: np.ndarray | None = None,
        k: int = 10,
        regions: Sequence[str] | None = None,
        index: LikenessIndex | None = None,
    ) -> Likeness:
        """The cells most like a cell or a vector by the cosine of the angle between vectors.

        Exact; with an index one or another of the most similar may be missing, and no likeness is wrong.

        Args:
            cell: H3 index of a cell of the lake; it is not among the answers.
            vector: Or any vector of the same encoder, shape (d,).
            k: How many.
            regions: Only cells of these.
            index: Look among the cells that it proposes alone: faster from some million cells on.

        Raises:
            MobclipError: If the lake has no such cell or region, or the vector has another length.
            FingerprintError: If the index is of another encoder's vectors.
        """
        if (cell is None) == (vector is None):
            raise MobclipError("give a cell or a vector")
        own = -1
        if cell is not None:
            own = int(self.rows_of(np.array([cell], dtype=np.uint64))[0])
            if own < 0:
                raise MobclipError(f"the lake has no cell {int(cell):x}; its cells have resolution {self.resolution}")
            vector = self.vectors[own]
        goal = np.asarray(vector, dtype=np.float32)
        if goal.shape != (self.dimensions,) or not np.isfinite(goal).all():
            raise MobclipError(f"the vector has shape {goal.shape}; {self.dimensions} finite numbers are wanted")
        length = float(np.linalg.norm(goal))
        goal = goal / length if length > 0 else goal
        wanted = None if regions is None else [self._region_number(name) for name in regions]
        if index is None:
            rows = np.arange(len(self))
            likeness = self._inverse_norms * (self.vectors @ goal)
        else:
            rows = self._proposed(index, goal, k, wanted, own)
            likeness = self._inverse_norms[rows] * (self.vectors[rows] @ goal)
        likeness[~self._may_answer(rows, wanted, own)] = -np.inf
        best = np.argpartition(-likeness, min(k, len(likeness) - 1))[:k]
        # ties go by cell, so that the same question has the same answer
        best = best[np.lexsort((self.cells[rows[best]], -likeness[best]))]
        best = best[np.isfinite(likeness[best])]
        row, names = rows[best], np.array(self.regions, dtype=object)
        return Likeness(self.cells[row], likeness[best], names[self.region[row]], self.lon[row], self.lat[row])

    def _may_answer(self, rows: np.ndarray, wanted: list[int] | None, own: int) -> np.ndarray:
        """Which rows are of the wanted regions, and not the one asked about."""
        others: np.ndarray = rows != own
        return others if wanted is None else others & np.isin(self.region[rows], wanted)

    def _proposed(
        self, index: LikenessIndex, goal: np.ndarray, k: int, wanted: list[int] | None, own: int
    ) -> np.ndarray:
        """Rows that an index proposes: more and more, until k of them are wanted."""
        if index.encoder != self.encoder:
            raise FingerprintError(
                f"the index is of encoder {index.encoder}, the lake of {self.encoder}; build it again"
            )
        count = 2 * (k + 1)
        while True:
            rows = self.rows_of(index.nearest(goal, count))
            rows = rows[rows >= 0]
            if self._may_answer(rows, wanted, own).sum() >= k or count >= len(index):
                return rows
            count *= 4

    @property
    def unit_vectors(self) -> np.ndarray:
        """The vectors scaled to length 1, float32 (n, d); zeros stay zeros."""
        return np.asarray(self.vectors * self._inverse_norms[:, None])

    @functools.cached_property
    def _inverse_norms(self) -> np.ndarray:
        norms = np.linalg.norm(self.vectors, axis=1)
        inverse: np.ndarray = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return inverse

    def _region_number(self, name: str) -> int:
        if name not in self.regions:
            raise MobclipError(f"no region {name!r} in the lake; it has {listed(self.regions, 10)}")
        return self.regions.index(name)


def open_places(lake: str | Path, regions: Sequence[str] | None = None) -> Places:
    """Read the vectors of a lake.

    Args:
        lake: A profile's name or YAML file, or the lake itself: a folder, its `catalog.duckdb`, or any fsspec URL
            (`s3://bucket/lake`).
        regions: Only these; all that are there if None.

    Raises:
        MissingTableError: If there is no lake, or no embeddings in it.
        FingerprintError: If regions were embedded by different encoders: a rebuild is under way, or was left half way.
    """
    store = store_of(str(lake))
    names = store.regions("embeddings")
    if not names:
        raise MissingTableError(f"{store.url} holds no embeddings; `mobclip materialize` makes them")
    unknown = sorted(set(regions or ()) - set(names))
    if unknown:
        raise MobclipError(f"no region {listed(unknown, 5)} in {store.url}; it has {listed(names, 10)}")
    names = [name for name in names if regions is None or name in regions]
    vectors = store.read_all("embeddings", regions=names)
    encoders = pc.unique(vectors["encoder"]).to_pylist()
    if len(encoders) != 1:
        raise FingerprintError(
            f"{store.url} holds vectors of {len(encoders)} encoders ({listed(sorted(encoders), 3)}): they are being "
            "made again region by region; wait, or back-fill `embeddings`"
        )
    grid = store.read_all("grid_cells", ["cell", "region", "lon", "lat", "area_km2", "coverage"], names)
    order, own = np.argsort(vectors["cell"].to_numpy()), np.argsort(grid["cell"].to_numpy())
    cells = vectors["cell"].to_numpy()[order]
    if not np.array_equal(cells, grid["cell"].to_numpy()[own]):
        raise FingerprintError(f"{store.url}: embeddings and grid_cells have other cells; back-fill `embeddings`")
    people = None
    if set(names) <= set(store.regions("census_features")):
        census = store.read_all("census_features", ["cell", "population"], names)
        people = census["population"].to_numpy()[np.argsort(census["cell"].to_numpy())]
    columns = {name: grid[name].to_numpy()[own] for name in ("lon", "lat", "area_km2", "coverage")}
    return Places(
        cells=cells,
        vectors=np.ascontiguousarray(matrix_of(vectors["vector"])[order], dtype=np.float32),
        graph=np.asarray(pc.equal(vectors["source"], "graph").to_numpy())[order],
        modalities=np.column_stack([vectors[f"has_{name}"].to_numpy() for name in MODALITIES])[order],
        # partitions are listed in the order of their keys
        region=np.searchsorted(names, grid["region"].to_numpy()[own].astype(str)),
        regions=tuple(names),
        lon=columns["lon"],
        lat=columns["lat"],
        area_km2=columns["area_km2"],
        coverage=columns["coverage"],
        population=people,
        encoder=str(encoders[0]),
    )


def store_of(lake: str) -> Store:
    """The lake that a name, path or URL means; see `open_places`."""
    from mobclip_core.deployment import Deployment
    from mobclip_core.profile import profile_path

    if "://" in lake:
        return Store(lake)
    path = Path(lake)
    if path.suffix == ".duckdb":
        path = path.parent
    if path.is_dir():
        return Store(str(path))
    return Deployment.open(str(profile_path(lake))).store
