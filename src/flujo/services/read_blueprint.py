"""Blueprints for programs: the pipeline that a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline


def read_blueprint(name: str) -> Pipeline[Any, Any]:
    """Return the pipeline of a blueprint of this project, to run it or to make a step of it.

    Nothing that it names is imported; that is done by the runner, which asks `[blueprints] allow_callables`.

    Args:
        name: a path, a file's stem, or the name that the blueprint gives itself.

    Raises:
        SettingsError: no blueprint, or several, are meant.
        BlueprintError: it does not pass its checks.
    """
    here = Path.cwd()
    project = find_project(here)
    return Workspace(project).load(project.locate(name, here)).pipeline
