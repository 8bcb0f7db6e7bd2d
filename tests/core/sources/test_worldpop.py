from pathlib import Path

import pytest

from mobclip_core.errors import SourceError
from mobclip_core.profile import WorldPopCensus
from mobclip_core.profile.census import WORLDPOP_AGES
from mobclip_core.sources.worldpop import age_sex_rasters

OLD, NEW = WORLDPOP_AGES["2000-2020"], WORLDPOP_AGES["Global2"]


def published(folder, names):
    for name in names:
        (folder / name).touch()
    return WorldPopCensus(kind="worldpop", file=str(folder / "*.tif"))


def old(sexes="fm", place="gbr", ages=OLD, year=2020, rest=""):
    return [f"{place}_{sex}_{age}_{year}{rest}.tif" for sex in sexes for age in ages]


def new(sexes="fmt", place="gbr", ages=NEW, year=2025, rest="_CN_1km_R2025A_UA_v1"):
    return [f"{place}_{sex}_{age:02}_{year}{rest}.tif" for sex in sexes for age in ages]


@pytest.mark.parametrize("rest", ["", "_constrained", "_constrained_UNadj", "_UNadj"])
def test_the_series_of_2000_to_2020(tmp_path, rest):
    config = published(tmp_path, old(rest=rest))
    found = age_sex_rasters(config)
    assert found.bins == [f"{sex}_{age:02}" for sex in "fm" for age in OLD]
    assert len(found.bins) == 36
    assert [Path(file).name for file in found.files["gbr"]] == old(rest=rest)
    assert config.bin_names(36) == found.bins


@pytest.mark.parametrize("rest", ["_CN_1km_R2025A_UA_v1", "_CN_100m_R2025A_v1", "_UC_100m_R2024B_v1"])
def test_global2_has_the_papers_40_bins_and_its_sums_are_left_alone(tmp_path, rest):
    sums = [f"gbr_T_{sex}_2025{rest}.tif" for sex in "FM"]
    config = published(tmp_path, [*new(rest=rest), *sums])
    found = age_sex_rasters(config)
    assert len(found.bins) == 40
    assert found.bins[:3] == ["f_00", "f_01", "f_05"]
    assert found.bins[20:22] == ["m_00", "m_01"]
    assert found.left_alone == 22
    assert config.bin_names(40) == found.bins


def test_both_sexes_together_and_some_ages(tmp_path):
    config = published(tmp_path, new()).model_copy(update={"sexes": ["t"], "ages": [0, 65, 90]})
    found = age_sex_rasters(config)
    assert found.bins == config.bin_names(3) == ["t_00", "t_65", "t_90"]
    assert found.left_alone == 57


def test_several_countries_come_sorted(tmp_path):
    found = age_sex_rasters(published(tmp_path, [*old(place="irl"), *old(place="gbr")]))
    assert list(found.files) == ["gbr", "irl"]
    assert all(Path(file).name.startswith("irl") for file in found.files["irl"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([*old(), "gbr_ppp_2020.tif"], r"gbr_ppp_2020\.tif: is not named as WorldPop.*gbr_f_0_2020\.tif.*narrow"),
        ([*old(), "gbr_f_7_2020.tif"], r"gbr_f_7_2020\.tif: is not named"),
        ([*old(), "gbr_f_90_2020.tif"], r"gbr_f_90_2020\.tif: is not named"),
        ([*old(), *old(year=2019)], r"several years or releases: .*2019.* and .*2020.*count twice"),
        ([*old(), *old(rest="_constrained")], "several years or releases"),
        ([*old(), "GBR_F_0_2020.tif"], "holds the same people as"),
        (old("f"), r"18 of 36 age and sex rasters of gbr are missing: m_00, m_01.*census\.ages"),
        (old()[1:], r"1 of 36 .* missing: f_00"),
        ([*old(), *old("m", place="irl"), *old("f", place="irl", ages=OLD[:-1])], r"of irl are missing: f_80"),
        (new("t"), r"no raster of the sexes \['f', 'm'\]"),
    ],
)
def test_a_set_that_is_not_whole_is_refused(tmp_path, names, words):
    with pytest.raises(SourceError, match=words):
        age_sex_rasters(published(tmp_path, names))


def test_no_file_at_all(tmp_path):
    with pytest.raises(SourceError, match="no file matches"):
        age_sex_rasters(published(tmp_path, []))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sexes": ["f", "t"]}, "t is f and m together"),
        ({"ages": [7]}, r"begin at \[0, 1, 5.*found \[7\]"),
        ({"minimum_people": -1}, "greater than or equal to 0"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        WorldPopCensus(kind="worldpop", file="x.tif", **options)
