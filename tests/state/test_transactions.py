"""What a transactional tool writes is committed together with the entry of its call, or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from engine.talking import RUN, add, calls, detail, entries, talk, value
from flujo.domain.acts import Actor, Via
from flujo.domain.journal import EntryStatus
from flujo.domain.run import IntentState, RunStatus
from flujo.domain.steps import GranularStep
from flujo.domain.tools import CallableTool, tool
from flujo.exceptions import Fenced, TransactionRefused
from flujo.services.runs.answers import record_answer
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from support import pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from flujo.domain.agents import Ask, Reply
    from flujo.domain.conversations import Message, Session

TOOL = "research/turn[0]/tool[0]"
TABLE = "CREATE TABLE bookings (seat int PRIMARY KEY, key text)"


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    made = SqlStateStore(store_uri)
    for statement in ("DROP TABLE IF EXISTS notes", "DROP TABLE IF EXISTS bookings", TABLE):
        await made.write_apart(lambda connection, text=statement: connection.execute(sa.text(text)))
    yield made
    await made.aclose()


async def booked(store: SqlStateStore) -> list[int]:
    """Return the seats that an outside reader sees."""
    rows = await store.read(lambda c: c.execute(sa.text("SELECT seat FROM bookings ORDER BY seat")).all())
    return [seat for (seat,) in rows]


def insert(connection: Any, seat: int, key: str = "") -> None:
    mark = "?" if hasattr(connection, "executescript") else "%s"
    connection.execute(f"INSERT INTO bookings VALUES ({mark}, {mark})", (seat, key))


@tool(effect="transactional")
def book(seat: int, connection: Any, idempotency_key: str) -> str:
    """Book a seat."""
    insert(connection, seat, idempotency_key)
    return f"seat {seat}"


async def test_the_rows_of_a_tool_come_with_its_entry_and_its_receipt(store: SqlStateStore) -> None:
    assert (
        await start(talk([calls(("book", {"seat": 7})), "done"], tools=[book]), store, "go")
    ).output == "done"
    assert await booked(store) == [7]
    entry = (await entries(store))[TOOL]
    assert value(entry) == "seat 7"
    assert detail(entry) == {"tool": "book", "outcome": "result", "effect": "transactional"}
    assert entry.usage.tool_calls == 1
    (intent,) = await store.intents(RUN)
    assert (intent.state, intent.path, intent.sends) == (IntentState.DONE, TOOL, 1)
    (key,) = await store.read(lambda c: c.execute(sa.text("SELECT key FROM bookings")).one())
    assert key == intent.key


async def test_calls_of_one_response_and_other_tools_have_no_gap_between_their_entries(
    store: SqlStateStore,
) -> None:
    script = [
        calls(*(("book", {"seat": n}) for n in range(4)), *(("add", {"a": n, "b": 1}) for n in range(3))),
        "done",
    ]
    assert (await start(talk(script, tools=[book, add]), store, "go")).output == "done"
    assert await booked(store) == [0, 1, 2, 3]
    assert [entry.seq for entry in await store.entries(RUN)] == list(
        range(1, len(await store.entries(RUN)) + 1)
    )


async def test_an_exception_rolls_back_and_goes_to_the_model(store: SqlStateStore) -> None:
    @tool(effect="transactional")
    def half(seat: int, connection: Any) -> None:
        insert(connection, seat)
        raise ValueError("no such customer")

    script = [calls(("half", {"seat": 1}), ("book", {"seat": 2}), ("half", {"seat": 3})), "done"]
    assert (await start(talk(script, tools=[half, book]), store, "go")).output == "done"
    assert await booked(store) == [2]
    recorded = await entries(store)
    assert value(recorded[TOOL]) == "ValueError: no such customer"
    assert [intent.path for intent in await store.intents(RUN)] == ["research/turn[0]/tool[1]"]


async def test_a_refused_statement_goes_to_the_model(store: SqlStateStore) -> None:
    script = [calls(("book", {"seat": 1})), calls(("book", {"seat": 1})), "done"]
    assert (await start(talk(script, tools=[book]), store, "go")).output == "done"
    assert await booked(store) == [1]
    said = value((await entries(store))["research/turn[1]/tool[0]"])
    assert "UNIQUE" in said.upper()


@pytest.mark.parametrize("how", ["commit", "rollback", "close"])
async def test_a_tool_that_ends_its_transaction_by_a_method_fails_the_step_and_writes_nothing(
    how: str, store: SqlStateStore
) -> None:
    @tool(effect="transactional")
    def hasty(seat: int, connection: Any) -> None:
        insert(connection, seat)
        getattr(connection, how)()

    result = await start(talk([calls(("hasty", {"seat": 1})), "done"], tools=[hasty]), store, "go")
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert (result.error.code, f"called `{how}()`" in result.error.message) == (TransactionRefused.code, True)
    assert await booked(store) == []
    assert await store.intents(RUN) == []


@pytest.mark.parametrize(
    "sql", ["COMMIT", "ROLLBACK", "INSERT INTO bookings VALUES (2, '')", "END", "ROLLBACK; BEGIN"]
)
async def test_a_tool_cannot_commit_by_a_statement(sql: str, store: SqlStateStore) -> None:
    @tool(effect="transactional")
    def hasty(seat: int, connection: Any) -> None:
        insert(connection, seat)
        for each in sql.split(";") if store.lends_writer else [sql]:
            connection.execute(each)
        raise ValueError("after it")

    await start(talk([calls(("hasty", {"seat": 1})), "done"], tools=[hasty]), store, "go")
    assert await booked(store) == [], "an insert alone is rolled back by the error"


async def test_a_tool_that_begins_another_transaction_writes_nothing(store: SqlStateStore) -> None:
    @tool(effect="transactional")
    def hasty(seat: int, connection: Any) -> None:
        connection.execute("ROLLBACK")
        insert(connection, seat)

    result = await start(talk([calls(("hasty", {"seat": 1})), "done"], tools=[hasty]), store, "go")
    assert result.error is not None
    assert result.error.code == TransactionRefused.code
    assert await booked(store) == []


async def test_a_call_that_takes_too_long_writes_nothing(store: SqlStateStore) -> None:
    @tool(effect="transactional")
    def slow(seat: int, connection: Any) -> None:
        insert(connection, seat)
        time.sleep(0.6)
        insert(connection, seat + 1)

    agent = ScriptedAgent([calls(("slow", {"seat": 1}), ("book", {"seat": 5})), "done"], tools=[slow, book])
    agent.tools["slow"].timeout_s = 0.3
    tree = pipeline(GranularStep("research", agent))
    assert (await start(tree, store, "go")).output == "done"
    assert value((await entries(store))[TOOL]) == "the call took longer than 0.3 s"
    await asyncio.sleep(0.6)
    assert await booked(store) == [5]


async def test_a_connection_is_of_no_use_after_its_call(store: SqlStateStore) -> None:
    kept: list[Any] = []

    @tool(effect="transactional")
    def keep(seat: int, connection: Any) -> None:
        kept.append(connection)

    await start(talk([calls(("keep", {"seat": 1})), "done"], tools=[keep]), store, "go")
    with pytest.raises(TransactionRefused, match="after its call"):
        insert(kept[0], 9)


async def test_a_run_that_another_process_took_over_commits_nothing(
    store: SqlStateStore, store_uri: str
) -> None:
    taken: list[Any] = []

    @tool(effect="transactional")
    def late(seat: int, connection: Any) -> None:
        insert(connection, seat)
        fence = "UPDATE runs SET fence = fence + 1" if store.lends_writer else None
        if fence:
            connection.execute(fence)  # what another process commits before this one does
        else:
            taken.append(asyncio.run(_take_over(store_uri)))

    with pytest.raises(Fenced):
        await start(talk([calls(("late", {"seat": 1})), "done"], tools=[late]), store, "go")
    assert await booked(store) == []


async def _take_over(uri: str) -> None:
    other = SqlStateStore(uri)
    await other.write_apart(
        lambda c: c.execute(sa.text(f"UPDATE {other.database.table_prefix}runs SET fence = fence + 1"))
    )
    await other.aclose()


async def test_an_async_tool_writes_to_postgres(store: SqlStateStore) -> None:
    if store.lends_writer:
        pytest.skip("refused on SQLite: see tests/services/checks/test_transactions.py")

    @tool(effect="transactional")
    async def book_later(seat: int, connection: Any) -> str:
        await connection.execute("INSERT INTO bookings VALUES (%s, '')", (seat,))
        return "booked"

    tree = talk([calls(("book_later", {"seat": 1})), "done"], tools=[book_later])
    assert (await start(tree, store, "go")).output == "done"
    assert await booked(store) == [1]


class ByHand:
    """An agent that is written by hand, and whose tools only its conversations know."""

    def __init__(self, agent: ScriptedAgent) -> None:
        self._agent, self.corrections, self.wants_context = agent, 0, False

    async def ask(self, ask: Ask) -> Reply:
        return await self._agent.ask(ask)

    def traits(self, ask: Ask) -> Mapping[str, Any]:
        return self._agent.traits(ask)

    def converse(self, ask: Ask, history: Sequence[Message]) -> Session:
        return self._agent.converse(ask, history)


async def test_an_agent_with_unknown_tools_is_refused_before_its_model_is_called() -> None:
    script = ScriptedAgent([calls(("book", {"seat": 1})), "done"], tools=[book])
    result = await start(pipeline(GranularStep("research", ByHand(script))), MemoryStateStore(), "go")
    assert result.error is not None
    assert "the runs are not kept in a database" in result.error.message
    assert script.asked == []


async def test_a_deferred_constraint_is_judged_with_the_commit(store: SqlStateStore) -> None:
    await store.write_apart(
        lambda c: c.execute(
            sa.text("CREATE TABLE notes (seat int REFERENCES bookings (seat) DEFERRABLE INITIALLY DEFERRED)")
        )
    )

    @tool(effect="transactional")
    def note(seat: int, connection: Any) -> None:
        connection.execute(f"INSERT INTO notes VALUES ({seat})")

    result = await start(
        talk([calls(("note", {"seat": 1}), ("add", {"a": 1, "b": 2})), "done"], tools=[note, add]),
        store,
        "go",
    )
    rows = await store.read(lambda c: c.execute(sa.text("SELECT * FROM notes")).all())
    assert rows == []
    if store.lends_writer:
        assert result.error is not None
        assert result.error.code == TransactionRefused.code
    else:
        assert result.output == "done"
        assert "violates foreign key" in value((await entries(store))[TOOL])
    seqs = [entry.seq for entry in await store.entries(RUN)]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_an_approved_call_is_made_in_a_transaction(store: SqlStateStore) -> None:
    tree = talk([calls(("book", {"seat": 3})), "done"], tools=[CallableTool(book, approve=True)])
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    (asked,) = await store.pauses(RUN)
    await record_answer(
        store, await store.find(RUN), TOOL, {"approved": True, "digest": asked.digest}, Actor("ana", Via.API)
    )
    assert (await resume(tree, store)).output == "done"
    assert await booked(store) == [3]
    assert (await entries(store))[TOOL].status is EntryStatus.COMPLETED


async def test_a_cancelled_call_writes_nothing_and_blocks_nothing(store: SqlStateStore) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @tool(effect="transactional")
    def wait(seat: int, connection: Any) -> None:
        insert(connection, seat)
        begun.set()
        go_on.wait(60)

    run = asyncio.ensure_future(
        start(talk([calls(("wait", {"seat": 1})), "done"], tools=[wait]), store, "go")
    )
    await asyncio.to_thread(begun.wait, 60)
    run.cancel()
    go_on.set()
    await asyncio.wait([run])
    assert await booked(store) == []
    tree = talk([calls(("book", {"seat": 1})), "done"], tools=[book])
    assert (await start(tree, store, "go", run_id="another")).output == "done"
    assert await booked(store) == [1]


@pytest.mark.parametrize("kind", [sqlite3.Connection, psycopg.Connection[Any], "Any"])
async def test_a_connection_may_be_annotated(kind: Any, store: SqlStateStore) -> None:
    def annotated(seat: int, connection: Any) -> None:
        insert(connection, seat)

    annotated.__annotations__["connection"] = kind
    entry = CallableTool(annotated, effect="transactional")
    assert (
        await start(talk([calls(("annotated", {"seat": 1})), "done"], tools=[entry]), store, "go")
    ).output == "done"
    assert await booked(store) == [1]


async def test_more_calls_than_connections_wait_for_their_turn(store: SqlStateStore) -> None:
    script = [calls(*(("book", {"seat": n}) for n in range(12))), "done"]
    assert (await start(talk(script, tools=[book], max_tool_concurrency=12), store, "go")).output == "done"
    assert await booked(store) == list(range(12))


async def test_savepoints_are_allowed_and_other_statements_of_transactions_are_not(sqlite_uri: str) -> None:
    seen: list[str] = []

    @tool(effect="transactional")
    def tries(sql: str, connection: Any) -> None:
        connection.execute(sql)
        seen.append(sql)

    refused = ["BEGIN", "COMMIT", "PRAGMA synchronous = OFF", "ATTACH 'x.db' AS x"]
    for sql in ["SAVEPOINT a", *refused]:
        made = SqlStateStore(sqlite_uri)
        result = await start(
            talk([calls(("tries", {"sql": sql})), "done"], tools=[tries]), made, "go", run_id=f"r{len(sql)}"
        )
        assert (result.error is None) is (sql not in refused), sql
        await made.aclose()
    assert seen == ["SAVEPOINT a"]
