"""Item lists in the published format: STAC Items with the eo and proj extensions."""

import gzip
import json

import numpy as np
import pyproj
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import SourceError
from mobclip_core.imagery.patches import read_patches
from mobclip_core.imagery.scenes import open_source
from mobclip_core.imagery.stac import stac_source
from mobclip_core.profile.imagery import ImageryConfig, StacItems

LON, LAT = np.array([9.0]), np.array([50.0])
OPTIONS = {"ground_resolution_m": 20.0, "patch_pixels": 8}


def item(name, *, assets=("red",), cloud=1.0, time="2024-06-01T10:00:00Z", version="1.1.0", **changes):
    """As published for Sentinel-2 L2A: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md"""
    eo = {"1.1.0": "v2.0.0", "1.0.0": "v1.1.0"}[version]
    proj = {"proj:code": "EPSG:32632"} if version == "1.1.0" else {"proj:epsg": 32632}
    return {
        "type": "Feature",
        "stac_version": version,
        "stac_extensions": [
            f"https://stac-extensions.github.io/eo/{eo}/schema.json",
            f"https://stac-extensions.github.io/projection/{eo}/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-l2a",
        "bbox": [8.9, 49.9, 9.1, 50.1],
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[8.9, 49.9], [9.1, 49.9], [9.1, 50.1], [8.9, 50.1], [8.9, 49.9]]],
        },
        "properties": {"datetime": time, "eo:cloud_cover": cloud, "platform": "sentinel-2a", **proj},
        "links": [{"rel": "self", "href": "https://example.org/item.json"}],
        "assets": {
            key: {
                "href": f"{name}/{key}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
            }
            for key in assets
        },
    } | changes


def band(write_raster, name, value, *, pixel_m=10, zone=32, dtype=np.uint16, crs=None):
    """An asset of one band whose every pixel has one value."""
    crs = crs or f"EPSG:326{zone}"
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(9.0, 50.0)
    size = 2_000 // pixel_m
    (write_raster.folder / name).parent.mkdir(parents=True, exist_ok=True)
    data = np.full((1, size, size), value, dtype)
    return write_raster(data, (x - 1000, y - 1000, x + 1000, y + 1000), crs, name=name, nodata=0)


@pytest.fixture
def write_band(write_raster, tmp_path):
    write_raster.folder = tmp_path
    return lambda *args, **options: band(write_raster, *args, **options)


def write_list(folder, items, name="items.json"):
    path = folder / name
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(path)


def read(file, *assets, bands=None):
    return read_patches(stac_source(StacItems(file=file, assets=list(assets)), bands), LON, LAT, **OPTIONS)


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_assets_of_other_resolutions_and_zones_are_stacked_as_bands(write_band, tmp_path, version):
    write_band("S2A/red.tif", 100)
    write_band("S2A/swir16.tif", 900, pixel_m=20)
    write_band("S2A/nir.tif", 500, zone=31)
    file = write_list(tmp_path, [item("S2A", assets=("red", "nir", "swir16"), version=version)])
    found = read(file, "swir16", "red", "nir")
    assert found.pixels.dtype == np.float32
    assert found.valid_fraction.tolist() == [1.0]
    assert found.pixels[0].reshape(3, -1).T.tolist() == [[900, 100, 500]] * 64


def test_a_point_needs_all_bands_of_a_measurement_and_any_of_an_image(write_band, write_raster, tmp_path):
    for kind, dtype in (("measured", np.uint16), ("picture", np.uint8)):
        write_band(f"{kind}/red.tif", 7, dtype=dtype)
        write_band(f"{kind}/green.tif", 0, dtype=dtype)
        file = write_list(tmp_path, [item(kind, assets=("red", "green"))])
        found = read(file, "red", "green")
        assert found.valid_fraction.tolist() == [0.0 if kind == "measured" else 1.0]
    assert found.pixels[0].reshape(2, -1).T.tolist() == [[7, 0]] * 64


def test_the_bands_of_one_asset_can_be_chosen(write_raster, tmp_path):
    (tmp_path / "naip").mkdir()
    data = np.arange(1, 5, dtype=np.uint8)[:, None, None] * np.ones((4, 50, 50), np.uint8)
    write_raster(data, (8.95, 49.95, 9.05, 50.05), name="naip/image.tif")
    found = read(write_list(tmp_path, [item("naip", assets=("image",))]), "image", bands=[4, 1])
    assert found.pixels[0, :, 0, 0].tolist() == [4, 1]


ORDERED = [
    item("best", cloud=0.5, time="2023-01-01T00:00:00Z"),
    item("newer", cloud=2, time="2024-06-02T10:00:00+02:00"),
    item("later_by_offset", cloud=2, time="2024-06-02T08:30:00+01:00"),
    item("tie_a", cloud=2, time="2024-06-01T10:00:00Z"),
    item("tie_b", cloud=2, time="2024-06-01T10:00:00Z"),
    item("range", cloud=2, time=None),
    item("unknown", cloud=None, time="2025-01-01T00:00:00Z"),
]
ORDERED[5]["properties"] |= {"start_datetime": "2020-01-01T00:00:00Z", "end_datetime": "2020-02-01T00:00:00Z"}


@settings(max_examples=25, deadline=None)
@given(st.permutations([*ORDERED, ORDERED[0], ORDERED[3]]), st.integers(0, 9), st.booleans())
def test_least_cloudy_then_newest_then_by_id_whatever_the_order_of_items_and_files(
    tmp_path_factory, items, split, lines
):
    folder = tmp_path_factory.mktemp("stac")
    files = [write_list(folder, items[:split], "one.json"), write_list(folder, items[split:], "two.json")]
    if lines:
        files = [str(folder / "items.ndjson.gz")]
        with gzip.open(files[0], "wt") as sink:
            sink.write("\n".join(map(json.dumps, items)) + "\n\n")
    source = stac_source(StacItems(file=files, assets=["red"]), None)
    names = [scene.name.split()[-1] for scene in source.scenes]
    assert names == ["best", "newer", "later_by_offset", "tie_a", "tie_b", "range", "unknown"]
    assert source.counts == {"scenes": 7, "items_repeated": 2}
    assert source.scenes[0].rasters[0].name == str(folder / "best" / "red.tif")


def test_the_scene_on_top_is_seen(write_band, tmp_path):
    for name, value in (("clear", 100), ("cloudy", 9000)):
        write_band(f"{name}/red.tif", value)
    items = [item("cloudy", cloud=60), item("clear", cloud=0)]
    for order in (items, items[::-1]):
        assert (read(write_list(tmp_path, order), "red").pixels == 100).all()


def test_addresses_of_assets(tmp_path):
    hrefs = {"a": "./x/a.tif", "b": "/data/b.tif", "c": "s3://bucket/c.tif", "d": "https://example.org/d.tif"}
    one = item("one") | {"assets": {key: {"href": href} for key, href in hrefs.items()}}
    (tmp_path / "one.json").write_text(json.dumps(one))
    source = stac_source(StacItems(file=str(tmp_path / "one.json"), assets=list(hrefs)), None)
    names = [raster.name for raster in source.scenes[0].rasters]
    assert names == [str(tmp_path / "x/a.tif"), "/data/b.tif", "s3://bucket/c.tif", "https://example.org/d.tif"]


def test_an_item_elsewhere_is_never_opened(write_band, tmp_path):
    write_band("here/red.tif", 5)
    elsewhere = item("elsewhere", cloud=50, bbox=[100.0, 10.0, -50.0, 101.0, 11.0, 50.0])
    found = read(write_list(tmp_path, [item("here"), elsewhere]), "red")
    assert (found.pixels == 5).all()


def without(key, **changes):
    broken = item("S2B") | changes
    return {name: value for name, value in broken.items() if name != key}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            item("S2B", assets=("B04", "B03")),
            r"item S2B has no asset 'red'.*it has \['B03', 'B04'\].*imagery\.stac\.assets",
        ),
        (
            item("S2B", assets={"red": 1}) | {"assets": {"red": {}}},
            "item S2B has no asset 'red'; column: assets.red.href",
        ),
        (without("stac_version"), "stac_version is None, expected an item of the STAC Item specification 1.0 or 1.1"),
        (item("S2B") | {"stac_version": "0.9.0"}, "stac_version is '0.9.0'"),
        (without("id"), "found None, STAC Item specification 1.0 or 1.1 has a text; column: id"),
        (without("properties"), "column: properties"),
        (without("assets"), "column: assets"),
        (without("bbox"), r"found None.*\[west, south, east, north\] in degrees \(item S2B\); column: bbox"),
        (item("S2B", bbox=[49.9, 8.9, 50.1, 100.1]), "column: bbox"),
        (item("S2B", bbox=[8.9, 49.9, 9.1, float("nan")]), "column: bbox"),
        (item("S2B", cloud=-999), r"found -999.*0 to 100 \(item S2B\); column: properties\.eo:cloud_cover"),
        (item("S2B", cloud="low"), "found 'low'"),
        (item("S2B", time="yesterday"), r"found 'yesterday'.*RFC 3339.*column: properties\.datetime"),
        (item("S2B", time=None), "found None.*start_datetime and end_datetime"),
    ],
)
def test_items_that_are_not_as_published(tmp_path, content, problem):
    file = write_list(tmp_path, [item("S2A"), content])
    with pytest.raises(SourceError, match=rf"items\.json: .*{problem}") as caught:
        stac_source(StacItems(file=file, assets=["red"]), None)
    assert caught.value.rows == (1,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"type": "Catalog"}', "found 'Catalog', expected a STAC ItemCollection"),
        ("[1]", "found 'list', expected a STAC ItemCollection"),
        ('{"type": "FeatureCollection", "features": []}', "the list has no items"),
        ("", "the list has no items"),
        ('{"type": "FeatureCollection", "features": [', "not valid JSON.*truncated"),
        (json.dumps(item("a")) + "\n" + json.dumps(item("b"))[:-9], "not valid JSON.*first rows: 1.*truncated"),
    ],
)
def test_files_that_are_no_item_lists(tmp_path, text, problem):
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(SourceError, match=rf"(?s)items\.json: .*{problem}"):
        stac_source(StacItems(file=str(tmp_path / "items.json"), assets=["red"]), None)


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "items.json").write_bytes(b"\xff\xfe\x80II*\x00")
    with pytest.raises(SourceError, match="is not text"):
        stac_source(StacItems(file=str(tmp_path / "items.json"), assets=["red"]), None)


def test_scenes_that_do_not_fit_together(write_band, tmp_path):
    write_band("a/red.tif", 0)
    write_band("b/red.tif", 5, dtype=np.uint8)
    file = write_list(tmp_path, [item("a"), item("b", cloud=50)])
    with pytest.raises(SourceError, match=r"item b: has 1 bands read as uint8, .*item a has 1 read as float32"):
        read(file, "red")


def test_an_asset_without_crs_or_file_is_named(write_band, write_raster, tmp_path):
    (tmp_path / "a").mkdir()
    write_raster(np.ones((1, 9, 9), np.uint8), (0, 0, 1, 1), crs=None, name="a/red.tif")
    with pytest.raises(SourceError, match=r"a/red\.tif: the raster has no coordinate reference system"):
        read(write_list(tmp_path, [item("a")]), "red")
    with pytest.raises(SourceError, match=r"gone/red\.tif: the raster cannot be read"):
        read(write_list(tmp_path, [item("gone")]), "red")


def test_one_source_in_a_profile():
    stac = {"file": "items.json", "assets": ["red", "green"]}
    for wrong, problem in (
        ({}, "exactly one of file, stac and tiles; found none"),
        ({"file": "a.tif", "stac": stac}, "found .'file', 'stac'."),
        ({"stac": stac, "bands": [1]}, "leave bands out"),
        ({"stac": stac | {"assets": []}}, "at least 1 item"),
    ):
        with pytest.raises(ValueError, match=problem):
            ImageryConfig.model_validate(wrong)
    assert ImageryConfig.model_validate({"stac": stac}).files == ["items.json"]
    assert ImageryConfig.model_validate({"tiles": {"folder": "t", "zoom": 3}}).files == ["t"]
    assert ImageryConfig.model_validate({"file": ["a.tif", "b.tif"]}).files == ["a.tif", "b.tif"]
    # how many threads read is not what is read
    assert "workers" not in ImageryConfig.model_validate({"file": "a.tif", "workers": 4}).model_dump()


def test_a_profile_opens_the_source_it_names(tmp_path):
    file = write_list(tmp_path, [item("S2A")])
    config = ImageryConfig.model_validate({"stac": {"file": file, "assets": ["red"]}})
    assert open_source(config).scenes[0].name == f"{file} item S2A"
    (tmp_path / "3" / "1").mkdir(parents=True)
    (tmp_path / "3" / "1" / "2.png").write_bytes(b"")
    config = ImageryConfig.model_validate({"tiles": {"folder": str(tmp_path), "zoom": 3}, "bands": [1]})
    assert open_source(config).scenes[0].name == str(tmp_path)
    assert open_source(config).bands == (1,)


def test_means_and_deviations_are_as_many():
    wrong = {"mean": [0.1, 0.2], "std": [1.0]}
    encoder = {"kind": "timm", "model": "test_vit", "normalisation": wrong}
    with pytest.raises(ValueError, match="2 means but 1 standard deviations"):
        ImageryConfig.model_validate({"file": "a.tif", "encoder": encoder})
