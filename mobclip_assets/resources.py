"""Resources: what assets are given.

Belongs here: the deployment (profile and lake). Does not belong here: computing.
"""

import dagster as dg

from mobclip_core.deployment import Deployment


class DeploymentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The deployment that the code location serves.

    Args:
        profile: Name of a profile under `dagster_home/profiles`, or path of its YAML file.
    """

    profile: str

    def open(self) -> Deployment:
        """Read the profile afresh and open its lake."""
        return Deployment.open(self.profile)
