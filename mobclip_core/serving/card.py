"""The dataset card: what exported vectors are, what they are made of and how well they score.

Belongs here: the text. Does not belong here: the files it describes (see `exports`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobclip_core.contracts import CONTRACTS
from mobclip_core.errors import ProfileError
from mobclip_core.profile import load_profile
from mobclip_core.serving.exports import Exported
from mobclip_core.serving.places import store_of
from mobclip_core.store import Store, TableRef

_MADE_OF = ("regions", "grid_cells", "poi_aggregates", "imagery_features", "census_features", "mobility_edges")


def write_card(lake: str, written: Exported, licences: Mapping[str, str] | None = None) -> Path:
    """Write the card of an export beside it.

    Args:
        lake: As of `open_places`.
        written: The export.
        licences: Licence by source, as in a profile's `licences`; that none is stated is said too.

    Returns:
        `<file>.card.md`.
    """
    store = store_of(lake)
    path = written.path.with_name(f"{written.path.name}.card.md")
    path.write_text("\n".join(_lines(store, written, licences or {})) + "\n", encoding="utf-8")
    return path


def licences_of(lake: str) -> dict[str, str]:
    """Licences that a profile states; none where the lake was not named by a profile."""
    try:
        return dict(load_profile(lake).licences)
    except ProfileError:
        return {}


def _lines(store: Store, written: Exported, licences: Mapping[str, str]) -> list[str]:
    encoder = store.data_version(TableRef("encoder")) if store.exists(TableRef("encoder")) else "unknown"
    return [
        f"# {written.path.name}",
        "",
        f"{written.rows:,} H3 cells, {written.dimensions} numbers each. One vector describes a place by its points of "
        "interest, imagery, people and the movements to and from it; made by MobCLIP (after arXiv 2506.01297).",
        "",
        f"- written: {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"- encoder: `{encoder}`",
        *(f"- quantised to int8: {name} {value:.5f}" for name, value in written.loss.items()),
        "",
        "## Made of",
        "",
        "| table | rows | SHA-256 of the data |",
        "| --- | ---: | --- |",
        *_tables(store),
        "",
        "## Licences",
        "",
        "The vectors are derived from the sources below, whose licences apply.",
        "",
        *([f"- {source}: {text}" for source, text in licences.items()] or ["- none is stated in the profile"]),
        "",
        "## Scores",
        "",
        *_scores(store),
        "",
        "## Limits",
        "",
        "- A vector is a mean over a cell: it says nothing about what lies where inside it.",
        "- Vectors of two encoders do not compare: see the fingerprint above.",
        "- Where people and POIs are few, the vector rests on imagery and on the neighbourhood.",
        "- The numbers have no meaning one by one; use them through a model, or by their angles.",
    ]


def _tables(store: Store) -> list[str]:
    rows = []
    for name in _MADE_OF:
        refs = (
            [TableRef(name, region) for region in store.regions(name)]
            if CONTRACTS[name].partitioned
            else [TableRef(name)]
        )
        there = [ref for ref in refs if store.exists(ref)]
        if there:
            number = sum(store.read(ref, [CONTRACTS[name].keys[0]]).num_rows for ref in there)
            versions = ", ".join(f"{ref.region or name} `{store.data_version(ref)[:12]}`" for ref in there[:10])
            more = f" and {len(there) - 10} more" if len(there) > 10 else ""
            rows.append(f"| {name} | {number:,} | {versions}{more} |")
    return rows


def _scores(store: Store) -> list[str]:
    if not store.exists(TableRef("geobench_scores")):
        return ["Not scored."]
    table = store.read(TableRef("geobench_scores"), ["task", "method", "probe", "split", "r2", "leak"])
    chosen = table.filter(
        pc.and_(
            pc.equal(table["method"], "embeddings"),
            pc.and_(pc.equal(table["probe"], "ridge"), pc.is_in(table["split"], pa.array(["random", "spatial"]))),
        )
    )
    lines = [
        "R2 of a ridge probe on units that it has not seen, all dimensions, mean over seeds; `spatial` holds out whole "
        "blocks. `*`: an input overlaps with the label.",
        "",
        "| task | random | spatial |",
        "| --- | ---: | ---: |",
    ]
    for task in sorted(set(chosen["task"].to_pylist())):
        rows = chosen.filter(pc.equal(chosen["task"], task))
        means = [
            float(np.mean(part))
            if len(part := rows.filter(pc.equal(rows["split"], split))["r2"].to_numpy())
            else np.nan
            for split in ("random", "spatial")
        ]
        star = "*" if any(rows["leak"].to_pylist()) else ""
        lines.append(f"| {task}{star} | {means[0]:.3f} | {means[1]:.3f} |")
    return lines
