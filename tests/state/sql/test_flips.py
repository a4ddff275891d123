"""Damage in every column with a value is detected and named, or harmless, and never affects other runs."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.run import Intent, IntentState, Pause, RunStatus, Write
from flujo.domain.usage import Usage
from flujo.exceptions import CorruptState
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OTHER = RunId("other")
VALUES = {
    "runs": ("input", "context", "context_now", "output", "error", "usage"),
    "journal": ("input", "output", "patch", "error", "detail", "usage", "digest"),
    "pauses": ("answer_schema", "answer", "digest"),
    "intents": ("request", "result", "digest"),
    "budget_holds": ("usage", "digest"),
    "acts": ("before", "after", "digest"),
}
TEXTS = {
    "runs": ("pipeline", "user_id", "lock_digest", "closure"),
    "journal": ("path", "kind", "status", "fingerprint"),
    "pauses": ("pause_id", "message", "kind", "by"),
    "intents": ("key", "path", "tool", "state"),
    "budget_holds": ("path", "state"),
    "acts": ("by", "via", "verb", "object"),
}
FLIPS = int(os.environ.get("FLUJO_FLIPS", "1"))
"""How many bits are flipped in each column of each row."""
WHOLE = "FLUJO_FLIPS" in os.environ
"""Whether each column gets every other damage; otherwise two of them in turn, as in `make test`."""


@pytest.fixture
async def sql(store_uri: str) -> AsyncIterator[SqlStateStore]:
    store = SqlStateStore(store_uri)
    for run_id in (RUN, OTHER):
        await _fill(store, run_id)
    yield store
    await store.aclose()


async def _fill(store: SqlStateStore, run_id: RunId) -> None:
    """Give a run one small or large value in every column."""
    run = await store.accept(new_run(run_id, user_id="ann", lock_digest="l" * 64), {})
    small, large = canonical.encode(f"of {run_id} ä"), canonical.encode(f"{run_id} " * 5_000)
    used = Usage(input_tokens=7, output_tokens=3, requests=1, cost_micro_usd=42)
    whole = entry(1, input=small, output=large, patch=small, error=small, detail=small, usage=used)
    call = Intent(key="k", path=StepPath("a"), tool="a:b", state=IntentState.DONE, input=large, result=small)
    path = StepPath("q")
    act = Act(verb=Verb.RETRY, actor=Actor("bob", Via.API), run_id=run_id, before=large, after=small)
    await store.write(
        Write(
            run_id=run_id,
            fence=run.fence,
            entries=(replace(whole, fingerprint="f" * 64), entry(2, "step_1/below", usage=used), entry(3)),
            pauses=(Pause(pause_id=path, message="send?", answer_schema=b'{"type":"string"}'),),
            intents=(call,),
            holds=(Hold(path=path, number=1, state=HoldState.HELD, usage=used),),
            acts=(act,),
        )
    )
    await store.answer(run_id, path, small, actor=Actor("ann", Via.CLI))
    last = move(run, RunStatus.FAILED, context=large, output=small, error=small, usage=used, entries=3)
    await store.write(last)


async def _read(store: SqlStateStore, run_id: RunId) -> list[Any]:
    """Return the result, or error, of each query about a run."""
    asks: list[Callable[[RunId], Awaitable[Any]]] = [
        store.run,
        store.entries,
        store.progress,
        store.pauses,
        store.intents,
        store.ledger,
        store.acts,
    ]
    return await asyncio.gather(*(asked(run_id) for asked in asks), return_exceptions=True)


@dataclass(frozen=True)
class _Cell:
    table: str
    column: str
    key: dict[str, Any]
    value: Any

    def put(self, store: SqlStateStore, value: Any, *, as_text: bool = False) -> None:
        where = " AND ".join(f"{name} = :{name}" for name in self.key)
        given = "CAST(:value AS TEXT)" if as_text else ":value"
        statement = (
            f"UPDATE {store.database.table_prefix}{self.table} SET {self.column} = {given} WHERE {where}"
        )
        with store.database.writing() as connection:
            connection.execute(sa.text(statement), {**self.key, "value": value})


KEYS = {
    "runs": ("run_id",),
    "journal": ("run_id", "seq"),
    "pauses": ("run_id", "asked_at"),
    "intents": ("run_id", "sent_at"),
    "budget_holds": ("run_id", "number"),
    "acts": ("run_id", "id"),
}


def _cells(store: SqlStateStore, columns: dict[str, tuple[str, ...]], run_id: str = RUN) -> list[_Cell]:
    found = []
    with store.database.reading() as connection:
        for table, names in columns.items():
            chosen = sa.text(f"SELECT * FROM {store.database.table_prefix}{table} WHERE run_id = :run")
            for row in connection.execute(chosen, {"run": run_id}).mappings():
                key = {name: row[name] for name in KEYS[table]}
                found += [_Cell(table, name, key, row[name]) for name in names if row[name] is not None]
    return found


async def _judge(store: SqlStateStore, before: list[Any], what: object, named: str = RUN) -> None:
    """Fail unless each read of the damaged run is unchanged or an error that names it, with at least one error.

    Sums over a journal (`progress`, `ledger`) read the usage only; the journal itself shows the error.
    """
    mine, others = await asyncio.gather(_read(store, RUN), _read(store, OTHER))
    for position, (was, is_now) in enumerate(zip(before, mine, strict=True)):
        told = isinstance(is_now, CorruptState) and named in str(is_now)
        summed = position in (2, 5) and isinstance(mine[1], CorruptState)
        assert is_now == was or told or (summed and not isinstance(is_now, BaseException)), (what, is_now)
    assert any(isinstance(each, CorruptState) for each in mine), what
    assert not any(isinstance(each, BaseException) for each in others), (what, others)


@pytest.mark.guarantee("G7")
async def test_a_flipped_bit_in_any_value_is_detected_or_harmless(sql: SqlStateStore) -> None:
    chance, before = random.Random(7), await _read(sql, RUN)
    for cell in _cells(sql, VALUES):
        for _ in range(FLIPS):
            data = bytearray(cell.value)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            cell.put(sql, bytes(data))
            await _judge(sql, before, (cell.table, cell.column, bytes(data[:80])))
        cell.put(sql, cell.value)
    assert await _read(sql, RUN) == before


@pytest.mark.guarantee("G7")
async def test_a_truncated_swapped_or_malformed_value_is_detected(sql: SqlStateStore) -> None:
    before = await _read(sql, RUN)
    others = {(cell.table, cell.column): cell.value for cell in _cells(sql, VALUES, OTHER)}
    for number, cell in enumerate(_cells(sql, VALUES)):
        cut = bytes(cell.value)[: len(cell.value) // 2]
        every = [cut, b"", b"NaN", b'"\xff\xfe"', b"@" + b"0" * 64, others[cell.table, cell.column]]
        for damaged in every if WHOLE else every[number % 3 :: 3]:
            if damaged != cell.value:
                cell.put(sql, damaged)
                await _judge(sql, before, (cell.table, cell.column, damaged[:80]))
        cell.put(sql, cell.value)


@pytest.mark.guarantee("G7")
async def test_a_changed_name_is_detected(sql: SqlStateStore) -> None:
    before = await _read(sql, RUN)
    for cell in _cells(sql, TEXTS):
        cell.put(sql, cell.value + "x")
        await _judge(sql, before, (cell.table, cell.column))
        cell.put(sql, cell.value)


@pytest.mark.guarantee("G7")
async def test_text_that_is_not_utf8_is_detected_in_a_sqlite_file(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    for run_id in (RUN, OTHER):
        await _fill(store, run_id)
    before = await _read(store, RUN)
    for cell in _cells(store, TEXTS):
        cell.put(store, b"\xff\xfe", as_text=True)
        await _judge(store, before, (cell.table, cell.column), named="state.db")
        cell.put(store, cell.value)
    await store.aclose()


@pytest.mark.guarantee("G7")
async def test_damage_in_a_large_value_names_the_run_that_needs_it(sql: SqlStateStore) -> None:
    before = await _read(sql, RUN)
    statement = "UPDATE {}blobs SET data = :data WHERE digest IN (SELECT substr(:ref, 2))"
    for cell in _cells(sql, VALUES):
        if bytes(cell.value[:1]) == b"@":
            reference = bytes(cell.value).decode()
            with sql.database.writing() as connection:
                text = sa.text(statement.format(sql.database.table_prefix))
                connection.execute(text, {"data": b"damaged", "ref": reference})
            await _judge(sql, before, (cell.table, cell.column, reference))


@pytest.mark.guarantee("G7")
async def test_a_damaged_or_swapped_answer_in_the_cache_is_a_miss(sql: SqlStateStore) -> None:
    cache, keys = sql.cache(), ("a" * 64, "b" * 64)
    prefix = sql.database.table_prefix
    for key in keys:
        await cache.put(key, b'"' + key.encode() + b'"')
    with sql.database.writing() as connection:
        connection.execute(
            sa.text(
                f"UPDATE {prefix}cache SET value = (SELECT value FROM {prefix}cache AS o WHERE o.key = :b),"
                f" digest = (SELECT digest FROM {prefix}cache AS o WHERE o.key = :b) WHERE key = :a"
            ),
            {"a": keys[0], "b": keys[1]},
        )
    assert await cache.get(keys[0]) is None
    assert await cache.get(keys[1]) == b'"' + keys[1].encode() + b'"'
    with sql.database.writing() as connection:
        connection.execute(sa.text(f"UPDATE {prefix}cache SET value = :v"), {"v": b"NaN"})
    assert [await cache.get(key) for key in keys] == [None, None]
