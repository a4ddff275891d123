"""Laws of concurrent branches: the order of completion changes nothing, and no write is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain import canonical
from flujo.domain.merge import Conflict, MergeStrategy, apply, diff, fold
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Expr, MapStep, ParallelStep, Save, Text
from flujo.state.memory_store import MemoryStateStore
from properties.sample import tries
from support import call, pipeline, start

if TYPE_CHECKING:
    from flujo.domain.journal import EntryKind
    from flujo.domain.pipeline import Pipeline

values = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=3)
trees = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)
names = ["left", "middle", "right"]
several = st.lists(trees, min_size=1, max_size=3)
deciding = st.sampled_from([MergeStrategy.OVERWRITE, MergeStrategy.KEEP_FIRST, MergeStrategy.NO_MERGE])
strict = st.sampled_from([MergeStrategy.CONTEXT_UPDATE, MergeStrategy.ERROR_ON_CONFLICT])


def patches(fork: Any, afters: list[Any]) -> dict[str, Any]:
    return {name: diff(fork, after) for name, after in zip(names, afters, strict=False)}


def merged(fork: Any, afters: list[Any], strategy: MergeStrategy) -> Any:
    folded = fold(fork, patches(fork, afters), strategy)
    return folded if isinstance(folded, Conflict) else apply(fork, folded)


def wrote(fork: Any, after: Any) -> set[str]:
    return {str(op[1][0]) for op in diff(fork, after)}


@given(trees, trees, strict | st.just(MergeStrategy.OVERWRITE))
def test_a_single_branch_gives_its_own_writes(fork: Any, after: Any, strategy: MergeStrategy) -> None:
    assert canonical.encode(merged(fork, [after], strategy)) == canonical.encode(after)


@given(trees, several, strict)
def test_a_branch_without_writes_never_conflicts(
    fork: Any, afters: list[Any], strategy: MergeStrategy
) -> None:
    with_idle = {**patches(fork, afters), "idle": diff(fork, canonical.normalise(fork))}
    assert fold(fork, with_idle, strategy) == fold(fork, patches(fork, afters), strategy)


@given(trees, several, st.sampled_from(MergeStrategy))
def test_merging_changes_only_written_fields(fork: Any, afters: list[Any], strategy: MergeStrategy) -> None:
    result = merged(fork, afters, strategy)
    written = set().union(*(wrote(fork, after) for after in afters))
    if not isinstance(result, Conflict):
        assert {k: v for k, v in result.items() if k not in written} == {
            k: v for k, v in fork.items() if k not in written
        }


@given(trees, several, deciding)
def test_some_strategies_always_decide(fork: Any, afters: list[Any], strategy: MergeStrategy) -> None:
    assert not isinstance(merged(fork, afters, strategy), Conflict)


@given(trees, several)
def test_a_conflict_names_exactly_the_branches_that_wrote_the_field(fork: Any, afters: list[Any]) -> None:
    result = merged(fork, afters, MergeStrategy.ERROR_ON_CONFLICT)
    writers = {
        field: [n for n, after in zip(names, afters, strict=False) if field in wrote(fork, after)]
        for field in "abc"
    }
    if isinstance(result, Conflict):
        assert list(result.branches) == writers[result.field]
        assert len(result.branches) > 1
    else:
        assert all(len(who) <= 1 for who in writers.values())


@given(trees, several)
def test_context_update_keeps_the_writes_of_every_branch(fork: Any, afters: list[Any]) -> None:
    result = merged(fork, afters, MergeStrategy.CONTEXT_UPDATE)
    if isinstance(result, Conflict):
        return
    for field in "abc":
        written = [after for after in afters if field in wrote(fork, after)]
        if len(written) == 1:
            assert (result.get(field), field in result) == (written[0].get(field), field in written[0])
        elif written:
            before = fork.get(field) or []
            added = [value for after in written for value in after[field][len(before) :]]
            assert result[field] == [*before, *added]


@given(trees, several, st.sampled_from(MergeStrategy))
def test_a_folded_patch_survives_the_journal(fork: Any, afters: list[Any], strategy: MergeStrategy) -> None:
    folded = fold(fork, patches(fork, afters), strategy)
    if not isinstance(folded, Conflict):
        assert apply(fork, canonical.normalise(folded)) == apply(fork, folded)


@given(trees, st.lists(trees, min_size=2, max_size=2), st.data())
def test_a_field_mapping_takes_only_what_it_names(fork: Any, afters: list[Any], data: st.DataObject) -> None:
    named = data.draw(st.sets(st.sampled_from("abc")))
    folded = fold(fork, {"left": diff(fork, afters[0])}, MergeStrategy.OVERWRITE, {"left": tuple(named)})
    assert not isinstance(folded, Conflict)
    assert {op[1][0] for op in folded} == wrote(fork, afters[0]) & named


# Whole runs, with branches interleaved at random ----------------------------------------------------------


def racing(turns: list[int]) -> Pipeline:
    """Return branches and items that yield to the loop `turns` times before they answer."""
    left = iter([*turns, *[0] * 40])

    async def work(data: Any) -> Any:
        for _ in range(next(left)):
            await asyncio.sleep(0)
        return data

    log = {"log": Save(Expr("output"), append=True)}
    step = call("w", CallableRef("race:work", work), save=log)
    items = MapStep(
        name="items",
        over=Expr("[1, 2, 3, 4]"),
        body=pipeline(step),
        max_concurrency=3,
        merge="context_update",
    )
    alone = call("alone", CallableRef("race:work", work), input=7, save=log)
    step_of_a = call("a", CallableRef("race:work", work), input=5, save={"total": Save(Expr("output"))})
    return pipeline(
        ParallelStep(
            name="p",
            branches={"x": pipeline(items), "y": pipeline(alone, step_of_a), "z": pipeline(items)},
        ),
        context_schema={"properties": {"log": {"default": []}, "total": {"default": 0}}},
        output={"out": Text("{{ previous }}"), "context": Text("{{ context }}")},
    )


RACED = {
    "out": {"x": [1, 2, 3, 4], "y": 5, "z": [1, 2, 3, 4]},
    "context": {"log": [1, 2, 3, 4, 7, 1, 2, 3, 4], "total": 5},
}


@pytest.mark.guarantee("G22")
@tries(60)
@given(st.lists(st.integers(0, 6), max_size=10))
def test_the_order_in_which_branches_finish_never_changes_the_result(turns: list[int]) -> None:
    async def race(turns: list[int]) -> list[tuple[str, EntryKind, bytes, bytes]]:
        store = MemoryStateStore()
        result = await start(racing(turns), store)
        assert (result.status, result.output) == (RunStatus.COMPLETED, RACED)
        told = await store.entries(result.run_id)
        return sorted((e.path, e.kind, e.output or b"", e.patch or b"") for e in told)

    assert asyncio.run(race(turns)) == asyncio.run(race([]))


@pytest.mark.guarantee("G10", "G22")
@tries(60)
@given(st.lists(st.integers(0, 6), max_size=10), st.integers(1, 12))
def test_a_run_cancelled_at_any_point_resumes_to_the_same_result(turns: list[int], moment: int) -> None:
    async def race() -> None:
        store = MemoryStateStore()
        running = asyncio.create_task(start(racing(turns), store))
        for _ in range(moment):
            await asyncio.sleep(0)
        running.cancel()
        result = (await asyncio.gather(running, return_exceptions=True))[0]
        for _ in range(20):
            await asyncio.sleep(0)  # a runner whose `aclose` was cancelled still closes
        assert len(asyncio.all_tasks()) == 1
        if isinstance(result, asyncio.CancelledError):
            # The same id again: the run starts, resumes, or (if its end was committed) is already completed.
            result = await start(racing([]), store)
        assert not isinstance(result, BaseException)
        assert result.output == RACED

    asyncio.run(race())
