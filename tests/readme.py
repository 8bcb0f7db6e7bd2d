"""The tables of scores in the README, from the lakes of the profiles.

    python -m tests.readme [--profiles demo new_york usa]

Reads `geobench_scores` of each profile, which has to be materialised (`make readme` does so first); writes their means
over seeds to `tests/results/<profile>.csv`, and the README's tables from these files. A test compares the two, so that
the README shows what the last run gave.

A table of the README follows a comment `<!-- scores <profile> <split> <probe> -->` and ends with an empty line.
"""

import argparse
import csv
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mobclip_core.deployment import Deployment
from mobclip_core.errors import MobclipError
from mobclip_core.evaluation.scores import read_scores, scores_markdown

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("task", "method", "probe", "split", "n", "leak", "seeds", "r2")
_MARKED = re.compile(r"(?<=<!-- scores )(\w+) (\w+) (\w+)( -->\n)((?:\|.*\n)*)")


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


def write_results(profile: str, rows: list[dict[str, Any]]) -> None:
    """Keep the means of a profile."""
    with (RESULTS / f"{profile}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "leak": int(row["leak"]), "r2": f"{row['r2']:.6f}"} for row in means(rows))


def read_results(profile: str) -> list[dict[str, Any]]:
    """The means that were kept of a profile."""
    with (RESULTS / f"{profile}.csv").open(newline="") as file:
        return [
            {**row, "n": int(row["n"]), "leak": row["leak"] == "1", "r2": float(row["r2"])}
            for row in csv.DictReader(file)
        ]


def with_tables(text: str) -> str:
    """The README's text, its tables made from the kept results."""

    def table(found: re.Match[str]) -> str:
        profile, split, probe, mark, _ = found.groups()
        return f"{profile} {split} {probe}{mark}{scores_markdown(read_results(profile), split, probe)}\n"

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
