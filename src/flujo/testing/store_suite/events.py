"""Events from outside: one wait takes each, whichever of the two comes first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical, chains
from flujo.domain.acts import Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Child, Pause, PauseKind, RunRecord, RunStatus, Write
from flujo.domain.sent_events import Delivery, NewEvent, Taken
from flujo.exceptions import EventConflict, EventRefused, InputRejected, RunNotFound
from flujo.testing.store_suite import families
from flujo.testing.store_suite.examples import NEVER_S, RUN, OpenStore, ask, move, new_run

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

WAIT = StepPath("paid")
NUMBER = canonical.encode({"type": "integer"})
ADA = Actor("ada", Via.API)


def event(event_id: str = "e1", **changes: Any) -> NewEvent:
    """Return an event to send: to the run, or to a key."""
    made = NewEvent(event_id=event_id, name="paid", payload=b"7", actor=ADA, run_id=RUN)
    return replace(made, **changes)


def keyed(event_id: str = "e1", key: str = "k", **changes: Any) -> NewEvent:
    """Return an event with a key."""
    return event(event_id, run_id=None, key=key, **changes)


def wait(path: StepPath = WAIT, **changes: Any) -> Pause:
    """Return a wait for the event."""
    made = Pause(pause_id=path, message="waits", kind=PauseKind.EVENT, event="paid", event_key="k")
    return replace(made, **changes)


async def opens(store: StateStore, run: RunRecord, *waits: Pause) -> bool:
    """Open waits and let the run wait; return whether it can resume at once."""
    await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=waits or (wait(),)))
    return await store.write(move(run, RunStatus.WAITING))


async def waiting(store: StateStore, name: str, *waits: Pause) -> RunRecord:
    """Return a run that waits."""
    run = await store.accept(new_run(name), {})
    await opens(store, run, *waits)
    return run


async def taken_by(store: StateStore, run_id: str = RUN) -> list[bytes | None]:
    """Return what the waits of a run have taken."""
    return [pause.answer for pause in await store.pauses(RunId(run_id))]


async def continued(store: StateStore, run: RunRecord) -> RunRecord:
    """End a run, and return the claimed run that continues it."""
    following = Child(run=new_run(chains.successor_of(run.run_id)))
    await store.write(replace(move(run, RunStatus.COMPLETED), children=(following,)))
    return await store.claim(following.run.run_id, statuses=[RunStatus.ACCEPTED])


class EventsSuite:
    """An event reaches one wait, or all of its name and key; it never gets lost between sender and wait."""

    async def test_an_event_settles_the_wait_that_is_open(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await waiting(mine, RUN)
        delivery = await other.send_event(event())
        assert delivery == Delivery(event_id="e1", taken=(Taken(run_id=RUN, path=WAIT),))
        [pause] = await mine.pauses(RUN)
        assert (pause.answer, pause.by, pause.is_expired) == (b"7", "ada", False)
        assert [(act.verb, act.object, act.after) for act in await mine.acts(RUN)] == [
            (Verb.SEND, "paid", b"7")
        ]
        assert (await mine.due()).runs == (RUN,)
        assert await mine.kept_events(RUN) == []

    async def test_an_event_that_comes_first_is_taken_by_the_commit_that_opens_the_wait(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        assert await other.send_event(event()) == Delivery(event_id="e1")
        [kept] = await other.kept_events(RUN)
        assert (kept.event_id, kept.payload, kept.actor, kept.taken) == ("e1", b"7", ADA, None)
        assert await opens(mine, run)
        [pause] = await other.pauses(RUN)
        assert (pause.answer, pause.by, pause.event, pause.event_key) == (b"7", "ada", "paid", "k")
        assert [act.verb for act in await mine.acts(RUN)] == [Verb.SEND]
        assert await other.kept_events(RUN) == []

    async def test_a_kept_event_with_a_key_waits_for_any_run(self, store: StateStore) -> None:
        assert await store.send_event(keyed()) == Delivery(event_id="e1")
        await waiting(store, "other-key", wait(event_key="j"))
        await waiting(store, "other-name", wait(event="sent"))
        await waiting(store, "no-key", wait(event_key=None))
        await waiting(store, "first")
        await waiting(store, "second")
        assert await taken_by(store, "first") == [b"7"]
        for name in ("other-key", "other-name", "no-key", "second"):
            assert await taken_by(store, name) == [None]

    async def test_an_event_with_a_key_goes_to_the_run_that_has_waited_longest(
        self, store: StateStore
    ) -> None:
        for name in ("b", "a", "c"):
            await waiting(store, name)
        assert [run_id for run_id, _ in await store.event_waits("paid", "k")] == ["b", "a", "c"]
        for number, name in enumerate(("b", "a", "c")):
            delivery = await store.send_event(keyed(f"e{number}"))
            assert [each.run_id for each in delivery.taken] == [name]
        assert (await store.send_event(keyed("e3"))).taken == ()

    async def test_an_event_to_all_is_taken_by_every_run_that_waits_now(self, store: StateStore) -> None:
        for name in ("b", "a"):
            await waiting(store, name)
        delivery = await store.send_event(keyed(to_all=True))
        assert [each.run_id for each in delivery.taken] == ["b", "a"]
        again = await store.send_event(keyed(to_all=True))
        assert (again.taken, again.is_repeated) == (delivery.taken, True)
        await waiting(store, "late")
        assert await taken_by(store, "late") == [None]
        with pytest.raises(EventConflict):
            await store.send_event(keyed())

    async def test_the_same_event_again_does_nothing_and_another_content_is_a_conflict(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await mine.send_event(event())
        assert await other.send_event(event()) == Delivery(event_id="e1", is_repeated=True)
        for changed in (event(payload=b"8"), event(name="sent"), keyed(), keyed(to_all=True)):
            with pytest.raises(EventConflict):
                await other.send_event(changed)
        await opens(mine, run)
        again = await other.send_event(event())
        assert (again.taken, again.is_repeated) == ((Taken(run_id=RUN, path=WAIT),), True)
        assert len(await mine.acts(RUN)) == 1

    async def test_a_payload_that_does_not_fit_the_open_wait_is_refused(self, store: StateStore) -> None:
        await waiting(store, RUN, wait(answer_schema=NUMBER))
        for bad in (event(payload=b'"x"'), keyed(payload=b'"x"')):
            with pytest.raises(InputRejected, match="paid"):
                await store.send_event(bad)
        assert await store.kept_events(RUN) == []
        assert (await store.send_event(event())).taken

    async def test_a_kept_event_that_does_not_fit_stays_and_a_later_one_is_taken(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await store.send_event(event("e1", payload=b'"x"'))
        await store.send_event(event("e2", payload=b"8"))
        await opens(store, run, wait(answer_schema=NUMBER))
        assert await taken_by(store) == [b"8"]
        assert [each.event_id for each in await store.kept_events(RUN)] == ["e1"]

    async def test_a_payload_goes_past_a_wait_that_it_does_not_fit(self, store: StateStore) -> None:
        await waiting(store, "numbers", wait(answer_schema=NUMBER))
        await waiting(store, "texts", wait(answer_schema=canonical.encode({"type": "string"})))
        delivery = await store.send_event(keyed(payload=b'"x"'))
        assert [each.run_id for each in delivery.taken] == ["texts"]

    async def test_each_wait_of_a_run_takes_an_event_of_its_own(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.send_event(event("e1", payload=b"1"))
        await store.send_event(keyed("e2", payload=b"2"))
        await opens(store, run, *(wait(StepPath(f"each[{index}]/paid")) for index in range(4)))
        await store.send_event(event("e3", payload=b"3"))
        assert await taken_by(store) == [b"1", b"2", b"3", None]

    async def test_an_event_to_no_run_or_to_one_that_has_ended_is_refused(self, store: StateStore) -> None:
        with pytest.raises(RunNotFound):
            await store.send_event(event())
        run = await store.accept(new_run(), {})
        await store.write(move(run, RunStatus.COMPLETED))
        with pytest.raises(EventRefused, match="completed"):
            await store.send_event(event())

    async def test_an_event_is_kept_for_a_failed_run_that_may_be_retried(self, store: StateStore) -> None:
        run = await waiting(store, RUN)
        claimed = await store.claim(RUN, statuses=[RunStatus.WAITING])
        await store.write(move(claimed, RunStatus.FAILED))  # voids the wait
        assert (await store.send_event(event())).taken == ()
        retried = await store.claim(RUN, statuses=[RunStatus.FAILED])
        assert retried.fence == run.fence + 2
        assert await opens(store, retried)
        assert await taken_by(store) == [b"7"]

    async def test_what_a_run_has_not_taken_goes_to_the_run_that_continues_it(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await waiting(mine, RUN)
        await other.send_event(event("taken"))
        await other.send_event(event("kept", payload=b"8"))
        claimed = await mine.claim(RUN, statuses=[RunStatus.WAITING])
        following = await continued(mine, claimed)
        with pytest.raises(EventRefused, match="completed"):
            await other.send_event(event("late"))
        assert [each.event_id for each in await other.kept_events(following.run_id)] == ["kept"]
        assert await mine.kept_events(RUN) == []
        assert await opens(mine, following)
        assert await taken_by(mine, following.run_id) == [b"8"]
        assert (run.run_id, await taken_by(mine)) == (RUN, [b"7"])
        for event_id, taker in (("taken", RUN), ("kept", following.run_id)):
            payload = b"7" if event_id == "taken" else b"8"
            for address in (RUN, following.run_id):  # whichever of the chain the sender finds
                again = await other.send_event(event(event_id, payload=payload, run_id=address))
                assert (again.is_repeated, again.taken) == (True, (Taken(run_id=taker, path=WAIT),))

    async def test_events_that_are_sent_while_a_run_is_continued_are_refused_or_kept(
        self, open_store: OpenStore
    ) -> None:
        mine, *others = [await open_store() for _ in range(3)]
        run = await mine.accept(new_run(), {})
        sent = [
            others[number % 2].send_event(event(f"e{number}", payload=b"%d" % number)) for number in range(20)
        ]
        following, *results = await asyncio.gather(continued(mine, run), *sent, return_exceptions=True)
        assert isinstance(following, RunRecord)
        kept = {each.event_id for each in await mine.kept_events(following.run_id)}
        accepted = {each.event_id for each in results if isinstance(each, Delivery)}
        assert kept == accepted
        assert all(isinstance(each, Delivery | EventRefused) for each in results)

    async def test_an_open_or_settled_wait_takes_no_further_event(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.send_event(event("e1"))
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(wait(),)))
        await store.send_event(event("e2", payload=b"8"))
        await opens(store, run)
        assert await taken_by(store) == [b"7"]
        assert [each.event_id for each in await store.kept_events(RUN)] == ["e2"]

    async def test_the_first_of_event_and_deadline_wins(self, store: StateStore) -> None:
        await waiting(store, "a", wait(deadline_s=0.0))
        await waiting(store, "b", wait(deadline_s=0.0, event_key="j"))
        await store.send_event(keyed())
        assert (await store.expire(RunId("a"), WAIT)).answer == b"7"
        assert (await store.expire(RunId("b"), WAIT)).is_expired
        assert (await store.send_event(keyed("e2", key="j"))).taken == ()

    async def test_a_question_takes_no_event(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "paid")
        assert (await store.send_event(event())).taken == ()

    async def test_each_of_many_events_is_taken_once_by_one_of_many_waits(
        self, open_store: OpenStore
    ) -> None:
        stores = [await open_store() for _ in range(3)]
        names = [f"run-{number}" for number in range(6)]
        runs = [await stores[0].accept(new_run(name), {}) for name in names]
        sending = [stores[n % 3].send_event(keyed(f"e{n}", payload=b"%d" % n)) for n in range(6)]
        opening = [opens(stores[0], run) for run in runs]
        await asyncio.gather(*(each for pair in zip(sending, opening, strict=True) for each in pair))
        answers = [answer for name in names for answer in await taken_by(stores[1], name)]
        assert sorted(answers, key=str) == [b"%d" % n for n in range(6)]
        assert await stores[2].kept_events(RunId("run-0")) == []

    async def test_one_of_two_senders_of_an_id_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(2)]
        for name in ("a", "b"):
            await waiting(stores[0], name, wait(event_key=name))
        tries = [store.send_event(keyed("same", key=name)) for store, name in zip(stores, "ab", strict=True)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(each).__name__ for each in results) == ["Delivery", "EventConflict"]
        answers = [answer for name in "ab" for answer in await taken_by(stores[0], name)]
        assert sorted(answers, key=str) == [None, b"7"] or sorted(answers, key=str) == [b"7", None]

    async def test_an_old_event_that_no_run_has_taken_is_deleted(self, store: StateStore) -> None:
        await waiting(store, RUN)
        await store.send_event(keyed("taken"))
        await store.send_event(keyed("kept"))
        await store.send_event(event("mine"))
        assert await store.delete_old_events(NEVER_S, limit=10) == 0
        assert await store.delete_old_events(-1.0, limit=10) == 2
        assert await store.kept_events(RUN) == []
        assert (await store.send_event(keyed("taken"))).is_repeated

    async def test_a_settled_wait_wakes_who_waits_in_this_process(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await waiting(mine, RUN)
        woken: asyncio.Queue[RunId] = asyncio.Queue()
        end = mine.on_settled(woken.put_nowait)
        await other.send_event(event())
        async with asyncio.timeout(20):
            assert await woken.get() == RUN
        end()
        await other.send_event(event("e2"))
        assert woken.empty()

    async def test_the_end_of_a_task_wakes_who_waits_in_this_process_and_an_answer_does_not(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        woken: asyncio.Queue[RunId] = asyncio.Queue()
        end = mine.on_settled(woken.put_nowait)
        run = await families.launched(other)
        await ask(other, run, "ok")
        await other.write(families.wait_for(run, families.TASK, status=None))
        await other.answer(RUN, StepPath("ok"), b"true")
        assert woken.empty()
        async with asyncio.timeout(20):
            await other.write(move(await other.run(families.TASK), RunStatus.COMPLETED))
            assert await woken.get() == RUN
        end()
