import geopandas as gpd
import h3
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.grid import (
    build_grid_cells,
    build_regions,
    cell_centres,
    cell_polygons,
    geodesic_area_km2,
    region_cells,
    region_geometries,
)
from mobclip_core.store import TableRef
from tests import lake as lakes

RESOLUTION = 6


def squares(*boxes, **columns):
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(*b) for b in boxes], crs=4326)


def world(folder, frame, keys, key_column="key", **options):
    regions = {"file": str(folder / "regions.parquet"), "key_column": key_column, "keys": keys}
    names = list(keys)
    frame.to_parquet(folder / "regions.parquet")
    grid = {key: options.pop(key) for key in ("min_coverage", "resolution") if key in options}
    return lakes.deployment(folder, names, regions=regions | options, grid=grid)


# ---- regions ----


def test_regions_by_key_are_written_sorted_with_their_area(tmp_path):
    frame = squares((1, 0, 2, 1), (0, 0, 1, 1), (5, 5, 6, 6), key=["b", "a", "unused"], label=["Bee", "Ay", "Sea"])
    lake = world(tmp_path, frame, ["b", "a"], name_column="label")
    result = build_regions(lake)
    table = lake.store.read(TableRef("regions"))
    assert table.column("region").to_pylist() == ["a", "b"]
    assert table.column("name").to_pylist() == ["Ay", "Bee"]
    # one degree square on the equator, WGS 84: 12,308.8 km2
    assert table.column("area_km2").to_pylist() == pytest.approx([12308.8, 12308.8], rel=1e-4)
    assert result.counts["regions"] == 2
    assert result.counts["overlap_km2"] == 0
    # neighbours that only touch do not overlap
    assert result.counts["overlapping_pairs"] == 0
    assert list(region_geometries(lake)) == ["b", "a"]


def test_groups_of_members_are_merged(tmp_path):
    frame = squares((0, 0, 1, 1), (1, 0, 2, 1), (1, 1, 2, 2), (7, 7, 8, 8), key=["x", "y", "y", "z"])
    lake = world(
        tmp_path,
        frame,
        {"left": {"name": "Left side", "members": ["x", "y"]}, "right": {"name": "R", "members": ["z"]}},
    )
    build_regions(lake)
    rows = {row["region"]: row for row in lake.store.read(TableRef("regions")).to_pylist()}
    assert rows["left"]["name"] == "Left side"
    assert rows["left"]["source_features"] == 3
    merged = shapely.from_wkb(rows["left"]["geometry"])
    assert merged.area == pytest.approx(3)
    assert merged.geom_type == "Polygon"
    assert rows["right"]["source_features"] == 1


def test_numeric_keys_are_read_as_text(tmp_path):
    lake = world(tmp_path, squares((0, 0, 1, 1), key=[36]), ["36"])
    assert build_regions(lake).written.rows == 1


def test_missing_members_are_named_with_what_the_file_has(tmp_path):
    frame = squares((0, 0, 1, 1), (1, 0, 2, 1), key=["x", "y"])
    lake = world(tmp_path, frame, {"left": {"name": "L", "members": ["x", "nowhere"]}})
    with pytest.raises(SourceError, match=r"no polygon for \['nowhere'\].*column: key.*\['x', 'y'\]") as caught:
        build_regions(lake)
    assert caught.value.file.endswith("regions.parquet")
    assert not lake.store.exists(TableRef("regions"))


def test_many_missing_keys_are_cut_short(tmp_path):
    lake = world(tmp_path, squares((0, 0, 1, 1), key=["x"]), [f"k{i:02}" for i in range(25)])
    with pytest.raises(SourceError, match="and 5 more"):
        build_regions(lake)


def test_a_region_whose_only_polygon_is_empty_is_missing(tmp_path):
    frame = gpd.GeoDataFrame({"key": ["x", "y"]}, geometry=[shapely.box(0, 0, 1, 1), shapely.Polygon()], crs=4326)
    with pytest.raises(SourceError, match=r"no polygon for \['y'\].*empty geometry"):
        build_regions(world(tmp_path, frame, ["x", "y"]))


def test_missing_key_column_names_the_columns(tmp_path):
    lake = world(tmp_path, squares((0, 0, 1, 1), key=["x"]), ["x"], key_column="fips")
    with pytest.raises(SourceError, match=r"no column 'fips'.*\['geometry', 'key'\]"):
        build_regions(lake)


def test_overlapping_regions_are_an_error_that_leaves_the_old_table(tmp_path):
    good = squares((0, 0, 1, 1), (1, 0, 2, 1), key=["a", "b"])
    lake = world(tmp_path, good, ["a", "b"])
    before = build_regions(lake).written.data_version
    squares((0, 0, 1, 1), (0.9, 0, 1.9, 1), key=["a", "b"]).to_parquet(tmp_path / "regions.parquet")
    with pytest.raises(
        SourceError, match=r"'a' and 'b' overlap by 12\d\d\.\d km2, 10\.0% of the smaller one; at most 5"
    ):
        build_regions(lake)
    assert lake.store.data_version(TableRef("regions")) == before


def test_slivers_are_allowed_and_counted(tmp_path):
    frame = squares((0, 0, 1, 1), (0.99, 0, 2, 1), (3, 3, 4, 4), key=["a", "b", "c"])
    counts = build_regions(world(tmp_path, frame, ["a", "b", "c"])).counts
    assert counts["overlapping_pairs"] == 1
    assert counts["overlap_km2"] == pytest.approx(123.09, rel=1e-3)


def test_one_polygon_in_two_regions_overlaps_wholly(tmp_path):
    frame = squares((0, 0, 1, 1), key=["x"])
    keys = {"one": {"name": "1", "members": ["x"]}, "two": {"name": "2", "members": ["x"]}}
    with pytest.raises(SourceError, match=r"'one' and 'two' overlap by .* 100\.0%"):
        build_regions(world(tmp_path, frame, keys))


def test_invalid_polygons_are_repaired_and_counted(tmp_path):
    bowtie = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    frame = gpd.GeoDataFrame({"key": ["x"]}, geometry=[bowtie], crs=4326)
    lake = world(tmp_path, frame, ["x"])
    assert build_regions(lake).counts["repaired_invalid"] == 1
    assert region_geometries(lake)["x"].area == pytest.approx(0.5)


def test_geodesic_area_ignores_ring_direction_and_subtracts_holes():
    ring, hole = [(0, 0), (0, 2), (2, 2), (2, 0)], [(0.5, 0.5), (0.5, 1.5), (1.5, 1.5), (1.5, 0.5)]
    whole = geodesic_area_km2(shapely.Polygon(ring))
    assert geodesic_area_km2(shapely.Polygon(ring[::-1])) == pytest.approx(whole)
    inner = geodesic_area_km2(shapely.Polygon(hole))
    assert geodesic_area_km2(shapely.Polygon(ring, [hole])) == pytest.approx(whole - inner)


# ---- cell geometry ----


def test_cell_polygons_and_centres_agree_with_h3():
    cells = np.array(lakes.disk(40.7, -74.0, 3), dtype=np.uint64)
    polygons = cell_polygons(cells)
    lon, lat = cell_centres(cells)
    for cell, polygon, x, y in zip(cells, polygons, lon, lat, strict=True):
        name = h3.int_to_str(int(cell))
        assert h3.cell_to_latlng(name) == pytest.approx((y, x), abs=1e-9)
        corners = np.array(h3.cell_to_boundary(name))[:, ::-1]
        assert polygon.symmetric_difference(shapely.Polygon(corners)).area < 1e-9 * polygon.area


def test_cells_over_the_antimeridian_have_a_part_on_each_side():
    cells = np.array(lakes.disk(-16.5, 180.0, 1), dtype=np.uint64)
    polygons = cell_polygons(cells)
    split = [p for p in polygons if p.geom_type == "MultiPolygon"]
    assert split
    area = shapely.area(polygons)
    assert area.max() < 1.1 * area.min()
    for polygon in split:
        sides = sorted(part.bounds[0] > 0 for part in polygon.geoms)
        assert sides == [False, True]
        assert polygon.is_valid


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_a_cell_that_holds_a_pole_reaches_it(pole):
    cell = h3.latlng_to_cell(pole, 0.0, 2)
    (polygon,) = cell_polygons(np.array([h3.str_to_int(cell)], dtype=np.uint64))
    assert polygon.is_valid
    for lon in (-170, -60, 10, 120):
        assert polygon.covers(shapely.Point(lon, np.sign(pole) * 89.9))
    # straight lines in lon/lat are not great circles: 5% off for a cell of 90,000 km2 at the pole
    assert geodesic_area_km2(polygon) == pytest.approx(h3.cell_area(cell), rel=0.1)


def test_no_cells_have_no_polygons():
    assert cell_polygons(np.zeros(0, dtype=np.uint64)).shape == (0,)
    assert cell_centres(np.zeros(0, dtype=np.uint64))[0].shape == (0,)


# ---- cells of regions ----


def test_a_region_that_is_a_disk_of_cells_has_exactly_these():
    cells = np.array(lakes.disk(40.7, -74.0, 3), dtype=np.uint64)
    region = shapely.union_all(cell_polygons(cells))
    found, coverage, counts = region_cells({"r": region}, "r", RESOLUTION, 0.5)
    np.testing.assert_array_equal(found, np.sort(cells))
    np.testing.assert_allclose(coverage, 1.0, atol=1e-6)
    assert counts["cells"] == 37


def test_coverage_of_a_half_cell_by_hand():
    cell = np.array(lakes.disk(40.7, -74.0, 0), dtype=np.uint64)
    (hexagon,) = cell_polygons(cell)
    west, south, east, north = hexagon.bounds
    cut = south + 0.5 * (north - south)
    half = hexagon.intersection(shapely.box(west, south, east, cut))
    expected = half.area / hexagon.area
    found, coverage, _ = region_cells({"r": half}, "r", RESOLUTION, 0.4)
    np.testing.assert_array_equal(found, cell)
    assert coverage[0] == pytest.approx(expected)
    dropped, _, counts = region_cells({"r": half}, "r", RESOLUTION, 0.6)
    assert len(dropped) == 0
    assert counts["dropped_low_coverage"] >= 1


def test_the_larger_share_owns_a_border_cell_and_both_count_for_coverage():
    cell = np.array(lakes.disk(40.7, -74.0, 0), dtype=np.uint64)
    (hexagon,) = cell_polygons(cell)
    west, south, east, north = hexagon.bounds
    cut = south + 0.45 * (north - south)
    regions = {
        "small": hexagon.intersection(shapely.box(west, south, east, cut)),
        "large": hexagon.intersection(shapely.box(west, cut, east, north)),
    }
    assert len(region_cells(regions, "small", RESOLUTION, 0.5)[0]) == 0
    found, coverage, _ = region_cells(regions, "large", RESOLUTION, 0.9)
    np.testing.assert_array_equal(found, cell)
    assert coverage[0] == pytest.approx(1.0)


def test_equal_shares_go_to_the_first_region_of_the_profile():
    cells = np.array(lakes.disk(40.7, -74.0, 2), dtype=np.uint64)
    shape = shapely.union_all(cell_polygons(cells))
    for order in (["a", "b"], ["b", "a"]):
        regions = dict.fromkeys(order, shape)
        first = region_cells(regions, order[0], RESOLUTION, 0.5)[0]
        second = region_cells(regions, order[1], RESOLUTION, 0.5)[0]
        assert len(first) == 19
        assert len(second) == 0


def test_minimum_coverage_zero_keeps_every_cell_with_land():
    island = shapely.Point(-74.0, 40.7).buffer(0.001)
    found, coverage, _ = region_cells({"r": island}, "r", RESOLUTION, 0.0)
    assert len(found) == 1
    assert 0 < coverage[0] < 0.01
    assert len(region_cells({"r": island}, "r", RESOLUTION, 0.5)[0]) == 0


def test_a_country_over_the_antimeridian_has_the_cells_of_both_sides():
    both = shapely.MultiPolygon([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -16)])
    cells, coverage, _ = region_cells({"r": both}, "r", 5, 0.5)
    lon, _ = cell_centres(cells)
    assert (lon > 0).any()
    assert (lon < 0).any()
    # a cell over the line, inside the country: whole
    (middle,) = [i for i, cell in enumerate(cells) if cell == h3.str_to_int(h3.latlng_to_cell(-16.5, 180.0, 5))]
    assert coverage[middle] == pytest.approx(1.0)
    # as many cells as the same box elsewhere on that latitude, within what H3's varying cell size allows
    elsewhere, _, _ = region_cells({"r": shapely.box(177, -17, 179, -16)}, "r", 5, 0.5)
    assert len(cells) == pytest.approx(len(elsewhere), rel=0.1)


@st.composite
def countries(draw):
    """Two to four regions with ragged, partly overlapping borders near one point."""
    count = draw(st.integers(2, 4))
    regions = {}
    for i in range(count):
        x, y = draw(st.floats(-0.4, 0.4)), draw(st.floats(-0.4, 0.4))
        radii = draw(st.lists(st.floats(0.02, 0.5), min_size=3, max_size=8))
        angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
        ring = [(10 + x + r * np.cos(a), 50 + y + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
        regions[f"r{i}"] = shapely.make_valid(shapely.Polygon(ring))
    return regions


@settings(max_examples=25, deadline=None)
@given(countries(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.randoms())
def test_the_regions_share_the_cells_out(regions, minimum, random):
    parts = {key: region_cells(regions, key, 5, minimum) for key in regions}
    together = np.concatenate([cells for cells, _, _ in parts.values()])
    assert len(np.unique(together)) == len(together), "a cell belongs to two regions"
    # independent reference: every cell near, share by share
    near = np.array([h3.str_to_int(c) for c in h3.grid_disk(h3.latlng_to_cell(50, 10, 5), 9)], dtype=np.uint64)
    hexagons = cell_polygons(near)
    shares = np.array([shapely.area(shapely.intersection(hexagons, r)) for r in regions.values()]).T
    shares /= shapely.area(hexagons)[:, None]
    coverage = np.minimum(shares.sum(axis=1), 1)
    sure = np.abs(coverage - minimum) > 1e-9
    expected = set(near[sure & (coverage > 1e-9) & (coverage >= minimum)].tolist())
    assert expected <= set(together.tolist())
    assert set(together.tolist()) - expected <= set(near[~sure | (coverage <= 1e-9)].tolist())
    # the order of the regions decides ties and nothing else
    shuffled = list(regions)
    random.shuffle(shuffled)
    again = [region_cells({key: regions[key] for key in shuffled}, key, 5, minimum)[0] for key in shuffled]
    assert set(np.concatenate(again).tolist()) == set(together.tolist())


# ---- the step ----


def test_grid_cells_step_writes_the_contract_with_h3_areas(tmp_path):
    lake = world(tmp_path, squares((10, 50, 10.5, 50.5), (10.5, 50, 11, 50.5), key=["a", "b"]), ["a", "b"])
    build_regions(lake)
    results = {key: build_grid_cells(lake, key) for key in "ab"}
    tables = {key: lake.store.read(TableRef("grid_cells", key)) for key in "ab"}
    for key, table in tables.items():
        assert set(table.column("region").to_pylist()) == {key}
        assert results[key].counts["cells"] == table.num_rows == results[key].written.rows
        for row in table.to_pylist()[:5]:
            assert row["area_km2"] == pytest.approx(h3.cell_area(h3.int_to_str(row["cell"])), rel=1e-9)
            assert h3.get_resolution(h3.int_to_str(row["cell"])) == 6
    cells = np.concatenate([table.column("cell").to_numpy() for table in tables.values()])
    assert len(np.unique(cells)) == len(cells)
    whole = region_cells({"both": shapely.box(10, 50, 11, 50.5)}, "both", 6, 0.5)[0]
    np.testing.assert_array_equal(np.sort(cells), whole)


def test_same_input_same_bytes(tmp_path):
    lake = world(tmp_path, squares((10, 50, 10.5, 50.5), key=["a"]), ["a"])
    first = (build_regions(lake).written.data_version, build_grid_cells(lake, "a").written.data_version)
    again = (build_regions(lake).written.data_version, build_grid_cells(lake, "a").written.data_version)
    assert first == again


def test_a_region_without_cells_gives_an_empty_table(tmp_path):
    lake = world(tmp_path, squares((10, 50, 10.001, 50.001), key=["a"]), ["a"])
    build_regions(lake)
    result = build_grid_cells(lake, "a")
    assert result.written.rows == 0
    assert result.counts["dropped_low_coverage"] == 1
    assert result.counts["area_km2"] == 0
    assert lake.store.read(TableRef("grid_cells", "a")).num_rows == 0


def test_grid_cells_need_regions(tmp_path):
    with pytest.raises(MissingTableError, match="regions is not materialised"):
        build_grid_cells(world(tmp_path, squares((0, 0, 1, 1), key=["a"]), ["a"]), "a")
