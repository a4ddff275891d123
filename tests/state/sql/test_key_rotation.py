"""Keys are rotated in steps, beside other processes, until no value of another key is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo.domain.acts import Verb
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import KeyMissing
from flujo.governance.key_ring import NO_KEYS, KeyRing, new_key
from flujo.services.admin.keys import rotate
from flujo.state.sql.tables import acts, journal
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run, writes
from state.sql.test_encryption import ADA, fill, read, readable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OLD, NEW = new_key("old"), new_key("new")
BOTH = KeyRing((NEW, OLD), source="KEYS")


@pytest.fixture
async def old(store_uri: str) -> AsyncIterator[SqlStateStore]:
    made = SqlStateStore(store_uri, keys=KeyRing((OLD, NEW), source="KEYS"))
    yield made
    await made.aclose()


@pytest.fixture
async def new(store_uri: str) -> AsyncIterator[SqlStateStore]:
    made = SqlStateStore(store_uri, keys=BOTH)
    yield made
    await made.aclose()


async def test_all_values_are_rewritten_and_read_as_before(old: SqlStateStore, new: SqlStateStore) -> None:
    await fill(old)
    before = await read(old)
    left = (await new.values_by_key()).left
    assert left == (await new.values_by_key()).by_key["old"] > 40
    done = await rotate(new, actor=ADA, batch=3)
    assert (done.done.values, done.counts.left, done.counts.by_key["old"]) == (left, 0, 0)
    assert await read(new) == before
    assert await readable(new) == []
    assert (await rotate(new, actor=ADA)).done.values == 0
    [(verb, key)] = await new.read(
        lambda connection: connection.execute(
            sa.select(acts.c.verb, acts.c.object).where(acts.c.run_id.is_(None))
        ).all()
    )
    assert (verb, key) == (Verb.ROTATE_KEYS, "new")


async def test_a_plain_database_is_encrypted_and_decrypted_again(store_uri: str) -> None:
    for keys, is_readable in (
        (NO_KEYS, True),
        (KeyRing((OLD,), source="KEYS"), False),
        (KeyRing((OLD,), writes_plain=True, source="KEYS"), True),
    ):
        store = SqlStateStore(store_uri, keys=keys)
        try:
            if keys is NO_KEYS:
                await fill(store)
                before = await read(store)
            else:
                assert await read(store) == before, "old values are read before they are rotated"
                result = await rotate(store, actor=ADA)
                assert result.counts.left == 0
            assert await read(store) == before
            assert bool(await readable(store)) == is_readable
        finally:
            await store.aclose()


@pytest.mark.parametrize("store_uri", ["sqlite"], indirect=True)
async def test_an_interrupted_rotation_continues_with_what_is_left(
    old: SqlStateStore, new: SqlStateStore
) -> None:
    await fill(old)
    before, left = await read(old), (await new.values_by_key()).left
    steps: Any = new.rotate_keys(batch=2, actor=ADA)
    async for done in steps:
        if done.values > left // 2:
            break
    await steps.aclose()
    assert await read(new) == before, "values of both keys are read"
    rest = await rotate(new, actor=ADA)
    assert (rest.done.values, rest.counts.left) == (left - done.values, 0)


async def test_a_run_continues_while_its_values_are_rewritten(old: SqlStateStore, new: SqlStateStore) -> None:
    run = await old.accept(new_run(), {})

    async def work() -> None:
        for number in range(1, 41):
            await old.write(writes(run, entry(number)))
        await old.write(move(run, RunStatus.COMPLETED, output=b'"end"', entries=40))

    await asyncio.gather(work(), rotate(new, actor=ADA, batch=2))
    last = await rotate(new, actor=ADA)
    assert last.counts.left == 0
    assert [each.seq for each in await new.entries(RUN)] == list(range(1, 41))
    assert (await new.run(RUN)).output == b'"end"'


@pytest.mark.parametrize("store_uri", ["sqlite"], indirect=True)
async def test_a_damaged_value_stays_and_is_named(old: SqlStateStore, new: SqlStateStore) -> None:
    run = await old.accept(new_run(), {})
    await old.write(writes(run, entry(1), entry(2)))

    def damage(connection: sa.Connection) -> None:
        first = sa.and_(journal.c.run_id == RUN, journal.c.seq == 1)
        stored = connection.scalar(sa.select(journal.c.output).where(first))
        connection.execute(journal.update().where(first).values(output=bytes(stored or b"")[:-1]))

    await old.write_apart(damage)
    result = await rotate(new, actor=ADA)
    assert result.counts.left == 1
    assert [message.partition(" is ")[0] for message in result.done.damaged] == [
        "journal.output of 'run-1 step_1 work 1'"
    ]


@pytest.mark.parametrize("store_uri", ["sqlite"], indirect=True)
async def test_a_rotation_without_an_old_key_is_refused(store_uri: str, old: SqlStateStore) -> None:
    await old.accept(new_run(), {}, claim=False)
    await old.accept(new_run("later"), {}, claim=False)
    without = SqlStateStore(store_uri, keys=KeyRing((NEW,), source="KEYS"))
    try:
        with pytest.raises(KeyMissing, match="'old'"):
            await rotate(without, actor=ADA)
    finally:
        await without.aclose()
    assert (await old.run(RunId("later"))).status is RunStatus.ACCEPTED
