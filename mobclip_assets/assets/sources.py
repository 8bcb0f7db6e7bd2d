"""Sources: the raw files, as observable assets, so that lineage begins where the data come from.

Belongs here: naming the files of a profile and looking whether they changed. Does not belong here: reading them.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from mobclip_core.errors import shown_file
from mobclip_core.profile import PopulationLabel, Profile

GROUP = "sources"


def source_key(name: str) -> dg.AssetKey:
    """Key of the external asset of a raw file."""
    return dg.AssetKey(["source", name])


def source_files(profile: Profile) -> dict[str, list[str]]:
    """Name of each source of the profile -> its paths, URLs and patterns, as the profile gives them."""
    parts: dict[str, Any] = {"regions": profile.regions, "census": profile.census}
    parts |= {f"zones_{name}": layer for name, layer in profile.zones.items()}
    parts |= {f"poi_{name}": source for name, source in profile.poi.points.items()}
    parts |= {f"poi_{name}": source for name, source in profile.poi.zone_counts.items()}
    parts |= {f"mobility_{name}": source for name, source in profile.mobility.sources.items()}
    labels = {f"label_{name.lower()}": task.label for name, task in profile.tasks.items()}
    parts |= {name: label for name, label in labels.items() if not isinstance(label, PopulationLabel)}
    external = profile.evaluation.external
    parts |= {f"embedding_{name}": found for name, found in external.items() if found.file is not None}
    files = {name: [part.file] if isinstance(part.file, str) else list(part.file) for name, part in parts.items()}
    return files | {"imagery": profile.imagery.files}


def source_names(profile: Profile, prefix: str) -> list[dg.AssetKey]:
    """Keys of the sources whose name starts with a prefix."""
    return [source_key(name) for name in source_files(profile) if name.startswith(prefix)]


def source_version(files: Sequence[str]) -> dg.DataVersion:
    """Version of a source from the size and time of change (or ETag) of its files; they are not read."""
    from mobclip_core.sources.tables import file_signature

    return dg.DataVersion(hashlib.sha256("\n".join(map(file_signature, files)).encode()).hexdigest())


def make_sources(profile: Profile) -> dg.AssetsDefinition:
    """One observable asset for the raw files of each source of the profile."""
    files_of = {source_key(name): files for name, files in source_files(profile).items()}
    shown = {key: [shown_file(file) for file in files] for key, files in files_of.items()}

    def observe_sources(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        """Look whether the raw files changed; what was made from older ones shows as stale."""
        for key in sorted(context.selected_asset_keys):
            yield dg.ObserveResult(asset_key=key, data_version=source_version(files_of[key]))

    with warnings.catch_warnings():
        # marked as beta in this version of Dagster, which is pinned exactly
        warnings.simplefilter("ignore", dg.BetaWarning)
        observable: dg.AssetsDefinition = dg.multi_observable_source_asset(
            name="observe_sources",
            can_subset=True,
            specs=[
                dg.AssetSpec(
                    key,
                    description="Raw files " + ", ".join(f"`{PurePosixPath(file).name}`" for file in files) + ".",
                    group_name=GROUP,
                    owners=profile.owners,
                    kinds={PurePosixPath(files[0].removesuffix(".gz")).suffix.lstrip(".") or "file"},
                    metadata={"files" if len(files) > 1 else "file": dg.MetadataValue.path(", ".join(files))},
                )
                for key, files in shown.items()
            ],
        )(observe_sources)
    return observable
