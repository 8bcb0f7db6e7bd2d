"""Sources: the raw files, as external assets, so that lineage begins where the data come from.

Belongs here: naming the files of a profile. Does not belong here: reading them.
"""

from pathlib import PurePosixPath

import dagster as dg

from mobclip_core.profile import Profile

GROUP = "sources"


def source_key(name: str) -> dg.AssetKey:
    """Key of the external asset of a raw file."""
    return dg.AssetKey(["source", name])


def _files(profile: Profile) -> dict[str, str]:
    files = {"regions": profile.regions.file, "census": profile.census.file, "imagery": profile.imagery.file}
    files |= {f"zones_{name}": layer.file for name, layer in profile.zones.items()}
    files |= {f"poi_{name}": source.file for name, source in profile.poi.points.items()}
    files |= {f"poi_{name}": source.file for name, source in profile.poi.zone_counts.items()}
    files |= {f"mobility_{name}": source.file for name, source in profile.mobility.sources.items()}
    return files | {f"label_{name.lower()}": task.label.file for name, task in profile.tasks.items()}


def source_names(profile: Profile, prefix: str) -> list[dg.AssetKey]:
    """Keys of the sources whose name starts with a prefix."""
    return [source_key(name) for name in _files(profile) if name.startswith(prefix)]


def make_sources(profile: Profile) -> list[dg.AssetSpec]:
    """One external asset for each raw file of the profile."""
    return [
        dg.AssetSpec(
            source_key(name),
            description=f"Raw file `{PurePosixPath(file).name}`.",
            group_name=GROUP,
            owners=profile.owners,
            kinds={PurePosixPath(file.removesuffix(".gz")).suffix.lstrip(".") or "file"},
            metadata={"file": dg.MetadataValue.path(file)},
        )
        for name, file in _files(profile).items()
    ]
