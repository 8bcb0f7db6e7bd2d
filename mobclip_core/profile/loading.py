"""Reading a profile from its YAML file.

Belongs here: finding the file, filling in variables and paths, and the errors that say what is wrong with it.
Does not belong here: the schema.

Paths in a profile may hold `${NAME}` or `${NAME:-default}`. A relative path starts at the folder of the YAML file; a
relative path inside an environment variable starts at the working directory, as on a command line.
"""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mobclip_core.errors import ProfileError, shown_file
from mobclip_core.profile.model import Profile

PROFILES_DIR = Path(__file__).resolve().parents[2] / "dagster_home" / "profiles"
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's safe loader, in C where it was built with it: every step reads the profile, and the other takes 0.2 s."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def profile_path(name_or_path: str) -> Path:
    """The YAML file of a profile given by name (under `dagster_home/profiles`) or by path.

    Raises:
        ProfileError: If there is no such file.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILES_DIR / f"{name_or_path}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PROFILES_DIR.glob("*.yaml"))
        raise ProfileError(f"no profile {name_or_path!r}: {path} is not a file; profiles here: {known}")
    return path.resolve()


def load_profile(name_or_path: str) -> Profile:
    """Read and check a profile.

    Args:
        name_or_path: Name of a profile under `dagster_home/profiles`, or path of a YAML file.

    Raises:
        ProfileError: Naming the file and, for every problem, the key, the value found and what was expected.
    """
    path = profile_path(name_or_path)
    try:
        # the safe loader's, but for numbers
        raw = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_YAML)  # nosec B506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ProfileError(f"{path}: found {type(raw).__name__}, expected a mapping of keys")
    try:
        return Profile.model_validate(_expand(raw, path))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            # the kind that a section was read as is no key of the file
            parts = [str(part) for part in problem["loc"] if not str(part).startswith("kind:")]
            key = ".".join(parts) or "(whole file)"
            found = problem["input"]
            shown = type(found).__name__ if isinstance(found, dict | list | BaseModel) else repr(found)
            lines.append(f"\n  - {key}: found {shown}, expected: {problem['msg']}")
        raise ProfileError(f"{path}: {len(lines)} problem(s){''.join(lines)}") from None


def profile_variables(name_or_path: str) -> list[str]:
    """Names of the environment variables that a profile refers to, sorted.

    Args:
        name_or_path: As for `load_profile`.

    Raises:
        ProfileError: If there is no such profile.
    """
    raw = yaml.safe_load(profile_path(name_or_path).read_text(encoding="utf-8-sig"))
    # of the values only: comments may show an example
    return sorted({name for name, _ in _VARIABLE.findall(repr(raw))})


SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "https", "http", "file", "memory")
"""Where files may lie. Others of fsspec's run programs or reach into other machines (`ssh`, `simplecache::`, ...)."""


def _require_known_scheme(value: str, path: Path, where: str) -> None:
    scheme, separator, _ = value.partition("://")
    if "::" in value or (separator and scheme.lower() not in SCHEMES):
        raise ProfileError(
            f"{path}: {where}: files are not read from {shown_file(value)!r}; expected a path or one of "
            + ", ".join(f"{scheme}://" for scheme in SCHEMES)
        )


_PATH_KEYS = {"file", "storage", "positions", "dasymetric", "checkpoint", "spill_directory", "folder"}


def _expand(value: Any, path: Path, key: str = "", where: str = "") -> Any:
    """Fill in variables and make paths absolute, all over a YAML tree."""
    if isinstance(value, dict):
        return {k: _expand(v, path, str(k), f"{where}.{k}" if where else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        # a list under a key that takes paths is a list of paths
        return [_expand(v, path, key if key in _PATH_KEYS else "", f"{where}.{i}") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    is_path = key in _PATH_KEYS or (key == "zones" and Path(value).suffix != "")
    # a model is a name on a hub unless it is written as a path
    is_path = is_path or (key == "model" and value.startswith(("./", "../")))

    def fill(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name, "")
        if found:
            starts_path = is_path and match.start() == 0 and "://" not in found
            return str(Path(found).absolute()) if starts_path else found
        if default is None:
            raise ProfileError(
                f"{path}: {where}: environment variable {name} is not set; set it or write ${{{name}:-default}}"
            )
        return default

    value = _VARIABLE.sub(fill, value)
    if is_path:
        _require_known_scheme(value, path, where)
    if is_path and "://" not in value and not Path(value).is_absolute():
        return os.path.normpath(path.parent / value)
    return value
