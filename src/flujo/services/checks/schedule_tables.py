"""Checks `[schedules.NAME]` of flujo.toml against the blueprints that they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import RULES, Span
from flujo.domain.schedule_checks import CONTRADICTION
from flujo.exceptions import SettingsError
from flujo.services.checks.pipeline_checks import unfit_schedules
from flujo.settings import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.domain.pipeline import Pipeline
    from flujo.services.project.project import Project


def table_findings(project: Project, path: str, pipeline: Pipeline) -> Iterator[Diagnostic]:
    """Yield what is wrong with the tables that run one blueprint.

    Raises:
        SettingsError: a table names no blueprint.
    """
    own = {schedule.name or pipeline.name for schedule in pipeline.schedules}
    for name, table in project.settings.schedules.items():
        line = project.settings.line("schedules", name)
        try:
            is_of_this = project.locate(table.blueprint, project.root) == path
        except SettingsError as error:
            where = f"{CONFIG_FILE}:{line}: [schedules.{name}]"
            raise SettingsError(f"{where}: {error.message}", hint=error.hint) from None
        if not is_of_this:
            continue
        for wrong in unfit_schedules(pipeline, [table.named(name)]):
            at = project.settings.line("schedules", name, wrong.key or "")
            yield RULES[wrong.code].at(_whole(at if at > line else line), wrong.message, hint=wrong.hint)
        if name in own:
            message = f"two schedules are named {name!r}: this one and one in {path}"
            hint = "give one of them another name: the ids of a schedule's runs begin with it"
            yield RULES[CONTRADICTION].at(_whole(line), message, hint=hint)


def _whole(line: int) -> Span:
    return Span(CONFIG_FILE, line, 1, line, 2)
