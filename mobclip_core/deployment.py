"""A deployment: a profile together with its lake.

Belongs here: opening the two together, and the record of a step's outcome. Does not belong here: any computing.
"""

from dataclasses import dataclass, field
from pathlib import Path

from mobclip_core.profile import PROFILES_DIR, Profile, load_profile
from mobclip_core.sources.remote import is_remote, require_reachable
from mobclip_core.store import Store, Written

Count = int | float | str


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Args:
        written: What it wrote.
        counts: Numbers a person should see: rows read, dropped by reason, totals. Keys are snake_case with units.
        pictures: PNG images by title.
        markdown: Small tables by title.
    """

    written: Written
    counts: dict[str, Count] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    markdown: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployment:
    """A profile and its store: what every `build_*` step takes first."""

    profile: Profile
    store: Store

    @classmethod
    def open(cls, name_or_path: str) -> "Deployment":
        """Open by profile name or path of the YAML file."""
        profile = load_profile(name_or_path)
        root = profile.storage or str(PROFILES_DIR.parent / "lake" / profile.name)
        if is_remote(root):
            require_reachable(root)
        elif "://" not in root:
            Path(root).mkdir(parents=True, exist_ok=True)
        return cls(profile, Store(root))


@dataclass(frozen=True)
class CheckOutcome:
    """What a data check found.

    Args:
        passed: Whether the rule holds.
        message: One sentence for people.
        numbers: The numbers behind it.
    """

    passed: bool
    message: str
    numbers: dict[str, Count] = field(default_factory=dict)
