"""The model card: what a trained encoder was made of, how well it does, what it is not for.

Belongs here: the text. Does not belong here: the scores (see `evaluation.scores`), the files (see `checkpoint`).

Source: Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (https://arxiv.org/abs/1810.03993).
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobclip_core.encoder.checkpoint import TrainedEncoder
    from mobclip_core.profile import Profile

FILE = "model_card.md"

_LIMITS = """\
- A vector describes a place, not the people in it; it says nothing about any one of them.
- Cells that no mobility record reaches have vectors from their other features and their neighbours alone.
- Vectors of two encoders live in two spaces: never mix fingerprints in one downstream model.
- What the sources leave out (people without phones, unmapped shops, clouds over an image) the vectors leave out too.
- Scores on random splits flatter: a place is read off its neighbours. Trust the spatial blocks."""


def model_card(encoder: "TrainedEncoder", profile: "Profile", scores: Mapping[str, str] | None = None) -> str:
    """The card as Markdown; the same for the same encoder, profile and scores.

    Args:
        encoder: The trained encoder.
        profile: Whose data it was trained on.
        scores: Tables of scores (Markdown) by title; none before the evaluation.
    """
    options = encoder.config["encoder"]
    loss = encoder.history["validation"][encoder.best_epoch]
    parts = [
        f"# Encoder of {profile.name}",
        profile.description or "",
        f"Fingerprint `{encoder.fingerprint}`. Method: MobCLIP (arXiv 2506.01297), with the options below.",
        "## Data",
        _table(_made_of(encoder, profile)),
        "Versions of the tables it was trained on (SHA-256 over the versions of all regions; each in `config.json`):",
        _table(_versions(encoder.config["inputs"])),
        "## Training",
        f"{len(encoder.history['train'])} epochs; the best was number {encoder.best_epoch + 1}, with a loss of "
        f"{loss:.4f} on held-out spatial blocks.",
        _table(_flat(options)),
        "## Scores",
        *(f"### {title}\n\n{table}" for title, table in (scores or {}).items()),
        *(
            []
            if scores
            else ["Not evaluated yet: materialise `geobench_scores`, and read `model_card.md` in the lake."]
        ),
        "## Limits",
        _LIMITS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _made_of(encoder: "TrainedEncoder", profile: "Profile") -> dict[str, object]:
    resolution, regions = profile.grid.resolution, len(profile.regions.region_keys)
    k, noise = profile.mobility.minimum_people, profile.mobility.noise
    counts = {name.replace("_", " "): value for name, value in encoder.config.get("counts", {}).items()}
    return {
        "grid": f"H3 resolution {resolution}, {regions} regions",
        **counts,
        "privacy of mobility": f"an edge is made by at least {k} people" + ("; noise on its weight" if noise else ""),
        "image encoder": encoder.config["image_encoder"] or "none",
    }


def _flat(options: Mapping[str, Any]) -> dict[str, object]:
    """Options by name, those of an option's own as `name.part`; what is not set is left out."""
    rows: dict[str, object] = {}
    for name, value in sorted(options.items()):
        if isinstance(value, Mapping):
            rows |= {f"{name}.{part}": inner for part, inner in _flat(value).items()}
        elif value is not None:
            rows[name] = value
    return rows


def _table(rows: Mapping[str, object]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _versions(inputs: Mapping[str, str]) -> dict[str, str]:
    """One short hash a table, from those of its partitions."""
    tables: dict[str, list[str]] = {}
    for name, version in sorted(inputs.items()):
        tables.setdefault(name.partition("[")[0], []).append(version)
    return {name: hashlib.sha256("".join(found).encode()).hexdigest()[:16] for name, found in tables.items()}
