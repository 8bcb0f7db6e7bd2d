import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mobclip_core.census import build_census_features, check_census_totals, check_minimum_people, rasters
from mobclip_core.census.rasters import raster_sums
from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.grid import cell_polygons, region_cells
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of
from tests import lake as lakes

# rasterio 1.4 multiplies transforms the old way
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

WEST, NORTH = 10.0, 50.5
AGES = [0, 65]
BINS = ["f_00", "f_65", "m_00", "m_65"]


def write(path, values, west=WEST, north=NORTH, pixel=1 / 120, crs="EPSG:4326", nodata=-99999.0):
    values = np.asarray(values, dtype="float32")
    options = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "float32", "crs": crs}
    transform = rasterio.transform.from_origin(west, north, pixel, pixel)
    with rasterio.open(path, "w", driver="GTiff", transform=transform, nodata=nodata, **options) as raster:
        raster.write(values, 1)
    return str(path)


def world(folder, values, cells=None, place="gbr", census=None, **raster):
    """A lake with two regions and one raster a bin; `values` are the arrays of the bins."""
    for name, array in zip(BINS, values, strict=True):
        sex, age = name.split("_")
        write(folder / f"{place}_{sex}_{age}_2025_CN_1km_R2025A_UA_v1.tif", array, **raster)
    config = {"kind": "worldpop", "file": str(folder / "*.tif"), "ages": AGES} | (census or {})
    lake = lakes.deployment(folder, ["a", "b"], census=config, zones={})
    if cells is None:
        cells = lakes.disk(50.25, 10.25, 2)
    west = [cell for cell in cells if lakes.centre(cell)[0] < 10.25]
    lakes.write_grid(lake, "a", west)
    lakes.write_grid(lake, "b", sorted(set(cells) - set(west)))
    return lake


def people(seed=0, shape=(60, 60), nobody=0.3):
    rng = np.random.default_rng(seed)
    arrays = rng.gamma(0.5, 20, (len(BINS), *shape))
    arrays[:, rng.random(shape) < nobody] = -99999
    return arrays


def read(lake, region):
    table = lake.store.read(TableRef("census_features", region))
    return table.column("cell").to_numpy(), table.column("population").to_numpy(), matrix_of(table.column("histogram"))


# ---- sums ----


def test_a_pixel_is_split_by_area_by_hand(tmp_path):
    # one pixel of 100 people, 1 x 1 degree; a third of it in the first polygon, two thirds in the second
    file = write(tmp_path / "r.tif", [[100.0]], 0, 1, 1)
    polygons = np.array([shapely.box(-1, 0, 1 / 3, 1), shapely.box(1 / 3, 0, 2, 1), shapely.box(5, 5, 6, 6)])
    found = raster_sums([file], polygons)
    assert found.people[:, 0].tolist() == pytest.approx([100 / 3, 200 / 3, 0], rel=1e-12)
    assert found.share.tolist() == pytest.approx([1 / 4, 2 / 5, 0])
    assert found.reached.tolist() == [True, True, False]


def test_pixels_without_data_are_nobody_and_no_share(tmp_path):
    values = [[1.0, -99999.0], [np.nan, 2.0]]
    file = write(tmp_path / "r.tif", values, 0, 2, 1)
    found = raster_sums([file], np.array([shapely.box(0, 0, 2, 2)]))
    assert found.people.tolist() == [[3.0]]
    assert found.share.tolist() == [0.5]
    assert found.pixels_nan == 1


def test_the_size_of_a_band_changes_nothing(tmp_path, monkeypatch):
    file = write(tmp_path / "r.tif", people()[0])
    polygons = cell_polygons(np.array(lakes.disk(50.25, 10.25, 3), dtype=np.uint64))
    whole = raster_sums([file], polygons)
    monkeypatch.setattr(rasters, "PIXELS_AT_A_TIME", 500)
    monkeypatch.setattr(rasters, "_EDGES_AT_A_TIME", 7)
    parts = raster_sums([file], polygons)
    np.testing.assert_array_equal(whole.people, parts.people)
    np.testing.assert_array_equal(whole.share, parts.share)


def test_a_raster_in_another_crs(tmp_path):
    file = write(tmp_path / "r.tif", np.full((100, 100), 2.0), 1_100_000, 6_550_000, 1000, "EPSG:3857")
    cells = np.array([*lakes.disk(50.2, 10.2, 1), *lakes.disk(-89.9, 0, 0)], dtype=np.uint64)
    found = raster_sums([file], cell_polygons(cells))
    # about 36 km2 on the ground are 88 km2 in this projection, so far north: 2 people a km2 of these
    assert found.people[:-1, 0] == pytest.approx(2 * 88, rel=0.15)
    assert found.share[:-1] == pytest.approx(1)
    assert found.people[-1, 0] == 0


def test_cells_over_the_antimeridian_take_both_ends_of_the_raster(tmp_path):
    file = write(tmp_path / "fji.tif", np.ones((8, 720)), -180, -15, 0.5)
    cells = np.array(lakes.disk(-16.5, 180.0, 1), dtype=np.uint64)
    polygons = cell_polygons(cells)
    found = raster_sums([file], polygons)
    np.testing.assert_allclose(found.people[:, 0], shapely.area(polygons) / 0.25, rtol=1e-9)


@st.composite
def surfaces(draw):
    """A raster of pixels smaller or larger than a cell around 10 E 50 N, and where it begins."""
    pixel = draw(st.sampled_from([1 / 120, 0.03, 0.2, 0.7]))
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    number = st.one_of(st.just(-99999.0), st.just(0.0), st.floats(0, 1e6, width=32))
    values = draw(st.lists(number, min_size=rows * columns, max_size=rows * columns))
    corner = draw(st.floats(9.5, 10.5)), draw(st.floats(49.5, 50.5))
    return np.array(values).reshape(rows, columns), pixel, corner


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(surfaces())
@example((np.array([[-99999.0] * 2] * 2 + [[-99999.0, 1.0]] + [[-99999.0] * 2] * 2), 0.2, (9.5, 49.5)))
def test_cells_that_cover_a_raster_hold_all_of_its_people(tmp_path, surface):
    values, pixel, (west, south) = surface
    file = write(tmp_path / "r.tif", values, west, south + len(values) * pixel, pixel)
    with rasterio.open(file) as source:
        bounds = source.bounds
    resolution = 6 if max(bounds.right - bounds.left, bounds.top - bounds.bottom) < 0.5 else 4
    outline = shapely.box(*bounds).buffer(0.01)
    cells, _, _ = region_cells({"all": outline}, "all", resolution, 0.0)
    found = raster_sums([file], cell_polygons(cells))
    total = np.where(values > 0, values, 0).astype("float32").astype(float).sum()
    # a part that rounds to a whole pixel in single precision counts as the whole
    assert found.people.sum() == pytest.approx(total, rel=6e-8, abs=1e-9)


# ---- the step ----


def test_the_step_sums_ages_and_sexes_in_order(tmp_path):
    values = [np.full((60, 60), number) for number in (1.0, 2.0, 4.0, 8.0)]
    lake = world(tmp_path, values)
    result = build_census_features(lake, "a")
    cells, population, histogram = read(lake, "a")
    polygons = cell_polygons(cells)
    pixels = shapely.area(polygons) * 120**2
    np.testing.assert_allclose(histogram, pixels[:, None] * [1, 2, 4, 8], rtol=1e-9)
    np.testing.assert_allclose(population, 15 * pixels, rtol=1e-9)
    assert result.counts["rasters"] == 4
    assert result.counts["countries"] == 1
    assert result.counts["cells_with_census"] == len(cells)
    assert lake.profile.census.bin_names(4) == BINS


def test_regions_and_the_rest_make_the_raster(tmp_path):
    values = people()
    lake = world(tmp_path, values)
    results = {region: build_census_features(lake, region) for region in "ab"}
    cells = np.concatenate([read(lake, region)[0] for region in "ab"])
    inside = sum(read(lake, region)[2].sum(axis=0) for region in "ab")
    files = sorted(map(str, tmp_path.glob("*.tif")))
    rest = shapely.difference(shapely.box(9, 49, 11, 51), shapely.union_all(cell_polygons(cells)))
    outside = raster_sums(files, np.array([rest])).people[0]
    totals = np.where(values > 0, values, 0).astype("float32").sum(axis=(1, 2), dtype=float)
    np.testing.assert_allclose(inside + outside, totals, rtol=1e-9)
    for region in "ab":
        outcome = check_census_totals(lake, region)
        assert outcome.passed, outcome.message
        assert outcome.numbers["population_source"] == pytest.approx(results[region].counts["population"], rel=1e-7)


def test_people_added_to_a_cell_fail_the_check(tmp_path):
    lake = world(tmp_path, people())
    build_census_features(lake, "a")
    table = lake.store.read(TableRef("census_features", "a"))
    more = table.column("population").to_numpy() * (1 + 1e-5)
    lake.store.write(TableRef("census_features", "a"), table.set_column(1, "population", [more]))
    outcome = check_census_totals(lake, "a")
    assert not outcome.passed
    assert "in population" in outcome.message


def test_few_people_keep_their_number_and_lose_their_ages(tmp_path):
    plain = world(tmp_path, people(nobody=0.9))
    build_census_features(plain, "a")
    _, population, histogram = read(plain, "a")
    minimum = float(np.median(population))
    lake = lakes.deployment(
        tmp_path, ["a", "b"], census=plain.profile.census.model_dump() | {"minimum_people": minimum}, zones={}
    )
    assert not check_minimum_people(lake, "a").passed
    counts = build_census_features(lake, "a").counts
    few = (population > 0) & (population < minimum)
    _, now, shown = read(lake, "a")
    np.testing.assert_array_equal(now, population)
    np.testing.assert_array_equal(shown, np.where(few[:, None], 0, histogram))
    assert counts["cells_suppressed"] == few.sum() > 0
    assert counts["people_suppressed"] == pytest.approx(population[few].sum())
    assert check_minimum_people(lake, "a").passed
    outcome = check_census_totals(lake, "a")
    assert outcome.passed
    assert outcome.numbers["people_in_suppressed_bins"] == pytest.approx(histogram[few].sum())


def test_two_countries_meet_in_a_cell(tmp_path):
    cells = lakes.disk(50.25, 10.25, 1)
    values = people(nobody=0)
    lake = world(tmp_path, values, cells)
    build_census_features(lake, "a")
    _, before, _ = read(lake, "a")
    world(tmp_path, values, cells, place="deu")
    result = build_census_features(lake, "a")
    np.testing.assert_allclose(read(lake, "a")[1], 2 * before)
    assert result.counts["countries"] == 2
    shares = lake.store.read(TableRef("census_features", "a")).column("zone_share").to_numpy()
    assert shares.max() <= 1


def test_cells_beyond_the_rasters_are_counted(tmp_path):
    lake = world(tmp_path, people(), cells=[*lakes.disk(50.25, 10.25, 0), *lakes.disk(40, 9, 1)])
    counts = build_census_features(lake, "a").counts
    assert counts["cells_beyond_rasters"] == 7
    assert check_census_totals(lake, "a").passed


def test_a_region_without_cells_gives_an_empty_table(tmp_path):
    lake = world(tmp_path, people())
    lakes.write_grid(lake, "a", [])
    assert build_census_features(lake, "a").written.rows == 0
    assert check_census_totals(lake, "a").passed
    assert check_minimum_people(lake, "a").passed


def test_the_grid_is_needed(tmp_path):
    lake = world(tmp_path, people())
    (tmp_path / "lake/grid_cells/region=a/part.parquet").unlink()
    with pytest.raises(MissingTableError, match=r"grid_cells\[a\]"):
        build_census_features(lake, "a")


# ---- bad rasters ----


def one(folder):
    return folder / "gbr_m_65_2025_CN_1km_R2025A_UA_v1.tif"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"values": np.full((60, 60), -5.0)}, r"pixels hold no number of people, such as -5; way out: declare"),
        ({"values": np.full((60, 60), np.inf)}, "hold no number of people, such as inf"),
        ({"nodata": None, "values": np.full((60, 60), -99999.0)}, r"such as -99999; way out: declare"),
        ({"west": WEST + 0.1}, r"lies on another grid than .*f_00.*10\.1, 50\.5 against 60 x 60"),
        ({"values": np.ones((50, 60))}, "lies on another grid"),
        ({"crs": None}, "no coordinate reference system"),
        ({"crs": "EPSG:4258"}, "lies on another grid"),
    ],
)
def test_a_raster_that_cannot_be_right_is_named(tmp_path, options, words):
    lake = world(tmp_path, people(nobody=0))
    values = options.pop("values", people()[0])
    write(one(tmp_path), values, **options)
    with pytest.raises(SourceError, match=rf"gbr_m_65_2025.*{words}"):
        build_census_features(lake, "a")
    assert not lake.store.exists(TableRef("census_features", "a"))


def test_a_truncated_raster_is_named(tmp_path):
    lake = world(tmp_path, people())
    content = one(tmp_path).read_bytes()
    one(tmp_path).write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"gbr_m_65_2025.*truncated"):
        build_census_features(lake, "a")


def test_a_raster_upside_down_is_refused(tmp_path):
    world(tmp_path, people())
    with rasterio.open(one(tmp_path), "r+") as raster:
        raster.transform = rasterio.Affine(1 / 120, 0, WEST, 0, 1 / 120, NORTH - 0.5)
    with pytest.raises(SourceError, match="not north-up"):
        raster_sums([str(one(tmp_path))], np.array([shapely.box(10, 50, 10.1, 50.1)]))
