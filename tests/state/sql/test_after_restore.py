"""A database restored from a backup: calls made since then are in doubt, and old processes are fenced off."""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from durability.payments import Service, pay, payment_service
from flujo.domain.acts import Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.steps import CallableRef, InDoubt, Step
from flujo.exceptions import Fenced
from flujo.state.sql.after_restore import mark_unfinished
from flujo.state.sql.database import Database
from flujo.state.sql.tables import metadata
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run, writes
from support import World, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flujo.domain.pipeline import Pipeline

ADA = Actor("ada", Via.CLI)
LATER = RunId("run")


@pytest.fixture
def service() -> Iterator[Service]:
    """A payment service outside of Flujo, which counts the requests that reach it."""
    with payment_service() as started:
        yield started


def paying(
    service: Service, policy: InDoubt, effect: Any, meanwhile: Callable[[], object] = lambda: None
) -> Pipeline:
    async def charge(_: Any, idempotency_key: str) -> Any:
        return await pay("async_httpx", service.url, idempotency_key)

    def look(_: Any, idempotency_key: str) -> dict[str, Any]:
        return {"done": idempotency_key in service.paid, "result": "found"}

    world = World()
    return pipeline(
        call("before", world.add("before", lambda data: meanwhile() or data)),
        Step(
            "pay",
            CallableRef("bank:charge", charge),
            enforce_idempotency=True,
            in_doubt=policy,
            effect=effect,
            reconcile=CallableRef("bank:look", look) if policy == "reconcile" else None,
        ),
        call("after", world.add("after")),
    )


class Backup:
    """The rows of a database at one moment."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._rows: dict[sa.Table, list[dict[str, Any]]] = {}

    def take(self) -> None:
        with closing_database(self._uri) as database, database.reading(moment=True) as connection:
            for table in metadata.sorted_tables:
                found = connection.execute(sa.select(table)).mappings()
                self._rows[table] = [dict(row) for row in found]

    def restore(self) -> None:
        with closing_database(self._uri) as database, database.writing() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
            for table, rows in self._rows.items():
                if rows:
                    connection.execute(table.insert(), rows)


@contextmanager
def closing_database(uri: str) -> Iterator[Database]:
    database = Database(uri)
    yield database
    database.dispose()


async def _restored(
    uri: str, service: Service, policy: InDoubt = "pause", effect: Any = "unsafe"
) -> Pipeline:
    """Restore a database to a moment before a payment that was made since then."""
    backup = Backup(uri)
    tree = paying(service, policy, effect, backup.take)
    async with aclosing(SqlStateStore(uri)) as store:
        assert (await start(tree, store, 1, run_id=LATER)).success
    assert len(service.received) == 1
    backup.restore()
    return paying(service, policy, effect)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(
    ("policy", "status", "requests"),
    [
        ("pause", RunStatus.PAUSED, 1),
        ("reconcile", RunStatus.COMPLETED, 1),
        ("fail", RunStatus.FAILED, 1),
        ("retry_same_key", RunStatus.COMPLETED, 2),
    ],
)
async def test_a_call_after_the_backup_is_in_doubt(
    store_uri: str, service: Service, policy: InDoubt, status: RunStatus, requests: int
) -> None:
    tree = await _restored(store_uri, service, policy)
    assert [run.run_id for run in mark_unfinished(store_uri, ADA, dry_run=False)] == [LATER]
    async with aclosing(SqlStateStore(store_uri)) as store:
        result = await resume(tree, store)
        assert result.status is status
        assert len(service.received) == requests
        assert [act.verb for act in await store.acts(LATER)] == [Verb.AFTER_RESTORE]
        if policy == "pause":
            assert [pause.kind for pause in result.pauses] == [PauseKind.DOUBT]
            await store.answer(LATER, result.pauses[0].pause_id, b'{"resolution":"retry"}')
            done = await resume(tree, store)
            assert (done.status, len(service.received)) == (RunStatus.COMPLETED, 2)
    assert list(service.paid.values()) == [1], "a request that is made again has the key of the first one"


async def test_a_dry_run_changes_nothing(store_uri: str) -> None:
    async with aclosing(SqlStateStore(store_uri)) as store:
        await store.accept(new_run(), {})
        before = await store.run(RUN)
        [found] = mark_unfinished(store_uri, ADA, dry_run=True)
        assert (found.run_id, found.status, found.was_marked) == (RUN, RunStatus.RUNNING, False)
        assert replace(await store.run(RUN), lease_left_s=0) == replace(before, lease_left_s=0)
        assert await store.acts(RUN) == []


async def test_a_call_that_may_be_repeated_is_made_again(store_uri: str, service: Service) -> None:
    tree = await _restored(store_uri, service, effect="idempotent")
    mark_unfinished(store_uri, ADA, dry_run=False)
    async with aclosing(SqlStateStore(store_uri)) as store:
        assert (await resume(tree, store)).success
    assert (len(service.received), len(service.paid)) == (2, 1)


@pytest.mark.guarantee("G5")
async def test_every_unfinished_run_is_marked_once_and_its_old_owner_is_fenced_off(store_uri: str) -> None:
    async with aclosing(SqlStateStore(store_uri)) as store:
        run = await store.accept(new_run(), {})
        ended = await store.accept(new_run("ended"), {})
        await store.write(move(ended, RunStatus.COMPLETED))
        await store.accept(new_run("accepted"), {}, claim=False)
        found = mark_unfinished(store_uri, ADA, dry_run=False)
        assert [(each.run_id, each.was_marked) for each in found] == [("accepted", False), (RUN, False)]
        assert all(each.was_marked for each in mark_unfinished(store_uri, ADA, dry_run=False))
        assert [len(await store.acts(RunId(each))) for each in ("accepted", RUN, "ended")] == [1, 1, 0]
        with pytest.raises(Fenced):
            await store.write(writes(run, entry(1)))
        first = await store.claim(RunId("accepted"), statuses=[RunStatus.ACCEPTED])
        assert first.claims == 2, "a first claim would not look at what was recorded before"
        assert not mark_unfinished(store_uri, ADA, dry_run=True)[0].was_marked, "it was executed since"


async def test_a_call_that_was_under_way_at_the_backup_opens_one_doubt(
    store_uri: str, service: Service
) -> None:
    backup = Backup(store_uri)
    moments = [backup.take]

    async def charge(_: Any, idempotency_key: str) -> Any:
        if moments:
            moments.pop()()
        return await pay("async_httpx", service.url, idempotency_key)

    tree = pipeline(Step(name="pay", call=CallableRef("bank:charge", charge), enforce_idempotency=True))
    async with aclosing(SqlStateStore(store_uri)) as store:
        assert (await start(tree, store, 1, run_id=LATER)).success
    backup.restore()
    mark_unfinished(store_uri, ADA, dry_run=False)
    async with aclosing(SqlStateStore(store_uri)) as store:
        [question] = (await resume(tree, store)).pauses
        assert len(service.received) == 1
        await store.answer(LATER, question.pause_id, b'{"resolution":"retry"}')
        assert (await resume(tree, store)).success
        assert len(await store.pauses(LATER)) == 1
    assert (len(service.received), len(service.paid)) == (2, 1)
