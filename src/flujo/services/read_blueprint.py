"""Loads a blueprint as a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.services.given import text
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline


def read_blueprint(name: str) -> Pipeline[Any, Any]:
    """Return the pipeline of a blueprint of this project, to run it or use it as a step.

    Imports none of its callables; the runner imports them, subject to `[blueprints] allow_callables`.

    A runner of this pipeline executes runs as `flujo run` does: they pin the blueprint's files, and the
    command line and workers can resume them. A pipeline that Python makes from it (`dataclasses.replace`,
    `>>`) counts as written in Python.

    Args:
        name: a path, a file's stem, or the blueprint's name.

    Raises:
        SettingsError: no blueprint matches, or several do.
        BlueprintError: the blueprint has errors.
    """
    text(name, "name")
    here = Path.cwd()
    project = find_project(here)
    return Workspace(project).load(project.locate(name, here)).handed_out()
