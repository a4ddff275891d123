"""Runs of every released version, in each state, end as expected with this version of Flujo, and can be purged."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo import Flujo, TaskClient
from flujo.domain.journal import RunId
from flujo.domain.run import PURGEABLE, PauseKind, RunQuery, RunStatus
from flujo.exceptions import ResumeConflict
from flujo.services.admin.purge import purge
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.state.sql import migrations, tables
from flujo.state.store import SqlStateStore
from histories.restoring import recorded, restore
from histories.situations import (
    BLUEPRINT_ANSWER,
    BLUEPRINT_OUTPUT,
    BLUEPRINT_RUN,
    LARGE,
    PROJECT,
    SITUATIONS,
    USED,
    WORST,
    Context,
    Life,
    Situation,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


AGES_S = 1e9
"""Longer than any recording is old: only a run that a test makes older is purged."""


@pytest.fixture(params=recorded("situations"), ids=lambda path: path.stem)
async def store(
    request: pytest.FixtureRequest, empty_uri: str, tmp_path: Path
) -> AsyncIterator[SqlStateStore]:
    """A store on the recording of a version, migrated."""
    restore(request.param, empty_uri, tmp_path)
    migrations.migrate(empty_uri)
    opened = SqlStateStore(empty_uri)
    yield opened
    await opened.aclose()


@pytest.mark.guarantee("G23")
async def test_every_recorded_situation_ends_as_expected(store: SqlStateStore) -> None:
    for situation in SITUATIONS:
        run_id = RunId(situation.name)
        assert (await store.find(run_id)).status is situation.left, situation.name
        before, life = await store.entries(run_id), Life()
        await _end(store, situation, life)
        ended = await TaskClient(store).get_task(run_id)
        assert (ended.task.status, ended.output) == (situation.ends, situation.output), situation.name
        assert not Counter(life.calls) - Counter(situation.calls), f"{situation.name} repeats recorded steps"
        after = await store.entries(run_id)
        assert after[: len(before)] == before, "recorded entries stay unchanged"


async def _end(store: SqlStateStore, situation: Situation, life: Life) -> None:
    """Resume or retry a run, and answer all its questions."""
    async with Flujo[Any, Any, Any](
        situation.build(life),
        store=store,
        context_model=Context if situation.has_context else None,
        usage_limits=situation.limits,
        recovery=False,
    ) as runner:
        client = TaskClient(store, runners=[runner])
        if situation.left is not RunStatus.PAUSED or not situation.answers:
            with suppress(ResumeConflict):  # a run that has ended
                await runner.resume_async(situation.name, retry_failed=situation.left is RunStatus.FAILED)
        while questions := [
            pause for pause in (await client.get_task(situation.name)).pauses if pause.is_open
        ]:
            asked = questions[0]
            [answer] = [value for name, value in situation.answers.items() if name in asked.message]
            if asked.kind is PauseKind.DOUBT:
                result = {"result": answer["result"]} if "result" in answer else {}
                await client.resolve_task(
                    situation.name, answer["resolution"], pause_id=asked.pause_id, **result
                )
            else:
                await client.resume_task(situation.name, answer, asked.pause_id)


async def test_old_runs_are_still_shown(store: SqlStateStore) -> None:
    client = TaskClient(store)
    [found] = await client.list_tasks(metadata_filter={"team": "red"}, user_id="ada")
    assert (found.run_id, found.metadata) == ("several", {"team": "red", "attempt": 2})
    large = await client.get_task("large")
    assert (large.input, large.output) == (LARGE[:20_000], LARGE)
    assert large.context == {"user_id": "ada", "log": [len(LARGE)], "text": LARGE}
    failed = await client.get_task("failed-large")
    assert failed.error is not None
    assert LARGE in failed.error.message
    budget = await client.get_task("budget")
    assert (budget.task.usage, budget.trace.unconfirmed) == (USED, WORST)
    doubt = await client.get_task("doubt-retried")
    assert [pause.pause_id for pause in doubt.pauses if pause.is_open] == [
        "items[1]/pay[0]",
        "items[0]/pay[1]",
    ]
    assert doubt.trace.at("items.0/pay").status == "paused"


async def test_a_resumed_run_of_a_blueprint_uses_its_pinned_files(
    store: SqlStateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, text in PROJECT.items():
        if not path.startswith("blueprints/"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
    monkeypatch.setenv("FLUJO_STATE_URI", store.database.url.render_as_string(hide_password=False))
    async with TaskClient(Workspace(find_project(tmp_path))) as client:
        result = await client.resume_task(BLUEPRINT_RUN, BLUEPRINT_ANSWER)
    assert (result.status, result.output) == (RunStatus.COMPLETED, BLUEPRINT_OUTPUT)


async def test_purging_a_run_keeps_the_blobs_of_the_others(store: SqlStateStore) -> None:
    for situation in SITUATIONS:
        await _end(store, situation, Life())
    for run in await store.runs(RunQuery(limit=1000)):
        await store.write_apart(_make_old, run.run_id)
        assert (await purge(store, PURGEABLE, AGES_S)).runs == 1
        for other in await store.runs(RunQuery(limit=1000)):
            await TaskClient(store).get_task(other.run_id)  # raises when a blob is missing
    left = {table.name: await store.read(_count, table) for table in tables.metadata.sorted_tables}
    assert {name for name, rows in left.items() if rows} <= {"cache", "schema_info", "acts"}


def _make_old(connection: sa.Connection, run_id: str) -> None:
    connection.execute(
        tables.runs.update().where(tables.runs.c.run_id == run_id).values(created_at=1.0, updated_at=1.0)
    )


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
