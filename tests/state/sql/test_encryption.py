"""Encryption at rest: no value is readable in the database or its files, and each is read back unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.evaluations import Evaluation, EvaluationQuery
from flujo.domain.feed import FeedKind, FeedLine
from flujo.domain.journal import RunId
from flujo.domain.outbox import Notice, NoticeEvent, Tried
from flujo.domain.paths import StepPath
from flujo.domain.run import Intent, IntentState, Pause, RunQuery, RunStatus, Write
from flujo.domain.schedule_records import ScheduleChange, ScheduleRecord
from flujo.domain.sent_events import NewEvent
from flujo.exceptions import CorruptState, KeyMissing, WrongKey
from flujo.governance.key_ring import NO_KEYS, KeyRing, new_key
from flujo.state.sql import tables
from flujo.state.sql.encryption import ENCRYPTED
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MARKER = "MARKER-7Q"
ADA = Actor("ada", Via.CLI)
KEYS = KeyRing((new_key("k1"),), source="KEYS")
READABLE = {
    "runs": "run_id pipeline status closure lock_digest user_id metadata owner taken_from usage wish wish_by kind "
    "parent_run parent_path entry queue queue_key",
    "journal": "run_id path kind parent status usage fingerprint",
    "pauses": "run_id pause_id kind by event event_key",
    "question_claims": "run_id pause_id claimed_by escalated_by",
    "blobs": "digest encoding",
    "blob_refs": "digest run_id",
    "intents": "run_id key path tool state",
    "cache": "key",
    "budget_holds": "run_id path state usage digest shares",
    "acts": "run_id by via verb object",
    "api_tokens": "name digest role reach",
    "sessions": "digest name proof",
    "events": "event_id run_id name key by via taken_by taken_path",
    "schedules": "name closure last_run",
    "limits": "name key",
    "outbox": "run_id target event owner",
    "workers": "owner host version queues state",
    "feed": "run_id kind path",
    "evaluations": "key run_id path pipeline user_id closure lock_digest evaluator version by",
    "schema_info": "revision oldest_reader",
}
"""The columns that stay readable: ids, paths, states, names, usage, metadata, and digests that rows are found by."""


def value(kind: str, size: int = 0) -> bytes:
    return canonical.encode(f"{MARKER} {kind} ".ljust(size, "x"))


async def fill(store: SqlStateStore) -> None:
    """Write a marker into each value that a store keeps."""
    run = await store.accept(
        new_run(input=value("input"), context=value("context")), {canonical.digest(b"p"): b"p"}
    )
    values: Any = {name: value(name) for name in ("input", "output", "patch", "error", "detail")}
    whole = entry(1, **values)
    await store.write(
        Write(
            run_id=RUN,
            fence=run.fence,
            entries=(whole, entry(2, output=value("large", 20_000))),
            pauses=(Pause(pause_id=StepPath("q"), message=f"{MARKER}?", answer_schema=value("schema")),),
            intents=(
                Intent(
                    key="k",
                    path=StepPath("a"),
                    tool="a:b",
                    state=IntentState.DONE,
                    input=value("request"),
                    result=value("result"),
                ),
            ),
            acts=(Act(verb=Verb.RETRY, actor=ADA, run_id=RUN, before=value("before"), after=value("after")),),
        )
    )
    await store.write(Write(run_id=RUN, fence=run.fence, entries=(entry(3, output=value("appended")),)))
    await store.escalate_question(RUN, StepPath("q"), "ada", f"{MARKER} reason")
    await store.answer(RUN, StepPath("q"), value("answer"), actor=ADA)
    await store.add_to_feed(RUN, run.fence, [FeedLine(at=1.0, kind=FeedKind.TEXT, text=f"{MARKER} said")])
    await store.send_event(NewEvent(event_id="e", name="paid", payload=value("event"), actor=ADA, run_id=RUN))
    scored = Evaluation(
        key="e",
        run_id=RUN,
        pipeline="triage",
        closure="c" * 64,
        evaluator="polite",
        version="v",
        score=0.5,
        by="ada",
        reason=f"{MARKER} reason",
    )
    notices = (Notice("ops", NoticeEvent.FAILED, value("notice")),)
    ended = {"context": value("context_now"), "output": value("end"), "error": value("failure")}
    await store.write(move(run, RunStatus.FAILED, notices=notices, evaluations=(scored,), entries=3, **ended))
    [message] = await store.take_messages(["ops"], lease_s=1e6, limit=1)
    await store.settle_message(message, Tried(error=f"{MARKER} refused", retry_s=1e6))
    await store.cache().put("c" * 64, value("cached"))
    scheduled = ScheduleRecord(name="nightly", definition=value("definition"), closure="c" * 64, next_at=1.0)
    await store.change_schedule(ScheduleChange(before=None, after=scheduled))


async def read(store: SqlStateStore) -> dict[str, Any]:
    """Return all that was written, as the store gives it back."""
    record = await store.run(RUN)
    return {
        "run": replace(record, lease_left_s=None, updated_at=0.0),
        "entries": await store.entries(RUN),
        "pauses": await store.pauses(RUN),
        "intents": await store.intents(RUN),
        "acts": await store.acts(RUN),
        "feed": await store.feed(RUN),
        "scores": await store.evaluations(EvaluationQuery()),
        "messages": await store.messages(),
        "cached": await store.cache().get("c" * 64),
        "schedules": (await store.schedules()).records,
        "events": await store.kept_events(RUN),
        "listed": [each.run_id for each in await store.runs(RunQuery())],
    }


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    made = SqlStateStore(store_uri, keys=KEYS)
    await fill(made)
    yield made
    await made.aclose()


async def readable(store: SqlStateStore) -> list[str]:
    """Return the places where the marker can be read: in rows, and in files of SQLite."""

    def rows(connection: sa.Connection) -> list[str]:
        found = []
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                found += [f"{table.name}.{name}" for name, each in row.items() if MARKER in _shown(each)]
        return found

    files = []
    if not store.database.is_postgres:
        path = Path(str(store.database.url.database))
        files = [each.name for each in path.parent.iterdir() if MARKER.encode() in each.read_bytes()]
    return [*await store.read(rows), *files]


def _shown(stored: Any) -> str:
    return bytes(stored).decode("latin-1") if isinstance(stored, bytes | memoryview) else str(stored)


async def test_no_value_is_readable_and_each_is_read_back(store: SqlStateStore, store_uri: str) -> None:
    assert await readable(store) == []
    found = await read(store)
    assert str(found).count(MARKER) >= 24
    assert found["cached"] == value("cached")
    counts = await store.values_by_key()
    assert (counts.plain, counts.unknown, counts.left, counts.writer) == (0, 0, 0, "k1")
    other = await SqlStateStore.open(store_uri, keys=KEYS)
    try:
        assert await read(other) == found
    finally:
        await other.aclose()


async def test_without_the_key_the_database_is_not_opened(store: SqlStateStore, store_uri: str) -> None:
    for keys, kind in ((NO_KEYS, KeyMissing), (KeyRing((new_key("k1"),), source="KEYS"), WrongKey)):
        with pytest.raises(kind, match="'k1'"):
            await SqlStateStore.open(store_uri, keys=keys)


async def test_a_value_in_the_row_of_another_run_is_damage_of_that_run_alone(store: SqlStateStore) -> None:
    await store.accept(new_run("other", input=value("other")), {}, claim=False)

    def swap(connection: sa.Connection) -> None:
        mine = sa.select(tables.runs.c.input).where(tables.runs.c.run_id == RUN).scalar_subquery()
        connection.execute(tables.runs.update().where(tables.runs.c.run_id == "other").values(input=mine))

    await store.write_apart(swap)
    with pytest.raises(CorruptState, match=r"runs\.input of 'other'"):
        await store.run(RunId("other"))
    assert (await store.run(RUN)).input == value("input")
    again = await SqlStateStore.open(store.database.url.render_as_string(hide_password=False), keys=KEYS)
    await again.aclose()


def test_each_column_is_encrypted_or_declared_readable() -> None:
    for table in tables.metadata.sorted_tables:
        of = ENCRYPTED.get(table.name)
        values = set() if of is None else set(of.values)
        given = {
            column.name for column in table.c if isinstance(column.type, sa.Text | sa.LargeBinary | sa.JSON)
        }
        binary_or_text = given - {"seals"} if of is None else given
        assert values <= {column.name for column in table.c}
        assert binary_or_text - values == set(READABLE[table.name].split()), table.name
