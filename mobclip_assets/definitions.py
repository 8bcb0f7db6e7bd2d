"""The code location: what `workspace.yaml` loads.

Belongs here: the one line that says which profile this code location serves, `MOBCLIP_PROFILE` or the demo, and what
runs its steps (see `execution`). The set of assets is the same for every profile; the profile decides partitions and
settings.
"""

import os

from mobclip_assets.build import build_defs
from mobclip_assets.execution import Execution

defs = build_defs(os.environ.get("MOBCLIP_PROFILE", "demo"), Execution.from_environment())
