"""The code location: what `workspace.yaml` loads.

Belongs here: the one line that says which profile this code location serves, `MOBCLIP_PROFILE` or the demo. The set of
assets is the same for every profile; the profile decides partitions and settings.
"""

import os

from mobclip_assets.build import build_defs

defs = build_defs(os.environ.get("MOBCLIP_PROFILE", "demo"))
