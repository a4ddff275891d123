"""Checks the tables of flujo.toml that a blueprint uses: the models of its agents, and its schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import RULES, Severity, Span
from flujo.domain.model_names import model_problem
from flujo.services.checks.schedule_tables import table_findings
from flujo.settings import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.compiler import Compiled
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.services.project.project import Project


def settings_findings(project: Project, path: str, result: Compiled) -> Iterator[Diagnostic]:
    """Yield what is wrong with the tables that a blueprint uses.

    Raises:
        SettingsError: a table `[schedules.NAME]` names no blueprint.
    """
    yield from _models(project, result)
    if result.pipeline is not None:
        yield from table_findings(project, path, result.pipeline)


def _models(project: Project, result: Compiled) -> Iterator[Diagnostic]:
    """Yield the tables `[agents.NAME]` with a model that no provider has."""
    settings = project.settings
    for name, model in settings.models.items():
        if f"agents.{name}.model" not in result.closure.overrides:
            continue  # the blueprint has no such agent
        if (problem := model_problem(model, settings.providers)) is not None:
            line = settings.line("agents", name, "model")
            severity = Severity.ERROR if problem.is_certain else Severity.WARNING
            at = Span(CONFIG_FILE, line, 1, line, 2)
            yield RULES["FLJ151"].at(at, problem.message, hint=problem.hint, severity=severity)
