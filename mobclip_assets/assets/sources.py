"""Sources: the raw files, as external assets, so that lineage begins where the data come from.

Belongs here: naming the files of a profile. Does not belong here: reading them.
"""

from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from mobclip_core.profile import PopulationLabel, Profile

GROUP = "sources"


def source_key(name: str) -> dg.AssetKey:
    """Key of the external asset of a raw file."""
    return dg.AssetKey(["source", name])


def _files(profile: Profile) -> dict[str, list[str]]:
    parts: dict[str, Any] = {"regions": profile.regions, "census": profile.census, "imagery": profile.imagery}
    parts |= {f"zones_{name}": layer for name, layer in profile.zones.items()}
    parts |= {f"poi_{name}": source for name, source in profile.poi.points.items()}
    parts |= {f"poi_{name}": source for name, source in profile.poi.zone_counts.items()}
    parts |= {f"mobility_{name}": source for name, source in profile.mobility.sources.items()}
    labels = {f"label_{name.lower()}": task.label for name, task in profile.tasks.items()}
    parts |= {name: label for name, label in labels.items() if not isinstance(label, PopulationLabel)}
    return {name: [part.file] if isinstance(part.file, str) else list(part.file) for name, part in parts.items()}


def source_names(profile: Profile, prefix: str) -> list[dg.AssetKey]:
    """Keys of the sources whose name starts with a prefix."""
    return [source_key(name) for name in _files(profile) if name.startswith(prefix)]


def make_sources(profile: Profile) -> list[dg.AssetSpec]:
    """One external asset for the raw files of each source of the profile."""
    return [
        dg.AssetSpec(
            source_key(name),
            description="Raw files " + ", ".join(f"`{PurePosixPath(file).name}`" for file in files) + ".",
            group_name=GROUP,
            owners=profile.owners,
            kinds={PurePosixPath(files[0].removesuffix(".gz")).suffix.lstrip(".") or "file"},
            metadata={"files" if len(files) > 1 else "file": dg.MetadataValue.path(", ".join(files))},
        )
        for name, files in _files(profile).items()
    ]
