"""Modules of one folder do not import each other in a circle, imports for types included."""

from __future__ import annotations

from functools import cache

import grimp
import pytest

from architecture.source import SRC

FOLDERS = sorted(path.name for path in SRC.iterdir() if path.is_dir() and (path / "__init__.py").exists())


@cache
def graph() -> grimp.ImportGraph:
    """Return all imports of flujo, those for types included."""
    return grimp.build_graph("flujo", exclude_type_checking_imports=False, cache_dir=None)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_no_circle(folder: str) -> None:
    found = circle(f"flujo.{folder}")
    assert not found, " -> ".join(found)


def circle(package: str) -> tuple[str, ...]:
    """Return the modules of one circle of imports inside `package`, or nothing."""
    inside = {module for module in graph().modules if module.startswith(f"{package}.")}
    finished: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> tuple[str, ...]:
        if module in way:
            return (*way[way.index(module) :], module)
        if module in finished:
            return ()
        for imported in sorted(graph().find_modules_directly_imported_by(module) & inside):
            if found := follow(imported, (*way, module)):
                return found
        finished.add(module)
        return ()

    return next(filter(None, (follow(module, ()) for module in sorted(inside))), ())
