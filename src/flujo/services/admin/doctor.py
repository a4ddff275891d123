"""Checks a project's environment: settings, database, local models, packages and API keys."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from flujo.domain.commands import command
from flujo.domain.wording import listed, plural
from flujo.exceptions import FlujoError, ResourcesUnavailable, StateError
from flujo.governance.sink import GATE
from flujo.services.executors.demands import demands
from flujo.services.workspace import Workspace
from flujo.settings import environment, misspelt_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flujo.domain.acts import Actor
    from flujo.domain.executor import ExecutorFacts
    from flujo.domain.providers import NamedProvider
    from flujo.domain.schedule_records import Schedules
    from flujo.services.project.project import Project
    from flujo.state.sql.after_restore import Unfinished
    from flujo.state.sql.durability import Durability
    from flujo.state.sql.migrations import SchemaStatus

State = Literal["ok", "note", "warn", "fail"]

PROVIDERS = {
    "openai": ("openai", "OPENAI_API_KEY"),
    "anthropic": ("anthropic", "ANTHROPIC_API_KEY"),
    "google": ("google.genai", "GOOGLE_API_KEY"),
}
"""Extra → the package it installs, and the variable with its API key."""

_PACKAGES = ("pydantic-ai-slim", "sqlalchemy", "alembic", "psycopg", "cel-expr-python", "pydantic", "typer")

_MOST_DAMAGE = 10
"""How many corrupt rows are listed; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. A `note` is not a fault: something optional is missing."""

    name: str
    state: State
    detail: str
    hint: str = ""
    error: FlujoError | None = None


def examine(project: Project) -> list[Finding]:
    """Run all checks. They write nothing, call no model, and never show or send a key."""
    return [
        replace(found, detail=GATE.text(found.detail), hint=GATE.text(found.hint))
        for found in _examined(project)
    ]


def _examined(project: Project) -> list[Finding]:
    version = importlib.metadata.version("flujo")
    return [
        Finding("flujo", "ok", f"{version} on Python {platform.python_version()}, {platform.platform()}"),
        _config(project),
        _blueprints(project),
        *_state(project),
        _encryption(project),
        _cache(project),
        *_state_providers(project),
        *_executors(project),
        *_targets(project),
        Finding("personal data", "ok", project.settings.governance.summary),
        *_variables(),
        *_models(project),
        *_providers(project.settings.named_providers),
        Finding("packages", "ok", ", ".join(_versions())),
    ]


def schema_status(project: Project) -> SchemaStatus:
    """Return the schema status of the project's database; changes and creates nothing.

    Raises:
        StateError: the database cannot be reached or read.
    """
    from flujo.state.sql.migrations import status

    return status(project.state_uri, project.postgres_schema)


def mark_after_restore(project: Project, actor: Actor, *, dry_run: bool) -> list[Unfinished]:
    """Mark the unfinished runs of a database that was restored from a backup, and return them.

    In a marked run the first call of each enforced step counts as in doubt: it may have been made after the
    backup. Processes that executed the run before the restore cannot write to it any more.

    Raises:
        StateError: the database cannot be reached or written, or needs a migration.
    """
    from flujo.state.sql.after_restore import mark_unfinished

    keys = project.settings.key_ring()
    return mark_unfinished(project.state_uri, actor, project.postgres_schema, keys=keys, dry_run=dry_run)


def migrate(project: Project) -> tuple[SchemaStatus, SchemaStatus]:
    """Migrate the project's database to the current schema; return the status before and after.

    Raises:
        StateError: the database cannot be reached or written, or has a newer schema.
    """
    from flujo.state.sql.migrations import migrate as run

    return run(project.state_uri, project.postgres_schema)


def _config(project: Project) -> Finding:
    if project.config_file is None:
        return Finding(
            "project", "note", f"{project.root}, no flujo.toml", "create a project with `flujo init`"
        )
    chosen = f" with [env.{project.environment}]" if project.environment else ""
    return Finding("project", "ok", f"{project.config_file}{chosen}")


def _blueprints(project: Project) -> Finding:
    try:
        count = len(project.blueprint_paths())
    except FlujoError as error:
        return _failed("blueprints", error)
    allowed = ", ".join(project.settings.blueprints.allow_callables) or "none"
    return Finding("blueprints", "ok", f"{count} found; allowed callables: {allowed}")


def _failed(name: str, error: FlujoError) -> Finding:
    return Finding(name, "fail", error.message, error.hint or "", error)


def _state(project: Project) -> Iterator[Finding]:
    try:
        found = schema_status(project)
    except FlujoError as error:
        yield _failed("database", error)
        return
    yield _database(project, found)
    if not found.is_current:
        return
    reports = list(_runs(project))
    yield from reports
    if not any(each.state == "fail" for each in reports):
        yield from _stuck(project)
        yield from _schedules(project)


def _database(project: Project, found: SchemaStatus) -> Finding:
    postgres = project.state_uri.startswith("postgres")
    if found.is_current:
        return _durability(project, f"{found.database}: schema {found.current}")
    if found.is_newer:
        words = f"{found.database}: schema {found.current} is newer than schema {found.needed} of this Flujo"
        return Finding("database", "fail", words, "upgrade Flujo", StateError(words))
    if found.current is None and not postgres:
        return Finding("database", "note", f"{found.database}: created at the first run")
    words = f"{found.database}: schema {found.current or 'none'}; this Flujo needs {found.needed}"
    if found.elsewhere:
        words += "; its schema `flujo` has tables of Flujo"
    return Finding("database", "warn", words, "run `flujo migrate`")


def _runs(project: Project) -> Iterator[Finding]:
    """Check the newest runs for corrupt or missing rows."""
    from flujo.state.sql.integrity import soundness

    try:
        keys = project.settings.key_ring()
        found = soundness(project.state_uri, project.postgres_schema, keys=keys)
    except FlujoError as error:
        yield _failed("runs", error)
        return
    checked = "the newest run" if found.runs == 1 else f"the newest {found.runs} runs"
    if found.runs and not found.damaged:
        yield Finding(
            "runs",
            "ok",
            f"{checked} with {plural(found.entries, 'journal entry', 'journal entries')}: intact",
        )
    for damage in found.damaged[:_MOST_DAMAGE]:
        message = damage.error.message
        named = message if damage.run_id in message else f"run {damage.run_id}: {message}"
        yield Finding("runs", "fail", named, damage.error.hint or "", damage.error)
    if len(found.damaged) > _MOST_DAMAGE:
        yield Finding("runs", "fail", f"{len(found.damaged) - _MOST_DAMAGE} more corrupt rows")


def _stuck(project: Project) -> Iterator[Finding]:
    """Report runs that wait without a reason."""
    from flujo.state.sql.stuck import stuck

    try:
        found = stuck(project.state_uri, project.postgres_schema)
    except FlujoError as error:
        yield _failed("runs", error)
        return
    for each in found:
        show = command("flujo", "tasks", "show", each.run_id)
        hint = show if each.has_no_wait else "`flujo worker --once` takes it, or says why it cannot"
        yield Finding("runs", "warn", each.described, hint)


def _schedules(project: Project) -> Iterator[Finding]:
    """Report schedules that no worker fires."""

    async def read() -> Schedules:
        async with Workspace(project, creates=False) as workspace:
            return await (await workspace.store()).schedules()

    try:
        found = asyncio.run(read())
    except FlujoError as error:
        yield _failed("schedules", error)
        return
    late = [record.name for record in found.records if record.is_late(found.now)]
    if late:
        words = f"no worker has fired {listed(late, 'and')} at its time"
        hint = (
            f"`{command('flujo', 'worker')}` fires them; `{command('flujo', 'schedules', 'list')}` says why"
        )
        yield Finding("schedules", "warn", words, hint)
    elif found.records:
        yield Finding("schedules", "ok", f"{plural(len(found.records), 'schedule')}, none of them late")


def _durability(project: Project, words: str) -> Finding:
    """Check what a commit survives in an up-to-date database."""
    level = project.settings.settings.durability
    try:
        found = durability_of(project)
    except FlujoError as error:
        return _failed("database", error)
    words = f"{words}, durability `{level}` ({found.words})"
    if found.weak and level == "full":
        hint = 'fix the server\'s settings, or accept them in flujo.toml: `[settings] durability = "relaxed"`'
        return Finding("database", "warn", f"{words}; {'; '.join(found.weak)}", hint)
    return Finding("database", "ok", words)


def _encryption(project: Project) -> Finding:
    """Report whether new values are encrypted; `flujo keys list` counts those that are there."""
    variable = project.settings.state.encryption
    try:
        keys = project.settings.key_ring()
    except FlujoError as error:
        return _failed("encryption", error)
    ids = listed([key.id for key in keys.keys], "and")
    if variable is None:
        words = "values in the database are not encrypted"
        return Finding("encryption", "note", words, "`flujo keys new` prints a key for `[state] encryption`")
    if keys.writer is None:
        return Finding("encryption", "warn", f"new values are not encrypted; {variable} reads those of {ids}")
    words = f"values are encrypted with {keys.writer.id}; {variable} reads those of {ids}"
    return Finding("encryption", "ok", f"{words}; ids, paths, metadata and usage are readable")


def _cache(project: Project) -> Finding:
    if project.settings.cache.backend == "state":
        return Finding("cache", "ok", "outputs of cached steps are stored in the database")
    return Finding(
        "cache",
        "note",
        "outputs of cached steps are kept in memory and lost when the process ends",
        'to store them, set `[cache] backend = "state"` in flujo.toml',
    )


def durability_of(project: Project) -> Durability:
    """Return what a commit in the project's database survives.

    Raises:
        StateError: the database cannot be reached.
    """
    from flujo.state.sql.durability import durability

    relaxed = project.settings.settings.durability == "relaxed"
    return durability(project.state_uri, "NORMAL" if relaxed else "FULL")


def migration_script(project: Project) -> str:
    """Return the SQL that `migrate` would execute, as one transaction; empty if no migration is needed.

    Raises:
        StateError: the database cannot be reached or read, or has a newer schema.
    """
    from flujo.state.sql.migrations import script

    return script(project.state_uri, project.postgres_schema)


def _state_providers(project: Project) -> Iterator[Finding]:
    from flujo.services.binding.blob_references import check_provider
    from flujo.state.providers import open_provider

    for name, url in project.settings.state_providers.items():
        try:
            asyncio.run(check_provider(name, open_provider(name, url, project.root)))
        except FlujoError as error:
            yield _failed("references", error)
        else:
            yield Finding("references", "ok", f"{name}: {GATE.text(url)}")


def _executors(project: Project) -> Iterator[Finding]:
    """Connect to each executor, and say what it has, and which steps need more."""
    from flujo.services.executors.named import Executors

    async def facts(name: str) -> ExecutorFacts | None:
        executors = Executors(project)
        try:
            executor = executors.named(name)
            return None if executor is None else await executor.check()
        finally:
            await executors.aclose()

    tables = project.settings.executors
    try:
        needed = demands(project) if tables else []
    except FlujoError:
        needed = []  # reported by the check of blueprints
    for name, table in tables.items():
        try:
            found = asyncio.run(facts(name))
        except FlujoError as error:
            yield Finding("executors", "fail", f"{name}: {error.message}", error.hint or "", error)
        else:
            if found is None:
                continue
            workers = f"{plural(found.workers, 'worker')} with {found.has}"
            yield Finding("executors", "ok", f"{name}: {table.kind}, {workers}")
            for each in (each for each in needed if each.executor == name):
                if (lacking := each.needs.beyond(found.has)) is not None:
                    words = f"{name}: {each.where} needs {lacking}, and the executor has {found.has}"
                    lacks = ResourcesUnavailable(words, hint="lower `resources` of the step", executor=name)
                    yield Finding("executors", "fail", words, lacks.hint or "", lacks)


def _targets(project: Project) -> Iterator[Finding]:
    from flujo.services.admin.target_checks import check_target

    for name in project.settings.notify:
        try:
            yield Finding("notify", "ok", f"{name}: {check_target(project, name)}")
        except FlujoError as error:
            yield Finding("notify", "warn", f"{name}: {error.message}", error.hint or "")


def _variables() -> Iterator[Finding]:
    for name, known in misspelt_variables().items():
        yield Finding("environment", "warn", f"{name} is set but unknown", f"did you mean {known}?")


def _models(project: Project) -> Iterator[Finding]:
    from flujo.services.admin.local_models import list_models

    for model in list_models(project.settings.cache_home):
        name = f"local:{model.name}"
        if model.present:
            yield Finding("model", "ok", f"{name} in {model.path}")
        else:
            yield Finding(
                "model", "note", f"{name} is not downloaded", command("flujo", "models", "pull", model.name)
            )


def _providers(named: Mapping[str, NamedProvider]) -> Iterator[Finding]:
    from flujo.agents.connectivity import check_provider, check_server

    for extra, (package, variable) in PROVIDERS.items():
        is_set = bool(environment().get(variable))
        key = f"{variable} is {'set' if is_set else 'not set'}"
        if _is_installed(package) and is_set:
            yield _reached(f"{extra}: {key}", partial(check_provider, extra, environment()))
        elif _is_installed(package):
            yield Finding("provider", "note", f"{extra}: {key}")
        else:
            yield Finding(
                "provider",
                "note",
                f"{extra}: not installed, {key}",
                command("pip", "install", f"flujo[{extra}]"),
            )
    for name, provider in named.items():
        try:
            url = provider.connection(environment()).base_url
        except FlujoError as error:
            yield Finding("provider", "warn", f"{name}: {error.message}", error.hint or "")
            continue
        if url is not None:
            setting = f"`providers.{name}.base_url`"
            yield _reached(f"{name}: {provider.kind}", partial(check_server, name, url, set_by=setting))


def _reached(what: str, check: Callable[[], str]) -> Finding:
    """Check that the server of a provider answers."""
    try:
        return Finding("provider", "ok", f"{what}, {check()} answers")
    except FlujoError as error:
        return Finding("provider", "warn", f"{what}; {error.message}", error.hint or "")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _versions() -> Iterator[str]:
    for package in _PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} missing"
