"""What `flujo types` has written down of the project's Python types: read, and held against the source.

One file a module, `schemas/PACKAGE.MODULE.json`, with the digests of the source files that its schemas follow
from: the module, and the modules of the project that it imports. So a check knows without importing anything
whether a schema still says what the code says.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.blueprint.sources.source_files import SourceRefused
from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.blueprint.schemas.algebra import Schema
    from flujo.blueprint.sources.source_files import Source

FOLDER = "schemas"


@dataclass(frozen=True)
class ModuleTypes:
    """What is written down of one module."""

    path: str
    types: Mapping[str, Schema] = field(default_factory=dict)
    """The schema of each class, or of what each function returns, by its name."""
    changed: str | None = None
    """What is not as it was when the file was written; the types are not to be trusted then."""


def path_of(module: str) -> str:
    """Return the project path of the file that tells of a module's types."""
    return f"{FOLDER}/{module}.json"


def written(module: str, types: Mapping[str, Schema], source: Source) -> bytes:
    """Return the bytes of a module's file: the same for the same types and sources, on every machine."""
    data = {"version": 1, "module": module, "sources": digests(module, source), "types": dict(types)}
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_types(module: str, source: Source) -> ModuleTypes | None:
    """Return what is written down of a module; None when there is no file about it."""
    path = path_of(module)
    try:
        data = json.loads(source.read(path))
        said, types = dict(data["sources"]), dict(data["types"])
        known = data["version"] == 1
    except SourceRefused as refused:
        return None if refused.missing else ModuleTypes(path, changed=f"{path} is not read: {refused.reason}")
    except (ValueError, TypeError, KeyError, RecursionError):
        return ModuleTypes(path, changed=f"{path} is not what `flujo types` writes")
    now = digests(module, source)
    if not known or said != now:
        differing = sorted(one for one in {*said, *now} if said.get(one) != now.get(one))
        return ModuleTypes(path, types, f"{(differing or [path])[0]} has changed since {path} was written")
    return ModuleTypes(path, types)


def is_ours(module: str, data: bytes) -> bool:
    """Return whether a file in the folder is about this module's types, and not somebody else's."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("module") == module and "sources" in said and "types" in said


# Where a module's types come from ------------------------------------------------------------------------


def digests(module: str, source: Source) -> dict[str, str]:
    """Return the digest of a module's file and of each file of the project that it imports, by path."""
    found: dict[str, str] = {}
    waiting = [module]
    for name in waiting:  # the list grows while it is read
        read = _read(name, source)
        if read is not None and read[0] not in found:
            path, data = read
            found[path] = canonical.digest(data)
            package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
            waiting += _imported(data, package)
    return found


def _read(module: str, source: Source) -> tuple[str, bytes] | None:
    stem = module.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        try:
            return path, source.read(path)
        except SourceRefused:
            continue
    return None


def _imported(data: bytes, package: str) -> Iterator[str]:
    """Yield every module that a source may import: the text does not say which names are modules."""
    try:
        nodes: list[Any] = list(ast.walk(ast.parse(data)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in nodes:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join(filter(None, (*around, node.module)))
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
            case _:
                pass
