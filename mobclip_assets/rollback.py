"""Going back to an earlier encoder that the lake still has.

Belongs here: making its bundle the current one and telling Dagster, so that vectors of the other encoder are stale.
Does not belong here: embedding with it (a refresh does), training.
"""

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG, extract_data_version_from_entry

from mobclip_core.deployment import Deployment
from mobclip_core.errors import MobclipError

ENCODER = "encoder"


def use_encoder(instance: dg.DagsterInstance, deployment: Deployment, version: str) -> str:
    """Make an earlier encoder the current one.

    Dagster gets a materialisation of the encoder with the versions of code and inputs that it was made of: the
    embeddings of every region become stale, and the sensor `refresh` or a backfill makes them again.

    Args:
        instance: Dagster instance of the profile.
        deployment: Profile and lake.
        version: The beginning of a version in the lake, long enough to be of one only.

    Returns:
        The whole version.

    Raises:
        MobclipError: If no version, or more than one, begins so.
    """
    there = deployment.store.bundle_versions(ENCODER)
    found = [name for name in there if name.startswith(version)]
    if len(found) != 1:
        what = "more than one" if found else "none"
        raise MobclipError(
            f"{what} of the encoders in the lake begins with {version!r}: {', '.join(there) or 'no encoder'}"
        )
    written = deployment.store.use_bundle(ENCODER, found[0])
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            ENCODER,
            metadata={"bytes": written.bytes, "rolled_back": True},
            tags=_tags_of(instance, written.data_version),
        )
    )
    return written.data_version


def _tags_of(instance: dg.DagsterInstance, version: str) -> dict[str, str]:
    """Tags of the materialisation that made a version: data version, code version, versions of inputs."""
    for record in instance.fetch_materializations(dg.AssetKey(ENCODER), limit=1000).records:
        known = extract_data_version_from_entry(record.event_log_entry)
        if known is not None and known.value == version and record.asset_materialization is not None:
            return dict(record.asset_materialization.tags or {})
    return {DATA_VERSION_TAG: version}
