"""The suite that every `StateStore` passes: inherit `StateStoreSuite`, say how a store is opened, run pytest.

    class TestMyStore(StateStoreSuite):
        @pytest.fixture
        async def open_store(self):
            ...
            yield open_one   # async: (**options) -> StateStore, all on one fresh database

The tests are coroutines (pytest-asyncio in its `auto` mode runs them). They speak to a store through its
port alone, so they hold for any backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, EntryStatus, RunId, StepPath
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.ports import StateStore
from flujo.domain.run import (
    LEGAL_MOVES,
    Intent,
    IntentState,
    Move,
    NewRun,
    Pause,
    RunQuery,
    RunRecord,
    RunStatus,
    Write,
)
from flujo.domain.usage import Usage
from flujo.exceptions import (
    CorruptState,
    Fenced,
    IllegalMove,
    JournalConflict,
    ResumeConflict,
    RunConflict,
    RunNotFound,
    SettingsError,
    StateBackendUnavailable,
)

OpenStore = Callable[..., Awaitable[StateStore]]

RUN = RunId("run-1")
NEVER_S = 1e6
SHORT_S = 0.2
LATE = (("late", 0.0), ("later", NEVER_S))

NASTY_VALUES = (
    None,
    "",
    "@" + "0" * 64,
    "tab\tquote\"'back\\slash\u2028\U0001f4a9\x7f",
    [[], {}, [None, True, 1, 1.0, -0.0, 1e308, 5e-324]],
    {"": 0, "a b": {"$flujo": "__class__", "'; DROP TABLE runs; --": [2**64 - 1, -(2**63)]}},
    "x" * 200_000,
    {"rows": [{"n": n, "text": f"row {n} ä"} for n in range(3_000)]},
)


def new_run(run_id: str = RUN, **changes: Any) -> NewRun:
    """Return a run to accept."""
    run = NewRun(
        run_id=RunId(run_id),
        pipeline="triage",
        closure="c" * 64,
        input=b'{"text":"hello"}',
        context=b'{"label":""}',
    )
    return replace(run, **changes)


def entry(seq: int, path: str = "", **changes: Any) -> Entry:
    """Return a journal entry."""
    made = Entry(path=StepPath(path or f"step_{seq}"), kind=EntryKind.WORK, seq=seq, output=b'"ok"')
    return replace(made, **changes)


def move(run: RunRecord, status: RunStatus, **changes: Any) -> Write:
    """Return a write that moves a run."""
    return Write(run_id=run.run_id, fence=run.fence, move=Move(status=status, **changes))


def writes(run: RunRecord, *entries: Entry) -> Write:
    """Return a write of entries."""
    return Write(run_id=run.run_id, fence=run.fence, entries=entries)


class StateStoreSuite:
    """What every store does; subclass it and give the fixture `open_store`.

    `open_store(**options)` opens one more store on the same database, as another process would. Options:
    `lease_s`, and `renew_s` beyond any test, which makes an owner that never renews.
    """

    @pytest.fixture
    async def open_store(self) -> OpenStore:
        """Open stores on one fresh database; what is opened here is closed here."""
        raise NotImplementedError("give the fixture `open_store`")

    @pytest.fixture
    async def store(self, open_store: OpenStore) -> StateStore:
        """Return one store on a fresh database."""
        return await open_store()

    # Runs --------------------------------------------------------------------------------------------------

    async def test_an_accepted_run_is_there_as_it_was_given(self, store: StateStore) -> None:
        metadata = {"tenant": "acme", "tries": 3, "ratio": 0.5, "vip": True, "note": None}
        given = new_run(metadata=metadata, user_id="ann", lock_digest="l" * 64)
        accepted = await store.accept(given, {})
        found = await store.run(RUN)
        for record in (accepted, found):
            assert (record.pipeline, record.closure) == (given.pipeline, given.closure)
            assert (record.input, record.context) == (given.input, given.context)
            assert (record.user_id, record.lock_digest) == ("ann", "l" * 64)
            assert record.metadata == metadata
            assert (record.status, record.fence, record.claims) == (RunStatus.RUNNING, 1, 1)
            assert record.output is record.error is record.context_now is None
        assert found.owner == accepted.owner
        assert found.created_at == accepted.created_at > 0

    async def test_a_run_can_be_accepted_without_being_claimed(self, store: StateStore) -> None:
        record = await store.accept(new_run(), {}, claim=False)
        assert (record.status, record.fence, record.owner) == (RunStatus.ACCEPTED, 0, None)
        claimed = await store.claim(RUN, statuses=[RunStatus.ACCEPTED])
        assert (claimed.status, claimed.fence) == (RunStatus.RUNNING, 1)

    async def test_the_same_run_accepted_again_hands_back_the_one_that_is_there(
        self, store: StateStore
    ) -> None:
        await store.accept(new_run(), {})
        with pytest.raises(ResumeConflict) as caught:
            await store.accept(new_run(), {})
        assert caught.value.facts["record"].run_id == RUN
        assert caught.value.facts["record"].fence == 1

    @pytest.mark.parametrize("changes", [{"closure": "d" * 64}, {"input": b"1"}, {"pipeline": "other"}])
    async def test_a_taken_id_with_another_closure_or_input_is_a_conflict(
        self, store: StateStore, changes: dict[str, Any]
    ) -> None:
        await store.accept(new_run(), {})
        with pytest.raises(RunConflict):
            await store.accept(new_run(**changes), {})
        assert (await store.run(RUN)).closure == "c" * 64

    async def test_of_many_who_accept_one_id_at_once_one_succeeds(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        tries = [store.accept(new_run(), {}) for store in stores for _ in range(4)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, RunRecord) for result in results) == 1
        assert all(isinstance(result, RunRecord | ResumeConflict) for result in results)

    async def test_a_run_that_is_not_there_is_not_found(self, store: StateStore) -> None:
        with pytest.raises(RunNotFound):
            await store.run(RunId("nobody"))
        with pytest.raises(RunNotFound):
            await store.claim(RunId("nobody"), statuses=list(RunStatus))
        with pytest.raises(RunNotFound):
            await store.write(Write(run_id=RunId("nobody"), fence=1, entries=(entry(1),)))

    async def test_a_run_is_found_by_id_by_unique_prefix_and_as_the_last(self, store: StateStore) -> None:
        for run_id in ("ab1", "ab12", "ac_%", "zz"):
            await store.accept(new_run(run_id), {})
        found = {text: (await store.find(text)).run_id for text in ("ab1", "ab12", "ac", "z", "@last")}
        assert found == {"ab1": "ab1", "ab12": "ab12", "ac": "ac_%", "z": "zz", "@last": "zz"}

    async def test_what_names_no_run_or_several_is_not_found(self, store: StateStore) -> None:
        for run_id in ("ab1", "ab12", "ac"):
            await store.accept(new_run(run_id), {})
        for text in ("", "a", "x", "%", "_", "a%", "' OR 1=1 --", "a\x00", "AB", "@last2"):
            with pytest.raises(RunNotFound):
                await store.find(text)

    async def test_an_ambiguous_prefix_lists_the_candidates(self, store: StateStore) -> None:
        for run_id in ("ab1", "ab2"):
            await store.accept(new_run(run_id), {})
        with pytest.raises(RunNotFound, match="ab1, ab2"):
            await store.find("ab")

    # The journal -------------------------------------------------------------------------------------------

    async def test_nasty_values_come_back_byte_by_byte(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        values = [canonical.encode(value) for value in NASTY_VALUES]
        given = [
            entry(
                seq, input=value, output=value, patch=value, error=value, detail=value, fingerprint="f" * 64
            )
            for seq, value in enumerate(values, 1)
        ]
        await store.write(writes(run, *given))
        assert await store.entries(RUN) == given

    async def test_every_field_of_an_entry_comes_back(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        usage = Usage(1, 2, 3, 4, 5_000_000_000, 6)
        given = [
            entry(1, "a", status=EntryStatus.FAILED, error=b'{"code":"FLJ401"}', output=None, usage=usage),
            entry(2, "a", attempt=2, started_at=1.1, ended_at=2.7),
            entry(3, "a", kind=EntryKind.DECISION, status=EntryStatus.SKIPPED, output=None),
            entry(4, "a/b[2]:c/ü", kind=EntryKind.ANSWER),
            entry(5, "a", kind=EntryKind.DONE, usage=usage),
        ]
        await store.write(writes(run, *given))
        assert await store.entries(RUN) == given
        assert (await store.progress(RUN)).usage == usage + usage
        assert (await store.progress(RUN)).last_seq == 5

    async def test_a_level_holds_what_is_right_below_and_no_more(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        paths = ["a", "loop", "loop[0]", "loop[0]/x", "loop[0]/x:y", "loop[1]", "loopy", "loop:z"]
        await store.write(writes(run, *(entry(seq, path) for seq, path in enumerate(paths, 1))))

        async def level(parent: str) -> list[str]:
            return [each.path for each in await store.entries(RUN, parent=StepPath(parent))]

        assert await level("") == ["a", "loop", "loopy"]
        assert await level("loop") == ["loop[0]", "loop[1]", "loop:z"]
        assert await level("loop[0]") == ["loop[0]/x"]
        assert await level("nothing") == []

    async def test_writes_of_one_run_keep_their_order(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        waiting = [store.write(writes(run, entry(seq))) for seq in range(1, 101)]
        await asyncio.gather(*waiting)
        assert [each.seq for each in await store.entries(RUN)] == list(range(1, 101))

    async def test_many_runs_write_at_once_and_keep_apart(self, store: StateStore) -> None:
        async def walk(name: str) -> None:
            run = await store.accept(new_run(name), {})
            for seq in range(1, 6):
                await store.write(writes(run, entry(seq, output=canonical.encode(f"{name} {seq}"))))
            await store.write(move(run, RunStatus.COMPLETED, output=canonical.encode(name), entries=5))

        names = [f"run-{number}" for number in range(40)]
        await asyncio.gather(*(walk(name) for name in names))
        for name in names:
            outputs = [canonical.decode(each.output or b"") for each in await store.entries(RunId(name))]
            assert outputs == [f"{name} {seq}" for seq in range(1, 6)]
            assert (await store.run(RunId(name))).output == canonical.encode(name)

    async def test_the_same_entry_again_is_fine_and_another_in_its_place_is_not(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await store.write(writes(run, entry(1)))
        await store.write(writes(run, entry(1), entry(2)))
        with pytest.raises(JournalConflict):
            await store.write(writes(run, entry(2, output=b'"other"')))
        with pytest.raises(JournalConflict):
            await store.write(writes(run, entry(3, "step_1")))
        assert await store.entries(RUN) == [entry(1), entry(2)]

    async def test_a_cancelled_waiter_takes_nothing_back(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})

        async def waits(seq: int) -> None:
            await store.write(writes(run, entry(seq)))

        tasks = [asyncio.create_task(waits(seq)) for seq in range(1, 21)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        await store.write(writes(run, entry(21)))
        assert len(await store.entries(RUN)) == 21

    # Blobs -------------------------------------------------------------------------------------------------

    async def test_blobs_come_with_the_run_and_with_a_write(self, store: StateStore) -> None:
        first, second = b"closure" * 1000, bytes(range(256))
        digests = [canonical.digest(data) for data in (first, second)]
        run = await store.accept(new_run(), {digests[0]: first})
        await store.write(Write(run_id=RUN, fence=run.fence, blobs={digests[1]: second, digests[0]: first}))
        assert await store.blobs(digests) == {digests[0]: first, digests[1]: second}
        assert await store.blobs([]) == {}

    async def test_a_missing_blob_is_corrupt_state(self, store: StateStore) -> None:
        with pytest.raises(CorruptState):
            await store.blobs(["0" * 64])

    # Ownership ---------------------------------------------------------------------------------------------

    async def test_a_run_that_is_held_cannot_be_claimed_not_even_by_its_own_store(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run(), {})
        for store in (mine, other):
            with pytest.raises(ResumeConflict) as caught:
                await store.claim(RUN, statuses=list(RunStatus))
            assert caught.value.facts["lease_left_s"] > 0
            assert caught.value.facts["owner"]

    async def test_of_many_claimers_one_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        await stores[0].accept(new_run(), {}, claim=False)
        tries = [store.claim(RUN, statuses=[RunStatus.ACCEPTED, RunStatus.RUNNING]) for store in stores * 4]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, RunRecord) for result in results) == 1
        assert sum(isinstance(result, ResumeConflict) for result in results) == 11
        assert (await stores[0].run(RUN)).fence == 1

    async def test_a_claim_asks_for_the_right_status(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(move(run, RunStatus.COMPLETED))
        with pytest.raises(ResumeConflict) as caught:
            await store.claim(RUN, statuses=list(RunStatus))
        assert caught.value.facts["status"] is RunStatus.COMPLETED

    async def test_a_lapsed_lease_can_be_taken_and_the_old_owner_is_fenced(
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

    async def test_a_run_that_was_let_go_may_be_claimed_again_by_its_own_store_once(
        self, store: StateStore
    ) -> None:
        first = await store.accept(new_run(), {})
        store.let_go(RUN)
        claims = [store.claim(RUN, statuses=[RunStatus.RUNNING]) for _ in range(4)]
        results = await asyncio.gather(*claims, return_exceptions=True)
        won = [result for result in results if not isinstance(result, BaseException)]
        assert [record.fence for record in won] == [2]
        assert sum(isinstance(result, ResumeConflict) for result in results) == 3
        with pytest.raises(Fenced):
            await store.write(writes(first, entry(1)))

    async def test_closing_gives_back_what_is_held(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run(), {})
        await mine.aclose()
        await mine.aclose()
        claimed = await other.claim(RUN, statuses=[RunStatus.RUNNING])
        assert claimed.fence == 2
        with pytest.raises(StateBackendUnavailable):
            await mine.accept(new_run("another"), {})

    # Moves -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("source", list(RunStatus))
    async def test_only_legal_moves_are_made(self, store: StateStore, source: RunStatus) -> None:
        for target in RunStatus:
            run = await self._in_state(store, source, f"{source}-{target}")
            written = store.write(move(run, target))
            if target in LEGAL_MOVES[source]:
                await written
                assert (await store.run(run.run_id)).status is target
            else:
                with pytest.raises(IllegalMove):
                    await written
                assert (await store.run(run.run_id)).status is source

    async def test_what_comes_with_an_illegal_move_is_not_written(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        with pytest.raises(IllegalMove):
            await store.write(replace(move(run, RunStatus.ACCEPTED), entries=(entry(1),)))
        assert await store.entries(RUN) == []

    async def test_a_write_after_the_run_was_given_back_is_refused(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(replace(move(run, RunStatus.RUNNING, entries=1), entries=(entry(1),)))
        with pytest.raises(Fenced, match="given back"):
            await store.write(writes(run, entry(2)))
        with pytest.raises(Fenced, match="given back"):
            await store.write(replace(move(run, RunStatus.COMPLETED), entries=(entry(2),)))
        assert await store.entries(RUN) == [entry(1)]

    async def _in_state(self, store: StateStore, status: RunStatus, run_id: str) -> RunRecord:
        run = await store.accept(new_run(run_id), {}, claim=status is not RunStatus.ACCEPTED)
        if status not in (RunStatus.ACCEPTED, RunStatus.RUNNING):
            await store.write(move(run, status))
        return run

    async def test_a_move_says_what_the_run_is_now(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        usage = Usage(input_tokens=7, cost_micro_usd=12)
        big = canonical.encode("y" * 50_000)
        await store.write(move(run, RunStatus.PAUSED, context=big, usage=usage, entries=0, closure="d" * 64))
        paused = await store.run(RUN)
        assert (paused.context, paused.context_now) == (b'{"label":""}', big)
        assert (paused.usage, paused.closure, paused.owner) == (usage, "d" * 64, None)
        again = await store.claim(RUN, statuses=[RunStatus.PAUSED])
        await store.write(move(again, RunStatus.FAILED, error=b'{"code":"FLJ401"}'))
        failed = await store.run(RUN)
        assert (failed.error, failed.context_now, failed.usage) == (b'{"code":"FLJ401"}', big, usage)
        retried = await store.claim(RUN, statuses=[RunStatus.FAILED])
        assert retried.error is None
        assert retried.context_now == big

    async def test_moves_in_one_commit_follow_each_other(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        first = store.write(replace(move(run, RunStatus.RUNNING, release=False), entries=(entry(1),)))
        last = store.write(
            replace(move(run, RunStatus.COMPLETED, output=b"1", entries=2), entries=(entry(2),))
        )
        late = store.write(move(run, RunStatus.FAILED))
        await asyncio.gather(first, last)
        with pytest.raises(IllegalMove):
            await late
        assert (await store.run(RUN)).status is RunStatus.COMPLETED
        assert len(await store.entries(RUN)) == 2

    async def test_no_entry_lands_behind_one_that_was_refused(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(writes(run, entry(1)))
        refused = store.write(writes(run, entry(1, output=b'"other"'), entry(2)))
        behind = store.write(writes(run, entry(3)))
        results = await asyncio.gather(refused, behind, return_exceptions=True)
        assert isinstance(results[0], JournalConflict)
        assert isinstance(results[1], JournalConflict)
        assert await store.entries(RUN) == [entry(1)]

    # Questions ---------------------------------------------------------------------------------------------

    async def _ask(self, store: StateStore, run: RunRecord, *names: str) -> None:
        questions = tuple(
            Pause(pause_id=StepPath(name), message=f"{name}?", answer_schema=b"{}", deadline_s=4e9)
            for name in names
        )
        await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=questions))

    async def test_questions_are_listed_in_the_order_in_which_they_were_asked(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await self._ask(store, run, "zebra", "apple")
        await self._ask(store, run, "mango")
        asked = await store.pauses(RUN)
        assert [pause.pause_id for pause in asked] == ["zebra", "apple", "mango"]
        assert all(pause.is_open and pause.asked_at for pause in asked)
        assert all(pause.deadline_at == pytest.approx((pause.asked_at or 0) + 4e9, abs=1) for pause in asked)
        assert asked[0].answer_schema == b"{}"
        assert await store.pauses(RunId("nobody")) == []

    async def test_the_first_answer_wins_and_the_same_again_is_fine(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await self._ask(mine, run, "approve")
        answered = await other.answer(RUN, StepPath("approve"), b"true")
        assert (answered.answer, answered.is_open) == (b"true", False)
        assert (await mine.answer(RUN, StepPath("approve"), b"true")).answered_at == answered.answered_at
        with pytest.raises(ResumeConflict):
            await mine.answer(RUN, StepPath("approve"), b"false")
        assert (await mine.pauses(RUN))[0].answer == b"true"

    async def test_of_many_different_answers_one_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        run = await stores[0].accept(new_run(), {})
        await self._ask(stores[0], run, "approve")
        tries = [
            store.answer(RUN, StepPath("approve"), canonical.encode(number))
            for number, store in enumerate(stores * 3)
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        winners = [result for result in results if isinstance(result, Pause)]
        assert len(winners) == 1
        assert (await stores[0].pauses(RUN))[0].answer == winners[0].answer

    async def test_asking_again_changes_nothing_while_the_question_is_open_or_answered(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await self._ask(store, run, "approve")
        before = await store.pauses(RUN)
        again = Pause(pause_id=StepPath("approve"), message="something else?")
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(again,)))
        assert await store.pauses(RUN) == before
        await store.answer(RUN, StepPath("approve"), b"true")
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(again,)))
        assert (await store.pauses(RUN))[0].answer == b"true"

    async def test_a_run_that_ends_or_fails_voids_its_open_questions_and_may_ask_them_again(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await self._ask(store, run, "one", "two")
        await store.answer(RUN, StepPath("one"), b"1")
        await store.write(move(run, RunStatus.FAILED))
        one, two = await store.pauses(RUN)
        assert (one.answer, one.void, two.void) == (b"1", False, True)
        with pytest.raises(ResumeConflict):
            await store.answer(RUN, StepPath("two"), b"2")
        retried = await store.claim(RUN, statuses=[RunStatus.FAILED])
        await self._ask(store, retried, "two")
        assert (await store.answer(RUN, StepPath("two"), b"2")).answer == b"2"

    async def test_a_write_closes_the_open_questions_it_names_and_no_others(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        asked = [Pause(pause_id=StepPath(name), message=f"{name}?") for name in ("a", "b", "c")]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        await store.answer(RUN, StepPath("b"), b"1")
        voids = (StepPath("a"), StepPath("b"), StepPath("nobody"))
        await store.write(Write(run_id=RUN, fence=run.fence, voids=voids))
        states = {pause.pause_id: (pause.void, pause.is_open) for pause in await store.pauses(RUN)}
        assert states == {"a": (True, False), "b": (False, False), "c": (False, True)}
        with pytest.raises(ResumeConflict):
            await store.answer(RUN, StepPath("a"), b"1")

    # Holds -------------------------------------------------------------------------------------------------

    async def test_a_ledger_has_what_was_used_where_and_what_is_held_back(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        used = Usage(input_tokens=7, output_tokens=3, requests=1, cost_micro_usd=42)
        held = Hold(path=StepPath("b"), number=1, state=HoldState.HELD, usage=used + used)
        await store.write(
            Write(
                run_id=run.run_id,
                fence=run.fence,
                entries=(
                    entry(1, "a", usage=used, started_at=5.0, ended_at=7.5),
                    entry(2, "c", kind=EntryKind.DECISION),
                ),
                holds=(held, replace(held, path=StepPath("c"), state=HoldState.UNCONFIRMED)),
            )
        )
        ledger = await store.ledger(run.run_id)
        assert [(each.path, each.usage, each.ended_at) for each in ledger.spendings] == [("a", used, 7.5)]
        assert [(hold.path, hold.state) for hold in ledger.holds] == [("b", "held"), ("c", "unconfirmed")]
        assert ledger.unconfirmed == used + used + used + used

    async def test_a_hold_is_replaced_until_it_is_settled(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        first = Hold(path=StepPath("a"), number=1, state=HoldState.HELD, usage=Usage(requests=1))
        for hold in (first, replace(first, usage=Usage(requests=2)), replace(first, number=2)):
            await store.write(Write(run_id=run.run_id, fence=run.fence, holds=(hold,)))
        assert (await store.ledger(run.run_id)).unconfirmed == Usage(requests=3)
        settled = replace(first, state=HoldState.SETTLED, usage=Usage())
        await store.write(
            Write(run_id=run.run_id, fence=run.fence, entries=(entry(1, "a"),), holds=(settled,))
        )
        assert [hold.number for hold in (await store.ledger(run.run_id)).holds] == [2]

    async def test_nobody_holds_back_what_belongs_to_a_run_of_others(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        hold = Hold(path=StepPath("a"), number=1, state=HoldState.HELD, usage=Usage(requests=1))
        with pytest.raises(Fenced):
            await store.write(Write(run_id=run.run_id, fence=run.fence + 1, holds=(hold,)))
        assert (await store.ledger(run.run_id)).holds == ()

    async def test_an_answer_to_nothing_names_the_open_questions(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await self._ask(store, run, "approve")
        with pytest.raises(RunNotFound) as caught:
            await store.answer(RUN, StepPath("aprove"), b"true")
        assert "approve" in (caught.value.hint or "")

    # What waits for somebody alive -------------------------------------------------------------------------

    async def test_a_question_is_due_when_its_deadline_has_passed_and_expires_once(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        late, later = (Pause(pause_id=StepPath(n), message="?", deadline_s=s) for n, s in LATE)
        await mine.write(Write(run_id=RUN, fence=run.fence, pauses=(late, later)))
        assert (await other.due()).questions == ((RUN, StepPath("late")),)
        tries = [store.expire(RUN, pause.pause_id) for store in (mine, other) for pause in (late, later)]
        settled = await asyncio.gather(*tries)
        assert [pause.is_expired for pause in settled] == [True, False, True, False]
        assert settled[0] == settled[2]
        assert (await mine.due()).questions == ()
        with pytest.raises(RunNotFound):
            await mine.expire(RUN, StepPath("nothing"))

    async def test_of_an_answer_and_a_deadline_the_first_wins(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        asked = [Pause(pause_id=StepPath(name), message="?", deadline_s=0.0) for name in ("a", "b")]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        await store.answer(RUN, StepPath("a"), b"1")
        assert (await store.expire(RUN, StepPath("a"))).answer == b"1"
        assert (await store.expire(RUN, StepPath("b"))).is_expired
        with pytest.raises(ResumeConflict):
            await store.answer(RUN, StepPath("b"), b"1")
        await store.write(Write(run_id=RUN, fence=run.fence, voids=(StepPath("b"),)))
        assert (await store.pauses(RUN))[1].is_expired

    async def test_a_question_that_expired_may_be_asked_again(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        pause = Pause(pause_id=StepPath("a"), message="?", deadline_s=0.0)
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(pause,)))
        assert (await store.expire(RUN, StepPath("a"))).is_expired
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(replace(pause, deadline_s=NEVER_S),)))
        (again,) = await store.pauses(RUN)
        assert again.is_open
        assert (await store.answer(RUN, StepPath("a"), b"1")).answer == b"1"

    async def test_a_run_is_due_that_nobody_executes_and_that_can_go_on(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run("held"), {})
        await mine.accept(new_run("free", closure="f" * 64), {}, claim=False)
        for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.FAILED):
            run = await mine.accept(new_run(str(status)), {})
            await self._ask(mine, run, "approve")
            await mine.write(move(run, status))
        assert set((await other.due()).runs) == {"free", "running"}
        await other.answer(RunId("paused"), StepPath("approve"), b"true")
        assert set((await other.due()).runs) == {"free", "running", "paused"}
        assert (await other.due(closures=["f" * 64])).runs == ("free",)
        assert set((await other.due(without=["f" * 64])).runs) == {"running", "paused"}
        assert len((await other.due(limit=1)).runs) == 1
        await other.claim(RunId("paused"), statuses=[RunStatus.PAUSED], recovering=True)
        assert set((await mine.due()).runs) == {"free", "running"}

    async def test_a_run_whose_lease_has_lapsed_is_due(self, open_store: OpenStore) -> None:
        mine, other = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        await mine.accept(new_run(), {})
        assert (await other.due()).runs == ()
        await asyncio.sleep(2 * SHORT_S)
        assert (await other.due()).runs == (RUN,)

    async def test_recoveries_are_counted_until_the_journal_grows_or_somebody_asks(
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

    async def test_a_claim_by_force_ends_what_the_owner_may_do(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        with pytest.raises(ResumeConflict):
            await other.claim(RUN, statuses=[RunStatus.RUNNING])
        taken = await other.claim(RUN, statuses=[RunStatus.RUNNING], forced=True)
        with pytest.raises(Fenced):
            await mine.write(writes(run, entry(1)))
        await other.write(move(taken, RunStatus.CANCELLED))
        with pytest.raises(ResumeConflict):
            await mine.claim(RUN, statuses=[RunStatus.CANCELLED], forced=True)

    async def test_calls_are_kept_as_they_were_announced_and_settled(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        large = canonical.encode("x" * 200_000)
        sent = Intent(
            key="k", path=StepPath("pay"), tool="bank:pay", state=IntentState.SENT, input=large, sends=2
        )
        other = replace(sent, key="other", path=StepPath("later"), input=b"1")
        await store.write(Write(run_id=RUN, fence=run.fence, intents=(sent,)))
        (there,) = await store.intents(RUN)
        assert replace(there, sent_at=None) == sent
        assert there.sent_at
        done = replace(sent, state=IntentState.DONE, result=large)
        await store.write(Write(run_id=RUN, fence=run.fence, intents=(done, other), entries=(entry(1),)))
        first, second = await store.intents(RUN)
        assert replace(first, sent_at=None) == done
        assert (first.sent_at, second.key) == (there.sent_at, "other")
        with pytest.raises(Fenced):
            await store.write(Write(run_id=RUN, fence=run.fence + 1, intents=(sent,)))
        assert (await store.intents(RUN))[0].state is IntentState.DONE

    async def test_a_listing_says_the_earliest_deadline(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        asked = [
            Pause(pause_id=StepPath(name), message="?", deadline_s=s) for name, s in (("a", 90), ("b", 60))
        ]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        (listed,) = await store.runs(RunQuery())
        assert listed.deadline_at == (await store.pauses(RUN))[1].deadline_at

    # Queries -----------------------------------------------------------------------------------------------

    async def _listed(self, store: StateStore, **conditions: Any) -> list[str]:
        return [record.run_id for record in await store.runs(RunQuery(**conditions))]

    async def test_runs_are_listed_newest_first_by_what_is_asked(self, store: StateStore) -> None:
        for number in range(5):
            await store.accept(new_run(f"run-{number}", user_id="ann" if number % 2 else "bob"), {})
        first = await store.run(RunId("run-0"))
        await store.write(move(first, RunStatus.COMPLETED))
        await store.accept(new_run("other", pipeline="other"), {})
        assert await self._listed(store) == ["other", "run-4", "run-3", "run-2", "run-1", "run-0"]
        assert await self._listed(store, limit=2) == ["other", "run-4"]
        assert await self._listed(store, statuses=(RunStatus.COMPLETED, RunStatus.FAILED)) == ["run-0"]
        assert await self._listed(store, pipeline="triage", user_id="ann") == ["run-3", "run-1"]

    async def test_metadata_is_compared_as_json(self, store: StateStore) -> None:
        quoted = 'it\'s "so" \\ %'
        kinds: dict[str, Any] = {
            "bool": True,
            "float": 1.0,
            "int": 1,
            "list": [1],
            "null": None,
            "quoted": quoted,
            "text": "1",
        }
        for name, value in kinds.items():
            await store.accept(new_run(name, metadata={"n": value, "m": "x" if name == "int" else "y"}), {})
        await store.accept(new_run("without"), {})
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({"n": 1}, ["float", "int"]),
            ({"n": 1.0}, ["float", "int"]),
            ({"n": True}, ["bool"]),
            ({"n": "1"}, ["text"]),
            ({"n": None}, ["null"]),
            ({"n": quoted}, ["quoted"]),
            ({"n": 1, "m": "x"}, ["int"]),
            ({"missing": None}, []),
            ({"n": "[1]"}, []),
        ]
        for wanted, found in cases:
            assert (wanted, sorted(await self._listed(store, metadata=wanted))) == (wanted, found)

    async def test_a_hostile_metadata_key_is_refused_everywhere(self, store: StateStore) -> None:
        hostile = ("", "a') = 1 OR 1=1 --", 'a"', "a.b", "$", "a b", "1a", "ä", "a\x00", "a]", "$.a", "a\n")
        for key in (*hostile, "x" * 64):
            with pytest.raises(SettingsError):
                await store.runs(RunQuery(metadata={key: 1}))
            with pytest.raises(SettingsError):
                await store.accept(new_run(metadata={key: 1}), {})

    async def test_a_condition_is_a_scalar_that_json_can_hold(self, store: StateStore) -> None:
        values: tuple[Any, ...] = (float("nan"), [1], {"a": 1}, 2**70, "a\x00b", "\ud800")
        for value in values:
            with pytest.raises(SettingsError):
                await store.runs(RunQuery(metadata={"key": value}))

    async def test_a_query_has_bounds(self, store: StateStore) -> None:
        with pytest.raises(SettingsError):
            await store.runs(RunQuery(limit=0))
        with pytest.raises(SettingsError):
            await store.runs(RunQuery(metadata={f"k{number}": 1 for number in range(17)}))
