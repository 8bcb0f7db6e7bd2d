"""People on cells: population and histogram from a census table by zone or from WorldPop's rasters.

Belongs here: the step that makes `census_features` (`features`), its sources (`zones`, `rasters`), and the proof that
nobody was lost or invented. Does not belong here: the crosswalk from zones to cells (see `areal`).
"""

from mobclip_core.census.features import build_census_features, check_census_totals, check_minimum_people
from mobclip_core.census.zones import SNAPPED_SHARE

__all__ = ["SNAPPED_SHARE", "build_census_features", "check_census_totals", "check_minimum_people"]
