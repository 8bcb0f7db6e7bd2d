import io

import h3
import matplotlib.image
import numpy as np
import pytest
import shapely

from mobclip_core import plots


def disk(lat=50.0, lon=10.0, rings=4, resolution=6):
    return np.array([h3.str_to_int(c) for c in h3.grid_disk(h3.latlng_to_cell(lat, lon, resolution), rings)], np.uint64)


def pixels(png):
    assert png.startswith(b"\x89PNG\r\n")
    assert b"Matplotlib" not in png
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def share_of(image, colour, tolerance=0.02):
    return float((np.abs(image - np.asarray(colour)) < tolerance).all(axis=-1).mean())


CELLS = disk()
RED = np.tile([1.0, 0.0, 0.0], (len(CELLS), 1))


def test_maps_show_the_colours_given_and_the_right_shape():
    image = pixels(plots.cell_map(CELLS, RED, "All red"))
    assert 0.3 < share_of(image, [1, 0, 0]) < 0.9
    rows, columns = np.nonzero((np.abs(image - [1, 0, 0]) < 0.02).all(axis=-1))
    # a disk on the ground is about as wide as high on the map
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(1.0, abs=0.2)


def test_very_many_cells_are_drawn_alike(monkeypatch):
    outlines = pixels(plots.cell_map(CELLS, RED, "t"))
    monkeypatch.setattr(plots, "_POLYGON_CELLS", 10)
    raster = pixels(plots.cell_map(CELLS, RED, "t"))
    assert raster.shape == outlines.shape
    assert share_of(raster, [1, 0, 0]) == pytest.approx(share_of(outlines, [1, 0, 0]), rel=0.03)
    # a map across the antimeridian, by either way
    fiji = disk(-17.0, 179.9)
    assert share_of(pixels(plots.cell_map(fiji, RED, "t")), [1, 0, 0]) > 0.3


def test_map_across_the_antimeridian_is_not_stretched():
    fiji = disk(-17.0, 179.9)
    assert share_of(pixels(plots.cell_map(fiji, RED, "t")), [1, 0, 0]) > 0.3


def test_numbers_get_a_colour_bar_and_missing_ones_are_grey():
    values = np.arange(len(CELLS), dtype=float)
    plain = pixels(plots.cell_map(CELLS, values, "t", "metres"))
    values[::2] = np.nan
    holes = pixels(plots.cell_map(CELLS, values, "t", "metres"))
    grey = np.array([0xE3, 0xE6, 0xEA]) / 255
    assert share_of(holes, grey) > share_of(plain, grey) + 0.1


@pytest.mark.parametrize(
    "values", [np.full(len(CELLS), np.nan), np.ones(len(CELLS)), np.r_[np.zeros(len(CELLS) - 1), 1e9]]
)
def test_maps_of_awkward_values(values):
    assert pixels(plots.cell_map(CELLS, values, "t", "x")).std() > 0


def test_maps_of_no_cells_and_of_one():
    assert pixels(plots.cell_map(np.empty(0, np.uint64), np.empty(0), "nothing")).size
    assert share_of(pixels(plots.cell_map(CELLS[:1], RED[:1], "one")), [1, 0, 0]) > 0.2


def test_same_input_gives_the_same_bytes():
    vectors = np.random.default_rng(0).normal(size=(len(CELLS), 8))
    assert plots.embedding_map(CELLS, vectors, "t") == plots.embedding_map(CELLS, vectors, "t")


def test_principal_colours_follow_the_components():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(500, 3)) * [10, 5, 2]
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0][:3]
    colours, shares = plots.principal_colours(hidden @ rotation + 4)
    assert colours.min() == 0.0
    assert colours.max() == 1.0
    np.testing.assert_allclose(shares, np.array([100, 25, 4]) / 129, atol=0.05)
    for i in range(3):
        assert abs(np.corrcoef(colours[:, i], hidden[:, i])[0, 1]) > 0.95


def test_principal_colours_do_not_depend_on_the_vectors_sign_of_axes_or_order():
    vectors = np.random.default_rng(0).normal(size=(200, 6)) * np.arange(1, 7)
    colours, _ = plots.principal_colours(vectors)
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_allclose(plots.principal_colours(vectors[order])[0], colours[order], atol=1e-9)


@pytest.mark.parametrize("vectors", [np.ones((9, 5)), np.empty((0, 4)), np.ones((1, 4)), np.zeros((9, 2))])
def test_principal_colours_without_variance_are_grey(vectors):
    colours, shares = plots.principal_colours(vectors)
    assert (colours == 0.5).all()
    assert not shares.any()


def test_two_dimensional_vectors_leave_blue_alone():
    colours, shares = plots.principal_colours(np.random.default_rng(0).normal(size=(50, 2)))
    assert (colours[:, 2] == 0.5).all()
    assert shares.sum() == pytest.approx(1.0)


def test_loss_curves():
    train, validation = [3.0, 2.0, 1.5], [3.0, float("nan"), 2.5]
    both = pixels(plots.loss_curves({"train": train, "validation": validation}, "Training"))
    one = pixels(plots.loss_curves({"train": train}, "Training"))
    orange = np.array([0xE6, 0x9F, 0x00]) / 255
    assert share_of(both, orange) > 0
    assert share_of(one, orange) == 0
    assert pixels(plots.loss_curves({}, "Nothing yet")).size
    assert pixels(plots.loss_curves({"train": [float("nan")]}, "Diverged")).size


def test_patch_sheet_shows_each_patch():
    patches = np.zeros((2, 3, 8, 8), np.uint8)
    patches[0, 0] = patches[1, 2] = 200
    image = pixels(plots.patch_sheet(patches, "t"))
    assert share_of(image, [1, 0, 0]) == pytest.approx(share_of(image, [0, 0, 1]), rel=0.2)
    assert share_of(image, [1, 0, 0]) > 0.02


@pytest.mark.parametrize(
    "patches",
    [
        np.random.default_rng(0).random((30, 1, 16, 16)).astype(np.float32),
        np.full((3, 4, 8, 8), 7, np.uint8),
        np.empty((0, 3, 8, 8), np.uint8),
    ],
)
def test_patch_sheets_of_other_kinds(patches):
    assert pixels(plots.patch_sheet(patches, "t")).size


def test_histogram():
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    assert share_of(pixels(plots.histogram(np.arange(100.0), "t", "x")), blue) > 0.1
    with_gaps = plots.histogram(np.array([1.0, np.nan, np.inf, 2.0]), "t", "x")
    assert with_gaps != plots.histogram(np.array([1.0, 2.0]), "t", "x")
    assert pixels(plots.histogram(np.array([np.nan]), "t", "x")).size


def test_region_map_is_a_png_and_repeats():
    shapes = [shapely.box(0, 40, 2, 42), shapely.MultiPolygon([shapely.box(2, 40, 3, 42), shapely.box(4, 40, 5, 41)])]
    png = plots.region_map(shapes, ["West", "East"], "Regions")
    assert png.startswith(b"\x89PNG")
    assert png == plots.region_map(shapes, ["West", "East"], "Regions")
    assert png != plots.region_map(shapes, ["East", "West"], "Regions")
