"""Plots of scores: bars by task, means, ranks over tasks, curves of few labels, scaling.

Belongs here: drawing what is given. Does not belong here: means, ranks and tests (see `comparison`, `intervals`), maps
and the style of figures (see `mobclip_core.plots`).
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from mobclip_core.evaluation.intervals import MeanScore
from mobclip_core.evaluation.power_law import PowerLaw, common_sizes
from mobclip_core.plots import EMPTY, INK, PALETTE, QUIET, new_figure, plain_axes, png_of, set_title


def score_bars(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """R2 by task and method, one panel a split, with intervals and the mean over tasks at the right.

    Rows of the same task, method and split (seeds, probes) are averaged. Bars below the axis are cut at -0.25.

    Args:
        rows: Mappings with `task`, `method`, `split`, `r2`, `r2_low`, `r2_high`.
        title: Title.
    """
    tasks, methods, splits = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("task", "method", "split"))
    columns = len(tasks) + 1
    # no wider than a dialog of the UI
    wanted = 0.26 * columns * max(len(methods), 3) + 1.4
    figure = new_figure(float(np.clip(wanted, 6.4, 10.4)), 1.0 + 2.5 * max(len(splits), 1))
    panels = figure.subplots(max(len(splits), 1), 1, squeeze=False)[:, 0]
    width = 0.82 / max(len(methods), 1)
    for axes, split in zip(panels, splits, strict=False):
        for i, method in enumerate(methods):
            scores = np.array([_mean_score(rows, task, method, split) for task in tasks])
            with np.errstate(invalid="ignore"):
                whole = scores[:, 0].mean() if np.isfinite(scores[:, 0]).all() else np.nan
            x = np.arange(columns) + (i - (len(methods) - 1) / 2) * width + np.r_[np.zeros(len(tasks)), 0.25]
            axes.bar(
                x,
                np.r_[scores[:, 0], whole],
                width * 0.92,
                color=PALETTE[i % len(PALETTE)],
                label=method.replace("_", " "),
            )
            errors = np.abs(scores[:, 1:] - scores[:, :1]).T
            axes.errorbar(x[:-1], scores[:, 0], errors, fmt="none", ecolor=INK, elinewidth=0.8)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.axvline(len(tasks) - 0.375, color=EMPTY, linewidth=1.2)
        axes.set_xticks([*range(len(tasks)), columns - 0.75], [*tasks, "mean"])
        axes.set_xlim(-0.6, columns - 0.15)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.25), min(max(high, 0.2), 1.02))
        plain_axes(axes, "", "R²")
        axes.set_title(f"{split} split", loc="left", fontsize=9, color=QUIET)
    if splits:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return png_of(figure)


def difference_plot(means: Sequence[MeanScore], title: str, first: str = "embeddings") -> bytes:
    """Mean R2 of each method less that of the first, with the interval of the difference; it is cut at -1.

    Args:
        means: Of all methods.
        title: Title.
        first: The method at the line.
    """
    others = sorted((mean for mean in means if mean.method != first), key=lambda mean: mean.ahead)
    figure = new_figure(7.4, 1.2 + 0.24 * len(others))
    axes = figure.add_subplot()
    for y, mean in enumerate(others):
        low, high = -mean.ahead_high, -mean.ahead_low
        sure = low > 0 or high < 0
        axes.plot([low, high], [y, y], color=INK if sure else QUIET, linewidth=1.4)
        axes.plot(-mean.ahead, y, "o", markersize=5, color=PALETTE[0] if sure else QUIET)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(others)), [mean.method.replace("_", " ") for mean in others])
    axes.set_ylim(len(others) - 0.4, -0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -1.0), high)
    plain_axes(axes, "R² less that of the embeddings; bars: 95%, grey where they cover 0", "")
    set_title(axes, title)
    return png_of(figure)


def rank_diagram(methods: Sequence[str], ranks: np.ndarray, critical: float, title: str) -> bytes:
    """Mean ranks on a line, best at the left; methods under one bar do not differ (Demsar 2006, figure 1).

    Args:
        methods: Names, best first.
        ranks: Mean ranks, ascending, shape (methods,).
        critical: Critical difference of two ranks.
        title: Title.
    """
    n = len(methods)
    half = -(-n // 2)
    groups = _alike(np.asarray(ranks), critical)
    height = 1.5 + 0.24 * half + 0.12 * len(groups)
    figure = new_figure(7.4, height)
    axes = figure.add_subplot()
    low, high = 1.0, float(max(n, 2))
    axes.plot([low, high], [0, 0], color=INK, linewidth=1)
    for tick in range(1, n + 1):
        axes.plot([tick, tick], [0, 0.12], color=INK, linewidth=1)
        axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=8, color=INK)
    axes.plot([low, low + critical], [0.95, 0.95], color=INK, linewidth=1.5)
    axes.text(low + critical + 0.1, 0.95, f"critical difference {critical:.2f}", va="center", fontsize=8, color=QUIET)
    for i, (first, last) in enumerate(groups):
        y = -0.18 - 0.16 * i
        axes.plot([ranks[first] - 0.04, ranks[last] + 0.04], [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    base = -0.3 - 0.16 * len(groups)
    for i, method in enumerate(methods):
        left = i < half
        y = base - 0.32 * (i if left else n - 1 - i)
        edge, align = (low - 0.15, "right") if left else (high + 0.15, "left")
        axes.plot([ranks[i], ranks[i], edge], [0, y, y], color=PALETTE[i % len(PALETTE)], linewidth=1)
        name = f"{method.replace('_', ' ')}  {ranks[i]:.2f}" if left else f"{ranks[i]:.2f}  {method.replace('_', ' ')}"
        axes.text(edge, y, f" {name} ", ha=align, va="center", fontsize=8, color=INK)
    margin = 0.3 * (high - low)
    axes.set(xlim=(low - margin, high + margin), ylim=(base - 0.32 * half, 1.25))
    axes.set_axis_off()
    set_title(axes, title)
    return png_of(figure)


def few_label_curves(percentages: Sequence[float], methods: Sequence[str], means: np.ndarray, title: str) -> bytes:
    """Mean R2 by the share of the labels learnt from, one line a method; below -0.25 lines leave the picture.

    Args:
        percentages: Ascending.
        methods: Names.
        means: Shape (percentages, methods).
        title: Title.
    """
    figure = new_figure(7.4, 4.0)
    axes = figure.add_subplot()
    for i, method in enumerate(methods):
        axes.plot(
            percentages, means[:, i], marker="o", markersize=4, color=PALETTE[i % len(PALETTE)],
            label=method.replace("_", " "), linewidth=2.4 if i == 0 else 1.2,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(percentages, [f"{value:g}%" for value in percentages])
    axes.minorticks_off()
    axes.axhline(0, color=INK, linewidth=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.25), min(max(high, 0.2), 1.02))
    plain_axes(axes, "labels learnt from", "R²")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    set_title(axes, title)
    return png_of(figure)


def scaling_plot(rows: Sequence[Mapping[str, Any]], laws: Mapping[str, PowerLaw], title: str) -> bytes:
    """Error by size in logarithms, one panel an axis: a point for each training, the law as a line where there is one.

    Args:
        rows: Mappings with `axis`, `size`, `seed`, `error`.
        laws: The law of each axis.
        title: Title.
    """
    columns = 2 if len(laws) > 1 else 1
    figure = new_figure(5.0 * columns, 0.4 + 2.9 * -(-len(laws) // columns))
    panels = figure.subplots(-(-len(laws) // columns), columns, squeeze=False).ravel()
    for axes, (axis, law) in zip(panels, laws.items(), strict=False):
        chosen = [row for row in rows if row["axis"] == axis]
        size, error, seed = (np.array([row[name] for row in chosen]) for name in ("size", "error", "seed"))
        for repeat in np.unique(seed):
            own = np.flatnonzero(seed == repeat)
            own = own[np.argsort(size[own])]
            axes.plot(size[own], error[own], "o-", color=PALETTE[0], alpha=0.35, markersize=4, linewidth=0.8)
        ends = np.array([size.min(), size.max()])
        style = "-" if law.fits else ":"
        axes.plot(ends, law.scale * ends**-law.exponent, style, color=INK if law.fits else QUIET, linewidth=1.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = np.unique(common_sizes(chosen))
        ticks = ticks[:: max(1, len(ticks) // 4)]
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
        low, high = error.min(), error.max()
        levels = np.linspace(low, high, 4) if high > low else np.array([low])
        axes.set_yticks(levels, [f"{level:.3f}" for level in levels])
        plain_axes(axes, axis, "error")
        axes.set_title("\n".join(wrap(law.statement(axis), 62)), loc="left", fontsize=8, color=QUIET)
    for axes in panels[len(laws) :]:
        axes.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return png_of(figure)


def _mean_score(rows: Sequence[Mapping[str, Any]], task: str, method: str, split: str) -> np.ndarray:
    """Mean r2, r2_low, r2_high of the rows that match, NaN where none does; shape (3,)."""
    found = [row for row in rows if (str(row["task"]), str(row["method"]), str(row["split"])) == (task, method, split)]
    if not found:
        return np.full(3, np.nan)
    scores = np.array([[row["r2"], row["r2_low"], row["r2_high"]] for row in found], dtype=float)
    return np.asarray(scores.mean(axis=0))


def _alike(ranks: np.ndarray, critical: float) -> list[tuple[int, int]]:
    """First and last of each largest run of ranks within the critical difference; runs of one are left out."""
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = int(np.searchsorted(ranks, ranks[first] + critical, side="right")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
