import textwrap
from pathlib import Path

import pytest
import yaml

from mobclip_core.errors import ProfileError
from mobclip_core.profile import PROFILES_DIR, CensusZones, Profile, WorldPopCensus, load_profile, profile_path

MINIMAL = """
name: small
regions: { file: regions.parquet, key_column: state, keys: [a, b] }
zones: { tracts: { file: tracts.parquet, id_column: geoid } }
census:
  zones: tracts
  file: acs.parquet
  id_column: geoid
  population: people
  histogram: [{ column: m_00 }, { column: share_65, percent_of: people }]
poi: { categories: [shop] }
imagery: { file: image.tif }
"""


@pytest.fixture
def write(tmp_path):
    def write(text=MINIMAL, **changes):
        tree = yaml.safe_load(textwrap.dedent(text)) if changes else None
        for dotted, value in changes.items():
            at = tree
            *parents, last = dotted.split("__")
            for part in parents:
                at = at.setdefault(part, {})
            at[last] = value
        path = tmp_path / "small.yaml"
        path.write_text(text if tree is None else yaml.safe_dump(tree))
        return path

    return write


def problem(path):
    with pytest.raises(ProfileError) as caught:
        load_profile(str(path))
    message = str(caught.value)
    assert str(path) in message
    return message


def test_minimal_profile_has_the_papers_defaults(write):
    profile = load_profile(str(write()))
    encoder, line = profile.encoder, profile.line
    assert (profile.grid.resolution, line.dimensions, encoder.dimensions, encoder.layers) == (6, 128, 128, 2)
    assert (encoder.demographics_hidden, encoder.batch_size, encoder.max_epochs, encoder.patience) == (
        64,
        20_480,
        100,
        10,
    )
    assert (encoder.learning_rate, encoder.weight_decay) == (1e-3, 1e-3)
    assert encoder.temperatures == {"poi": 0.5, "census": 0.7, "imagery": 0.2}
    assert profile.mobility.top_fraction == 0.1
    assert profile.storage is None
    assert profile.imagery.encoder.kind == "random_convolutional"


def test_a_profile_may_change_any_encoder_default(write):
    profile = load_profile(str(write(encoder__layers=3, encoder__temperatures={"poi": 0.1})))
    assert profile.encoder.layers == 3
    assert profile.encoder.temperatures["poi"] == 0.1


def test_other_is_the_last_category_wherever_the_profile_lists_it(write):
    profile = load_profile(str(write(poi__categories=["other", "shop", "bar"])))
    assert profile.poi.all_categories == ["shop", "bar", "other"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid__resolution": 16}, ["grid.resolution", "16", "less than or equal to 15"]),
        ({"grid__resolution": "six"}, ["grid.resolution", "'six'", "valid integer"]),
        ({"encoder__layer": 2}, ["encoder.layer", "found 2", "not permitted"]),
        ({"encoder__learning_rate": 0}, ["encoder.learning_rate", "found 0", "greater than 0"]),
        ({"encoder__temperatures": {"radar": 0.2}}, ["encoder.temperatures.radar", "'radar'", "'poi'"]),
        ({"name": "Small Country"}, ["name", "'Small Country'", "pattern"]),
        ({"census__histogram": []}, ["census.histogram", "at least 1"]),
        ({"census__kind": "guess"}, ["census", "`zones` (the default) or `worldpop`"]),
        ({"census": {"kind": "worldpop"}}, ["census.file", "required"]),
        ({"census__minimum_people": -1}, ["census.minimum_people", "greater than or equal to 0"]),
        ({"census__zones": "counties"}, ["census.zones", "counties", "['tracts']"]),
        ({"regions__keys": []}, ["regions", "at least one region"]),
        ({"regions__keys": ["a", "a"]}, ["regions", "repeat"]),
        ({"regions__keys": ["a/b"]}, ["regions", "a/b", "letters"]),
        ({"regions__keys": [False]}, ["regions.keys", "False", "valid string"]),
        ({"imagery__encoder": {"kind": "vit"}}, ["imagery.encoder", "'random_convolutional'", "'timm'"]),
        ({"imagery__encoder": {"kind": "timm"}}, ["imagery.encoder.timm.model", "required"]),
        ({"poi__points": {"p": {"file": "p.csv", "lon": "x", "category": "shop"}}}, ["poi.points.p", "exactly one"]),
        ({"poi__points": {"p": {"file": "p.csv", "wkt": "g"}}}, ["poi.points.p", "category_column or category"]),
        ({"poi__points": {"p": {"kind": "overtur", "file": "p"}}}, ["poi.points.p", "'table', 'overture'"]),
        ({"poi__points": {"p": {"kind": "foursquare", "file": "p", "level": 0}}}, ["poi.points.p.foursquare.level"]),
        ({"poi__minimum_count": -1}, ["poi.minimum_count", "greater than or equal to 0"]),
        (
            {
                "mobility__sources": {
                    "m": {
                        "kind": "flows",
                        "file": "m.csv",
                        "zones": "x",
                        "origin": "o",
                        "destination": "d",
                        "count": "n",
                    }
                }
            },
            ["mobility.sources.m.zones", "tracts"],
        ),
        (
            {"tasks": {"POP": {"title": "p", "source": "s", "unit": "u", "label": {"kind": "guess"}}}},
            ["tasks.POP.label", "'guess'"],
        ),
    ],
)
def test_an_error_names_file_key_found_and_expected(write, changes, words):
    message = problem(write(**changes))
    for word in words:
        assert word in message


def test_every_problem_is_named_at_once(write):
    message = problem(write(grid__resolution=99, encoder__patience=0))
    assert "2 problem(s)" in message
    assert "grid.resolution: found 99" in message
    assert "encoder.patience: found 0" in message


def test_a_missing_key_is_named(write):
    assert "imagery: found dict, expected: Field required" in problem(
        write(MINIMAL.replace("imagery: { file: image.tif }", ""))
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "found list, expected a mapping"),
        ("", "found NoneType, expected a mapping"),
        ("a: [1\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_profile(write, text, words):
    assert words in problem(write(text))


def test_a_file_in_another_encoding(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: país\n".encode("latin-1"))
    assert "not valid YAML" in problem(path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert load_profile(str(path)).name == "small"


def test_an_unknown_name_lists_the_profiles():
    with pytest.raises(ProfileError, match=r"no profile 'atlantis'.*demo"):
        profile_path("atlantis")


def test_relative_paths_start_at_the_file_and_zone_layer_names_are_no_paths(write, tmp_path):
    profile = load_profile(str(write(storage="../lake", imagery__file="/data/image.tif")))
    assert profile.regions.file == str(tmp_path / "regions.parquet")
    assert profile.storage == str(tmp_path.parent / "lake")
    assert profile.imagery.file == "/data/image.tif"
    assert profile.census.zones == "tracts"


def test_urls_stay_as_they_are(write):
    assert load_profile(str(write(storage="s3://bucket/lake"))).storage == "s3://bucket/lake"


def test_a_variable_holds_a_path_from_the_working_directory(write, tmp_path, monkeypatch):
    monkeypatch.setenv("MOBCLIP_TEST_DATA", "raw")
    monkeypatch.chdir(tmp_path.parent)
    profile = load_profile(str(write(imagery__file="${MOBCLIP_TEST_DATA}/image.tif")))
    assert profile.imagery.file == str(tmp_path.parent / "raw" / "image.tif")


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_or_empty_variable_gives_its_default_from_the_files_folder(write, tmp_path, monkeypatch, value):
    if value is None:
        monkeypatch.delenv("MOBCLIP_TEST_DATA", raising=False)
    else:
        monkeypatch.setenv("MOBCLIP_TEST_DATA", value)
    profile = load_profile(str(write(imagery__file="${MOBCLIP_TEST_DATA:-../raw}/image.tif")))
    assert profile.imagery.file == str(tmp_path.parent / "raw" / "image.tif")


def test_a_variable_without_value_or_default_is_an_error(write, monkeypatch):
    monkeypatch.delenv("MOBCLIP_TEST_DATA", raising=False)
    message = problem(write(imagery__file="${MOBCLIP_TEST_DATA}/image.tif"))
    assert "imagery.file: environment variable MOBCLIP_TEST_DATA is not set" in message


def test_a_variable_that_is_no_path_is_taken_literally(write, monkeypatch):
    monkeypatch.setenv("MOBCLIP_TEST_DEVICE", "cpu")
    monkeypatch.setenv("MOBCLIP_TEST_BUCKET", "bucket")
    profile = load_profile(
        str(write(encoder__device="${MOBCLIP_TEST_DEVICE:-auto}", storage="s3://${MOBCLIP_TEST_BUCKET}/lake"))
    )
    assert profile.encoder.device == "cpu"
    assert profile.storage == "s3://bucket/lake"


def test_a_variable_may_hold_a_url(write, monkeypatch):
    monkeypatch.setenv("MOBCLIP_TEST_DATA", "s3://bucket/raw")
    assert load_profile(str(write(imagery__file="${MOBCLIP_TEST_DATA}/i.tif"))).imagery.file == "s3://bucket/raw/i.tif"


def test_a_profile_cannot_be_changed_once_loaded(write):
    profile = load_profile(str(write()))
    with pytest.raises(Exception, match="frozen"):
        profile.name = "other"


def test_a_census_is_a_table_by_zone_unless_it_says_otherwise(write, tmp_path):
    for census in ({}, {"census__kind": "zones"}):
        found = load_profile(str(write(**census))).census
        assert isinstance(found, CensusZones)
        assert found.bin_names(2) == ["m_00", "share_65"]
    rasters = {"kind": "worldpop", "file": "people/*.tif"}
    found = load_profile(str(write(census=rasters, zones={}))).census
    assert isinstance(found, WorldPopCensus)
    assert found.file == str(tmp_path / "people/*.tif")
    assert len(found.bin_names(40)) == 40


def test_regions_may_be_groups(write):
    keys = {"east": {"name": "The East", "members": ["001", "002"]}, "west": {"name": "The West", "members": ["003"]}}
    profile = load_profile(str(write(regions__keys=keys)))
    assert profile.regions.region_keys == ["east", "west"]
    assert profile.regions.keys["east"].members == ["001", "002"]


@pytest.mark.parametrize("path", sorted(PROFILES_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_of_the_repository_loads(path, monkeypatch):
    monkeypatch.delenv("MOBCLIP_DEMO_DATA", raising=False)
    profile = load_profile(path.stem)
    assert isinstance(profile, Profile)
    assert profile.name == path.stem
    assert Path(profile.regions.file).is_absolute()


@pytest.mark.parametrize(
    "place", ["ssh://host/tracts.parquet", "simplecache::s3://bucket/a.parquet", "github://o:r@/a", "ftp://user:pw@h/a"]
)
def test_files_are_read_from_known_places_alone(write, place):
    message = problem(write(zones__tracts__file=place))
    assert "zones.tracts.file: files are not read from" in message
    assert "user:pw" not in message
