"""Schedules: each time starts one run, whichever process is first, in the commit that moves the schedule."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical, chains
from flujo.domain.acts import OF_SCHEDULES, Act, Actor, ActQuery, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.queues import Queued
from flujo.domain.run import Child, RunStatus
from flujo.domain.schedule_records import (
    NOT_ENDED,
    ScheduleChange,
    ScheduleOutcome,
    ScheduleRecord,
    definition,
)
from flujo.domain.schedules import Overlap, Schedule, run_id_of
from flujo.exceptions import RunNotFound
from flujo.testing.store_suite.examples import OpenStore, in_state, move, new_run

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

ADA = Actor("ada", Via.CLI)
FIRST, SECOND = 1_800_000_000.0, 1_800_003_600.0
FILE = b'"a pinned file"'


def _record(name: str = "nightly", **changes: Any) -> ScheduleRecord:
    said = definition(Schedule(cron="0 * * * *", name=name), "triage", "")
    made = ScheduleRecord(name=name, definition=said, closure="c" * 64, next_at=FIRST)
    return replace(made, **changes)


async def _applied(store: StateStore, record: ScheduleRecord) -> ScheduleRecord:
    changed = await store.change_schedule(ScheduleChange(before=None, after=record))
    assert changed.outcome is ScheduleOutcome.DONE
    found = (await store.schedules()).named(record.name)
    assert found is not None
    return found


def _firing(before: ScheduleRecord, time: float, overlap: Overlap = "allow", **of_run: Any) -> ScheduleChange:
    run = new_run(run_id_of(before.name, time), **of_run)
    after = replace(before, next_at=time + 3600, last_at=time, last_run=run.run_id)
    return ScheduleChange(before=before, after=after, run=run, overlap=overlap)


class SchedulesSuite:
    """A change of a schedule, its act and its run are one commit, compared with what was read."""

    async def test_a_schedule_is_read_back_with_the_time_of_the_store(self, store: StateStore) -> None:
        assert not (await store.schedules()).records
        await _applied(store, _record("b", is_paused=True, next_at=None))
        found = await _applied(store, _record("a", last_at=FIRST - 3600, last_run=RunId("a-1")))
        there = await store.schedules()
        assert [record.name for record in there.records] == ["a", "b"]
        assert replace(found, updated_at=0.0) == _record("a", last_at=FIRST - 3600, last_run=RunId("a-1"))
        assert found.updated_at == pytest.approx(there.now, abs=5)
        assert there.named("c") is None

    async def test_a_change_of_something_else_than_what_was_read_changes_nothing(
        self, store: StateStore
    ) -> None:
        there = await _applied(store, _record())
        act = Act(verb=Verb.SCHEDULE_PAUSE, actor=ADA, object="nightly")
        paused = replace(there, is_paused=True)
        pausing = ScheduleChange(before=there, after=paused, act=act)
        assert (await store.change_schedule(pausing)).outcome is ScheduleOutcome.DONE
        assert (await store.change_schedule(pausing)).outcome is ScheduleOutcome.LOST
        again = ScheduleChange(before=None, after=_record())
        assert (await store.change_schedule(again)).outcome is ScheduleOutcome.LOST
        gone = ScheduleChange(before=there, after=None)
        assert (await store.change_schedule(gone)).outcome is ScheduleOutcome.LOST
        [found] = (await store.schedules()).records
        assert found.is_paused
        [told] = await store.recorded_acts(ActQuery(object="nightly", verbs=OF_SCHEDULES))
        assert (told.verb, told.actor, told.object) == (Verb.SCHEDULE_PAUSE, ADA, "nightly")
        assert await store.recorded_acts(ActQuery(object="other")) == []
        deleting = ScheduleChange(before=found, after=None)
        assert (await store.change_schedule(deleting)).outcome is ScheduleOutcome.DONE
        assert not (await store.schedules()).records

    async def test_of_many_processes_one_starts_the_run(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(4)]
        there = await _applied(stores[0], _record())
        changes = [replace(_firing(there, FIRST), blobs={}) for _ in range(8)]
        done = await asyncio.gather(
            *(stores[index % 4].change_schedule(each) for index, each in enumerate(changes))
        )
        outcomes = sorted(str(each.outcome) for each in done)
        assert outcomes == [ScheduleOutcome.DONE] + [ScheduleOutcome.LOST] * 7
        [found] = (await stores[1].schedules()).records
        assert (found.next_at, found.last_at, found.last_run) == (SECOND, FIRST, "nightly-20270115T080000Z")
        run = await stores[2].run(RunId("nightly-20270115T080000Z"))
        assert (run.status, run.owner, run.closure) == (RunStatus.ACCEPTED, None, "c" * 64)
        assert (await stores[3].due()).runs == (run.run_id,)

    async def test_a_started_run_has_its_contents_and_its_place_in_a_queue(self, store: StateStore) -> None:
        there = await _applied(store, _record())
        digest = canonical.digest(FILE)
        firing = _firing(there, FIRST, closure=digest, queued=Queued(queue="night", priority=2))
        await store.change_schedule(replace(firing, blobs={digest: FILE}))
        assert firing.run is not None
        run = await store.run(firing.run.run_id)
        assert run.queued is not None
        assert (run.queued.queue, run.queued.priority) == ("night", 2)
        assert await store.blobs([digest]) == {digest: FILE}

    async def test_a_time_that_has_a_run_already_is_passed_over(self, store: StateStore) -> None:
        there = await _applied(store, _record())
        await store.accept(new_run(run_id_of("nightly", FIRST), input=b'"another"'), {}, claim=False)
        firing = _firing(there, FIRST, "skip")
        assert (await store.change_schedule(firing)).outcome is ScheduleOutcome.EXISTED
        [found] = (await store.schedules()).records
        assert (found.next_at, found.last_run) == (SECOND, run_id_of("nightly", FIRST))
        assert (await store.run(RunId(run_id_of("nightly", FIRST)))).input == b'"another"'

    @pytest.mark.parametrize("status", list(RunStatus))
    async def test_an_earlier_run_blocks_until_it_has_ended(
        self, store: StateStore, status: RunStatus
    ) -> None:
        there = await _applied(store, replace(_record(), last_run=RunId(run_id_of("nightly", FIRST - 3600))))
        await in_state(store, status, run_id_of("nightly", FIRST - 3600))
        blocked = await store.change_schedule(_firing(there, FIRST, "queue"))
        if status not in NOT_ENDED:
            assert blocked.outcome is ScheduleOutcome.DONE
            return
        earlier = RunId(run_id_of("nightly", FIRST - 3600))
        assert (blocked.outcome, blocked.blocker) == (ScheduleOutcome.BLOCKED, earlier)
        assert list((await store.schedules()).records) == [there]
        skipped = await store.change_schedule(_firing(there, FIRST, "skip"))
        assert (skipped.outcome, skipped.blocker) == (ScheduleOutcome.SKIPPED, earlier)
        [found] = (await store.schedules()).records
        assert (found.next_at, found.last_at, found.last_run) == (SECOND, FIRST, earlier)
        assert found.has_skipped
        with pytest.raises(RunNotFound):
            await store.run(RunId(run_id_of("nightly", FIRST)))
        allowed = await store.change_schedule(_firing(found, SECOND))
        assert allowed.outcome is ScheduleOutcome.DONE

    async def test_runs_that_continue_one_another_block_until_the_last_one_has_ended(
        self, store: StateStore
    ) -> None:
        there = await _applied(store, _record())
        earlier = await store.accept(new_run(run_id_of("nightly", FIRST - 3600)), {})
        following = Child(run=new_run(chains.successor_of(earlier.run_id)))
        await store.write(replace(move(earlier, RunStatus.COMPLETED), children=(following,)))
        blocked = await store.change_schedule(_firing(there, FIRST, "queue"))
        assert (blocked.outcome, blocked.blocker) == (ScheduleOutcome.BLOCKED, following.run.run_id)
        last = await store.claim(following.run.run_id, statuses=[RunStatus.ACCEPTED])
        await store.write(move(last, RunStatus.COMPLETED))
        assert (await store.change_schedule(_firing(there, FIRST, "queue"))).outcome is ScheduleOutcome.DONE

    async def test_runs_of_other_names_do_not_block(self, store: StateStore) -> None:
        there = await _applied(store, _record())
        for other in ("nightly-test", "nightly-late-20270115T070000Z", "nightly2-20270115T070000Z"):
            await store.accept(new_run(other), {}, claim=False)
        assert (await store.change_schedule(_firing(there, FIRST, "skip"))).outcome is ScheduleOutcome.DONE
