"""A process that continues the run of a map over workers reads what its journal has got since."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from pydantic import BaseModel, model_serializer

from engine.test_batches import QUEUE, RUN, alone, digest, finished, spread, worked_off
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.paths import StepPath, ranges_of
from flujo.domain.queues import ClaimOrder, QueueLimits
from flujo.domain.run import RunStatus
from flujo.domain.steps import Step
from flujo.engine import decisions, known_batches
from flujo.engine.known_batches import KnownBatches, KnownMaps
from flujo.exceptions import JournalConflict
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import entry
from support import pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.store import StateStore

LEVEL = ranges_of(StepPath("digest"))


def tree(**keys: Any) -> Pipeline:
    """Return a map over workers, with one item in a batch."""
    return pipeline(digest(Step("same", lambda data: data), config=spread(1), **keys))


@pytest.mark.parametrize("items", [6, 12])
async def test_a_continued_run_reads_the_entries_that_have_followed(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, items: int
) -> None:
    read, entries = [], store.entries

    async def counted(*given: Any, **named: Any) -> Any:
        found = await entries(*given, **named)
        if named.get("parent") == LEVEL:
            read.append(len(found))
        return found

    monkeypatch.setattr(store, "entries", counted)
    async with alone(tree(), store) as runner:
        result, turns = await finished(runner, store, [*range(items)])
    assert (result.output, turns) == ([*range(items)], [2] * (items // 2))
    launches, ends = 2, 2
    later = [1 + launches + ends] * (len(turns) - 1)  # the newest known one again
    assert read == [launches, *later, 2 * items - ends], "all of them once, for the output"


class Paper(BaseModel):
    """An item that counts how often it is converted to JSON."""

    number: int
    converted: ClassVar[list[int]] = []

    @model_serializer
    def _to_json(self) -> dict[str, int]:
        self.converted.append(self.number)
        return {"number": self.number}


async def test_a_continued_run_skips_the_items_of_an_iterator_that_it_has_compared(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "SKIPPED_AT_ONCE", 3)
    converted: list[int] = []
    monkeypatch.setattr(Paper, "converted", converted)

    def papers(_: Any) -> Iterator[Paper]:
        return (Paper(number=number) for number in range(9))

    async with alone(tree(over=papers), store) as runner:
        result, _ = await finished(runner, store, 0)
    assert result.output == [{"number": number} for number in range(9)]
    looks = [converted.count(number) for number in range(9)]
    assert max(looks) == 3, "when a batch is launched, when its end is recorded, and when that is read"


@pytest.mark.parametrize("left", [0, 1, 3])
async def test_an_iterator_that_yields_fewer_items_after_a_resume_is_a_conflict(
    store: StateStore, left: int
) -> None:
    given = [*range(7)]
    async with alone(tree(over=lambda data: iter(given)), store) as runner:
        for turn in range(3):
            result = await (runner.resume_async(RUN) if turn else runner.run_result_async(0, run_id=RUN))
            assert result.status is RunStatus.WAITING
            await worked_off(runner, store)
        del given[left:]
        result = await runner.resume_async(RUN)
    assert result.error is not None
    assert result.error.code == JournalConflict.code
    assert f"gives {left} items, and at least 6 before" in result.error.message


async def test_batches_end_in_any_order_and_any_process_continues_the_run(store: StateStore) -> None:
    async with alone(tree(max_concurrency=3), store) as one, alone(tree(max_concurrency=3), store) as two:
        result = await one.run_result_async([*range(7)], run_id=RUN)
        order = ClaimOrder(queues=((QUEUE, QueueLimits()),), limit=100)
        [slow, *others] = await store.claim_next(order)
        assert one._services is not None
        for runner in (one, two, two, one):
            for record in others:
                await (await one._services.of_run(record)).execute(record, max_recoveries=0)
            result = await runner.resume_async(RUN)
            assert result.status is RunStatus.WAITING
            others = await store.claim_next(order)
        await (await one._services.of_run(slow)).execute(slow, max_recoveries=0)
        assert (await two.resume_async(RUN)).output == [*range(7)]


async def test_another_run_with_the_id_is_read_whole(store_uri: str) -> None:
    async with (
        aclosing(await SqlStateStore.open(store_uri)) as store,
        alone(tree(), store) as one,
        alone(tree(), store) as two,
    ):
        await one.run_result_async([1, 2, 3, 4, 5], run_id=RUN)
        await worked_off(one, store)
        await one.resume_async(RUN)
        await store.write_apart(lambda connection: connection.execute(runs.delete()))
        await two.run_result_async([6, 7, 8, 9], run_id=RUN)
        await worked_off(two, store)
        await two.resume_async(RUN)
        await worked_off(two, store)
        assert (await one.resume_async(RUN)).output == [6, 7, 8, 9]


def test_the_least_recently_executed_maps_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_batches, "MAX_BATCHES", 5)
    monkeypatch.setattr(known_batches, "MAX_MAPS", 3)
    maps, path = KnownMaps(), StepPath("digest")

    def known(count: int) -> KnownBatches:
        found = KnownBatches()
        found.learn([entry(n, f"digest[{n}..{n}]", kind=EntryKind.WORK) for n in range(1, count + 1)])
        return found

    for name, count in (("a", 1), ("b", 3), ("c", 2)):
        maps.keep(RunId(name), path, known(count))
    assert [maps.take(RunId(name), path) is not None for name in "abc"] == [False, True, True]
    for name in "abcd":
        maps.keep(RunId(name), path, known(1))
    assert [maps.take(RunId(name), path) is not None for name in "abcd"] == [False, True, True, True]
