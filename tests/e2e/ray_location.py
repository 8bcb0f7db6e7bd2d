"""The code location of `test_ray`: the deployment's own definitions, and jobs for the regional assets."""

import os

import dagster as dg

from mobclip_assets.build import build_defs
from mobclip_assets.execution import Execution
from tests.e2e.ray_backfill import JOBS

defs = dg.Definitions.merge(
    build_defs(os.environ["MOBCLIP_PROFILE"], Execution.from_environment()),
    dg.Definitions(
        jobs=[dg.define_asset_job(name, dg.AssetSelection.assets(*assets)) for name, assets in JOBS.items()]
    ),
)
