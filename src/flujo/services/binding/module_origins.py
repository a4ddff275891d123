"""Where a module comes from: the version of a library, or the sources of the project."""

from __future__ import annotations

import functools
import os
import sys
import typing
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from flujo.blueprint.sources.callables import is_installed, is_installed_file
from flujo.blueprint.sources.project_imports import imported_files
from flujo.blueprint.sources.source_files import FileSource
from flujo.domain import canonical

READS_PROCESS = frozenset({"os.getenv", "posix.getcwd", "nt.getcwd", "posix.getlogin", "getpass.getuser"})
"""Functions of Python that read the state of the process."""


def is_library(module: str) -> bool:
    """Return whether a module belongs to Python, to Flujo or to an installed package, imported or not."""
    top = module.partition(".")[0]
    if top == "__main__":
        return False
    if top == "flujo" or top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return True
    return _is_loaded_library(module) if module in sys.modules else _is_findable_library(top)


@functools.lru_cache(maxsize=4096)
def _is_loaded_library(module: str) -> bool:
    found = sys.modules.get(module)
    return getattr(found, "__file__", None) is not None and is_installed(found)


@functools.lru_cache(maxsize=1024)
def _is_findable_library(top: str) -> bool:
    """Return whether the import of a top-level module would find an installed one."""
    found = PathFinder.find_spec(top)
    return found is not None and found.origin is not None and is_installed_file(found.origin)


@functools.lru_cache(maxsize=512)
def version(module: str) -> str:
    """Return the version of the package of a module; of Python for a module of its own."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"python {sys.version_info.major}.{sys.version_info.minor}"
    for name in (top, *_distributions().get(top, ())):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return top


@functools.cache
def _distributions() -> typing.Mapping[str, list[str]]:
    return metadata.packages_distributions()


@functools.lru_cache(maxsize=1024)
def sources(module: str) -> Any:
    """Return the digest of a module's source and of the project's modules that it imports, as first read."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or is_library(module):
        return None
    path = Path(os.path.realpath(file))
    if module == "__main__":
        root, name = path.parent, path.stem
    else:
        inner = module.count(".") + (path.stem == "__init__")
        root, name = path.parents[inner], module
    files = imported_files(name, FileSource(root))
    return canonical.digest(canonical.encode(files))
