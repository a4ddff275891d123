"""Ranges of a map: written when their items have ended, read on resume instead of them."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.events import ItemsKept
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.paths import StepPath, bounds, parent
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Expr, MapStep, Save, Text
from flujo.domain.steps import HumanInTheLoopStep as Ask
from flujo.engine.steps.map import _only_step
from flujo.exceptions import JournalConflict, PipelineError, SecretInValue, StateBackendUnavailable
from flujo.governance.sink import Gate
from flujo.state.store import SqlStateStore
from support import COUNTER_SCHEMA, StoppingStore, World, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN: Any = "run"


def mapping(world: World, work: Callable[[Any], Any] = lambda n: n * 10, **more: Any) -> MapStep:
    body = pipeline(call("work", world.add("work", work)))
    return MapStep(**{"name": "m", "over": Expr("input"), "body": body, "max_concurrency": 2, **more})


def odd_fails(data: int) -> int:
    if data % 2:
        raise ValueError(f"no {data}")
    return data * 10


class Reading:
    """A store that lists the paths of the entries that a run has read."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.paths: list[str] = []
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def entries(self, run_id: Any, **which: Any) -> Any:
        found = await self._store.entries(run_id, **which)
        self.paths += [each.path for each in found]
        self.reads += 1
        return found


async def broken_off(tree: Pipeline, store: StateStore, value: Any, writes: int, **more: Any) -> bool:
    """Start a run that ends after this many writes; return whether it was not complete by then."""
    stopping: Any = StoppingStore(store, writes)
    try:
        await start(tree, stopping, value, **more)
    except StateBackendUnavailable:
        return True
    return False


async def ranges(store: StateStore, path: str = "m") -> list[tuple[int, int]]:
    found = [bounds(each.path) for each in await store.entries(RUN, parent=StepPath(f"{path}[..]"))]
    return [each for each in found if each is not None]


async def test_ended_items_of_a_map_are_summed_up_in_ranges(store: StateStore) -> None:
    world = World()
    result = await start(pipeline(mapping(world)), store, list(range(8)), range_length=3)
    assert result.output == [n * 10 for n in range(8)]
    assert sorted(await ranges(store)) == [(0, 2), (3, 5)]
    [first, _] = sorted(await store.entries(RUN, parent=StepPath("m[..]")), key=lambda each: each.path)
    assert (first.kind, first.fingerprint) == (EntryKind.DONE, "map")
    assert canonical.decode(first.output or b"") == [0, 10, 20]
    kept = {each.path for each in await store.entries(RUN)}
    assert {f"m[{n}]/work" for n in range(8)} <= kept, "the entries of the items stay"


@pytest.mark.parametrize("keep", ["outputs", "failed", "none"])
@pytest.mark.parametrize("on_error", ["skip", "collect"])
async def test_a_run_stopped_after_any_write_resumes_to_the_same_result(
    store: StateStore, keep: Any, on_error: Any
) -> None:
    def tree(world: World) -> Pipeline:
        step = mapping(world, odd_fails, on_error=on_error, keep=keep, merge="context_update")
        body = pipeline(
            call("work", world.add("work", odd_fails), save={"log": Save(Expr("output"), append=True)})
        )
        return pipeline(
            MapStep(**{**vars_of(step), "body": body}),
            context_schema=COUNTER_SCHEMA,
            output={
                "m": Text("{{ previous }}"),
                "failed": Text("{{ steps.m.failed }}"),
                "log": Text("{{ context.log }}"),
            },
        )

    items, world = list(range(7)), World()
    unbroken = await start(tree(world), store, items, run_id="unbroken")
    for writes in count(1):
        world, run_id = World(), f"run-{writes}"
        if not await broken_off(tree(world), store, items, writes, run_id=run_id, range_length=2):
            break
        result = await resume(tree(world), store, run_id=run_id, range_length=2)
        assert (result.status, result.output) == (RunStatus.COMPLETED, unbroken.output), f"after {writes}"
        assert len(world.calls) <= len(items) + 2, "only items in progress are executed again"
    assert writes > 4


def vars_of(step: MapStep) -> dict[str, Any]:
    return {
        name: getattr(step, name) for name in ("name", "over", "max_concurrency", "on_error", "keep", "merge")
    }


async def test_the_writes_of_a_range_are_merged_in_the_order_of_its_items(store: StateStore) -> None:
    world, items = World(), list(range(13))
    body = pipeline(call("work", world.add("work"), save={"log": Save(Expr("output"), append=True)}))
    step = MapStep("m", over=Expr("input"), body=body, merge="context_update", max_concurrency=1)
    tree = pipeline(step, context_schema=COUNTER_SCHEMA, output=Text("{{ context.log }}"))
    assert await broken_off(tree, store, items, 13, range_length=12)
    assert await ranges(store) == [(0, 11)]
    assert (await resume(tree, store, range_length=12)).output == items


async def test_a_range_with_very_large_outputs_is_not_written(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.engine.ranges.MAX_BYTES", 100)
    world = World()
    tree = pipeline(mapping(world, lambda n: "x" * n * 30))
    assert (await start(tree, store, [0, 1, 2, 3], range_length=2)).output == [
        "",
        "x" * 30,
        "x" * 60,
        "x" * 90,
    ]
    assert await ranges(store) == [(0, 1)]


async def test_a_resume_reads_ranges_instead_of_their_items(store: StateStore) -> None:
    world, items = World(), list(range(30))
    tree = pipeline(mapping(world, max_concurrency=1))
    assert await broken_off(tree, store, items, 18, range_length=5)
    written = await ranges(store)
    assert len(written) >= 2
    reading: Any = Reading(store)
    result = await resume(tree, reading, range_length=5)
    assert result.output == [n * 10 for n in items]
    covered = {f"m[{n}]" for first, last in written for n in range(first, last + 1)}
    assert not covered & set(reading.paths)
    assert not any(path.startswith(tuple(f"{each}/" for each in covered)) for path in reading.paths)


async def test_an_item_of_one_step_is_one_entry(store: StateStore) -> None:
    assert (await start(pipeline(mapping(World())), store, [1, 2, 3])).output == [10, 20, 30]
    entries = [each.path for each in await store.entries(RUN)]
    assert sorted(path for path in entries if path.startswith("m[")) == [f"m[{n}]/work" for n in range(3)]


async def test_an_item_of_two_steps_continues_after_its_first_one(store: StateStore) -> None:
    for writes in count(1):
        world, run_id = World(), f"run-{writes}"
        steps = [call(name, world.add(name, lambda n: n + 1)) for name in ("first", "second")]
        tree = pipeline(mapping(world, body=pipeline(*steps), max_concurrency=1))
        if not await broken_off(tree, store, [10, 20], writes, run_id=run_id):
            break
        assert (await resume(tree, store, run_id=run_id)).output == [12, 22], f"after {writes}"
    assert writes > 4
    assert {"m[0]", "m[1]"} <= {each.path for each in await store.entries(RunId(run_id))}


@pytest.mark.parametrize("condition", ["item != 2", "item == 2"])
async def test_an_item_whose_step_has_a_condition_has_its_own_entry(
    store: StateStore, condition: str
) -> None:
    world = World()
    body = pipeline(call("work", world.add("work", lambda n: n * 10), when=Expr(condition)))
    tree = pipeline(mapping(world, body=body))
    expected = (await start(tree, store, [1, 2, 3])).output
    assert expected == ([10, 2, 30] if condition == "item != 2" else [1, 20, 3])
    assert {"m[0]", "m[1]", "m[2]"} <= {each.path for each in await store.entries(RUN)}


async def test_a_resume_reads_the_entries_of_ended_items_together_and_lists_no_step_of_them(
    store: StateStore,
) -> None:
    world, items = World(), list(range(12))
    tree = pipeline(mapping(world, max_concurrency=1))
    assert await broken_off(tree, store, items, 8)
    ended = [each for each in await store.entries(RUN) if each.path.endswith("/work")]
    assert len(ended) > 4
    reading: Any = Reading(store)
    result = await resume(tree, reading)
    assert result.output == [n * 10 for n in items]
    assert Counter(reading.paths)["m[0]/work"] == 1
    assert reading.reads < len(items), "no item is read by itself"
    assert not {each.path for each in ended} & {each.path for each in result.steps}


async def test_a_version_with_an_entry_for_each_item_and_this_one_continue_each_other(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, items = World(), list(range(20))
    tree = pipeline(mapping(world, max_concurrency=1))

    def is_old(old: bool) -> None:
        monkeypatch.setattr("flujo.engine.steps.map._only_step", (lambda _: None) if old else _only_step)

    for old in (True, False, True):
        is_old(old)
        stopping: Any = StoppingStore(store, 5)
        with pytest.raises(StateBackendUnavailable):
            await (start(tree, stopping, items) if not world.calls else resume(tree, stopping))
    is_old(False)
    assert (await resume(tree, store)).output == [n * 10 for n in items]
    assert len(world.calls) <= len(items) + 3, "only an item in progress is executed again"
    own = [each for each in await store.entries(RUN) if parent(each.path) == "m"]
    assert 0 < len(own) < len(items)


async def test_a_resume_with_other_bounds_reads_the_items(store: StateStore) -> None:
    world, items = World(), list(range(12))
    tree = pipeline(mapping(world, max_concurrency=1))
    assert await broken_off(tree, store, items, 8, range_length=2)
    assert await ranges(store)
    assert (await resume(tree, store, range_length=3)).output == [n * 10 for n in items]
    assert len(world.calls) <= len(items) + 2


async def test_failed_items_of_a_range_are_executed_again_by_a_retry(store: StateStore) -> None:
    world, is_broken = World(), [True]

    def work(data: int) -> int:
        return odd_fails(data) if is_broken[0] else data * 10

    def merge(fork: Any, branches: Any) -> Any:
        if is_broken[0]:
            raise ValueError("not yet")
        return fork

    tree = pipeline(mapping(world, work, on_error="skip", merge=CallableRef("x:merge", merge)))
    assert (await start(tree, store, list(range(6)), range_length=2)).status is RunStatus.FAILED
    assert sorted(await ranges(store)) == [(0, 1), (2, 3), (4, 5)]
    is_broken[0] = False
    result = await resume(tree, store, range_length=2, retry_failed=True)
    assert result.output == [n * 10 for n in range(6)]
    assert Counter(world.calls) == {"work": 6 + 3}
    newest = (await store.entries(RUN, parent=StepPath("m[..]")))[-1]
    assert (newest.attempt, canonical.decode(newest.detail or b"")["failed"]) == (2, 0)


async def test_a_resume_without_a_retry_keeps_the_failures_of_a_range(store: StateStore) -> None:
    world, items = World(), list(range(8))
    tree = pipeline(mapping(world, odd_fails, on_error="collect", max_concurrency=1))
    assert await broken_off(tree, store, items, 6, range_length=2)
    [first, *_] = await ranges(store)
    before = Counter(world.calls)
    result = await resume(tree, store, range_length=2)
    assert [one["ok"] for one in result.output] == [True, False] * 4
    assert result.output[1]["error"]["message"] == "ValueError: no 1"
    assert world.calls.count("work") - before["work"] <= len(items) - (first[1] - first[0])


async def test_a_changed_keep_reads_the_items(store: StateStore) -> None:
    world, items = World(), list(range(8))
    few = pipeline(mapping(world, odd_fails, on_error="collect", keep="none", max_concurrency=1))
    assert await broken_off(few, store, items, 6, range_length=2)
    assert await ranges(store)
    every = pipeline(mapping(world, odd_fails, on_error="collect"))
    result = await resume(every, store, range_length=2)
    assert [one["output"] for one in result.output] == [0, None, 20, None, 40, None, 60, None]
    assert len(world.calls) <= len(items) + 2


async def test_other_items_than_before_are_a_conflict(store: StateStore) -> None:
    world, given = World(), [0, 1, 2, 3, 4, 5]
    over = CallableRef("x:over", lambda data: iter(given))
    one_by_one = [mapping(world, over=each, max_concurrency=1) for each in (over, Expr("input"))]
    for number, step in enumerate(one_by_one):
        run_id = RunId(f"run-{number}")
        assert await broken_off(pipeline(step), store, given, [6, 5][number], run_id=run_id, range_length=2)
        assert await store.entries(run_id, parent=StepPath("m[..]"))
    given[1] = 7
    result = await resume(pipeline(mapping(world, over=over)), store, run_id="run-0", range_length=2)
    assert isinstance(result.cause, JournalConflict)
    assert result.error is not None
    assert result.error.message == (
        "`over` of map 'm' gives other items than before this run was resumed, among the items 0 to 1"
    )
    assert result.error.path == "m[0..1]"
    changed = pipeline(mapping(world, over=Expr("[0, 7, 2, 3, 4, 5]")))
    result = await resume(changed, store, run_id="run-1", range_length=2)
    assert isinstance(result.cause, JournalConflict)


@pytest.mark.parametrize("missing", [1, 2, 3])
@pytest.mark.parametrize("length", [2, 100])
async def test_fewer_items_of_an_iterator_than_before_are_a_conflict(
    store: StateStore, missing: int, length: int
) -> None:
    world, given = World(), [0, 1, 2, 3, 4, 5, 6]
    tree = pipeline(mapping(world, over=CallableRef("x:over", lambda data: iter(given)), max_concurrency=1))
    assert await broken_off(tree, store, given, 6, range_length=length)
    assert bool(await ranges(store)) == (length == 2)
    recorded = sum(each.kind is EntryKind.DECISION for each in await store.entries(RUN))
    del given[recorded - missing :]
    result = await resume(tree, store, range_length=length)
    assert isinstance(result.cause, JournalConflict)


async def test_a_range_waits_for_the_answer_to_the_question_of_an_item(store: StateStore) -> None:
    body = pipeline(Ask(name="ask", message=Text("{{ item }}?"), when=Expr("item == 1")))
    tree = pipeline(MapStep(name="m", over=Expr("input"), body=body, max_concurrency=2))
    result = await start(tree, store, list(range(6)), range_length=2)
    assert result.status is RunStatus.PAUSED
    assert sorted(await ranges(store)) == [(2, 3), (4, 5)]
    result = await resume(tree, store, range_length=2, answer="yes")
    assert result.output == [0, "yes", 2, 3, 4, 5]
    assert sorted(await ranges(store)) == [(0, 1), (2, 3), (4, 5)]


async def test_a_failed_item_that_stops_the_map_is_in_no_range(store: StateStore) -> None:
    world = World()
    result = await start(
        pipeline(mapping(world, odd_fails, max_concurrency=1)), store, [0, 2, 4, 1], range_length=2
    )
    assert result.status is RunStatus.FAILED
    assert await ranges(store) == [(0, 1)]


async def test_nested_maps_have_ranges_of_their_own(store: StateStore) -> None:
    world = World()
    inner = mapping(world, name="inner", over=Expr("item"))
    tree = pipeline(MapStep(name="m", over=Expr("input"), body=pipeline(inner), max_concurrency=1))
    items = [[1, 2, 3], [4, 5], [6]]
    assert (await start(tree, store, items, range_length=2)).output == [[10, 20, 30], [40, 50], [60]]
    assert await ranges(store) == [(0, 1)]
    assert await ranges(store, "m[0]/inner") == await ranges(store, "m[1]/inner") == [(0, 1)]
    assert await ranges(store, "m[2]/inner") == []


async def test_the_items_of_an_iterator_come_from_the_journal_once_it_has_ended(store: StateStore) -> None:
    world, calls, is_broken = World(), [0], [True]

    async def over(data: Any) -> AsyncIterator[int]:
        calls[0] += 1
        for number in range(5):
            yield number

    def last(data: Any) -> Any:
        if is_broken[0] and data == 4:
            raise ValueError("not yet")
        return data * 10

    tree = pipeline(mapping(world, last, over=CallableRef("x:over", over), max_concurrency=6))
    assert (await start(tree, store, range_length=2)).status is RunStatus.FAILED
    is_broken[0] = False
    result = await resume(tree, store, range_length=2, retry_failed=True)
    assert (result.output, calls) == ([0, 10, 20, 30, 40], [1])


@pytest.mark.usefixtures("own_objects")
@pytest.mark.parametrize("keep", ["failed", "none"])
async def test_a_map_that_keeps_nothing_needs_constant_memory(sqlite_uri: str, keep: Any) -> None:
    sizes: dict[int, int] = {}

    async def work(data: int) -> str:
        if data in (200, 800):
            gc.collect()
            sizes[data] = tracemalloc.get_traced_memory()[0]
        return "x" * 1000

    body = pipeline(call("work", CallableRef("x:work", work)))
    over = CallableRef("x:over", lambda data: iter(range(801)))
    tree = pipeline(MapStep("m", over=over, body=body, keep=keep, on_error="skip"))
    store = await SqlStateStore.open(sqlite_uri)
    tracemalloc.start()
    try:
        result = await start(tree, store, range_length=50)
    finally:
        tracemalloc.stop()
        await store.aclose()
    assert (result.output, len(result.steps)) == ([] if keep == "failed" else None, 1)
    assert sizes[800] - sizes[200] < 100_000, "600 items have outputs of 600 kilobytes"


async def test_a_secret_among_the_items_fails_the_map_and_nothing_else(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.engine.journal.GATE", gate := Gate())
    gate.know(["a-secret-of-the-run"], "KEY")
    step = MapStep(
        name="m",
        over=Expr("['a-secret-of-' + 'the-run', 'x']"),
        body=pipeline(call("work", CallableRef("x:work", lambda data: "fine"), input=Text("x"))),
        on_error="collect",
    )
    result = await start(pipeline(step), store, range_length=2)
    assert isinstance(result.cause, SecretInValue)
    assert (result.status, result.error and result.error.path) == (RunStatus.FAILED, "m")


@pytest.mark.parametrize("name", ["keep", "on_error"])
def test_another_word_than_those_that_a_map_takes_is_refused(name: str) -> None:
    more: Any = {name: "outputz"}
    with pytest.raises(PipelineError, match=rf"`{name}` .*is 'outputz'; expected one of"):
        MapStep("m", over="[1]", body=pipeline(), **more)


async def test_a_resumed_map_says_how_many_items_are_kept(store: StateStore) -> None:
    tree = pipeline(mapping(World()), Ask("ask", message="go on?"))
    events: list[ItemsKept] = []

    async def hear(event: Any) -> None:
        if isinstance(event, ItemsKept):
            events.append(event)

    assert await broken_off(tree, store, list(range(8)), 4, range_length=3)
    done = {each.path for each in await store.entries(RUN) if each.path.endswith("/work")}
    await resume(tree, store, range_length=3, sink=hear)
    assert events, "some items were recorded"
    assert {each.path for each in events} == {"m"}
    assert events[-1].count == len(done)
    assert [each.count for each in events] == sorted(each.count for each in events)
