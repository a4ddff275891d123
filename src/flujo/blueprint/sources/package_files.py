"""The folders of installed packages that a project may import blueprints from; their code is not executed."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.domain.wording import nearest, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGED = "pkg:"
"""The beginning of a path in a package: `pkg:acme_flows/greet.yaml`."""

_PATH = re.compile(r"pkg:([A-Za-z_][A-Za-z0-9_]*)/(.+)", re.ASCII)
_BLUEPRINTS = (".yaml", ".yml")


def in_package(path: str) -> tuple[str, str] | None:
    """Return the package and the path inside it, or None for a path of the project."""
    found = _PATH.fullmatch(path)
    return None if found is None else (found[1], found[2])


def folders_of(package: str) -> Sequence[Path]:
    """Return the folders of an installed package: none if there is no such package, or several."""
    try:
        spec = find_spec(package)
    except ValueError:  # a module that was loaded without a spec
        return ()
    places = () if spec is None else spec.submodule_search_locations or ()
    return [Path(place) for place in places if Path(place).is_dir()]


def packages_like(package: str, inside: str) -> str:
    """Return a hint with the file of an installed package of a similar name, or an empty text."""
    near = nearest(package, sorted(packages_distributions()))
    return "" if near is None else f"did you mean `{PACKAGED}{near}/{inside}`?"


def blueprints_like(package: str, inside: str, folders: Sequence[Path]) -> str:
    """Return a hint with the blueprints of a package, or an empty text if it has none."""
    known = {
        f"{PACKAGED}{package}/{found.relative_to(folder).as_posix()}"
        for folder in folders
        for found in folder.rglob("*")
        if found.suffix in _BLUEPRINTS
    }
    return suggest(f"{PACKAGED}{package}/{inside}", sorted(known), what="its blueprints")
