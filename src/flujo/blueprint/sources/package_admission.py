"""Decides which installed packages a project takes blueprints from: those that it allows calls of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.blueprint.sources.package_files import PACKAGED, in_package
from flujo.blueprint.sources.source_files import SourceRefused
from flujo.domain.wording import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMPORT = "steps:\n  - {kind: import, name: answer, blueprint: 'pkg:acme_flows/answer.yaml'}"
PACKAGE_NOT_ALLOWED = rule(
    "FLJ330",
    "package-not-allowed",
    "A file of a package that the project does not allow",
    finds="A path `pkg:PACKAGE/FILE` whose package `allow_callables` in flujo.toml does not name. As "
    "for callables, a pattern such as `acme_flows.*` does not allow an installed package.",
    why="A blueprint decides which functions are called and which texts models get. A project names the "
    "packages that it takes blueprints from.",
    example=_IMPORT,
    instead=f'# flujo.toml: [blueprints] allow_callables = ["acme_flows"]\n{_IMPORT}',
)


class PackageNotAllowed(SourceRefused):
    """Raised for a file of a package that the project does not allow."""


def require_allowed(path: str, allow: Sequence[str] | None) -> None:
    """Return if a file may be read: every file of the project, and those of packages that `allow` names.

    Args:
        path: as named in a blueprint, relative to the project.
        allow: the patterns of `allow_callables`; None allows all, for what is only read.

    Raises:
        PackageNotAllowed: it is in another package.
    """
    packaged = in_package(path)
    if packaged is None or allow is None or packaged[0] in allow:
        return
    package, inside = packaged
    near = nearest(package, [each for each in allow if each.isidentifier()])
    raise PackageNotAllowed(
        f"`allow_callables` does not allow package `{package}`",
        f'add "{package}" to `allow_callables` under `[blueprints]` in flujo.toml'
        if near is None
        else f"did you mean `{PACKAGED}{near}/{inside}`?",
    )
