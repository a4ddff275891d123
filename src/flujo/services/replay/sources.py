"""Finds a run in a database or in the file of an export, and opens what a run is pulled from."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.domain.forks import NO_FORK
from flujo.exceptions import DatabaseMissing, SchemaOutdated
from flujo.governance.redactor import passwords
from flujo.governance.sink import GATE
from flujo.services.replay.export import SUFFIX
from flujo.services.replay.run_file import RunFile
from flujo.services.workspace import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.run import RunRecord
    from flujo.domain.store import DurableStore, StateStore
    from flujo.services.workspace import Workspace
    from flujo.settings import Settings


def is_file(run: str) -> bool:
    """Return whether a user means the file of an export and not the id of a run, which has no `/`."""
    return run.endswith(SUFFIX) or os.sep in run


async def named_run(workspace: Workspace, run: str) -> tuple[StateStore | RunFile, RunRecord]:
    """Return a run, and what has everything that is recorded of it.

    Args:
        workspace: the project, whose database is opened unless `run` is a file.
        run: an id, a unique prefix of one, `@last`, or the path of a file of `flujo export`.

    Raises:
        RunNotFound: no run, or more than one, matches.
        ExportDamaged | ExportTooNew: the file cannot be used.
    """
    if is_file(run):
        file = RunFile.open(Path(run))
        return file, await file.run(file.run_id)
    store = await workspace.store()
    return store, await store.find(run)


@asynccontextmanager
async def opened_source(given: str, settings: Settings) -> AsyncIterator[DurableStore | RunFile]:
    """Lend the database at a URI, or the run in a file.

    Args:
        given: `sqlite:///…`, `postgresql://…`, or the path of a file of `flujo export`.
        settings: the schema of Postgres, and how a database is opened.

    Raises:
        ExportDamaged | ExportTooNew: the file cannot be used.
        DatabaseMissing: there are no runs at the URI; nothing was created.
        SchemaOutdated | SchemaTooNew: its schema is another one; it was not migrated.
        StateError: the database cannot be reached.
    """
    if "://" not in given:
        yield RunFile.open(Path(given))
        return
    _require_current(given, settings.settings.postgres_schema)
    store = await open_store(given, settings)
    try:
        yield store
    finally:
        await store.aclose()


def _require_current(uri: str, schema: str) -> None:
    """Refuse a database that would be created or migrated by opening it: other processes use it."""
    with NO_FORK:
        from flujo.state.sql import migrations

    GATE.know(passwords(uri), of="the password of the database")
    found = migrations.status(uri, schema)
    if found.current is None:
        raise DatabaseMissing(
            f"there are no runs in {found.database}",
            hint="`--from` takes the `state_uri` of the other project, or a file of `flujo export`",
            path=found.database,
        )
    if not found.is_current and not found.is_newer:
        raise SchemaOutdated(
            f"the database {found.database} has schema {found.current}; this Flujo needs {found.needed}",
            hint="export the run with the Flujo of that database (`flujo export RUN`), or migrate it there "
            "with `flujo migrate`",
            current=found.current,
        )
