"""Runs that begin with copied entries: all of it is one commit, and the parent stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.usage import Usage
from flujo.exceptions import ResumeConflict, RunNotFound
from flujo.testing.store_suite.examples import RUN, OpenStore, entry, move, new_run, writes

if TYPE_CHECKING:
    from flujo.domain.run import NewRun
    from flujo.domain.store import StateStore

FORK = RunId("fork-1")
ADA = Actor("ada", Via.API)
LARGE = canonical.encode("x" * 40_000)


def fork(parent: RunId = RUN) -> NewRun:
    """Return a fork with two entries, and the act of each of the two runs."""
    entries = (entry(1, output=LARGE, usage=Usage(requests=1, input_tokens=5)), entry(2))
    mine = Act(verb=Verb.FORK, actor=ADA, run_id=FORK, object="step_3", before=b'"run-1"', after=LARGE)
    return new_run(
        FORK,
        entries=entries,
        acts=(mine, Act(verb=Verb.FORK, actor=ADA, run_id=parent, object="step_3", after=b'"fork-1"')),
    )


class ForksSuite:
    """A fork is recorded as a whole or not at all."""

    async def test_a_run_begins_with_copied_entries_and_acts_on_both_runs(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(writes(run, entry(1, output=LARGE), entry(2)))
        await store.write(move(run, RunStatus.COMPLETED, output=b"1", entries=2))
        before = (await store.run(RUN), await store.entries(RUN))
        accepted = await store.accept(fork(), {})
        assert (accepted.status, accepted.entries, accepted.claims) == (RunStatus.RUNNING, 2, 1)
        assert not accepted.is_new
        assert await store.entries(FORK) == list(fork().entries)
        progress = await store.progress(FORK)
        assert (progress.last_seq, progress.usage.input_tokens) == (2, 5)
        [own], [of_parent] = await store.acts(FORK), await store.acts(RUN)
        assert (own.verb, own.object, own.before, own.after) == (Verb.FORK, "step_3", b'"run-1"', LARGE)
        assert (of_parent.verb, of_parent.after) == (Verb.FORK, b'"fork-1"')
        assert (await store.run(RUN), await store.entries(RUN)) == before
        assert await store.write(writes(accepted, entry(3))) is False
        assert [each.seq for each in await store.entries(FORK)] == [1, 2, 3]

    async def test_a_fork_that_is_not_claimed_is_not_new_when_it_is(self, store: StateStore) -> None:
        await store.accept(new_run(), {})
        accepted = await store.accept(fork(), {}, claim=False)
        assert (accepted.status, accepted.entries, accepted.claims) == (RunStatus.ACCEPTED, 2, 0)
        claimed = await store.claim(FORK, statuses=[RunStatus.ACCEPTED])
        assert (claimed.entries, claimed.claims, claimed.is_new) == (2, 1, False)

    async def test_a_fork_whose_parent_is_gone_is_not_recorded(self, store: StateStore) -> None:
        with pytest.raises(RunNotFound, match=RUN):
            await store.accept(fork(), {})
        with pytest.raises(RunNotFound):
            await store.run(FORK)
        assert await store.entries(FORK) == []

    async def test_a_fork_is_recorded_once(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run(), {})
        await mine.accept(fork(), {})
        with pytest.raises(ResumeConflict):
            await other.accept(fork(), {})
        assert len(await other.entries(FORK)) == 2
        assert [len(await other.acts(each)) for each in (RUN, FORK)] == [1, 1]
