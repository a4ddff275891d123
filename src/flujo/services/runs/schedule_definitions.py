"""The schedules that a project's files define: in blueprints, in flujo.toml, and of registered pipelines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from flujo.domain.schedule_records import ScheduleRecord, definition
from flujo.exceptions import FlujoError, ScheduleConflict, SettingsError
from flujo.services.checks.pipeline_checks import check_pipeline, unfit_schedules
from flujo.services.runs.pipeline_registry import all_registered
from flujo.services.runs.run_request import Request, pinned
from flujo.settings import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.schedules import Schedule
    from flujo.services.runs.pipeline_registry import Registered
    from flujo.services.runs.run_services import RunServices
    from flujo.services.runs.service import RunService
    from flujo.services.workspace import Blueprint, Workspace
    from flujo.settings_tables import ScheduleTable

    OnError = Callable[[str, FlujoError], None]

_MARK = b"schedule"
"""A blueprint without this word has no schedule, so it is not compiled here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defined:
    """A schedule of the project's files, and what it runs."""

    schedule: Schedule
    """With its name."""
    place: str
    """The file, and the line for flujo.toml."""
    pipeline: Pipeline
    blueprint: Blueprint | None
    """None for a pipeline that is written in Python."""
    registered: Registered | None
    project: str
    """The name of the project, by which projects that share a database keep their schedules apart."""

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.schedule.name

    def record(self) -> ScheduleRecord:
        """Return the schedule as a store keeps it, without times."""
        return ScheduleRecord(
            name=self.name,
            definition=definition(self.schedule, self.pipeline.name, self.project),
            closure=pinned(self.pipeline, self.blueprint)[0],
        )

    def fits(self, record: ScheduleRecord) -> bool:
        """Return whether the store has this definition, and the files that its runs pin."""
        own = self.record()
        return (own.definition, own.closure) == (record.definition, record.closure)

    def request(self, run_id: str) -> Request:
        """Return the request for a run of the schedule."""
        schedule = self.schedule
        return Request(
            input=schedule.input,
            context=schedule.context,
            run_id=run_id,
            metadata={**schedule.metadata, "schedule": self.name},
        )

    def service(self, services: RunServices) -> RunService:
        """Return what accepts its runs."""
        if self.blueprint is not None:
            return services.of_blueprint(self.blueprint)
        found = self.registered
        return services.of_pipeline(
            self.pipeline,
            output=check_pipeline(self.pipeline),
            context_model=None if found is None else found.context_model,
            limits=None if found is None else found.usage_limits,
        )


def defined_schedules(ws: Workspace, on_error: OnError | None = None) -> dict[str, Defined]:
    """Return the schedules of a project by name. Imports no callables.

    Args:
        ws: the project.
        on_error: called with the name of a file and its error, instead of raising it.

    Raises:
        SettingsError: `[schedules.NAME]` names no blueprint, or its input does not fit the blueprint.
        ScheduleConflict: two schedules have one name.
        BlueprintError | LockMismatch: a blueprint with schedules has errors, or does not match the lock.
    """
    found: dict[str, Defined] = {}
    for place, load in _sources(ws):
        try:
            for each in load():
                there = found.get(each.name)
                if there is not None:
                    raise ScheduleConflict(
                        f"two schedules are named {each.name!r}: in {there.place} and in {each.place}",
                        hint="give one of them another `name`: the ids of a schedule's runs begin with it",
                        schedule=each.name,
                    )
                found[each.name] = each
        except FlujoError as error:
            if on_error is None:
                raise
            on_error(place, error)
    return dict(sorted(found.items()))


def _sources(ws: Workspace) -> Iterator[tuple[str, Callable[[], Iterator[Defined]]]]:
    """Yield each place that may define schedules, with a function that reads them."""
    loaded: dict[str, Blueprint] = {}

    def load(path: str) -> Blueprint:
        if path not in loaded:
            loaded[path] = ws.load(path)
        return loaded[path]

    def of_blueprint(path: str) -> Iterator[Defined]:
        blueprint = load(path)
        yield from _of_pipeline(ws, path, blueprint.pipeline, blueprint, None)

    for name, table in ws.project.settings.schedules.items():
        place = f"{CONFIG_FILE}:{ws.project.settings.line('schedules', name)}"
        yield place, partial(_of_table, ws, name, table, place, load)
    for path in ws.project.blueprint_paths():
        if _MARK in (ws.project.root / path).read_bytes():
            yield path, partial(of_blueprint, path)
    for each in all_registered():
        if each.pipeline.schedules:
            place = f"pipeline {each.pipeline.name!r}"
            yield place, partial(_of_pipeline, ws, place, each.pipeline, None, each)


def _of_pipeline(
    ws: Workspace, place: str, pipeline: Pipeline, blueprint: Blueprint | None, registered: Registered | None
) -> Iterator[Defined]:
    if blueprint is None:
        check_pipeline(pipeline)
    for schedule in pipeline.schedules:
        yield Defined(
            schedule=replace(schedule, name=schedule.name or pipeline.name),
            place=place,
            pipeline=pipeline,
            blueprint=blueprint,
            registered=registered,
            project=ws.project.settings.project.name,
        )


def _of_table(
    ws: Workspace, name: str, table: ScheduleTable, place: str, load: Callable[[str], Blueprint]
) -> Iterator[Defined]:
    schedule, project = table.named(name), ws.project
    try:
        blueprint = load(project.locate(table.blueprint, project.root))
    except SettingsError as error:
        raise SettingsError(f"{place}: [schedules.{name}]: {error.message}", hint=error.hint) from None
    for wrong in unfit_schedules(blueprint.pipeline, [schedule]):
        raise SettingsError(f"{place}: [schedules.{name}]: {wrong.message}", hint=wrong.hint)
    yield Defined(
        schedule=schedule,
        place=place,
        pipeline=blueprint.pipeline,
        blueprint=blueprint,
        registered=None,
        project=project.settings.project.name,
    )
