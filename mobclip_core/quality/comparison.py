"""Two summaries of one table, side by side.

Belongs here: measuring what changed, telling it to people. Does not belong here: making summaries (see `statistics`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mobclip_core.profile.quality import QualityLimits
from mobclip_core.quality.statistics import Statistics

_SHOWN = 60


@dataclass(frozen=True)
class Change:
    """One measure of one column, before and now.

    Args:
        column: Column, or None for the table.
        measure: `rows`, `nulls`, `zeros`, `total`, `drift` or `shift`.
        before: What it was, for people; the median for `drift`, the mean for `shift`.
        now: What it is.
        size: How much it changed, in the unit of the limit; never negative.
        limit: Largest change allowed.
    """

    column: str | None
    measure: str
    before: float
    now: float
    size: float
    limit: float

    @property
    def is_over(self) -> bool:
        """Whether the change is larger than allowed."""
        return self.size > self.limit

    def __str__(self) -> str:
        name = self.measure if self.column is None else f"{self.column}: {self.measure}"
        return f"{name} {self.shown_before} -> {self.shown_now} ({self.shown_size}, limit {_amount(self, self.limit)})"

    @property
    def shown_before(self) -> str:
        """The value before, for people."""
        return _value(self, self.before)

    @property
    def shown_now(self) -> str:
        """The value now, for people."""
        return _value(self, self.now)

    @property
    def shown_size(self) -> str:
        """The change, for people."""
        sign = "" if self.measure in ("drift", "shift") else "-" if self.now < self.before else "+" if self.size else ""
        return sign + _amount(self, self.size)

    @property
    def shown_limit(self) -> str:
        """The limit, for people."""
        return _amount(self, self.limit)


def compare(before: Statistics, now: Statistics, limits: QualityLimits) -> list[Change]:
    """What changed, the changes over their limits first and then the largest, in shares of their limits.

    A column or a measure that only one of the two has is not compared.
    """
    found = list(_table_changes(before, now, limits))
    for name, column in now["columns"].items():
        if name in before["columns"]:
            found += _column_changes(name, before["columns"][name], column, limits)
    found.sort(key=lambda change: -(change.size / change.limit if change.limit else math.inf if change.size else 0.0))
    return found


def _table_changes(before: Statistics, now: Statistics, limits: QualityLimits) -> Iterator[Change]:
    if limits.rows is not None:
        size = _relative(before["rows"], now["rows"])
        yield Change(None, "rows", before["rows"], now["rows"], size, limits.rows)


def _column_changes(name: str, before: Statistics, now: Statistics, limits: QualityLimits) -> Iterator[Change]:
    for measure, limit in (("nulls", limits.nulls), ("zeros", limits.zeros)):
        if limit is not None and measure in before and measure in now:
            old, new = before[measure], now[measure]
            yield Change(name, measure, old, new, abs(new - old), limit)
    if limits.total is not None and "total" in before and "total" in now:
        size = _relative(before["total"], now["total"])
        yield Change(name, "total", before["total"], now["total"], size, limits.total)
    if limits.drift is not None and "quantiles" in before and "quantiles" in now:
        size = distance(before["quantiles"], now["quantiles"])
        yield Change(name, "drift", _median(before), _median(now), size, limits.drift)
    if limits.shift is not None and before.get("mean") and len(before["mean"]) == len(now.get("mean", ())):
        yield _shift(name, before, now, limits.shift)


def _relative(before: float, now: float) -> float:
    if before == now:
        return 0.0
    return abs(now - before) / abs(before) if before else math.inf


def distance(before: Sequence[float], now: Sequence[float]) -> float:
    """Kolmogorov-Smirnov distance of two distributions known by their quantiles at equal steps, to within one step.

    Args:
        before: Values at 0, 1/m, ..., 1, ascending; empty where there are no values.
        now: The same of the other.

    Returns:
        From 0 (equal) to 1 (no value of one below any value of the other).
    """
    if not before or not now:
        return 0.0 if list(before) == list(now) else 1.0
    points = np.union1d(before, now)
    sides = (np.abs(_below(before, points, side) - _below(now, points, side)) for side in ("left", "right"))
    return float(max(gaps.max() for gaps in sides))


def _below(quantiles: Sequence[float], points: np.ndarray, side: str) -> np.ndarray:
    """Share of values below points (`left`), or not above them (`right`), straight between quantiles."""
    q = np.asarray(quantiles, dtype=np.float64)
    after = np.searchsorted(q, points, side="left" if side == "left" else "right")
    low, high = q[np.clip(after - 1, 0, len(q) - 1)], q[np.clip(after, 0, len(q) - 1)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        part = np.where(high > low, (points - low) / (high - low), 0.0)
    shares = (after - 1 + np.nan_to_num(part)) / max(len(q) - 1, 1)
    return np.where(after == 0, 0.0, np.where(after == len(q), 1.0, shares))


def _shift(name: str, before: Statistics, now: Statistics, limit: float) -> Change:
    old, new = np.array(before["mean"]), np.array(now["mean"])
    spread = np.maximum(before["deviation"], now["deviation"])
    # where neither varies, relative to the value
    scale = np.where(spread > 0, spread, np.maximum(np.abs(old), np.abs(new)))
    sizes = np.divide(np.abs(new - old), scale, out=np.zeros_like(scale), where=scale > 0)
    worst = int(np.argmax(sizes))
    return Change(name, "shift", float(old[worst]), float(new[worst]), float(sizes[worst]), limit)


def _median(column: Statistics) -> float:
    quantiles = column["quantiles"]
    return float(quantiles[len(quantiles) // 2]) if quantiles else math.nan


def _value(change: Change, value: float) -> str:
    if change.measure in ("nulls", "zeros"):
        return f"{value:.1%}"
    if change.measure == "rows":
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def _amount(change: Change, value: float) -> str:
    if not math.isfinite(value):
        return "from nothing"
    if change.measure == "shift":
        return f"{value:.2g} deviations"
    return f"{value:.1%}" + (" points" if change.measure in ("nulls", "zeros") else "")


def changes_table(changes: Sequence[Change]) -> str:
    """Markdown: one row for each measure that changed, those over their limit in bold."""
    changed = [change for change in changes if change.size]
    lines = ["| column | measure | before | now | change | limit |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for change in changed[:_SHOWN]:
        cells = [change.measure, change.shown_before, change.shown_now, change.shown_size, change.shown_limit]
        row = [f"`{change.column}`" if change.column else "table", *cells]
        lines.append("| " + " | ".join(f"**{cell}**" if change.is_over else cell for cell in row) + " |")
    if len(changed) > _SHOWN:
        lines.append(f"\n{len(changed) - _SHOWN} smaller changes are not shown.")
    unchanged = len(changes) - len(changed)
    note = "drift: largest difference of the shares of rows below any value, beside the medians"
    note += "; shift: of the dimension whose mean changed most"
    return "\n".join([*lines, "", f"{unchanged} measures did not change. {note}."])


def summary_table(statistics: Statistics) -> str:
    """Markdown: the summary of a table that has nothing to be compared with."""
    lines = ["| column | nulls | zeros | total | smallest | median | largest |", "| --- |" + " ---: |" * 6]
    for name, column in statistics["columns"].items():
        shares = [f"{column[key]:.1%}" if key in column else "" for key in ("nulls", "zeros")]
        total = [f"{column['total']:,.6g}" if "total" in column else ""]
        quantiles = column.get("quantiles") or []
        ends = [f"{quantiles[i]:.4g}" if quantiles else "" for i in (0, len(quantiles) // 2, -1)]
        lines.append("| " + " | ".join([f"`{name}`", *shares, *total, *ends]) + " |")
    return "\n".join([f"{statistics['rows']:,} rows. Of vectors: their lengths.", "", *lines])
