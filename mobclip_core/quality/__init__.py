"""Data quality: has a table changed more than it should?

Belongs here: summing a table up in a few numbers, comparing two such summaries. Does not belong here: whether values
are allowed at all (see `contracts`), where older summaries are kept.
"""

from mobclip_core.quality.comparison import Change, compare
from mobclip_core.quality.distribution import Baseline, DistributionOutcome, check_distribution
from mobclip_core.quality.statistics import Statistics, table_statistics

__all__ = [
    "Baseline",
    "Change",
    "DistributionOutcome",
    "Statistics",
    "check_distribution",
    "compare",
    "table_statistics",
]
