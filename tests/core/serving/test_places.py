"""Answers by position, cell, polygon and likeness, against plain loops."""

import dataclasses

import h3.api.numpy_int as h3
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from mobclip_core import serving
from mobclip_core.errors import FingerprintError, MissingTableError, MobclipError
from mobclip_core.grid import cell_polygons
from tests.places import make_places, write_lake

PLACES = make_places()
INNER = PLACES.cells[len(PLACES) // 3]


# ---- by position and by cell ----


def test_a_point_has_the_vector_of_its_cell():
    random = np.random.default_rng(1)
    lon, lat = random.uniform(7, 13, 500), random.uniform(48, 52, 500)
    answers = PLACES.lookup(lon=lon, lat=lat)
    row = {int(cell): i for i, cell in enumerate(PLACES.cells)}
    found = 0
    for i in range(500):
        own = row.get(int(h3.latlng_to_cell(lat[i], lon[i], 5)))
        if own is None:
            assert np.isnan(answers.vectors[i]).all()
            assert (answers.cells[i], answers.cell_count[i], answers.graph[i]) == (0, 0, 0)
            continue
        found += 1
        np.testing.assert_array_equal(answers.vectors[i], PLACES.vectors[own])
        assert answers.cells[i] == PLACES.cells[own]
        assert answers.graph[i] == PLACES.graph[own]
        assert (answers.modalities[i] == PLACES.modalities[own]).all()
    assert 50 < found < 500


def test_what_is_no_place_has_no_answer():
    answers = PLACES.lookup(lon=[np.nan, 10, 200, -60, 10], lat=[50, np.inf, 50, 0, 50])
    assert answers.found.tolist() == [False, False, False, False, True]
    assert answers.table(name=list("abcde"))["vector"].null_count == 4
    with pytest.raises(MobclipError, match="one number a point"):
        PLACES.lookup(lon=[1, 2], lat=[1])


def test_only_named_coordinates_are_taken():
    with pytest.raises(TypeError):
        PLACES.lookup(10, 50)


def test_a_finer_cell_has_its_parents_vector_and_a_coarser_one_the_mean_of_its_children():
    finer, coarser = h3.cell_to_children(int(INNER), 7)[3], h3.cell_to_parent(int(INNER), 3)
    answers = PLACES.lookup_cells([finer, coarser, int(INNER)], weighting="population")
    row = int(np.flatnonzero(PLACES.cells == INNER)[0])
    np.testing.assert_array_equal(answers.vectors[[0, 2]], PLACES.vectors[[row, row]])
    children = [i for i, cell in enumerate(PLACES.cells) if h3.cell_to_parent(int(cell), 3) == coarser]
    people = PLACES.population[children]
    mean = (people[:, None] * PLACES.vectors[children]).sum(0) / people.sum()
    np.testing.assert_allclose(answers.vectors[1], mean, rtol=1e-4, atol=1e-5)
    assert answers.cell_count[1] == (people > 0).sum()
    land = (PLACES.area_km2 * PLACES.coverage)[children].sum() / h3.cell_area(int(coarser), "km^2")
    assert answers.covered[1] == pytest.approx(land)
    assert answers.graph[1] == pytest.approx((people * PLACES.graph[children]).sum() / people.sum())


def test_cells_that_are_none_are_named():
    with pytest.raises(MobclipError, match="no H3 cells: 7b"):
        PLACES.lookup_cells([int(INNER), 123])
    assert not PLACES.lookup_cells([h3.latlng_to_cell(0, 0, 3), h3.latlng_to_cell(0, 0, 5)]).found.any()


# ---- by polygon ----

GEOD = Geod("+proj=longlat +a=1 +b=1")


def brute_means(polygon, weighting):
    """Cell by cell, areas on the sphere by pyproj along finely cut edges."""
    weights = np.zeros(len(PLACES))
    for i, cell in enumerate(cell_polygons(PLACES.cells)):
        part = shapely.intersection(polygon, cell)
        if part.is_empty or part.area == 0:
            continue
        areas = [abs(GEOD.geometry_area_perimeter(shapely.segmentize(g, 0.002))[0]) for g in (part, cell)]
        inside = min(areas[0] / areas[1], PLACES.coverage[i])
        weights[i] = inside * PLACES.area_km2[i]
        if weighting == "population":
            weights[i] = inside / PLACES.coverage[i] * PLACES.population[i]
    return weights @ PLACES.vectors / weights.sum(), int((weights > 0).sum())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["area", "population"]))
def test_the_mean_of_a_polygon_is_that_of_a_plain_loop(seed, weighting):
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 12))
    radius = random.uniform(0.05, 0.6, 12)
    ring = np.column_stack([10 + radius * np.cos(angles) * 1.5, 50 + radius * np.sin(angles)])
    polygon = shapely.make_valid(shapely.Polygon(ring))
    if polygon.geom_type not in ("Polygon", "MultiPolygon") or polygon.area < 1e-3:
        return
    answers = PLACES.aggregate([polygon], weighting)
    mean, cells = brute_means(polygon, weighting)
    np.testing.assert_allclose(answers.vectors[0], mean, atol=2e-4)
    assert answers.cell_count[0] == cells


def test_a_polygon_over_everything_has_the_mean_of_all_cells():
    box = shapely.box(5, 45, 15, 55)
    for weighting in ("area", "population"):
        answers, whole = PLACES.aggregate([box], weighting), PLACES.whole(weighting)
        np.testing.assert_allclose(answers.vectors, whole.vectors, atol=1e-6)
        np.testing.assert_allclose(answers.modalities, whole.modalities)
        weights = PLACES.coverage * PLACES.area_km2 if weighting == "area" else PLACES.population
        np.testing.assert_allclose(whole.vectors[0], weights @ PLACES.vectors / weights.sum(), atol=1e-5)


def test_holes_are_left_out_and_a_tiny_polygon_has_its_cells_vector():
    places = make_places(coverage=1)
    cell = cell_polygons(np.array([INNER]))[0]
    hole = shapely.difference(cell, shapely.affinity.scale(cell, 0.5, 0.5))
    both = places.aggregate([cell, hole, cell.centroid.buffer(1e-5)])
    row = np.flatnonzero(places.cells == INNER)[0]
    assert both.covered == pytest.approx([1, 1, 1], abs=1e-6)
    np.testing.assert_allclose(both.vectors[2], places.vectors[row], atol=1e-6)
    assert both.cells[2] == INNER
    clean = serving.overlaps.clean_polygons([hole])
    found = serving.overlaps.overlaps(clean, places.polygons, *places._index)
    assert found.fraction.max() == pytest.approx(0.75, abs=1e-3)


def test_the_antimeridian_is_no_border():
    places = make_places(lon=179.9, lat=-17.0, coverage=1)
    beyond = shapely.box(179, -18, 181, -16)
    cut = shapely.MultiPolygon([shapely.box(179, -18, 180, -16), shapely.box(-180, -18, -179, -16)])
    answers = places.aggregate([beyond, cut])
    np.testing.assert_allclose(answers.vectors[0], answers.vectors[1], atol=1e-6)
    assert answers.cell_count[0] > 100
    east = places.aggregate([shapely.box(179, -18, 180, -16)])
    assert east.cell_count[0] < answers.cell_count[0]


def test_a_cell_over_the_pole_is_shared_by_the_quarters_around_it():
    places = make_places(lon=0.0, lat=90.0, rings=3, coverage=1)
    quarters = [shapely.box(west, 86, west + 90, 90) for west in (-180, -90, 0, 90)]
    found = serving.overlaps.overlaps(serving.overlaps.clean_polygons(quarters), places.polygons, *places._index)
    pole = np.flatnonzero(places.cells == h3.latlng_to_cell(90, 0, 5))[0]
    shares = found.fraction[found.cell == pole]
    assert len(shares) == 4
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    assert shares.min() > 0.1


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        (shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "is invalid: Self-intersection"),
        (shapely.Polygon(), "is empty"),
        (shapely.Point(1, 1), "is no polygon"),
        (None, "is no polygon"),
        (shapely.box(40, 100, 41, 101), "beyond the globe"),
        (shapely.Polygon([(0, 0), (1, np.nan), (1, 1)]), "not finite"),
        (shapely.Polygon([(179, 0), (-179, 0), (-179, 1), (179, 1)]), "antimeridian"),
        (shapely.box(-180, -90, 180, 90), "antimeridian"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(polygon, message):
    with pytest.raises(MobclipError, match=f"polygon 1: .*{message}"):
        PLACES.aggregate([shapely.box(9, 49, 10, 50), polygon])


def test_a_polygon_elsewhere_has_no_answer_and_one_without_people_goes_by_area():
    answers = PLACES.aggregate([shapely.box(-10, 0, -9, 1)])
    assert not answers.found[0]
    assert np.isnan(answers.vectors).all()
    nobody = dataclasses.replace(PLACES, population=np.zeros(len(PLACES)))
    box = [shapely.box(9.5, 49.5, 10.5, 50.5)]
    np.testing.assert_array_equal(nobody.aggregate(box, "population").vectors, PLACES.aggregate(box, "area").vectors)
    with pytest.raises(MobclipError, match="no census_features"):
        dataclasses.replace(PLACES, population=None).aggregate(box, "population")


# ---- by likeness ----


def test_the_most_similar_are_those_of_a_plain_loop():
    found = PLACES.similar(cell=int(INNER), k=7)
    row = int(np.flatnonzero(PLACES.cells == INNER)[0])
    unit = PLACES.vectors / np.linalg.norm(PLACES.vectors, axis=1, keepdims=True)
    cosine = unit @ unit[row]
    cosine[row] = -2
    np.testing.assert_array_equal(found.cells, PLACES.cells[np.argsort(-cosine)[:7]])
    np.testing.assert_allclose(found.similarity, np.sort(cosine)[::-1][:7], atol=1e-6)
    west = PLACES.similar(vector=PLACES.vectors[row], k=3, regions=["west"])
    assert set(west.region) == {"west"}
    assert len(PLACES.similar(cell=int(INNER), k=10_000).cells) == len(PLACES) - 1


def test_a_question_that_has_no_answer_says_why():
    for wrong, message in [
        ({}, "a cell or a vector"),
        ({"cell": 5}, "no cell 5"),
        ({"vector": np.zeros(3)}, "6 finite numbers"),
        ({"vector": np.full(6, np.nan)}, "6 finite numbers"),
        ({"cell": int(INNER), "regions": ["north"]}, "no region 'north'"),
    ]:
        with pytest.raises(MobclipError, match=message):
            PLACES.similar(**wrong)


# ---- opening ----


def test_a_lake_is_read_as_it_was_written(tmp_path):
    write_lake(PLACES, tmp_path)
    (tmp_path / "catalog.duckdb").touch()
    for lake in (tmp_path, tmp_path / "catalog.duckdb"):
        found = serving.open(lake)
        for field in dataclasses.fields(PLACES):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(PLACES, field.name))
    east = serving.open(str(tmp_path), ["east"])
    assert (len(east), east.regions) == ((PLACES.region == 0).sum(), ("east",))
    with pytest.raises(MobclipError, match="no region north"):
        serving.open(str(tmp_path), ["north"])


def test_a_lake_without_census_has_no_people(tmp_path):
    write_lake(PLACES, tmp_path, census=False)
    assert serving.open(tmp_path).population is None


def test_two_encoders_are_not_mixed(tmp_path):
    write_lake(PLACES, tmp_path, encoders={"west": "0" * 64})
    with pytest.raises(FingerprintError, match="2 encoders"):
        serving.open(tmp_path)
    assert serving.open(tmp_path, ["west"]).encoder == "0" * 64


def test_a_folder_that_is_no_lake_is_named(tmp_path):
    with pytest.raises(MissingTableError, match="holds no embeddings"):
        serving.open(tmp_path)
