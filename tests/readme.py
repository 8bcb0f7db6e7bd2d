"""The tables of scores in the README, from the lakes of the profiles.

    python -m tests.readme [--profiles demo new_york usa]

Reads `geobench_scores` of each profile, which has to be materialised (`make readme` does so first); writes their means
over seeds to `tests/results/<profile>.csv`, those over tasks to `tests/results/<profile>_means.csv`, and the README's
tables from these files. A test compares the two, so that the README shows what the last run gave.

A table of the README follows a comment and ends with an empty line: `<!-- scores <profile> <split> -->` (by task),
`<!-- means <profile> <split> -->` (with intervals, the variants too), `<!-- few <profile> -->` (few labels).
"""

import argparse
import csv
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from mobclip_core.deployment import Deployment
from mobclip_core.errors import MobclipError
from mobclip_core.evaluation.comparison import few_shot_markdown, of_probe, scored_splits, without_variants
from mobclip_core.evaluation.intervals import MeanScore, mean_intervals, means_markdown
from mobclip_core.evaluation.scores import read_scores, scores_markdown

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("task", "method", "probe", "split", "n", "leak", "seeds", "r2")
MEAN_COLUMNS = ("split", *(field.name for field in fields(MeanScore)))
_MARKED = re.compile(r"(?<=<!-- )(scores|means|few) (\w+)(?: (\w+))?( -->\n)((?:\|.*\n)*)")


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `geobench_scores` over seeds: one for each task, method, probe and split."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(tuple(row[name] for name in COLUMNS[:6]), []).append(row)
    return [
        {
            **dict(zip(COLUMNS, key, strict=False)),
            "seeds": len(found),
            "r2": float(np.mean([row["r2"] for row in found])),
        }
        for key, found in sorted(grouped.items())
    ]


def means_over_tasks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over tasks with their intervals, by split and method, ridge."""
    return [
        {"split": name, **vars(mean)} for name in scored_splits(rows) for mean in mean_intervals(of_probe(rows, name))
    ]


def write_results(profile: str, rows: list[dict[str, Any]]) -> None:
    """Keep the means of a profile."""
    by_task = [{**row, "leak": int(row["leak"]), "r2": f"{row['r2']:.6f}"} for row in means(rows)]
    over_tasks = [
        {name: f"{value:.6f}" if isinstance(value, float) else value for name, value in row.items()}
        for row in means_over_tasks(rows)
    ]
    for name, columns, content in ((profile, COLUMNS, by_task), (f"{profile}_means", MEAN_COLUMNS, over_tasks)):
        with (RESULTS / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(content)


def read_results(profile: str) -> list[dict[str, Any]]:
    """The means over seeds that were kept of a profile."""
    with (RESULTS / f"{profile}.csv").open(newline="") as file:
        return [
            {**row, "n": int(row["n"]), "leak": row["leak"] == "1", "r2": float(row["r2"])}
            for row in csv.DictReader(file)
        ]


def read_means(profile: str, split: str) -> list[MeanScore]:
    """The means over tasks that were kept of a profile, of a split."""
    types = get_type_hints(MeanScore)
    with (RESULTS / f"{profile}_means.csv").open(newline="") as file:
        return [
            MeanScore(**{name: kind(row[name]) for name, kind in types.items()})
            for row in csv.DictReader(file)
            if row["split"] == split
        ]


def table_of(kind: str, profile: str, split: str | None) -> str:
    """One table of the README, from the kept results."""
    if kind == "means":
        return means_markdown(read_means(profile, split or ""))
    rows = without_variants(read_results(profile))
    return few_shot_markdown(rows) if kind == "few" else scores_markdown(rows, split or "")


def with_tables(text: str) -> str:
    """The README's text, its tables made from the kept results."""

    def table(found: re.Match[str]) -> str:
        kind, profile, split, mark, _ = found.groups()
        return f"{kind} {profile}{f' {split}' if split else ''}{mark}{table_of(kind, profile, split)}\n"

    return _MARKED.sub(table, text)


def main() -> None:
    """Read the lakes, write results and README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="+", default=["demo", "new_york", "usa"])
    try:
        for profile in parser.parse_args().profiles:
            write_results(profile, read_scores(Deployment.open(profile)))
    except MobclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    README.write_text(with_tables(README.read_text()))


if __name__ == "__main__":
    main()
