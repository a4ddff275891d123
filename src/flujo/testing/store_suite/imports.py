"""Runs of another database: taken over in one commit, and executed only when a user asks for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.ledger import Hold, HoldState, Spending
from flujo.domain.paths import StepPath
from flujo.domain.queues import Parent, Queued, RunKind, task_id
from flujo.domain.recorded_run import RecordedRun, times_in
from flujo.domain.run import (
    UNENDED,
    Intent,
    IntentState,
    Pause,
    PauseKind,
    RunOrder,
    RunQuery,
    RunRecord,
    RunStatus,
    Wish,
    Write,
)
from flujo.domain.sent_events import NewEvent
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import CorruptState, RunConflict, RunNotFound
from flujo.testing.store_suite.examples import RUN, OpenStore, entry, move, new_run, writes

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.store import StateStore

ADA = Actor("ada", Via.CLI)
FROM = "postgresql://db.example/prod"
LARGE = canonical.encode("x" * 40_000)
CONTENT = canonical.encode({"python": "triage"})
DIGEST = canonical.digest(CONTENT)
USED = Usage(input_tokens=7, requests=1, cost_micro_usd=42)
TASK = task_id(RUN, StepPath("step_2"), 1)


def recorded(status: RunStatus = RunStatus.COMPLETED, **changes: Any) -> RecordedRun:
    """Return a run with something of everything, as a database has recorded it."""
    record = RunRecord(
        run_id=RUN,
        pipeline="triage",
        status=status,
        closure=DIGEST,
        input=LARGE,
        context=b'{"label":""}',
        context_now=b'{"label":"x"}',
        metadata={"customer": "c1", "total": 1.5, "nested": {"a": [1, None]}},
        user_id="u1",
        lock_digest="d" * 64,
        fence=3,
        claims=3,
        output=b'"done"',
        usage=USED,
        entries=2,
        created_at=1_000.25,
        updated_at=1_001.75,
    )
    run = RecordedRun(
        record=record,
        entries=(
            entry(1, input=LARGE, usage=USED, started_at=1.5, ended_at=2.5),
            entry(2, detail=b'{"model":"m"}'),
        ),
        pauses=(
            Pause(
                pause_id=StepPath("ok"),
                message="ok?",
                answer_schema=b"{}",
                asked_at=1_000.5,
                answer=b"true",
                answered_at=1_000.75,
                by="ada",
            ),
            Pause(pause_id=StepPath("more"), message="more?", asked_at=1_001.0, deadline_at=1_002.0),
        ),
        intents=(
            Intent(
                key="k1",
                path=StepPath("pay"),
                tool="shop:pay",
                state=IntentState.DONE,
                input=b"{}",
                result=LARGE,
                sent_at=1_000.5,
            ),
        ),
        acts=(
            Act(verb=Verb.ANSWER, actor=ADA, run_id=RUN, object="ok", after=b"true", at=1_000.75),
            Act(verb=Verb.RETRY, actor=ADA, run_id=RUN, before=LARGE, at=1_001.0),
        ),
        holds=(Hold(path=StepPath("step_1"), number=1, state=HoldState.UNCONFIRMED, usage=USED),),
        times=(Spending(StepPath("body"), NOTHING, 3.0, 4.0), Spending(StepPath("body"), NOTHING, 5.0, 6.0)),
        blobs={DIGEST: CONTENT},
    )
    return replace(run, record=replace(record, **changes))


def task() -> RecordedRun:
    """Return a background task of the run."""
    parent = Parent(run_id=RUN, path=StepPath("step_2"), entry="step_2")
    return replace(recorded(RunStatus.RUNNING, run_id=TASK, parent=parent), acts=())


async def pull(store: StateStore, *runs: RecordedRun) -> list[RunId]:
    """Take runs over."""
    return await store.import_runs(runs, actor=ADA, origin=FROM)


async def read(store: StateStore, run_id: RunId = RUN) -> RecordedRun:
    """Return a run as a store has it, without its contents."""
    entries, ledger = await store.entries(run_id), await store.ledger(run_id)
    return RecordedRun(
        record=await store.run(run_id),
        entries=entries,
        pauses=await store.pauses(run_id),
        intents=await store.intents(run_id),
        acts=await store.acts(run_id),
        holds=ledger.holds,
        times=times_in(ledger, entries),
    )


class ImportsSuite:
    """A run of another database keeps its history here, and has no owner."""

    async def test_a_run_is_here_as_it_was_there(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        assert await pull(mine, recorded()) == [RUN]
        found = await read(other)
        assert found.difference(recorded().pulled()) == ""
        assert found.record.metadata == recorded().record.metadata
        assert found.ledger == recorded().ledger
        assert await other.blobs([DIGEST]) == {DIGEST: CONTENT}
        assert (await other.progress(RUN)).usage == USED

    async def test_the_pull_is_an_act_of_the_run(self, store: StateStore) -> None:
        await pull(store, recorded(RunStatus.PAUSED))
        *before, pulled = await store.acts(RUN)
        assert [act.verb for act in before] == [Verb.ANSWER, Verb.RETRY]
        assert (pulled.verb, pulled.actor, pulled.object) == (Verb.PULL, ADA, FROM)
        assert (pulled.before, pulled.after) == (b'"paused"', None)

    async def test_the_same_run_again_changes_nothing(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        found = await asyncio.gather(pull(mine, recorded()), pull(other, recorded()))
        assert sorted(map(len, found)) == [0, 1]
        assert await pull(other, recorded()) == []
        assert [act.verb for act in await other.acts(RUN)].count(Verb.PULL) == 1

    async def test_another_run_with_the_same_id_is_refused(self, store: StateStore) -> None:
        await pull(store, recorded())
        before = await read(store)
        grown = replace(recorded(entries=3), entries=(*recorded().entries, entry(3)))
        for other in (grown, recorded(output=b'"other"'), recorded(fence=4)):
            with pytest.raises(RunConflict, match=RUN):
                await pull(store, other)
        assert (await read(store)).difference(before) == ""

    async def test_nothing_of_a_family_is_written_when_one_run_is_refused(self, store: StateStore) -> None:
        await pull(store, task())
        with pytest.raises(RunConflict):
            await pull(store, recorded(), replace(task(), pauses=()))
        with pytest.raises(RunNotFound):
            await store.run(RUN)

    async def test_damaged_contents_are_refused(self, store: StateStore) -> None:
        damaged = replace(recorded(), blobs={DIGEST: CONTENT + b"!"})
        with pytest.raises(CorruptState, match=DIGEST):
            await pull(store, damaged)
        with pytest.raises(RunNotFound):
            await store.run(RUN)

    @pytest.mark.parametrize("status", [*UNENDED, RunStatus.FAILED, RunStatus.PARKED])
    async def test_no_process_executes_a_pulled_run_by_itself(
        self, store: StateStore, status: RunStatus
    ) -> None:
        changes = {"queued": Queued(queue="slow", available_at=1.0), "ends_by": 1_000.0, "output": None}
        wish = Wish("cancel", "bob", 1_001.0)
        await pull(store, recorded(status, **changes, owner="someone", wish=wish, is_answered=True))
        due = await store.due()
        assert (due.runs, due.questions, due.overdue) == ((), (), ())
        assert await store.next_available(["slow"]) is None
        assert await store.queue_states() == []
        run = await store.run(RUN)
        assert run.status is (RunStatus.INTERRUPTED if status in UNENDED else status)
        assert (run.owner, run.wish, run.queued, run.ends_by) == (None, None, None, None)

    async def test_no_event_and_no_deadline_reaches_a_pulled_run(self, store: StateStore) -> None:
        wait = Pause(
            pause_id=StepPath("wait"),
            message="waits",
            kind=PauseKind.EVENT,
            event="paid",
            event_key="o1",
            asked_at=1_000.5,
            deadline_at=1_001.0,
        )
        await pull(store, replace(recorded(RunStatus.WAITING), pauses=(wait,)))
        assert await store.event_waits("paid", "o1") == []
        event = NewEvent(event_id="e1", run_id=None, name="paid", key="o1", payload=b"1", actor=ADA)
        assert (await store.send_event(event)).taken == ()
        (found,) = await store.pauses(RUN)
        assert found.void

    async def test_a_user_continues_a_pulled_run(self, store: StateStore) -> None:
        await pull(store, recorded(RunStatus.RUNNING, entries=0))
        run = await store.claim(RUN, statuses=[RunStatus.INTERRUPTED])
        assert (run.fence, run.entries, run.usage) == (4, 2, USED)
        time = Hold(path=StepPath("body"), number=run.fence, state=HoldState.TIMED)
        question = Pause(pause_id=StepPath("more"), message="more?")
        await store.write(Write(run_id=RUN, fence=run.fence, holds=(time,), pauses=(question,)))
        await store.write(writes(run, entry(3)))
        await store.write(move(run, RunStatus.COMPLETED, entries=3, output=b"1"))
        assert [each.seq for each in await store.entries(RUN)] == [1, 2, 3]
        assert (await store.pauses(RUN))[-1].asked_at != 1_001.0
        with pytest.raises(RunConflict):
            await pull(store, recorded(RunStatus.RUNNING, entries=0))

    async def test_a_background_task_comes_with_its_parent(self, store: StateStore) -> None:
        assert await pull(store, recorded(), task()) == sorted([RUN, TASK])
        found = await store.runs(RunQuery(parent=RUN, order=RunOrder.OLDEST))
        assert [(each.run_id, each.kind, each.status) for each in found] == [
            (TASK, RunKind.TASK, RunStatus.INTERRUPTED)
        ]
        assert (await store.find("@last")).run_id == RUN

    async def test_a_run_of_this_database_is_not_taken_over(self, store: StateStore) -> None:
        await store.accept(new_run(), {})
        with pytest.raises(RunConflict):
            await pull(store, recorded())
        assert (await store.run(RUN)).status is RunStatus.RUNNING
