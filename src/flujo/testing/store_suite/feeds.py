"""Feeds: a run is watched, its owner hears of it, and what the owner says is read in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain.feed import MAX_LINES, FeedKind, FeedLine
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.testing.store_suite.examples import RUN, SHORT_S, OpenStore, move, new_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.store import StateStore

LINES = (
    FeedLine(at=1.5, kind=FeedKind.STARTED, path=StepPath("work"), after=3, attempt=2, text="look_up"),
    FeedLine(at=1.6, kind=FeedKind.LOGGED, text="ä\n", value={"level": "info", "logger": "mine"}),
)


def _texts(lines: Sequence[FeedLine]) -> list[str]:
    return [line.text for line in lines]


def _text(text: str) -> FeedLine:
    return FeedLine(at=0.0, kind=FeedKind.TEXT, text=text)


class FeedsSuite:
    """A feed may be lost, but it is in order and is written by the run's owner only."""

    async def test_an_owner_hears_that_its_run_is_watched(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        heard = asyncio.Queue[tuple[str, bool]]()

        def hear(who: str) -> Callable[[bool], None]:
            return lambda is_watched: heard.put_nowait((who, is_watched))

        for run_id in (RUN, "other"):
            await mine.accept(new_run(run_id), {})
            mine.on_watched(RunId(run_id), hear(run_id))
        other.on_watched(RUN, hear("not the owner"))
        await other.watch(RUN)
        await other.watch(RunId("nobody"))
        async with asyncio.timeout(10):
            assert await heard.get() == (RUN, True)
        await other.watch(RUN)  # it is known already
        assert heard.empty()

    async def test_watching_changes_nothing_of_a_run(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        before = await mine.accept(new_run(), {})
        await other.watch(RUN)
        after = await mine.run(RUN)
        assert (after.status, after.fence, after.updated_at) == (
            before.status,
            before.fence,
            before.updated_at,
        )
        await mine.write(move(after, RunStatus.COMPLETED, output=b"1"))
        await other.watch(RUN)
        assert (await mine.run(RUN)).status is RunStatus.COMPLETED

    async def test_lines_are_read_in_order_behind_a_number(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await mine.accept(new_run("other"), {})
        assert await other.feed(RUN) == []
        await mine.add_to_feed(RUN, run.fence, LINES)
        await mine.add_to_feed(RunId("other"), 1, [_text("other")])
        [first, second] = await other.feed(RUN)
        assert (first.at, first.kind, first.path, first.after, first.attempt, first.text) == (
            *(1.5, FeedKind.STARTED, "work", 3, 2, "look_up"),
        )
        assert (second.text, second.value) == ("ä\n", {"level": "info", "logger": "mine"})
        assert 0 < first.number < second.number
        await mine.add_to_feed(RUN, run.fence, [_text("third")])
        assert _texts(await other.feed(RUN, after=first.number)) == ["ä\n", "third"]
        [third] = await other.feed(RUN, after=second.number)
        assert third.number > second.number
        assert await other.feed(RUN, after=third.number) == []

    async def test_an_owner_that_has_lost_its_run_adds_nothing(self, open_store: OpenStore) -> None:
        lost, owner = await open_store(lease_s=SHORT_S, renew_s=1e6), await open_store()
        before = await lost.accept(new_run(), {})
        await lost.add_to_feed(RUN, before.fence, [_text("first")])
        await asyncio.sleep(2 * SHORT_S)
        run = await owner.claim(RUN, statuses=[RunStatus.RUNNING])
        await lost.add_to_feed(RUN, before.fence, [_text("lost")])
        await owner.add_to_feed(RUN, run.fence, [_text("second")])
        assert _texts(await owner.feed(RUN)) == ["first", "second"]

    async def test_the_newest_lines_are_kept(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.add_to_feed(RUN, run.fence, [_text(str(number)) for number in range(MAX_LINES)])
        await store.add_to_feed(RUN, run.fence, [_text("a"), _text("b")])
        assert _texts(await store.feed(RUN)) == [*map(str, range(2, MAX_LINES)), "a", "b"]

    async def test_the_feed_of_a_run_that_was_left_lately_is_kept(self, store: StateStore) -> None:
        for run_id in ("ended", "executed"):
            run = await store.accept(new_run(run_id), {})
            await store.add_to_feed(run.run_id, run.fence, [_text("said")])
            if run_id == "ended":
                await store.write(move(run, RunStatus.COMPLETED, output=b"1"))
        await store.delete_old_feeds()
        assert [_texts(await store.feed(RunId(each))) for each in ("ended", "executed")] == [["said"]] * 2
