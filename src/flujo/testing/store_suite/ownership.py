"""Who may execute a run: leases, fences, claims by several at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Move, Pause, RunRecord, RunStatus, Write
from flujo.exceptions import (
    Fenced,
    ResumeConflict,
    StateBackendUnavailable,
)
from flujo.testing.store_suite.examples import (
    NEVER_S,
    RUN,
    SHORT_S,
    OpenStore,
    entry,
    move,
    new_run,
    writes,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


class OwnershipSuite:
    """A run has one owner at a time, and only the owner writes."""

    async def test_a_held_run_cannot_be_claimed_not_even_by_its_own_store(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run(), {})
        for store in (mine, other):
            with pytest.raises(ResumeConflict) as caught:
                await store.claim(RUN, statuses=list(RunStatus))
            assert caught.value.facts["lease_left_s"] > 0
            assert caught.value.facts["owner"]

    async def test_exactly_one_of_many_claims_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        await stores[0].accept(new_run(), {}, claim=False)
        tries = [store.claim(RUN, statuses=[RunStatus.ACCEPTED, RunStatus.RUNNING]) for store in stores * 4]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, RunRecord) for result in results) == 1
        assert sum(isinstance(result, ResumeConflict) for result in results) == 11
        assert (await stores[0].run(RUN)).fence == 1

    async def test_a_claim_requires_the_right_status(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(move(run, RunStatus.COMPLETED))
        with pytest.raises(ResumeConflict) as caught:
            await store.claim(RUN, statuses=list(RunStatus))
        assert caught.value.facts["status"] is RunStatus.COMPLETED

    async def test_a_run_with_an_expired_lease_can_be_claimed_and_its_old_owner_is_fenced(
        self, open_store: OpenStore
    ) -> None:
        frozen, other = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        old = await frozen.accept(new_run(), {})
        await frozen.write(writes(old, entry(1)))
        await asyncio.sleep(SHORT_S * 1.5)
        new = await other.claim(RUN, statuses=[RunStatus.RUNNING])
        assert (new.fence, new.claims) == (2, 2)
        zombie = Write(
            run_id=RUN,
            fence=old.fence,
            entries=(entry(2),),
            pauses=(Pause(pause_id=StepPath("q"), message="?"),),
            move=Move(status=RunStatus.COMPLETED, output=b'"zombie"'),
        )
        with pytest.raises(Fenced):
            await frozen.write(zombie)
        await other.write(writes(new, entry(2, output=b'"new"')))
        assert [each.output for each in await other.entries(RUN)] == [b'"ok"', b'"new"']
        assert await other.pauses(RUN) == []
        assert (await other.run(RUN)).status is RunStatus.RUNNING

    async def test_a_run_is_free_again_when_its_move_releases_it(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await mine.write(move(run, RunStatus.RUNNING, release=False))
        with pytest.raises(ResumeConflict):
            await other.claim(RUN, statuses=[RunStatus.RUNNING])
        await mine.write(move(run, RunStatus.PAUSED))
        claimed = await other.claim(RUN, statuses=[RunStatus.PAUSED])
        assert (claimed.fence, claimed.status) == (2, RunStatus.RUNNING)

    async def test_a_released_run_can_be_claimed_again_once_by_its_own_store(self, store: StateStore) -> None:
        first = await store.accept(new_run(), {})
        store.let_go(RUN)
        claims = [store.claim(RUN, statuses=[RunStatus.RUNNING]) for _ in range(4)]
        results = await asyncio.gather(*claims, return_exceptions=True)
        won = [result for result in results if not isinstance(result, BaseException)]
        assert [record.fence for record in won] == [2]
        assert sum(isinstance(result, ResumeConflict) for result in results) == 3
        with pytest.raises(Fenced):
            await store.write(writes(first, entry(1)))

    async def test_closing_releases_held_runs(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run(), {})
        await mine.aclose()
        await mine.aclose()
        claimed = await other.claim(RUN, statuses=[RunStatus.RUNNING])
        assert claimed.fence == 2
        with pytest.raises(StateBackendUnavailable):
            await mine.accept(new_run("another"), {})

    async def test_recoveries_are_counted_until_the_journal_grows_or_a_user_resumes(
        self, open_store: OpenStore
    ) -> None:
        async def taken(*, recovering: bool = True) -> tuple[StateStore, RunRecord]:
            owner = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
            while True:
                try:
                    return owner, await owner.claim(RUN, statuses=[RunStatus.RUNNING], recovering=recovering)
                except ResumeConflict:
                    await asyncio.sleep(SHORT_S / 2)

        await (await open_store(lease_s=SHORT_S, renew_s=NEVER_S)).accept(new_run(), {})
        assert [(await taken())[1].recoveries for _ in range(2)] == [1, 2]
        owner, run = await taken()
        await owner.write(writes(run, entry(1)))
        assert (run.recoveries, (await taken())[1].recoveries) == (3, 1)
        assert (await taken())[1].recoveries == 2
        assert (await taken(recovering=False))[1].recoveries == 0
        owner, run = await taken()
        await owner.write(move(run, RunStatus.RUNNING))
        assert (await taken())[1].recoveries == run.recoveries == 1

    @pytest.mark.parametrize("backwards", [False, True])
    async def test_only_a_run_that_its_dead_owner_executed_alone_is_blamed(
        self, open_store: OpenStore, *, backwards: bool
    ) -> None:
        names = [RunId(name) for name in ("a", "b", "c", "d")]
        owner = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
        for name in names:
            await owner.accept(new_run(name), {})
        ended = await owner.accept(new_run("ended"), {})
        await owner.write(move(ended, RunStatus.COMPLETED))
        await asyncio.sleep(SHORT_S * 1.5)
        other, third = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        order = names[::-1] if backwards else names
        taken = [await _recovered(other, name) for name in order[:2]]
        # The last one has no neighbour under the dead owner any more, and one of those has ended.
        await other.write(move(taken[0], RunStatus.COMPLETED))
        taken += [await _recovered(third, name) for name in order[2:]]
        assert [(run.recoveries, run.suspicions) for run in taken] == [(0, 1)] * 4
        # `other` held one run at its end: alone.
        await asyncio.sleep(SHORT_S * 1.5)
        again = await _recovered(third, order[1])
        assert (again.recoveries, again.suspicions) == (1, 1)
        assert (await third.run(order[1])).suspicions == 1

    async def test_a_neighbour_that_has_lost_further_owners_alone_is_still_a_neighbour(
        self, open_store: OpenStore
    ) -> None:
        owner = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
        for name in ("poison", "innocent"):
            await owner.accept(new_run(name), {})
        taken = []
        for _ in range(2):  # each time the owner executes nothing else
            await asyncio.sleep(SHORT_S * 1.5)
            alone = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
            taken.append(await _recovered(alone, RunId("poison")))
        assert [(run.recoveries, run.suspicions) for run in taken] == [(0, 1), (1, 1)]
        innocent = await _recovered(await open_store(), RunId("innocent"))
        assert (innocent.recoveries, innocent.suspicions) == (0, 1)

    async def test_neighbours_that_are_taken_over_at_once_are_not_blamed(self, open_store: OpenStore) -> None:
        owner = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
        names = [RunId(f"run-{number}") for number in range(6)]
        for name in names:
            await owner.accept(new_run(name), {})
        await asyncio.sleep(SHORT_S * 1.5)
        stores = [await open_store() for _ in range(3)]
        taken = await asyncio.gather(
            *(_recovered(stores[number % 3], name) for number, name in enumerate(names))
        )
        assert [(run.recoveries, run.suspicions) for run in taken] == [(0, 1)] * 6

    async def test_suspicions_end_with_progress_and_with_a_resume_by_a_user(
        self, open_store: OpenStore
    ) -> None:
        async def cut_off_together(*, recovering: bool = True, grow: bool = False) -> RunRecord:
            owner = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
            run = await owner.claim(RUN, statuses=[RunStatus.RUNNING], recovering=recovering)
            await owner.accept(new_run(f"beside-{run.fence}"), {})
            if grow:
                await owner.write(writes(run, entry((await owner.progress(RUN)).last_seq + 1)))
            await asyncio.sleep(SHORT_S * 1.5)
            return run

        first = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
        await first.accept(new_run(), {})
        await first.accept(new_run("beside"), {})
        await asyncio.sleep(SHORT_S * 1.5)
        assert (await first.due()).suspects == frozenset()
        assert [(await cut_off_together()).suspicions for _ in range(2)] == [1, 2]
        due = await first.due()
        assert due.suspects == {RUN}, "the runs beside it were cut off once"
        assert set(due.runs) >= {RUN, RunId("beside")}
        assert (await cut_off_together(grow=True)).suspicions == 3
        assert (await cut_off_together()).suspicions == 1
        assert (await cut_off_together(recovering=False)).suspicions == 0
        assert (await cut_off_together()).suspicions == 1


async def _recovered(store: StateStore, run_id: RunId) -> RunRecord:
    return await store.claim(run_id, statuses=[RunStatus.RUNNING], recovering=True)
