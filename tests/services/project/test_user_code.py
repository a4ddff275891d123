"""An error of a run names the place in the user's code, wherever that code was called."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, calls, talk
from flujo.client import TaskClient
from flujo.domain import canonical
from flujo.domain.executor import CodeExit
from flujo.domain.journal import CodeFrame, EntryKind, ErrorInfo
from flujo.domain.pipeline import StepConfig
from flujo.domain.queues import RunKind
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunQuery
from flujo.domain.steps import AwaitStep, CallableRef, ConditionalStep, MapStep, ParallelStep, Step
from flujo.governance.sink import GATE
from flujo.services.project.user_code import MAX_TRACEBACK, UserCode
from support import Expr, World, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.ports import StateStore
    from flujo.services.inspection.task_detail import TaskDetail

HERE = Path(__file__)
KEY = "an-api-key-of-somebody"


def total(row: Any) -> Any:
    return row["tota"]


def outer(data: Any) -> Any:
    return total({"total": data})


async def awaited(data: Any) -> Any:
    await asyncio.sleep(0)
    return total({"total": data})


async def sleeps(data: Any) -> None:
    await asyncio.sleep(60)


def with_key(data: Any) -> None:
    raise ValueError("an-api-key-of-somebody")


def reader(data: Any) -> Any:
    """Reads a file with the standard library."""
    return Path("/nowhere/at/all").read_text("utf-8")


def frame_of(error: ErrorInfo | None) -> tuple[str, str]:
    """Return the function and the line of the place that an error names."""
    assert error is not None
    assert error.frame is not None
    assert error.frame.file.endswith(HERE.name)
    assert error.frame.source == HERE.read_text("utf-8").splitlines()[error.frame.line - 1].strip()
    assert error.traceback
    return error.frame.function, error.frame.source


TOTAL = ("total", 'return row["tota"]')


async def detail_of(store: StateStore, run_id: str = RUN) -> TaskDetail:
    return await TaskClient(store).get_task(run_id, tracebacks=True)


def test_the_innermost_frame_of_the_user_counts_and_not_that_of_a_library() -> None:
    found = UserCode(HERE.parent)(raised(reader))
    assert found is not None
    frame, text = found
    assert (frame.file, frame.function) == (HERE.name, "reader")
    assert "No such file" in text.splitlines()[-1]
    assert "in read_text" in text, "the traceback is whole below the user's code"


def test_a_file_is_named_relative_to_the_project_or_to_the_folder_it_is_imported_from() -> None:
    place = [UserCode(folder)(raised(outer)) for folder in (HERE.parents[2], Path("/elsewhere"))]
    assert [found and found[0].file for found in place] == [f"services/project/{HERE.name}"] * 2


def test_code_outside_of_the_project_has_no_place() -> None:
    where = UserCode(HERE.parent)
    assert where(raised(canonical.decode, own=False)) is None
    assert where(ValueError("raised nowhere")) is None
    names: dict[str, Any] = {}
    exec(compile("def generated(data): raise ValueError(data)", "<generated>", "exec"), names)
    assert where(raised(names["generated"], own=False)) is None


def test_the_cause_counts_when_the_error_itself_comes_from_flujo() -> None:
    error = ValueError("of Flujo")
    error.__cause__ = raised(outer)
    found = UserCode(HERE.parent)(error)
    assert found is not None
    assert found[0].function == "total"
    assert UserCode(HERE.parent)(CodeExit(raised(outer))) is not None


def test_hostile_errors_are_survived() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def hostile(_: Any) -> None:
        raise Hostile

    def endless(data: Any) -> Any:
        return endless(data)

    error = raised(hostile)
    error.__cause__ = error
    where = UserCode(HERE.parent)
    assert where(error) is not None
    deep = where(raised(endless))
    assert deep is not None
    huge = where(raised(lambda _: int("x" * 10**6)))
    assert huge is not None
    assert max(len(deep[1]), len(huge[1])) <= MAX_TRACEBACK


def raised(work: Any, *, own: bool = True) -> BaseException:
    """Return the error that `work` raises; without `own`, without the frame of this file that calls it."""
    with pytest.raises(Exception) as caught:
        work(1)
    error, trace = caught.value, caught.tb
    return error if own else error.with_traceback(trace.tb_next)


async def test_each_attempt_names_its_place_and_the_last_one_is_the_place_of_the_run(
    store: StateStore,
) -> None:
    retried = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    result = await start(pipeline(Step("sum", outer, config=retried)), store, 1)
    assert frame_of(result.error) == TOTAL
    detail = await detail_of(store)
    assert frame_of(detail.error) == TOTAL
    assert [frame_of(made.error) for made in detail.trace.at("sum").made] == [TOTAL, TOTAL]
    [text] = detail.tracebacks.values()
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("KeyError: 'tota'\n")
    assert "in outer" in text
    assert "/flujo/engine/" not in text, "the callers of the code are left out"


async def test_parallel_branches_items_of_maps_and_async_code_name_their_places(store: StateStore) -> None:
    tree = pipeline(
        ParallelStep(
            "both",
            branches={
                "left": pipeline(Step("async", awaited)),
                "right": pipeline(
                    MapStep(
                        "each", over=Expr("[1, 2]"), body=pipeline(Step("sync", outer)), on_error="collect"
                    )
                ),
            },
        )
    )
    result = await start(tree, store, 1)
    assert frame_of(result.error) == TOTAL
    root = (await detail_of(store)).trace
    failed = ["both:left/async", "both:right/each[0]/sync", "both:right/each[1]/sync"]
    assert [frame_of(root.at(path).error) for path in failed] == [TOTAL] * 3
    items = root.at("both:right/each").output
    assert [sorted(item["error"]) for item in items] == [
        ["code", "hint", "message", "path", "retryable", "type"]
    ] * 2, "a value of the run does not change with the lines of the code"


async def test_decisions_and_validators_name_their_places(store: StateStore) -> None:
    way = ConditionalStep(
        "way", condition=CallableRef("x:outer", outer), branches={"yes": pipeline(call("a", NO))}
    )
    assert frame_of((await start(pipeline(way), store, 1, run_id="a")).error) == TOTAL
    judged = Step("judged", NO, validators=[CallableRef("x:outer", outer)])
    assert frame_of((await start(pipeline(judged), store, 1, run_id="b")).error) == TOTAL


NO = CallableRef("x:no", lambda data: data)


async def test_a_tool_of_an_agent_names_the_place_of_the_error_that_the_model_got(store: StateStore) -> None:
    def lookup(a: int) -> int:
        """Look something up."""
        return int(total({"a": a}))

    await start(talk([calls(("lookup", {"a": 1})), "sorry"], tools=[lookup]), store, "go")
    detail = await detail_of(store)
    made = detail.trace.at("research/turn[0]/tool[0]")
    assert made.output == "KeyError: 'tota'"
    assert made.frame is not None
    assert (made.frame.function, made.frame.source) == TOTAL
    [digest] = made.tracebacks
    assert "in lookup" in detail.tracebacks[digest]


async def test_a_time_limit_names_the_place_where_async_code_waited(store: StateStore) -> None:
    result = await start(pipeline(Step("slow", sleeps, config=StepConfig(timeout_s=0.01))), store, 1)
    assert result.error is not None
    assert result.error.code == "FLJ403"
    assert frame_of(result.error) == ("sleeps", "await asyncio.sleep(60)")


async def test_a_background_task_names_its_place(store: StateStore) -> None:
    background = StepConfig(execution_mode="background")
    tree = pipeline(Step("report", outer, config=background), AwaitStep("result", task="report"))
    await start(tree, store, 1)
    [task] = await store.runs(RunQuery(kinds=(RunKind.TASK,)))
    assert frame_of((await detail_of(store, task.run_id)).error) == TOTAL


async def test_a_resumed_run_fails_with_the_same_bytes(store: StateStore) -> None:
    tree = pipeline(call("first", World().add("first")), Step("sum", outer))
    await start(tree, store, 1)
    await resume(tree, store, retry_failed=True)
    failed = [entry for entry in await store.entries(RUN) if entry.error is not None]
    assert [entry.attempt for entry in failed] == [1, 2]
    assert failed[0].error == failed[1].error


async def test_secrets_are_masked_in_the_line_and_in_the_traceback(store: StateStore) -> None:
    GATE.know([KEY], "SERVICE_KEY")
    result = await start(pipeline(Step("leaks", with_key)), store, 1)
    detail = await detail_of(store)
    [text] = detail.tracebacks.values()
    assert result.error is not None
    assert result.error.traceback is not None
    assert result.error.frame is not None
    assert KEY not in text + result.error.frame.source
    assert "raise ValueError" in result.error.frame.source
    stored = await store.blobs([result.error.traceback])
    assert KEY.encode() not in stored[result.error.traceback]


async def test_a_secret_that_only_the_reader_knows_is_masked_when_it_is_read(store: StateStore) -> None:
    await start(pipeline(Step("leaks", with_key)), store, 1)
    GATE.know([KEY], "SERVICE_KEY")
    detail = await detail_of(store)
    [text] = detail.tracebacks.values()
    assert detail.error is not None
    assert detail.error.frame is not None
    assert KEY not in text + detail.error.frame.source


def test_an_error_of_an_earlier_version_has_no_place() -> None:
    old: Mapping[str, Any] = {
        "code": "FLJ401",
        "message": "KeyError: 'tota'",
        "hint": None,
        "type": "KeyError",
        "path": "sum",
        "retryable": True,
    }
    error = ErrorInfo.from_json(old)
    assert error.frame is None
    assert error.to_json() == old, "an error without a place has the bytes that it always had"
    placed = ErrorInfo.from_json({**old, "frame": FRAME.to_json(), "traceback": "abc"})
    assert placed.frame == FRAME
    assert ErrorInfo.from_json(placed.to_json()) == placed


FRAME = CodeFrame("app.py", 3, "total", 'return row["tota"]')


async def test_the_journal_names_the_blob_so_that_it_is_purged_with_the_run(store: StateStore) -> None:
    await start(pipeline(Step("sum", outer)), store, 1)
    [entry] = [each for each in await store.entries(RUN) if each.kind is EntryKind.WORK]
    error = ErrorInfo.from_json(canonical.decode(entry.error or b""))
    assert error.traceback is not None
    assert list(await store.blobs([error.traceback])) == [error.traceback]
