"""Building the definitions of one deployment.

Belongs here: putting assets, checks, jobs and resources together, so that tests can build a deployment of their own.
Does not belong here: reading the environment (see `definitions`).
"""

from functools import partial

import dagster as dg

from mobclip_assets.alerts import make_alert_sensors
from mobclip_assets.assets import features, geobench, geography, mobility, model, publishing, sources
from mobclip_assets.automation import make_schedules, make_sensors
from mobclip_assets.execution import Execution
from mobclip_assets.jobs import make_jobs
from mobclip_assets.making import AssetMaker
from mobclip_assets.partitions import make_regions
from mobclip_assets.regressions import make_regression_check
from mobclip_assets.resources import DeploymentResource
from mobclip_core.profile import load_profile, profile_path

_GROUPS = (geography, features, mobility, model, geobench, publishing)


def build_defs(profile: str, execution: Execution | None = None) -> dg.Definitions:
    """The definitions of one profile.

    Args:
        profile: Name of a profile under `dagster_home/profiles`, or path of its YAML file.
        execution: What runs the steps of launched runs; processes of this machine if None.

    Raises:
        ProfileError: If the profile is not valid.
    """
    loaded = load_profile(profile)
    regions = make_regions(loaded)
    execution = execution or Execution()
    make = AssetMaker(loaded, regions, partial(execution.op_tags, loaded))
    return dg.Definitions(
        assets=[sources.make_sources(loaded), *(asset for group in _GROUPS for asset in group.make_assets(make))],
        asset_checks=[make_regression_check()],
        jobs=make_jobs(),
        sensors=[*make_sensors(loaded, profile), *make_alert_sensors(loaded)],
        schedules=make_schedules(loaded, regions),
        resources={"deployment": DeploymentResource(profile=str(profile_path(profile)))},
        executor=execution.executor(profile),
    )
