"""The Dagster instance of a profile.

Belongs here: where Dagster keeps the events of a profile, and the environment that its processes need. Does not belong
here: running anything.

`DAGSTER_HOME`, when set, is used as it is: one instance, one deployment. Otherwise each profile has an instance of its
own under `dagster_home/instances`, so that the demo's history and a country's do not mix; all share one `dagster.yaml`.
"""

import os
from pathlib import Path

from mobclip_core.profile import PROFILES_DIR, load_profile, profile_path

_HOME = PROFILES_DIR.parent


def instance_home(profile: str) -> Path:
    """Folder of the Dagster instance that serves a profile, made if it is not there."""
    if os.environ.get("DAGSTER_HOME"):
        return Path(os.environ["DAGSTER_HOME"]).absolute()
    home = _HOME / "instances" / load_profile(profile).name
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        configuration.symlink_to(os.path.relpath(_HOME / "dagster.yaml", home))
    return home


def enter_instance(profile: str) -> None:
    """Set the environment so that this process and its children serve a profile."""
    os.environ["DAGSTER_HOME"] = str(instance_home(profile))
    os.environ["MOBCLIP_PROFILE"] = str(profile_path(profile))
