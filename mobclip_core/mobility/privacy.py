"""What the privacy policy did, and the last look at a file before it is published.

Belongs here: the check that no published row breaks the policy, the report of what was suppressed. Does not belong
here: the policy's arithmetic (see `noise` and `sql/mobility_judged.sql`).

The report is for the data team: it holds exact counts of what was suppressed, which the noise does not protect.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mobclip_core.deployment import Count
from mobclip_core.errors import PrivacyError
from mobclip_core.mobility.noise import Calibration

_MOST_ROWS = 300


def require_anonymous(file: Path, minimum_people: int) -> None:
    """Raise if a file about to be published has an edge, or a flow between zones, of fewer than k people.

    Raises:
        PrivacyError: Naming the file and the number of rows.
    """
    people = pq.read_table(file, columns=["people"])["people"]
    enough = pc.fill_null(pc.greater_equal(people, pa.scalar(float(minimum_people))), False)
    below = len(people) - int(pc.sum(enough).as_py() or 0)
    if below:
        raise PrivacyError(
            f"{file.parent.name}/{file.name}: {below} of {len(people)} rows come from fewer than {minimum_people} "
            "people; nothing was published"
        )


@dataclass
class Fates:
    """What became of a source's edges, or flows between zones, that start in one region; weights are exact."""

    kept: int = 0
    weight: float = 0.0
    below_k: int = 0
    below_k_weight: float = 0.0
    self_loops: int = 0
    self_loop_weight: float = 0.0
    below_threshold: int = 0


@dataclass
class Report:
    """What the step says of its sources.

    Args:
        counts: Numbers by source.
        fates: Source and region of origin -> what became of the edges.
        flows: Sources whose edges are flows between zones.
        calibrations: Source -> its noise.
    """

    counts: dict[str, Count] = field(default_factory=dict)
    fates: dict[tuple[str, str], Fates] = field(default_factory=dict)
    flows: set[str] = field(default_factory=set)
    calibrations: dict[str, Calibration] = field(default_factory=dict)

    def add_edges(self, source: str, region: str, found: Iterable[tuple[str, int, float]]) -> None:
        """Add edges of a region by fate (kept, below_k, self_loop) -> edges, weight."""
        fates = self.fates.setdefault((source, region), Fates())
        for fate, edges, weight in found:
            if fate == "kept":
                fates.kept, fates.weight = fates.kept + edges, fates.weight + weight
            elif fate == "below_k":
                fates.below_k, fates.below_k_weight = fates.below_k + edges, fates.below_k_weight + weight
            else:
                fates.self_loops += edges
                fates.self_loop_weight += weight

    def add_flows(self, source: str, by_region: Mapping[tuple[str, str], tuple[int, float]]) -> None:
        """Add a source of flows between zones: region and fate (kept, below_k) -> flows, weight."""
        self.flows.add(source)
        for (region, fate), (flows, weight) in by_region.items():
            self.add_edges(source, region, [(fate, flows, weight)])

    def hide(self, source: str, exact: pa.ChunkedArray, noisy: pa.ChunkedArray) -> None:
        """Count the flows that the noisy threshold hides: the regions of all flows, and of those that pass."""
        for column, sign in ((exact, 1), (noisy, -1)):
            for found in pc.value_counts(column).to_pylist():
                self.fates[source, found["values"]].below_threshold += sign * found["counts"]

    def totals(self, sources: Sequence[str]) -> dict[str, Count]:
        """The counts, with the totals of each source over all regions."""
        counts = dict(self.counts)
        for source in sources:
            found = [fates for (name, _), fates in self.fates.items() if name == source]
            if source not in self.flows:
                counts[f"{source}_edges"] = sum(fates.kept for fates in found)
                counts[f"{source}_weight"] = sum(fates.weight for fates in found)
                counts[f"{source}_self_loop_edges"] = sum(fates.self_loops for fates in found)
                counts[f"{source}_self_loop_weight"] = sum(fates.self_loop_weight for fates in found)
                counts[f"{source}_below_k_edges"] = sum(fates.below_k for fates in found)
                counts[f"{source}_below_k_weight"] = sum(fates.below_k_weight for fates in found)
            if source in self.calibrations:
                counts[f"{source}_below_threshold"] = sum(fates.below_threshold for fates in found)
        return counts

    def markdown(self) -> str:
        """What was suppressed, by source and region of origin, and the noise."""
        heads = (
            "source",
            "region",
            "kept",
            "movements",
            "below k",
            "movements below k",
            "self-loops",
            "hidden by noise",
        )
        lines = ["| " + " | ".join(heads) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
        for (source, region), fates in list(self.fates.items())[:_MOST_ROWS]:
            kind = " (flows)" if source in self.flows else ""
            numbers = (fates.kept, fates.weight, fates.below_k, fates.below_k_weight, fates.self_loop_weight)
            shown = " | ".join(f"{value:,}" for value in (*numbers, fates.below_threshold))
            lines.append(f"| {source}{kind} | {region} | {shown} |")
        if len(self.fates) > _MOST_ROWS:
            lines.append(f"\n{len(self.fates) - _MOST_ROWS} more rows are not shown.")
        for source, calibration in self.calibrations.items():
            lines.append(
                f"\n{source}: discrete {calibration.mechanism} noise, scale {calibration.people_scale:.4g} on people "
                f"and {calibration.weight_scale:.4g} on movements; published from {calibration.threshold} noisy people."
            )
        return "\n".join(lines)
