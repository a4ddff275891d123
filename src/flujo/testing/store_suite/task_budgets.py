"""What is held of a run's budget for its background tasks, from the launch to the last commit of each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.queues import task_id
from flujo.domain.run import RunStatus, Write
from flujo.domain.usage import NOTHING, Usage
from flujo.testing.store_suite.examples import RUN, OpenStore, entry, move, new_run, writes
from flujo.testing.store_suite.families import STEP, TASK, child

if TYPE_CHECKING:
    from flujo.domain.run import Child, RunRecord
    from flujo.domain.store import StateStore

LENT = Usage(requests=10, cost_micro_usd=1_000)
USED = Usage(requests=2, cost_micro_usd=300)


def lending(path: StepPath = STEP) -> tuple[Child, Hold]:
    """Return a task, and what is held for it."""
    hold = Hold(path=path, number=1, state=HoldState.LENT, usage=LENT)
    return replace(child(path), hold=hold), hold


async def launched(store: StateStore, *paths: StepPath) -> RunRecord:
    """Return a run that has launched tasks with budgets."""
    run = await store.accept(new_run(), {})
    tasks = [lending(path) for path in paths or (STEP,)]
    launch = Write(
        run_id=RUN,
        fence=run.fence,
        entries=(entry(1),),
        children=tuple(task for task, _ in tasks),
        holds=tuple(hold for _, hold in tasks),
    )
    await store.write(launch)
    return run


async def of_tasks(store: StateStore) -> list[tuple[str, HoldState, Usage]]:
    """Return what the budget of the run counts for its tasks."""
    return [(hold.path, hold.state, hold.usage) for hold in (await store.ledger(RUN)).tasks]


class TaskBudgetsSuite:
    """The last commit of a task replaces what was lent to it by what it has used."""

    async def test_what_is_lent_to_a_task_counts_from_its_launch(self, store: StateStore) -> None:
        await launched(store)
        ledger = await store.ledger(RUN)
        assert await of_tasks(store) == [(STEP, HoldState.LENT, LENT)]
        assert (ledger.holds, ledger.usage, ledger.unconfirmed) == ((), NOTHING, NOTHING)
        assert ledger.most == LENT

    async def test_the_last_commit_of_a_task_settles_it_in_the_budget_of_its_parent(
        self, store: StateStore
    ) -> None:
        await launched(store)
        task = await store.run(TASK)
        await store.write(writes(task, entry(1, usage=USED)))
        assert await of_tasks(store) == [(STEP, HoldState.LENT, LENT)]
        end = replace(move(task, RunStatus.COMPLETED), entries=(entry(2, usage=USED),))
        await store.write(end)
        assert await of_tasks(store) == [(STEP, HoldState.SPENT, USED + USED)]

    async def test_a_request_of_unknown_outcome_counts_with_what_the_task_has_used(
        self, store: StateStore
    ) -> None:
        await launched(store)
        task = await store.run(TASK)
        lost = Hold(path=StepPath("ask"), number=1, state=HoldState.UNCONFIRMED, usage=USED)
        settled = replace(lost, number=2, state=HoldState.SETTLED)
        inner = Hold(path=StepPath("deep"), number=1, state=HoldState.LENT, usage=USED)
        await store.write(Write(run_id=TASK, fence=task.fence, holds=(lost, settled, inner)))
        await store.write(move(task, RunStatus.CANCELLED))
        assert await of_tasks(store) == [(STEP, HoldState.SPENT, USED + USED)]

    async def test_a_task_that_may_be_retried_keeps_what_was_lent_to_it(self, store: StateStore) -> None:
        await launched(store, STEP, StepPath("other"))
        other = task_id(RUN, StepPath("other"), 1)
        await store.write(move(await store.run(TASK), RunStatus.FAILED))
        await store.write(move(await store.run(other), RunStatus.PARKED))
        assert {(path, state) for path, state, _ in await of_tasks(store)} == {
            (STEP, HoldState.LENT),
            ("other", HoldState.LENT),
        }
        again = await store.claim(TASK, statuses=[RunStatus.FAILED])
        await store.write(replace(move(again, RunStatus.COMPLETED), entries=(entry(1, usage=USED),)))
        assert (STEP, HoldState.SPENT, USED) in await of_tasks(store)

    async def test_a_task_is_settled_after_the_end_of_its_parent(self, store: StateStore) -> None:
        run = await launched(store)
        await store.write(move(run, RunStatus.COMPLETED))
        await store.write(move(await store.run(TASK), RunStatus.COMPLETED))
        assert await of_tasks(store) == [(STEP, HoldState.SPENT, NOTHING)]

    async def test_a_launch_that_is_written_again_lends_nothing_again(self, store: StateStore) -> None:
        run = await launched(store)
        await store.write(move(await store.run(TASK), RunStatus.COMPLETED))
        task, hold = lending()
        await store.write(Write(run_id=RUN, fence=run.fence, children=(task,), holds=(hold,)))
        assert await of_tasks(store) == [(STEP, HoldState.SPENT, NOTHING)]

    async def test_tasks_that_end_at_once_in_several_processes_are_all_settled(
        self, open_store: OpenStore
    ) -> None:
        mine, *others = [await open_store() for _ in range(4)]
        steps = [StepPath(f"s{number}") for number in range(3)]
        await launched(mine, *steps)
        ends = []
        for store, step in zip(others, steps, strict=True):
            task = task_id(RUN, step, 1)
            await mine.write(move(await mine.run(task), RunStatus.RUNNING))
            claimed = await store.claim(task, statuses=[RunStatus.RUNNING])
            end = replace(move(claimed, RunStatus.COMPLETED), entries=(entry(1, usage=USED),))
            ends.append(store.write(end))
        await asyncio.gather(*ends)
        assert await of_tasks(mine) == [(step, HoldState.SPENT, USED) for step in steps]
