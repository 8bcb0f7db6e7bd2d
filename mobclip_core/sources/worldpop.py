"""WorldPop's age and sex structures: which raster of a source holds which people.

Belongs here: the names under which WorldPop publishes its rasters (https://hub.worldpop.org/project/categories?id=8)
and whether a set of them is whole. Does not belong here: reading pixels (see `mobclip_core.census.rasters`).

Two series are published, both as GeoTIFF in EPSG:4326, people per pixel, -99999 where there are no data:

- 2000-2020: `<iso3>_<sex>_<age>_<year>.tif`, with `_constrained` and `_UNadj` after the year in the constrained sets;
  sexes f and m; 18 age groups 0, 1, 5, 10 ... 80.
- Global2 (2015-2030, releases R2024B, R2025A):
  `<iso3>_<sex>_<age>_<year>_<CN|UC>_<100m|1km>_<release>[_UA]_<version>.tif`; sexes f, m and t (both); 20 age groups
  00, 01, 05, 10 ... 90; beside them `<iso3>_T_F_<year>...` and `_T_M_`, the sums over all ages of a sex.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mobclip_core.errors import SourceError
from mobclip_core.profile import WorldPopCensus
from mobclip_core.profile.census import WORLDPOP_AGES
from mobclip_core.sources.tables import source_files

_PLACE = r"(?P<place>[a-z]{3}|global)"
_BIN = re.compile(rf"{_PLACE}_(?P<sex>[fmt])_(?P<age>\d{{1,2}})_(?P<year>\d{{4}})(?P<rest>(_[a-z0-9]+)*)\.tiff?", re.I)
_SUM = re.compile(rf"{_PLACE}_t_[fm]_\d{{4}}(_[a-z0-9]+)*\.tiff?", re.I)
_RELEASE = re.compile(r"_R20\d\d[A-Z]?(_|$)", re.I)
_SCHEMA = (
    "WorldPop names its age and sex rasters <iso3>_<sex>_<age>_<year>[_constrained].tif (2000-2020, e.g. "
    "gbr_f_0_2020.tif) and <iso3>_<sex>_<age>_<year>_<CN|UC>_<100m|1km>_<release>_<version>.tif (Global2, e.g. "
    "gbr_f_00_2025_CN_1km_R2025A_UA_v1.tif)"
)


@dataclass(frozen=True)
class AgeSexRasters:
    """The rasters of a source, bin by bin.

    Args:
        bins: Names of the bins, by sex, then by age, such as `f_05`.
        files: Country (ISO 3166 code, lower case) -> its rasters in the order of the bins; countries sorted.
        left_alone: Files of sexes and ages that the profile does not ask for.
    """

    bins: list[str]
    files: dict[str, list[str]]
    left_alone: int


def age_sex_rasters(config: WorldPopCensus) -> AgeSexRasters:
    """Sort a source's files by country, sex and age.

    Raises:
        SourceError: No file; a file that is not named as WorldPop names its own; rasters of several years or releases;
            two rasters of the same people; a country of which an age of a sex is missing.
    """
    found: dict[str, dict[str, str]] = {}
    variants: dict[tuple[str, str], str] = {}
    files = source_files(config.file)
    left_alone = 0
    ages: Sequence[int] = ()
    for file in files:
        name = PurePosixPath(file.split("?")[0]).name
        match = _BIN.fullmatch(name)
        if match is None and _SUM.fullmatch(name):
            left_alone += 1
            continue
        series = "Global2" if match and _RELEASE.search(match["rest"]) else "2000-2020"
        if match is None or int(match["age"]) not in WORLDPOP_AGES[series]:
            raise SourceError(
                file, "is not named as WorldPop names its age and sex rasters", hint=f"{_SCHEMA}; narrow the pattern"
            )
        variants.setdefault((match["year"], match["rest"].lower()), file)
        if len(variants) > 1:
            raise SourceError(
                [*variants.values()],
                f"rasters of several years or releases: {' and '.join(variants.values())}",
                hint="people would count twice; narrow the pattern under census.file to one year and release",
            )
        sex, age = match["sex"].lower(), int(match["age"])
        ages = WORLDPOP_AGES[series] if config.ages is None else config.ages
        if sex not in config.sexes or age not in ages:
            left_alone += 1
            continue
        rasters = found.setdefault(match["place"].lower(), {})
        bin_name = f"{sex}_{age:02}"
        if bin_name in rasters:
            raise SourceError(
                file,
                f"holds the same people as {rasters[bin_name]}",
                hint="people would count twice; narrow the pattern under census.file",
            )
        rasters[bin_name] = file
    bins = [f"{sex}_{age:02}" for sex in config.sexes for age in ages]
    if not found:
        raise SourceError(files, f"no raster of the sexes {config.sexes}", hint=f"{_SCHEMA}; name other census.sexes")
    for place, rasters in found.items():
        missing = [name for name in bins if name not in rasters]
        if missing:
            raise SourceError(
                list(rasters.values()),
                f"{len(missing)} of {len(bins)} age and sex rasters of {place} are missing: {', '.join(missing[:10])}",
                hint="fetch them too, or list the ages to take under census.ages",
            )
    return AgeSexRasters(bins, {place: [found[place][name] for name in bins] for place in sorted(found)}, left_alone)
