import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.areal import build_zone_cells, home_regions, nearest_cells, zone_weights
from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.grid import build_grid_cells, build_regions, cell_centres, cell_polygons
from mobclip_core.store import TableRef
from tests import lake as lakes

# rasterio 1.4 multiplies transforms the old way
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def boxes(*bounds):
    return np.array([shapely.box(*b) for b in bounds], dtype=object)


# ---- pure weights, by hand ----


def test_a_rectangle_over_two_square_cells_is_cut_in_proportion():
    cells = boxes((0, 0, 10, 10), (10, 0, 20, 10))
    # 3 of its 12 units of length lie in the first cell, 9 in the second
    found = zone_weights(boxes((7, 2, 19, 6)), cells)
    assert found.zone.tolist() == [0, 0]
    assert found.cell.tolist() == [0, 1]
    assert found.area.tolist() == [12.0, 36.0]
    assert found.weight.tolist() == [0.25, 0.75]


def test_what_lies_outside_the_cells_is_shared_out_among_them():
    cells = boxes((0, 0, 10, 10), (10, 0, 20, 10))
    # the zone reaches 100 units beyond the cells; only 2 and 6 units count
    found = zone_weights(boxes((8, 0, 16, 10)), cells).weight.tolist()
    assert found == [0.25, 0.75]
    assert zone_weights(boxes((8, -100, 16, 10)), cells).weight.tolist() == [0.25, 0.75]


def test_zones_that_touch_only_along_a_line_or_lie_elsewhere_have_no_pairs():
    cells = boxes((0, 0, 10, 10))
    found = zone_weights(boxes((10, 0, 20, 10), (50, 50, 51, 51), (1, 1, 2, 2)), cells)
    assert found.zone.tolist() == [2]
    assert found.weight.tolist() == [1.0]


def test_amounts_replace_area_and_fall_back_to_it_where_there_is_nothing():
    cells = boxes((0, 0, 10, 10), (10, 0, 20, 10))
    zones = boxes((5, 0, 15, 10), (8, 0, 16, 10))

    def amounts(fragments):
        # built up: only left of x = 8, so that only the first zone holds anything
        return shapely.area(shapely.intersection(fragments, shapely.box(0, 0, 8, 10)))

    found = zone_weights(zones, cells, amounts)
    assert found.by_area == 1
    assert found.zone.tolist() == [0, 0, 1, 1]
    assert found.weight.tolist() == [1.0, 0.0, 0.25, 0.75]
    assert found.area.tolist() == [50.0, 50.0, 20.0, 60.0]


def test_no_zones_and_no_cells():
    none = boxes()
    assert len(zone_weights(none, boxes((0, 0, 1, 1))).zone) == 0
    assert len(zone_weights(boxes((0, 0, 1, 1)), none).zone) == 0


@st.composite
def ragged_zones(draw):
    zones = []
    for _ in range(draw(st.integers(1, 8))):
        x, y = round(draw(st.floats(-2, 12)), 12), round(draw(st.floats(-2, 12)), 12)
        radii = draw(st.lists(st.floats(0.01, 6), min_size=3, max_size=9))
        angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
        zones.append(
            shapely.Polygon([(x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)])
        )
    return np.array(zones, dtype=object)


@settings(max_examples=50, deadline=None)
@given(ragged_zones(), st.integers(1, 6), st.booleans())
def test_mass_is_preserved_for_any_zones(zones, columns, raster):
    side = 10 / columns
    cells = boxes(
        *[(i * side, j * side, (i + 1) * side, (j + 1) * side) for i in range(columns) for j in range(columns)]
    )
    amounts = (lambda fragments: np.maximum(shapely.bounds(fragments)[:, 0] - 3, 0)) if raster else None
    found = zone_weights(zones, cells, amounts)
    mass = np.arange(1.0, len(zones) + 1)
    inside = shapely.area(shapely.intersection(zones, shapely.box(0, 0, 10, 10)))
    reached = np.isin(np.arange(len(zones)), found.zone)
    assert reached[inside > 1e-9].all()
    total = np.bincount(found.zone, found.weight, minlength=len(zones))
    np.testing.assert_allclose(total[reached], 1, rtol=1e-12)
    by_cell = np.bincount(found.cell, found.weight * mass[found.zone], minlength=len(cells))
    assert by_cell.sum() == pytest.approx(mass[reached].sum(), rel=1e-12)
    np.testing.assert_allclose(np.bincount(found.zone, found.area, minlength=len(zones)), inside, atol=1e-6)
    assert (np.diff(found.zone * len(cells) + found.cell) > 0).all()
    assert ((found.weight >= 0) & (found.weight <= 1 + 1e-12)).all()


# ---- home regions ----


def test_home_is_the_region_with_the_largest_part():
    regions = [shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)]
    zones = boxes((1, 1, 2, 2), (9, 0, 12, 1), (9, 0, 11, 1), (10, 0, 11, 1), (30, 0, 31, 1), (19.995, 0, 22, 1))
    homes = home_regions(zones, regions)
    # inside; two thirds right; a tie goes to the first; touching the first along a line only; elsewhere; a sliver
    assert homes.region.tolist() == [0, 1, 0, 1, -1, -1]
    assert homes.inside[:5].tolist() == pytest.approx([1, 2 / 3, 0.5, 1, 0])
    assert homes.inside_any.tolist() == pytest.approx([1, 1, 1, 1, 0, 0.005 / 2.005])


def test_a_zone_across_the_outer_border_still_has_a_home():
    homes = home_regions(boxes((9, 0, 11, 1)), [shapely.box(0, 0, 10, 10)])
    assert homes.region.tolist() == [0]
    assert homes.inside.tolist() == [0.5]


# ---- snapping ----


def test_nearest_cell_also_across_the_antimeridian():
    cells = np.sort(np.array(lakes.disk(-16.5, 179.9, 0) + lakes.disk(-16.5, 170.0, 0), dtype=np.uint64))
    lon, _ = cell_centres(cells)
    (found,) = nearest_cells(boxes((-179.9, -16.6, -179.8, -16.4)), cells)
    assert lon[found] > 179


# ---- the step ----


def world(
    folder, zones, dasymetric=None, layers=("tracts",), regions=((10, 50, 10.5, 50.5), (10.5, 50, 11, 50.5)), **zone
):
    keys = ["west", "east"][: len(regions)]
    gpd.GeoDataFrame({"key": keys}, geometry=list(boxes(*regions)), crs=4326).to_parquet(folder / "regions.parquet")
    zones.to_parquet(folder / "tracts.parquet")
    layer = {"file": str(folder / "tracts.parquet"), "id_column": "geoid", "dasymetric": dasymetric} | zone
    lake = lakes.deployment(
        folder,
        keys,
        regions={"file": str(folder / "regions.parquet"), "key_column": "key", "keys": keys},
        zones=dict.fromkeys(layers, layer),
    )
    build_regions(lake)
    for key in keys:
        build_grid_cells(lake, key)
    return lake


def tracts(*bounds, ids=None):
    ids = ids or [f"t{i}" for i in range(len(bounds))]
    return gpd.GeoDataFrame({"geoid": ids}, geometry=list(boxes(*bounds)), crs=4326)


def rows(lake, region, layer="tracts"):
    found = [r for r in lake.store.read(TableRef("zone_cells", region)).to_pylist() if r["layer"] == layer]
    zones = {}
    for row in found:
        zones.setdefault(row["zone"], []).append(row)
    return zones


def test_each_zone_has_one_home_and_spreads_over_its_cells_only(tmp_path):
    zones = tracts((10.1, 50.1, 10.3, 50.3), (10.4, 50.1, 10.7, 50.3), (10.55, 50.1, 10.6, 50.15), (12, 50, 13, 51))
    lake = world(tmp_path, zones)
    results = {key: build_zone_cells(lake, key) for key in ("west", "east")}
    west, east = rows(lake, "west"), rows(lake, "east")
    assert sorted(west) == ["t0"]
    assert sorted(east) == ["t1", "t2"]
    for key, zones_here in (("west", west), ("east", east)):
        cells = set(lake.store.read(TableRef("grid_cells", key)).column("cell").to_pylist())
        for parts in zones_here.values():
            assert sum(part["weight"] for part in parts) == pytest.approx(1, abs=1e-12)
            assert {part["cell"] for part in parts} <= cells
    assert results["west"].counts["tracts_zones"] == 1
    assert results["east"].counts["tracts_zones"] == 2
    assert results["east"].counts["tracts_zones_straddling"] == 1
    # the zone far from both is counted by every partition and spread by none
    assert results["west"].counts["tracts_zones_outside"] == results["east"].counts["tracts_zones_outside"] == 1


def test_areas_are_those_of_the_ground_and_weights_follow_them(tmp_path):
    zones = tracts((10.1, 50.1, 10.3, 50.3))
    lake = world(tmp_path, zones)
    build_zone_cells(lake, "west")
    parts = rows(lake, "west")["t0"]
    geod = pyproj.Geod(ellps="WGS84")
    whole = abs(geod.geometry_area_perimeter(zones.geometry[0])[0]) / 1e6
    assert sum(part["area_km2"] for part in parts) == pytest.approx(whole, rel=1e-3)
    polygons = cell_polygons(np.array([part["cell"] for part in parts], dtype=np.uint64))
    for part, polygon in zip(parts, polygons, strict=True):
        inside = abs(geod.geometry_area_perimeter(polygon.intersection(zones.geometry[0]))[0]) / 1e6
        assert part["area_km2"] == pytest.approx(inside, rel=5e-3)
        assert part["weight"] == pytest.approx(part["area_km2"] / sum(p["area_km2"] for p in parts), rel=1e-9)


def test_a_zone_without_a_cell_goes_whole_to_the_nearest(tmp_path):
    # an islet of a region of its own corner: too little land for a cell to be kept there
    regions = gpd.GeoSeries(
        [shapely.MultiPolygon([shapely.box(10, 50, 10.5, 50.5), shapely.box(10.9, 50.2, 10.91, 50.21)])]
    )
    lake = world(
        tmp_path, tracts((10.9, 50.2, 10.91, 50.21), (10.1, 50.1, 10.2, 50.2)), regions=((10, 50, 10.5, 50.5),)
    )
    gpd.GeoDataFrame({"key": ["west"]}, geometry=list(regions), crs=4326).to_parquet(tmp_path / "regions.parquet")
    build_regions(lake)
    build_grid_cells(lake, "west")
    result = build_zone_cells(lake, "west")
    assert result.counts["tracts_zones_snapped"] == 1
    (islet,) = rows(lake, "west")["t0"]
    assert (islet["weight"], islet["area_km2"]) == (1.0, 0.0)
    lon, lat = cell_centres(lake.store.read(TableRef("grid_cells", "west")).column("cell").to_numpy())
    x, _ = cell_centres(np.array([islet["cell"]], dtype=np.uint64))
    assert x[0] == pytest.approx(lon[np.hypot((lon - 10.905) * 0.64, lat - 50.205).argmin()])


def test_a_region_without_cells_gives_an_empty_table_and_counts_its_zones(tmp_path):
    tiny = (10, 50, 10.001, 50.001)
    lake = world(tmp_path, tracts(tiny), regions=(tiny,))
    result = build_zone_cells(lake, "west")
    assert result.written.rows == 0
    assert result.counts["tracts_zones_without_cells"] == 1
    assert result.counts["tracts_zones_snapped"] == 0


def test_a_region_without_zones_gives_an_empty_table(tmp_path):
    lake = world(tmp_path, tracts((12, 50, 13, 51)))
    assert build_zone_cells(lake, "west").written.rows == 0


def test_dirty_zones_are_counted_by_layer(tmp_path):
    zones = tracts((10.1, 50.1, 10.2, 50.2), (10.2, 50.1, 10.3, 50.2), (10.3, 50.1, 10.4, 50.2), ids=["a", "a", "b"])
    zones.geometry = [zones.geometry[0], zones.geometry[1], shapely.Polygon()]
    counts = build_zone_cells(world(tmp_path, zones), "west").counts
    assert counts["tracts_dropped_duplicates"] == 1
    assert counts["tracts_dropped_empty"] == 1
    assert counts["tracts_zones"] == 1


def test_zones_mostly_outside_are_pointed_out(tmp_path):
    counts = build_zone_cells(world(tmp_path, tracts((9.5, 50.1, 10.1, 50.2))), "west").counts
    assert counts["tracts_zones_mostly_outside"] == 1


def test_layers_are_sorted_and_independent(tmp_path):
    lake = world(tmp_path, tracts((10.1, 50.1, 10.3, 50.3)), layers=("tracts", "blocks"))
    counts = build_zone_cells(lake, "west").counts
    assert {"tracts_zones", "blocks_zones"} <= set(counts)
    layers = lake.store.read(TableRef("zone_cells", "west")).column("layer").to_pylist()
    assert layers == sorted(layers)
    assert rows(lake, "west", "blocks") == {
        k: [r | {"layer": "blocks"} for r in v] for k, v in rows(lake, "west").items()
    }


def test_where_leaves_zones_out(tmp_path):
    zones = tracts((10.1, 50.1, 10.2, 50.2), (10.2, 50.1, 10.3, 50.2), ids=["36001", "34001"])
    lake = world(tmp_path, zones, where={"geoid": "36"})
    build_zone_cells(lake, "west")
    assert list(rows(lake, "west")) == ["36001"]


def test_zone_cells_need_regions_and_grid(tmp_path):
    lake = world(tmp_path, tracts((10.1, 50.1, 10.2, 50.2)))
    (tmp_path / "lake/grid_cells/region=west/part.parquet").unlink()
    with pytest.raises(MissingTableError, match=r"grid_cells\[west\]"):
        build_zone_cells(lake, "west")
    assert build_zone_cells(lake, "east").written.rows == 0


def test_an_error_in_the_zones_leaves_the_last_good_partition(tmp_path):
    lake = world(tmp_path, tracts((10.1, 50.1, 10.2, 50.2)))
    before = build_zone_cells(lake, "west").written.data_version
    content = (tmp_path / "tracts.parquet").read_bytes()
    (tmp_path / "tracts.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="truncated"):
        build_zone_cells(lake, "west")
    assert lake.store.data_version(TableRef("zone_cells", "west")) == before


# ---- dasymetric ----


def write_raster(path, values, west=10.0, north=50.5, pixel=0.01, crs="EPSG:4326", nodata=None, bands=1):
    profile = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": bands,
        "dtype": values.dtype,
        "crs": crs,
        "transform": rasterio.transform.from_origin(west, north, pixel, pixel),
        "nodata": nodata,
    }
    with rasterio.open(path, "w", **profile) as raster:
        for band in range(1, bands + 1):
            raster.write(values if band == 1 else np.full_like(values, 7), band)
    return str(path)


@pytest.mark.parametrize("bands", [1, 3])
def test_a_raster_decides_where_the_zone_goes(tmp_path, bands):
    # built up west of 10.2 only
    values = np.zeros((50, 50), dtype="float32")
    values[:, :20] = 5
    raster = write_raster(tmp_path / "built.tif", values, bands=bands)
    zones = tracts((10.1, 50.1, 10.3, 50.3), (10.3, 50.1, 10.4, 50.2))
    lake = world(tmp_path, zones, dasymetric=raster)
    counts = build_zone_cells(lake, "west").counts
    found = rows(lake, "west")
    # the second zone holds nothing built: by area
    assert counts["tracts_zones_by_area"] == 1
    assert all(part["weight"] > 0 for part in found["t1"])
    cells = cell_polygons(np.array([part["cell"] for part in found["t0"]], dtype=np.uint64))
    built = shapely.area(shapely.intersection(cells, shapely.box(10.1, 50.1, 10.2, 50.3)))
    np.testing.assert_allclose([part["weight"] for part in found["t0"]], built / built.sum(), atol=2e-3)
    assert sum(part["weight"] for part in found["t0"]) == pytest.approx(1, abs=1e-12)


def test_a_raster_in_another_crs_and_with_no_data(tmp_path):
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10.0, 50.5)
    values = np.full((100, 100), -9999, dtype="float32")
    values[:, :30] = 1
    raster = write_raster(tmp_path / "built.tif", values, x, y, 1000, "EPSG:3857", nodata=-9999)
    lake = world(tmp_path, tracts((10.1, 50.1, 10.4, 50.3)), dasymetric=raster)
    build_zone_cells(lake, "west")
    parts = rows(lake, "west")["t0"]
    lon, _ = cell_centres(np.array([part["cell"] for part in parts], dtype=np.uint64))
    edge = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(x + 30_000, y)[0]
    assert all(part["weight"] == 0 for part, east in zip(parts, lon, strict=True) if east > edge + 0.05)
    assert sum(part["weight"] for part in parts) == pytest.approx(1)


def test_a_raster_that_does_not_cover_the_region_falls_back_to_area(tmp_path):
    raster = write_raster(tmp_path / "far.tif", np.ones((5, 5), dtype="float32"), west=100)
    lake = world(tmp_path, tracts((10.1, 50.1, 10.3, 50.3)), dasymetric=raster)
    assert build_zone_cells(lake, "west").counts["tracts_zones_by_area"] == 1
    with_raster = rows(lake, "west")
    plain = world(tmp_path, tracts((10.1, 50.1, 10.3, 50.3)))
    build_zone_cells(plain, "west")
    assert with_raster == rows(plain, "west")


def test_a_raster_with_undeclared_missing_values_is_refused(tmp_path):
    values = np.ones((50, 50), dtype="float32")
    values[20, 20] = -9999
    raster = write_raster(tmp_path / "built.tif", values)
    lake = world(tmp_path, tracts((10.1, 50.1, 10.4, 50.4)), dasymetric=raster)
    with pytest.raises(SourceError, match=r"built\.tif: holds -9999: negative amounts.*declare the value"):
        build_zone_cells(lake, "west")


def test_a_raster_is_not_opened_where_there_is_nothing_to_share(tmp_path):
    lake = world(tmp_path, tracts((12, 50, 13, 51)), dasymetric="/nowhere/built.tif")
    assert build_zone_cells(lake, "west").written.rows == 0


@pytest.mark.parametrize("problem", ["no such file", "cannot be read", "states no CRS"])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_that_cannot_be_used_is_named(tmp_path, problem):
    path = tmp_path / "built.tif"
    if problem == "cannot be read":
        path.write_bytes(b"II*\x00 and no more")
    elif problem == "states no CRS":
        write_raster(path, np.ones((50, 50), dtype="float32"), crs=None)
    lake = world(tmp_path, tracts((10.1, 50.1, 10.4, 50.4)), dasymetric=str(path))
    with pytest.raises(SourceError, match=rf"built\.tif: {problem}"):
        build_zone_cells(lake, "west")
