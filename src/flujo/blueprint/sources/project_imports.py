"""The modules of the project that a module imports, directly or not; by source text, without imports."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from flujo.blueprint.sources.source_files import SourceRefused
from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.blueprint.sources.source_files import Source

_IMPORTERS = ("import_module", "__import__")
MOST = 2000
"""The maximum number of modules to follow."""


def imported_files(module: str, source: Source) -> Mapping[str, str]:
    """Return the files of a module and of all project modules that it imports, each with its digest.

    Imports inside functions count, as do the packages around a module. Modules that the project does not
    contain are left out.
    """
    files: dict[str, str] = {}
    waiting, seen = [module], {module}
    while waiting and len(seen) < MOST:
        name = waiting.pop()
        found = _read(name, source)
        if found is None:
            continue
        path, data = found
        files[path] = canonical.digest(data.replace(b"\r\n", b"\n"))
        package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
        fresh = {*_parents(name), *_imports(data, package)} - seen
        seen |= fresh
        waiting += sorted(fresh)
    return dict(sorted(files.items()))


def _read(module: str, source: Source) -> tuple[str, bytes] | None:
    stem = module.replace(".", "/")
    for path in (f"{stem}/__init__.py", f"{stem}.py"):
        try:
            return path, source.read(path)
        except (SourceRefused, ValueError):
            continue
    return None


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _imports(data: bytes, package: str) -> Iterator[str]:
    """Yield the names of all modules that a source may import; `from a import b` may mean `a.b`."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.rsplit(".", level - 1)[0] if level else ""
                base = ".".join(filter(None, [above, module]))
                if base:
                    yield base
                yield from (f"{base}.{each.name}" if base else each.name for each in names)
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)) if called in _IMPORTERS:
                yield from _named(node, package)
            case _:
                pass


def _named(call: ast.Call, package: str) -> Iterator[str]:
    """Yield the name of the module that a call imports, if it is a constant."""
    given = (*call.args, *(word.value for word in call.keywords))
    texts = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if texts and (name := texts[0].lstrip(".")):
        level = len(texts[0]) - len(name)
        above = (texts[1] if len(texts) > 1 else package).rsplit(".", level - 1)[0] if level else ""
        yield ".".join(filter(None, [above, name]))
