"""Old runs go with all that is theirs, a batch at a time; what others still name stays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo.domain import canonical
from flujo.domain.access import Session
from flujo.domain.acts import Act, Actor, ActQuery, Verb, Via
from flujo.domain.queues import RunKind
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import HumanInTheLoopStep, ImportStep, Step, StepConfig, Text
from flujo.exceptions import RunNotFound, SettingsError
from flujo.services.admin.purge import purge
from flujo.services.runs.runner import Flujo
from flujo.state.sql import tables
from flujo.state.store import SqlStateStore
from support import World, call, pipeline, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.pipeline import Pipeline

BIG = "x" * 40_000


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    """A store in a database of its own."""
    made = SqlStateStore(store_uri)
    yield made
    await made.aclose()


def large(name: str, text: str) -> Pipeline:
    """Return a pipeline whose result stands aside, under a key that is enforced."""
    target = World().add(name, lambda _: text)
    return pipeline(Step(name, target, enforce_idempotency=True), name=name)


async def rows(store: SqlStateStore, table: sa.Table) -> int:
    """Return how many rows a table has."""

    def count(connection: sa.Connection) -> int:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)

    return await store.read(count)


async def test_a_run_goes_with_all_that_is_its_own(store: SqlStateStore) -> None:
    await start(large("mine", BIG), store, run_id="mine")
    ask = pipeline(HumanInTheLoopStep(name="ask", message=Text("ok?")), name="ask")
    await start(ask, store, run_id="paused")
    assert (await purge(store, [RunStatus.COMPLETED], 0.0, dry_run=True)).runs == 1
    assert (await store.run("mine")).status is RunStatus.COMPLETED  # type: ignore[arg-type]
    gone = await purge(store, [RunStatus.COMPLETED], 0.0)
    assert gone.runs == 1
    assert gone.contents == 2, "the large value and what the run had pinned"
    with pytest.raises(RunNotFound):
        await store.run("mine")  # type: ignore[arg-type]
    assert [await rows(store, table) for table in (tables.journal, tables.intents)] == [0, 0]
    assert (await store.pauses("paused"))[0].is_open  # type: ignore[arg-type]
    assert (await purge(store, [RunStatus.PAUSED], 0.0)).runs == 1
    assert [await rows(store, table) for table in (tables.runs, tables.pauses, tables.blobs)] == [0, 0, 0]


async def test_a_purge_records_who_purged_which_runs(store: SqlStateStore) -> None:
    for run_id in ("one", "two", "three"):
        await start(large(run_id, BIG), store, run_id=run_id)
    await purge(store, [RunStatus.COMPLETED], 0.0, batch=2, actor=Actor("ann", Via.CLI))
    acts = await store.read(lambda connection: connection.execute(sa.select(tables.acts)).mappings().all())
    assert [(act["by"], act["via"], act["verb"], act["object"]) for act in acts] == [
        ("ann", "cli", "purge", "completed")
    ] * 2
    assert [canonical.decode(act["before"]) for act in acts] == [["one", "two"], ["three"]]
    assert {act["run_id"] for act in acts} == {None}


async def test_what_a_run_names_is_counted_with_it(store: SqlStateStore) -> None:
    """The collector looks at no value: each blob has a row for each run that names it, nested or not."""
    await start(large("one", BIG), store, BIG, run_id="one")
    await start(large("one", BIG), store, BIG, run_id="two")

    def counted(connection: sa.Connection) -> set[tuple[str, str]]:
        return {(digest, run_id) for digest, run_id in connection.execute(sa.select(tables.blob_refs))}

    def there(connection: sa.Connection) -> set[str]:
        return set(connection.scalars(sa.select(tables.blobs.c.digest)))

    refs, blobs = await store.read(counted), await store.read(there)
    assert refs >= {(digest, "one") for digest, run_id in refs if run_id == "two" and digest in blobs}
    assert {digest for digest, _ in refs} == blobs
    assert (await purge(store, [RunStatus.COMPLETED], 0.0)).contents == len(blobs)
    assert await store.read(counted) == set()


async def test_a_content_that_another_run_names_stays(store: SqlStateStore) -> None:
    await start(large("one", BIG), store, run_id="one")
    await start(pipeline(call("keep", World().add("keep")), name="keep"), store, BIG, run_id="keep")
    await purge(store, [RunStatus.COMPLETED], 0.0, batch=1)
    assert await rows(store, tables.blobs) == 0
    await start(pipeline(call("keep", World().add("keep")), name="keep"), store, BIG, run_id="young")
    await start(large("one", BIG), store, run_id="two")
    assert (await purge(store, [RunStatus.COMPLETED], 3600.0)).runs == 0
    await store.write_apart(
        lambda c: c.execute(tables.runs.update().where(_is("two")).values(created_at=1.0, updated_at=1.0))
    )
    assert (await purge(store, [RunStatus.COMPLETED], 3600.0)).runs == 1
    detail = await store.entries("young")  # type: ignore[arg-type]
    assert len(detail[0].output or b"") > len(BIG)


def _is(run_id: str) -> sa.ColumnElement[bool]:
    return tables.runs.c.run_id == run_id


async def test_a_live_run_is_never_purged(store: SqlStateStore) -> None:
    for status in (RunStatus.RUNNING, RunStatus.ACCEPTED):
        with pytest.raises(SettingsError, match=str(status)):
            await purge(store, [RunStatus.COMPLETED, status], 0.0)


async def test_purging_while_runs_execute_takes_nothing_from_them(store_uri: str) -> None:
    store, other = SqlStateStore(store_uri), SqlStateStore(store_uri)
    texts = [f"{number % 3}{BIG}" for number in range(30)]
    tree = pipeline(call("first", World().add("first")), call("second", World().add("second")))

    async def run(number: int) -> Any:
        async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
            return await runner.run_result_async(texts[number], run_id=f"run-{number}")

    async def purge_all() -> int:
        runs = 0
        while runs < len(texts):
            runs += (await purge(other, [RunStatus.COMPLETED], 0.0, batch=3)).runs
        return runs

    async def run_all() -> list[Any]:
        return [
            result
            for start in range(0, 30, 5)
            for result in await asyncio.gather(*map(run, range(start, start + 5)))
        ]

    async with asyncio.timeout(60):
        results, gone = await asyncio.gather(run_all(), purge_all())
    assert [result.output for result in results] == texts
    assert gone == len(texts)
    await purge(other, [RunStatus.COMPLETED], 0.0)
    assert await rows(other, tables.blobs) == 0
    await store.aclose()
    await other.aclose()


async def test_a_family_goes_when_all_of_it_is_old(store: SqlStateStore) -> None:
    ask = HumanInTheLoopStep("ask", message=Text("ok?"), config=StepConfig(execution_mode="background"))
    quick = Step("quick", World().add("quick"), config=StepConfig(execution_mode="background"))
    inner = ImportStep("sub", pipeline(ask, name="sub"), config=StepConfig(execution_mode="background"))
    tree = pipeline(quick, inner, Step("last", World().add("last")), name="family")
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        await runner.run_result_async(1, run_id="parent")
    await start(large("other", BIG), store, run_id="other")
    statuses = [RunStatus.COMPLETED]
    assert (await purge(store, statuses, 0.0, dry_run=True)).runs == 1
    assert (await purge(store, statuses, 0.0)).runs == 1
    assert await rows(store, tables.runs) == 4, (
        "the parent, two tasks, and the task of a task, which is paused"
    )
    [paused] = await store.runs(RunQuery(statuses=(RunStatus.PAUSED,), kinds=tuple(RunKind)))
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        await runner.resume_async(paused.run_id, "yes")
    assert (await purge(store, statuses, 0.0)).runs == 4
    assert await rows(store, tables.runs) == 0


async def test_expired_sessions_and_old_logins_go_with_a_purge(
    store: SqlStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, statuses = Actor("ada", Via.WEB), [RunStatus.COMPLETED]
    for number, lives_s in enumerate((0.0, 0.0, 60.0)):
        session = Session(name="ada", digest=bytes([number]) * 32, proof=b"")
        await store.begin_session(session, ada, lives_s=lives_s)
    await store.record_act(Act(verb=Verb.ISSUE, actor=ada, object="billing"))
    await purge(store, statuses, 0.0, batch=1)
    assert [await rows(store, table) for table in (tables.sessions, tables.acts)] == [1, 4]
    monkeypatch.setattr("flujo.state.sql.retention.LOGINS_S", -1.0)
    await purge(store, statuses, 0.0, batch=2)
    [kept] = await store.recorded_acts(ActQuery())
    assert kept.object == "billing", "acts on anything else are kept"
