"""Checks `[[budgets.rule]]` of flujo.toml against the blueprints of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.wording import suggest
from flujo.exceptions import SettingsError
from flujo.settings import CONFIG_FILE

if TYPE_CHECKING:
    from flujo.services.project.project import Project


def require_blueprints(project: Project) -> None:
    """Check that each rule that names a blueprint names one of the project.

    Raises:
        SettingsError: one names no blueprint, so that it never matches; with its line.
    """
    named = [
        (number, rule.name, rule.match.blueprint)
        for number, rule in enumerate(project.settings.budgets.rule)
        if rule.match.blueprint is not None
    ]
    if not named:
        return
    known = sorted(each.name for each in project.blueprints())
    for number, rule, blueprint in named:
        if blueprint not in known:
            line = project.settings.line("budgets", "rule", str(number))
            raise SettingsError(
                f"{CONFIG_FILE}:{line}: rule {rule!r} matches no run: this project has no blueprint with the "
                f"name {blueprint!r}",
                hint=suggest(blueprint, known, what="there are")
                or "`match.pipeline` names a pipeline written in Python",
                file=CONFIG_FILE,
                line=line,
            )
