"""Building the definitions of one deployment.

Belongs here: putting assets, checks, jobs and resources together, so that tests can build a deployment of their own.
Does not belong here: reading the environment (see `definitions`).
"""

import dagster as dg

from mobclip_assets.assets import features, geobench, geography, mobility, model, publishing, sources
from mobclip_assets.checks import make_checks
from mobclip_assets.jobs import make_jobs
from mobclip_assets.making import AssetMaker
from mobclip_assets.partitions import make_regions
from mobclip_assets.resources import DeploymentResource
from mobclip_core.profile import load_profile, profile_path

# a fresh interpreter for every step would spend most of its time importing
_EXECUTOR = dg.multi_or_in_process_executor.configured(
    {
        "multiprocess": {
            "max_concurrent": 2,
            "start_method": {"forkserver": {"preload_modules": ["mobclip_assets.definitions"]}},
        }
    }
)
_GROUPS = (geography, features, mobility, model, geobench, publishing)


def build_defs(profile: str) -> dg.Definitions:
    """The definitions of one profile.

    Args:
        profile: Name of a profile under `dagster_home/profiles`, or path of its YAML file.

    Raises:
        ProfileError: If the profile is not valid.
    """
    loaded = load_profile(profile)
    regions = make_regions(loaded)
    make = AssetMaker(loaded, regions)
    return dg.Definitions(
        assets=[*sources.make_sources(loaded), *(asset for group in _GROUPS for asset in group.make_assets(make))],
        asset_checks=make_checks(regions),
        jobs=make_jobs(),
        resources={"deployment": DeploymentResource(profile=str(profile_path(profile)))},
        executor=_EXECUTOR,
    )
