"""What every executor that leaves the process promises; a module of tests inherits the class."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, Pipeline, Step, StepConfig
from flujo.domain import canonical
from flujo.domain.current_step import CURRENT_STEP, ON_REMOTE_WORK, CurrentStep
from flujo.domain.executor import Needs, Unit
from flujo.domain.journal import CodeFrame, RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.engine.failed_calls import Verdict, verdict
from flujo.exceptions import (
    ArgumentsRejected,
    CallFailed,
    CodeDiffers,
    ExecutorError,
    NotJournalable,
    NotSent,
    ResultRefused,
    WorkerLost,
)
from flujo.services.project.project import find_project
from flujo.services.project.user_code import UserCode
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flujo.domain.executor import Executor
    from flujo.domain.remote_work import RemoteWork

PACKAGE = "executed_here"
"""The package of the callables, whose name no other test uses."""

CODE = """
import asyncio, logging, os, sys, time
from contextlib import asynccontextmanager
from pathlib import Path

from flujo import AppResources, ContextReference, NotSent
from flujo.exceptions import ControlSignal, PausedException, PipelineAbortSignal


class Tools(AppResources):
    made_by: int


@asynccontextmanager
async def tools():
    yield Tools(made_by=os.getpid())


def double(n: int) -> int:
    return 2 * n


async def later(n: int) -> dict:
    await asyncio.sleep(0)
    return {"n": n}


def with_key(data: str, idempotency_key: str) -> str:
    return f"{data} {idempotency_key}"


def made_by(resources: Tools) -> list:
    return [resources.made_by, os.getpid()]


def logs(data: str) -> str:
    logging.getLogger("executed").warning("about %s", data)
    return data


def raises(kind: str) -> None:
    if kind == "not sent":
        raise NotSent("the line is down")
    if kind == "refused":
        raise ConnectionRefusedError("nobody there")
    raise KeyError(kind)


class Stop(ControlSignal):
    pass


def stops(way: str) -> None:
    if way == "asks":
        raise PausedException("Which one?")
    if way == "aborts":
        raise PipelineAbortSignal("nothing to do")
    if way == "signals":
        raise Stop("in its own way")
    if way == "exits":
        sys.exit(3)
    raise StopIteration(way)


async def is_cancelled(way: str) -> None:
    raise asyncio.CancelledError


def spans(data: None) -> list:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("mine").start_as_current_span("mine"):
        pass
    (span,) = exporter.get_finished_spans()
    return [f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}"] if span.parent else [None, None]


async def spans_later(data: None) -> list:
    await asyncio.sleep(0)
    return spans(data)


def hangs(file: str) -> None:
    part = Path(file + ".part")
    part.write_text(str(os.getpid()))
    part.rename(file)
    time.sleep(600)


def kills_once(n: int) -> int:
    file = Path(__file__).with_name("killed")
    if n == 7 and not file.exists():
        file.touch()
        os.kill(os.getpid(), 9)
    return 2 * n


def folder(data: None) -> list:
    here = Path(__file__).parent
    return [str(here), sorted(each.name for each in here.iterdir() if each.name != "__pycache__")]


def dies(file: str) -> None:
    with open(file, "a") as calls:
        calls.write("called\\n")
    os.kill(os.getpid(), 9)


def large(count: int) -> str:
    return "x" * count


def odd(data: str) -> object:
    return {1, 2} if data == "set" else object()


async def stored(text: str) -> ContextReference[str]:
    return await ContextReference[str].of(text)


def read(reference: ContextReference[str]) -> int:
    return len(reference.get_sync())
"""

SETTINGS = """
[blueprints]
allow_callables = ["executed_here"]
[project]
resources = "executed_here:tools"
[state_providers]
docs = "file:documents"
"""


def unit(
    name: str, data: Any = None, *, key: str | None = None, needs: Needs | None = None, **named: Any
) -> Unit:
    """Return a call of a callable of `CODE` with its input, or with arguments by name."""
    return Unit(
        target=f"{PACKAGE}:{name}",
        data=canonical.encode(named or data),
        by_name=bool(named),
        idempotency_key=key,
        step=CurrentStep(RunId("r1"), StepPath("step"), 1),
        needs=needs or Needs(),
    )


async def appears(path: Path) -> int:
    """Return the process id that a callable writes into a file."""
    await until(path.exists)
    return int(await asyncio.to_thread(path.read_text))


def is_running(process: int) -> bool:
    """Return whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, a minute at most."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - it changes in another process
            await asyncio.sleep(0.01)


@asynccontextmanager
async def project_of(root: Path, table: str) -> AsyncIterator[Workspace]:
    """A project whose callables are in one module, and whose `[executors.there]` is `table`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLUJO_STATE_URI", raising=False)
        patch.setattr(sys, "path", [str(root), *sys.path])
        patch.delitem(sys.modules, PACKAGE, raising=False)
        (root / f"{PACKAGE}.py").write_text(CODE, "utf-8")
        (root / "flujo.toml").write_text(f"{SETTINGS}[executors.there]\n{table}\n", "utf-8")
        importlib.invalidate_caches()
        async with Workspace(find_project(root)) as workspace:
            yield workspace
        sys.modules.pop(PACKAGE, None)


class Listener:
    """Keeps what executors report."""

    def __init__(self) -> None:
        self.work: list[RemoteWork] = []

    def sent(self) -> tuple[int, str | None]:
        raise AssertionError  # of a callable of a step

    def answered(self, work: RemoteWork) -> None:
        self.work.append(work)


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def _stopped(workspace: Workspace, way: str, executor: str | None) -> tuple[RunStatus, list[str], Any]:
    """Return the status, the questions and the error of a run whose step stops it."""
    code = importlib.import_module(PACKAGE)
    call = code.is_cancelled if way == "is_cancelled" else code.stops
    pipeline = Pipeline([Step("stop", call, config=StepConfig(executor=executor))], name="stopped")
    async with Flujo(pipeline, binding=workspace.bind(pipeline), persist_state=False) as runner:
        result = await runner.run_result_async(way)
    error = result.error and (result.error.code, result.error.type, result.error.message, result.error.frame)
    return result.status, [each.message for each in result.pauses], error


class ExecutorSuite:
    """The promises. `table` is the text of `[executors.there]`."""

    table: str

    @pytest.fixture
    async def workspace(self, tmp_path: Path) -> AsyncIterator[Workspace]:
        """A project whose callables are in one module."""
        async with project_of(tmp_path, self.table) as workspace:
            yield workspace

    @pytest.fixture
    def there(self, workspace: Workspace) -> Executor:
        """The executor."""
        executor = workspace.executors.named("there")
        assert executor is not None
        return executor

    async def test_outputs_of_sync_and_async_callables_are_json(self, there: Executor) -> None:
        assert await there.submit(unit("double", 4)) == 8
        assert await there.submit(unit("later", n=3)) == {"n": 3}
        assert await there.submit(unit("with_key", "a", key="k1")) == "a k1"
        many = await asyncio.gather(*(there.submit(unit("double", n=number)) for number in range(50)))
        assert many == [2 * number for number in range(50)]

    async def test_a_failure_has_the_class_and_the_place_of_the_original(
        self, there: Executor, workspace: Workspace
    ) -> None:
        with pytest.raises(CallFailed, match="broken") as failed:
            await there.submit(unit("raises", kind="broken"))
        assert type(failed.value).__name__ == "KeyError"
        assert verdict(failed.value) is Verdict.IN_DOUBT
        found = UserCode(workspace.project.root)(failed.value)
        assert found is not None
        frame, traceback = found
        assert isinstance(frame, CodeFrame)
        assert (frame.file, frame.function) == (f"{PACKAGE}.py", "raises")
        assert "raise KeyError(kind)" in traceback

    async def test_what_stops_a_run_stops_it_as_in_its_own_process(self, workspace: Workspace) -> None:
        ways = ("asks", "aborts", "signals", "exits", "iterates", "is_cancelled")
        there = dict(
            zip(ways, await asyncio.gather(*(_stopped(workspace, way, "there") for way in ways)), strict=True)
        )
        assert there == {way: await _stopped(workspace, way, None) for way in ways}
        assert there["asks"] == (RunStatus.PAUSED, ["Which one?"], None)
        assert there["aborts"][0] is RunStatus.CANCELLED

    async def test_a_failure_says_whether_the_call_was_sent(self, there: Executor) -> None:
        with pytest.raises(NotSent, match="the line is down"):
            await there.submit(unit("raises", kind="not sent"))
        with pytest.raises(CallFailed) as refused:
            await there.submit(unit("raises", kind="refused"))
        assert verdict(refused.value) is Verdict.NOT_SENT
        with pytest.raises(ArgumentsRejected, match="`m`"):
            await there.submit(unit("double", m=3))

    async def test_results_that_cannot_travel_are_refused(self, there: Executor) -> None:
        with pytest.raises(ResultRefused, match="max_result") as refused:
            await there.submit(unit("large", 2_000_000))
        assert refused.value.executor == "there"
        with pytest.raises(NotJournalable):
            await there.submit(unit("odd", "object"))

    async def test_a_lost_worker_is_an_error_and_the_next_unit_has_another(
        self, there: Executor, tmp_path: Path
    ) -> None:
        under_way = asyncio.ensure_future(there.submit(unit("hangs", str(tmp_path / "pid"))))
        killed = await appears(tmp_path / "pid")
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(ExecutorError) as lost:
            await under_way
        assert isinstance(lost.value, WorkerLost)
        assert lost.value.retryable
        assert lost.value.executor == "there"
        assert verdict(lost.value) is Verdict.IN_DOUBT
        assert await there.submit(unit("double", 1)) == 2
        assert int((tmp_path / "pid").read_text()) == killed, "the executor repeats nothing"

    async def test_a_unit_is_executed_at_most_once(self, there: Executor, tmp_path: Path) -> None:
        with pytest.raises(WorkerLost):
            await there.submit(unit("dies", str(tmp_path / "calls")))
        assert await there.submit(unit("double", 1)) == 2
        assert (tmp_path / "calls").read_text("utf-8") == "called\n"

    async def test_cancelling_leaves_room_for_others(self, there: Executor, tmp_path: Path) -> None:
        under_way = asyncio.ensure_future(there.submit(unit("hangs", str(tmp_path / "pid"))))
        await appears(tmp_path / "pid")
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert await asyncio.gather(*(there.submit(unit("double", each)) for each in range(4))) == [
            0,
            2,
            4,
            6,
        ]

    async def test_resources_are_made_once_by_the_worker(self, there: Executor) -> None:
        (maker, worker), (again, same) = [await there.submit(unit("made_by")) for _ in range(2)]
        assert maker == worker != os.getpid()
        assert again == same

    async def test_where_a_unit_was_executed_is_reported(self, there: Executor) -> None:
        listener = Listener()
        token = ON_REMOTE_WORK.set(listener)
        _, process = await there.submit(unit("made_by"))
        with pytest.raises(CallFailed):
            await there.submit(unit("raises", kind="broken"))
        ON_REMOTE_WORK.reset(token)
        work = listener.work
        assert [(each.executor, each.error) for each in work] == [("there", None), ("there", "KeyError")]
        assert work[0].pid == process
        assert work[0].host
        assert work[0].seconds > 0

    async def test_spans_of_a_callable_have_that_of_the_unit_as_their_parent(self, there: Executor) -> None:
        for name in ("spans", "spans_later"):
            given = replace(unit(name), traceparent=f"00-{TRACE}-{PARENT}-01")
            assert await there.submit(given) == [TRACE, PARENT]
            assert await there.submit(unit(name)) == [None, None]

    async def test_a_worker_reads_and_stores_references_itself(self, there: Executor) -> None:
        reference = await there.submit(unit("stored", text="y" * 3_000_000))
        assert len(json.dumps(reference)) < 400
        assert await there.submit(unit("read", reference=reference)) == 3_000_000

    async def test_log_lines_arrive_here(self, there: Executor, caplog: pytest.LogCaptureFixture) -> None:
        token = CURRENT_STEP.set(CurrentStep(RunId("r1"), StepPath("step"), 1))
        with caplog.at_level(logging.WARNING):
            assert await there.submit(unit("logs", "x")) == "x"
        CURRENT_STEP.reset(token)
        assert ("executed", logging.WARNING, "about x") in caplog.record_tuples

    async def test_other_code_than_that_of_the_run_is_refused(
        self, there: Executor, workspace: Workspace
    ) -> None:
        importlib.import_module(PACKAGE)  # this process has loaded the code
        file = workspace.project.root / f"{PACKAGE}.py"
        file.write_text(CODE.replace("2 * n", "2 * n + 1"), "utf-8")
        with pytest.raises(CodeDiffers, match="double"):
            await there.submit(unit("double", 4))

    async def test_what_is_there(self, there: Executor) -> None:
        facts = await there.check()
        assert facts.workers >= 2
        assert facts.has.cpu >= 1
