"""Imports of a project's own modules: the process works in one project at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


class _ProjectRoot(str):
    """An entry of `sys.path` that stands for a project. Restoring `sys.path` forgets the project as well."""

    __slots__ = ()


def importable(root: Path) -> None:
    """Let the modules below `root` be imported, and no longer those of the project before.

    Raises:
        SettingsError: a module of the project before is loaded under the name of one of this project's.
    """
    if str(root) in sys.path:
        return
    for before in [entry for entry in sys.path if isinstance(entry, _ProjectRoot)]:
        for name in _shadows(Path(before), root):
            raise SettingsError(
                f"module `{name}` of project {root} cannot be imported: this process has loaded that of "
                f"project {before}",
                hint="use one process per project, or rename one of the modules",
                module=name,
            )
        sys.path.remove(before)
    sys.path.insert(0, _ProjectRoot(root))


def _shadows(before: Path, root: Path) -> Iterator[str]:
    """Yield the names of loaded modules that `before` and `root` both have."""
    # The names of a project are few, and a process has loaded thousands of modules.
    own = {each.name if each.is_dir() else each.stem for each in root.glob("*") if _is_importable(each)}
    for name in sorted(own & sys.modules.keys()):
        if any(file.is_relative_to(before) for file in files_of(sys.modules[name])):
            yield name


def _is_importable(entry: Path) -> bool:
    return entry.suffix == ".py" or entry.is_dir()


def files_of(module: ModuleType) -> list[Path]:
    """Return the file of a loaded module; the folders of one without a file."""
    file = getattr(module, "__file__", None)
    return [Path(file)] if file else [Path(each) for each in getattr(module, "__path__", ())]
