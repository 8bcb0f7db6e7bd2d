"""Code versions: what makes an asset's code "new".

Belongs here: hashing the code and the settings behind an asset. Does not belong here: data versions (they are the
content of what was written, see `mobclip_core.store`).

Comments and layout do not count: Python is hashed as its syntax tree, SQL without its comments and white space.
"""

import ast
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import mobclip_core
from mobclip_core.sql import SQL_PLACES

_CORE = Path(mobclip_core.__file__).parent


def _python_files(module: str) -> list[Path]:
    path = _CORE / module
    return sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_NAMED = re.compile(r"""\bsql_text\(\s*["'](\w+)["']""")


@functools.cache
def _syntax(source: str) -> bytes:
    """Hash of the syntax tree of a module, without docstrings."""
    said: list[str] = []
    _say(ast.parse(source), said.append)
    return hashlib.sha256(" ".join(said).encode()).digest()


def _say(part: object, say: Callable[[str], None]) -> None:
    """What `ast.dump` says of a tree, in a fraction of its time: every command hashes a hundred modules."""
    if isinstance(part, ast.AST):
        say(part.__class__.__name__)
        documented = isinstance(part, _DOCUMENTED) and ast.get_docstring(part, clean=False) is not None
        for field in part._fields:
            value: Any = getattr(part, field, None)
            _say(value[1:] if documented and field == "body" else value, say)
    elif isinstance(part, list):
        say("[")
        for item in part:
            _say(item, say)
        say("]")
    else:
        say(repr(part))


def _statements(module: str) -> list[Path]:
    """Files of the SQL statements that a module runs: those it names in `sql_text("...")`."""
    names = {name for path in _python_files(module) for name in _NAMED.findall(path.read_text(encoding="utf-8"))}
    place = next(place for place in SQL_PLACES if place.is_dir())
    return [place / f"{name}.sql" for name in sorted(names)]


def _sql_statement(path: Path) -> str:
    lines = (line.split("--")[0] for line in path.read_text(encoding="utf-8").splitlines())
    return " ".join(" ".join(lines).split())


def code_version(modules: Iterable[str], sql_of: Iterable[str], settings: Iterable[BaseModel | None]) -> str:
    """The version of an asset's code: a hash over modules, SQL statements and the part of the profile it reads.

    Args:
        modules: Modules or packages of `mobclip_core`, as paths (`poi`, `mobility/edges`, `imagery`).
        sql_of: Modules whose SQL statements the asset runs.
        settings: Parts of the profile.
    """
    digest = hashlib.sha256()
    for module in sorted(modules):
        for path in _python_files(module):
            digest.update(_syntax(path.read_text(encoding="utf-8")))
    for module in sorted(sql_of):
        for path in _statements(module):
            digest.update(f"{path.name}:{_sql_statement(path)}".encode())
    for part in settings:
        digest.update(json.dumps(part.model_dump(mode="json") if part else None, sort_keys=True).encode())
    return digest.hexdigest()[:16]
