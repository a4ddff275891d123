"""Background tasks: launched in the commit of an entry, waited for by their parent, cancelled with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.acts import Actor, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import Parent, Queued, RunKind, task_id
from flujo.domain.run import Child, Pause, PauseKind, RunGroup, RunOrder, RunQuery, RunStatus, Wish, Write
from flujo.exceptions import Fenced, RunNotFound
from flujo.testing.store_suite.examples import (
    NEVER_S,
    RUN,
    SHORT_S,
    OpenStore,
    entry,
    listed,
    move,
    new_run,
    writes,
)

if TYPE_CHECKING:
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore

STEP = StepPath("report")
TASK = task_id(RUN, STEP, 1)
OTHER = task_id(RUN, StepPath("other"), 1)
WAIT = StepPath("done")
CONTENT = canonical.digest(b"closure")


def child(path: StepPath = STEP, **changes: Any) -> Child:
    """Return a task of the run."""
    parent = Parent(run_id=RUN, path=path, entry=path)
    return Child(run=new_run(task_id(RUN, path, 1), parent=parent, **changes))


async def launched(store: StateStore, *tasks: Child) -> RunRecord:
    """Return a run that has launched tasks with its first entry."""
    run = await store.accept(new_run(), {})
    await store.write(Write(run_id=RUN, fence=run.fence, entries=(entry(1),), children=tasks or (child(),)))
    return run


def wait_for(run: RunRecord, *tasks: RunId, status: RunStatus | None = RunStatus.WAITING) -> Write:
    """Return a write that opens a wait for tasks."""
    schema = canonical.encode({"tasks": sorted(tasks)})
    pause = Pause(pause_id=WAIT, message="waits", answer_schema=schema, kind=PauseKind.CHILDREN)
    moved = None if status is None else move(run, status).move
    return Write(run_id=RUN, fence=run.fence, pauses=(pause,), move=moved)


class FamiliesSuite:
    """A background task is a run of its own, in the commits of its parent where both change."""

    async def test_a_task_is_launched_in_the_commit_of_its_steps_entry(self, store: StateStore) -> None:
        run = await launched(store)
        task = await store.run(TASK)
        assert (task.status, task.owner, task.fence) == (RunStatus.RUNNING, run.owner, 1)
        assert (task.kind, task.parent) == (RunKind.TASK, child().run.parent)
        assert store.may_begin(TASK)
        await store.write(writes(task, entry(1)))
        late = Write(run_id=RUN, fence=run.fence + 1, children=(child(StepPath("other")),))
        with pytest.raises(Fenced):
            await store.write(late)
        with pytest.raises(RunNotFound):
            await store.run(OTHER)

    async def test_a_run_is_continued_by_another_in_the_commit_of_its_end(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        following = Child(run=new_run(f"{RUN}~2", input=b"2"), blobs={CONTENT: b"closure"})
        ends = replace(move(run, RunStatus.COMPLETED), entries=(entry(1),), children=(following,))
        with pytest.raises(Fenced):
            await store.write(replace(ends, fence=run.fence + 1))
        with pytest.raises(RunNotFound):
            await store.run(following.run.run_id)
        await store.write(ends)
        next_run = await store.run(following.run.run_id)
        assert (await store.run(RUN)).status is RunStatus.COMPLETED
        assert (next_run.status, next_run.owner, next_run.parent) == (RunStatus.ACCEPTED, None, None)
        assert (next_run.input, next_run.kind) == (b"2", RunKind.RUN)
        assert (await store.blobs([CONTENT]))[CONTENT] == b"closure"
        assert not store.may_begin(next_run.run_id)
        claimed = await store.claim(next_run.run_id, statuses=(RunStatus.ACCEPTED,))
        assert claimed.is_new
        await store.write(writes(claimed, entry(1)))

    async def test_the_wish_that_a_run_be_cancelled_goes_to_the_run_that_continues_it(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await other.cancel(RUN, Actor("ada", Via.API))
        following = Child(run=new_run(f"{RUN}~2"))
        await mine.write(replace(move(run, RunStatus.COMPLETED), children=(following,)))
        wish = (await other.run(following.run.run_id)).wish
        assert wish is not None
        assert (wish.what, wish.by) == ("cancel", "ada")
        assert (await mine.run(RUN)).status is RunStatus.COMPLETED

    async def test_a_prefix_means_the_first_run_of_a_chain(self, store: StateStore) -> None:
        for run_id in ("order", "order~2", "order~3"):
            await store.accept(new_run(run_id), {}, claim=False)
        assert (await store.find("ord")).run_id == "order"
        assert (await store.find("order~3")).run_id == "order~3"
        await store.accept(new_run("orderly"), {}, claim=False)
        assert (await store.find("order")).run_id == "order"
        with pytest.raises(RunNotFound, match="several runs: order, orderly"):
            await store.find("ord")

    async def test_the_earliest_run_stands_for_a_chain_whose_first_run_is_purged(
        self, store: StateStore
    ) -> None:
        for run_id in ("late~10", "late~9", "lately"):
            await store.accept(new_run(run_id), {}, claim=False)
        assert (await store.find("late")).run_id == "late~9"
        with pytest.raises(RunNotFound, match="several runs: late, lately"):
            await store.find("lat")
        await store.accept(new_run("older~2"), {}, claim=False)
        await store.accept(new_run("older~3"), {}, claim=False)
        assert (await store.find("old")).run_id == "older~2"
        await store.accept(new_run("oldest~2"), {}, claim=False)
        with pytest.raises(RunNotFound, match="several runs: older, oldest"):
            await store.find("old")

    async def test_the_runs_of_a_chain_are_listed_together(self, store: StateStore) -> None:
        for run_id in ("order", "order~2", "order~10", "orders", "other~2"):
            await store.accept(new_run(run_id), {}, claim=False)
        chain = RunQuery(chain=RunId("order"), order=RunOrder.OLDEST)
        assert [each.run_id for each in await store.runs(chain)] == ["order", "order~2", "order~10"]
        assert sum((await store.count_runs(chain, RunGroup.STATUS)).values()) == 3

    async def test_a_task_that_exists_stays_as_it_is(self, store: StateStore) -> None:
        run = await launched(store)
        task = await store.run(TASK)
        await store.write(move(task, RunStatus.COMPLETED, output=b"1"))
        await store.write(Write(run_id=RUN, fence=run.fence, entries=(entry(2),), children=(child(),)))
        assert (await store.run(TASK)).output == b"1"

    async def test_a_task_of_a_queue_waits_for_a_worker(self, store: StateStore) -> None:
        await launched(store, child(queued=Queued(queue="slow")))
        task = await store.run(TASK)
        assert (task.status, task.owner, task.fence) == (RunStatus.ACCEPTED, None, 0)
        assert task.queued is not None
        assert task.queued.available_at is not None

    async def test_a_task_of_a_dead_process_is_due_for_others(self, open_store: OpenStore) -> None:
        mine, other = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        await launched(mine)
        await asyncio.sleep(2 * SHORT_S)
        assert set((await other.due()).runs) == {RUN, TASK}
        claimed = await other.claim(TASK, statuses=[RunStatus.RUNNING], recovering=True)
        assert claimed.parent == child().run.parent

    async def test_lists_show_tasks_only_on_request(self, store: StateStore) -> None:
        await launched(store)
        assert await listed(store) == [RUN]
        assert await listed(store, kinds=(RunKind.TASK,)) == [TASK]
        assert set(await listed(store, kinds=tuple(RunKind))) == {RUN, TASK}
        assert await listed(store, parent=RUN) == [TASK]
        assert await listed(store, parent=TASK) == []
        assert await listed(store, parent=RUN, kinds=(RunKind.RUN,)) == []
        assert sum((await store.count_runs(RunQuery(), RunGroup.STATUS)).values()) == 1
        assert (await store.find("@last")).run_id == RUN
        assert (await store.find(TASK[:8])).run_id == TASK

    async def test_the_end_of_a_task_settles_the_wait_of_its_parent(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await launched(mine)
        assert not await mine.write(wait_for(run, TASK))
        assert (await other.due()).runs == ()
        await mine.write(move(await mine.run(TASK), RunStatus.COMPLETED, output=b"1"))
        (wait,) = await other.pauses(RUN)
        assert wait.is_settled
        assert (await other.due()).runs == (RUN,)
        again = await other.claim(RUN, statuses=[RunStatus.WAITING])
        assert again.fence == run.fence + 1

    async def test_a_wait_for_a_task_that_has_ended_is_settled_at_once(self, store: StateStore) -> None:
        run = await launched(store)
        await store.write(move(await store.run(TASK), RunStatus.FAILED, error=b"{}"))
        assert await store.write(wait_for(run, TASK))
        (wait,) = await store.pauses(RUN)
        assert wait.is_settled

    async def test_a_wait_for_several_tasks_ends_with_the_last(self, store: StateStore) -> None:
        run = await launched(store, child(), child(StepPath("other")))
        await store.write(wait_for(run, TASK, OTHER))
        await store.write(move(await store.run(TASK), RunStatus.COMPLETED))
        assert (await store.due()).runs == ()
        await store.write(move(await store.run(OTHER), RunStatus.PARKED))
        assert (await store.due()).runs == (RUN,)

    async def test_the_end_of_a_task_and_the_wait_for_it_may_be_written_at_once(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await launched(mine)
        await mine.write(move(await mine.run(TASK), RunStatus.RUNNING))
        task = await other.claim(TASK, statuses=[RunStatus.RUNNING])
        ends = move(task, RunStatus.COMPLETED)
        opened, _ = await asyncio.gather(mine.write(wait_for(run, TASK)), other.write(ends))
        (wait,) = await mine.pauses(RUN)
        assert wait.is_settled
        assert opened or (await other.due()).runs == (RUN,)

    async def test_tasks_that_end_at_once_in_several_processes_settle_the_wait(
        self, open_store: OpenStore
    ) -> None:
        mine, *others = [await open_store() for _ in range(4)]
        steps = [StepPath(f"s{number}") for number in range(3)]
        run = await launched(mine, *map(child, steps))
        tasks = [task_id(RUN, step, 1) for step in steps]
        ends = []
        for store, task in zip(others, tasks, strict=True):
            await mine.write(move(await mine.run(task), RunStatus.RUNNING))
            claimed = await store.claim(task, statuses=[RunStatus.RUNNING])
            ends.append((store, move(claimed, RunStatus.COMPLETED)))
        await mine.write(wait_for(run, *tasks))
        await asyncio.gather(*(store.write(end) for store, end in ends))
        assert (await mine.due()).runs == (RUN,)

    async def test_a_run_is_cancelled_while_its_tasks_end(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        steps = [StepPath(f"s{number}") for number in range(4)]
        run = await launched(mine, *map(child, steps))
        ends = []
        for step in steps:
            task = task_id(RUN, step, 1)
            await mine.write(move(await mine.run(task), RunStatus.RUNNING))
            claimed = await other.claim(task, statuses=[RunStatus.RUNNING])
            ends.append(move(claimed, RunStatus.COMPLETED))
        await asyncio.gather(mine.write(move(run, RunStatus.CANCELLED)), *map(other.write, ends))
        assert (await other.run(RUN)).status is RunStatus.CANCELLED
        assert {(await mine.run(each.run_id)).status for each in ends} == {RunStatus.COMPLETED}

    async def test_a_task_that_pauses_leaves_the_wait_open(self, store: StateStore) -> None:
        run = await launched(store)
        await store.write(wait_for(run, TASK))
        await store.write(move(await store.run(TASK), RunStatus.PAUSED))
        (wait,) = await store.pauses(RUN)
        assert wait.is_open

    async def test_a_settled_wait_can_be_opened_again(self, store: StateStore) -> None:
        run = await launched(store, child(), child(StepPath("other")))
        await store.write(move(await store.run(TASK), RunStatus.FAILED))
        assert await store.write(wait_for(run, TASK, status=None))
        await store.write(wait_for(run, TASK, OTHER))
        (wait,) = await store.pauses(RUN)
        assert wait.tasks == {TASK, OTHER}
        assert wait.is_open

    async def test_the_cancellation_of_a_run_leaves_a_wish_for_each_unended_task(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await launched(mine, child(), child(StepPath("other")))
        told = asyncio.Event()
        mine.on_wish(TASK, told.set)
        await mine.write(move(await mine.run(OTHER), RunStatus.COMPLETED))
        await mine.write(move(run, RunStatus.CANCELLED))
        wish = (await mine.run(TASK)).wish
        assert isinstance(wish, Wish)
        assert wish.what == "cancel"
        assert (await mine.run(OTHER)).wish is None
        async with asyncio.timeout(20):
            await told.wait()
        await mine.write(move(await mine.run(TASK), RunStatus.WAITING))
        assert (await other.due()).runs == (TASK,)

    async def test_a_parent_that_completes_or_fails_leaves_its_tasks_alone(self, store: StateStore) -> None:
        run = await launched(store)
        await store.write(move(run, RunStatus.FAILED))
        assert (await store.run(TASK)).wish is None
