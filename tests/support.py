"""Shared by several tests: pipelines in Python, callables that log their calls, stores that stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus, Write
from flujo.domain.steps import (
    BaseStep,
    CachePolicy,
    CacheStep,
    CallableRef,
    ConditionalStep,
    DynamicParallelRouterStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Processors,
    Save,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Text,
    Transition,
    TreeSearchStep,
)
from flujo.domain.steps import Carry as Carried
from flujo.engine.frame import RANGE_LENGTH
from flujo.exceptions import StateBackendUnavailable
from flujo.services.project.project import find_project
from flujo.services.project.system import SystemClock, SystemRandom
from flujo.services.runs.execution import Runtime
from flujo.services.runs.run_request import pinned
from flujo.services.runs.runner import Flujo
from flujo.services.runs.service import RunService
from flujo.services.workspace import Workspace
from flujo.state.memory_cache import MemoryCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from flujo.domain.models import PipelineResult
    from flujo.domain.ports import CacheBackend, StateStore

LOG = {"log": Save(Expr("output"), append=True)}
COUNTER_SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "integer", "default": 0}, "log": {"type": "array", "default": []}},
}


def plugin_variables() -> dict[str, str]:
    """Return the variables with which pytest has Flujo's plugin, as an installed package has it, and asyncio's.

    Loading the plugins of all packages that are installed here takes a second, longer than most of these tests.
    """
    installed = {each.name for each in entry_points(group="pytest11")}
    blocked = sorted(installed - {"flujo", "asyncio"})
    variables = {"PYTEST_ADDOPTS": " ".join(f"-p no:{name}" for name in blocked)}
    return (
        variables if "flujo" in installed else {**variables, "PYTEST_PLUGINS": "flujo.testing.pytest_plugin"}
    )


@dataclass
class World:
    """Callables that log their calls, as evidence of the executed steps."""

    calls: list[str] = field(default_factory=list)
    cache: MemoryCache = field(default_factory=MemoryCache)
    """Outlives the runners of one world, like the cache in a state database."""

    def add(self, name: str, work: Callable[[Any], Any] = lambda data: data) -> CallableRef:
        """Return the target of a callable step that logs its name and input, then does `work`."""

        async def call(data: Any) -> Any:
            self.calls.append(name)
            return work(data)

        call.cache_key = name  # type: ignore[attr-defined]  # its captured log is not data
        return CallableRef(f"world:{name}", call)


NOTHING = CallableRef("support:nothing", lambda data: data)


def listener(heard: list[str]) -> Callable[[str], Awaitable[None]]:
    """Return an `on_text` that collects the text."""

    async def hear(text: str) -> None:
        heard.append(text)

    return hear


def pipeline(*steps: BaseStep, **more: Any) -> Pipeline:
    """Return a pipeline of these steps; without any, one step that does nothing."""
    return Pipeline(steps or (call("nothing", NOTHING),), **{"name": "test", **more})


def call(name: str, target: CallableRef, **more: Any) -> Step:
    """Return a step that calls a target."""
    return Step(name=name, call=target, **more)


async def start(
    tree: Pipeline,
    store: StateStore,
    value: Any = None,
    *,
    run_id: str = "run",
    cache: CacheBackend | None = None,
    range_length: int = RANGE_LENGTH,
    **options: Any,
) -> PipelineResult[Any, Any]:
    """Run `tree` and return the result."""
    async with Flujo[Any, Any, Any](tree, store=store, cache=cache, range_length=range_length) as runner:
        return await runner.run_result_async(value, run_id=run_id, **options)


async def resume(
    tree: Pipeline,
    store: StateStore,
    *,
    run_id: str = "run",
    cache: CacheBackend | None = None,
    range_length: int = RANGE_LENGTH,
    **options: Any,
) -> PipelineResult[Any, Any]:
    """Resume a run in a new runner and return the result."""
    async with Flujo[Any, Any, Any](tree, store=store, cache=cache, range_length=range_length) as runner:
        return await runner.resume_async(run_id, **options)


async def fork(
    tree: Pipeline, store: StateStore, at: str, *, run_id: str = "run", **options: Any
) -> PipelineResult[Any, Any]:
    """Fork a run in a new runner and return the result of the fork."""
    async with Flujo[Any, Any, Any](tree, store=store) as runner:
        return await runner.fork_async(run_id, at=at, **options)


def service(tree: Pipeline, store: StateStore) -> RunService:
    """Return the service that executes runs of `tree`, for tests that need the reason of a stop."""
    closure, blobs = pinned(tree, None)
    workspace = Workspace(find_project(Path.cwd()))
    runtime = Runtime(
        pipeline=tree,
        binding=workspace.bind(tree),
        store=store,
        clock=SystemClock(),
        random=SystemRandom(),
    )
    return RunService(runtime=runtime, closure=closure, blobs=blobs, providers={}, files=workspace.files)


async def answer(store: StateStore, pause_id: str, value: Any, *, run_id: str = "run") -> None:
    """Answer a question of a run that is paused."""
    await store.answer(RunId(run_id), StepPath(pause_id), canonical.encode(value))


class StoppingStore:
    """A store that refuses its n-th write and all later ones, like an unavailable database."""

    def __init__(self, store: StateStore, allowed: int) -> None:
        self._store = store
        self.allowed = allowed

    def write(self, write: Write) -> Awaitable[bool]:
        """Forward a write until the limit is reached."""
        if self.allowed <= 0:
            return _refuse()
        self.allowed -= 1
        return self._store.write(write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def _refuse() -> bool:
    raise StateBackendUnavailable("the database is unavailable")


def everything(world: World) -> Pipeline:
    """Return a pipeline with every kind of step and a known result: see `EXPECTED`."""
    child = Pipeline(
        (
            call("double", world.add("double", lambda data: data["n"] * 2)),
            call("plus", world.add("plus", lambda data: data + 1)),
        ),
        name="child",
        output={"result": Text("{{ steps.plus.output }}")},
    )
    body = Pipeline(
        (
            call("tick", world.add("tick", lambda data: data + 1)),
            call("tock", world.add("tock"), save={"log": Save(Expr("output"), append=True)}),
        )
    )
    return Pipeline(
        (
            call("first", world.add("first", lambda data: data + 1), save={"total": Save(Expr("output"))}),
            ConditionalStep(
                name="route",
                condition=Expr("steps.first.output > 1"),
                branches={
                    "then": Pipeline((call("big", world.add("big", lambda data: data * 10)),)),
                    "else": Pipeline((call("small", world.add("small")),)),
                },
            ),
            LoopStep(
                name="loop",
                body=body,
                until=Expr("steps.tock.output >= 23"),
                max_iterations=9,
                carry={"seen": Carried(0, Expr("loop.seen + 1"))},
                output={"last": Text("{{ steps.tock.output }}"), "seen": Text("{{ loop.seen }}")},
            ),
            call("never", world.add("never"), when=Expr("context.total > 100")),
            ImportStep(
                name="child",
                blueprint="child.yaml",
                pipeline=child,
                arguments={"n": Text("{{ steps.loop.output.last }}")},
                save={"total": Save(Expr("output.result"))},
            ),
            ImportStep(
                name="shared",
                blueprint="shared.yaml",
                pipeline=Pipeline(
                    (
                        call("note", world.add("note", lambda data: data["result"]), save=LOG),
                        call("pass", world.add("pass", lambda data: {"result": data})),
                    ),
                    name="shared",
                    context_schema=COUNTER_SCHEMA,
                ),
                context="inherit",
            ),
            call("last", world.add("last", lambda data: data["result"])),
        ),
        name="everything",
        context_schema=COUNTER_SCHEMA,
        output={
            "value": Text("{{ previous }}"),
            "context": Text("{{ context }}"),
            "seen": Text("{{ steps.loop.output.seen }}"),
        },
    )


EXPECTED: Mapping[str, Any] = {
    "value": 47,
    "context": {"total": 47, "log": [21, 22, 23, 47]},
    "seen": 2,
}
CALLS = ["first", "big", *["tick", "tock"] * 3, "double", "plus", "note", "pass", "last"]


def together(world: World) -> Pipeline:
    """Return a pipeline with as much concurrency as possible: a map in a loop next to another branch, a
    router, and a machine. Its result is known: see `TOGETHER`.
    """
    log = {"log": Save(Expr("output"), append=True)}
    squares = MapStep(
        name="squares",
        over=Expr("[loop.index, loop.index + 1]"),
        body=pipeline(call("square", world.add("square", lambda n: n * n), save=log)),
        max_concurrency=2,
        merge="context_update",
    )
    last = call("last", world.add("last", lambda squares: squares[-1]))
    at_once = ParallelStep(
        name="at_once",
        branches={
            "looping": pipeline(
                LoopStep(name="loop", body=pipeline(squares, last), until=Expr("steps.last.output >= 4"))
            ),
            "beside": pipeline(
                call("one", world.add("one", lambda n: n + 1), save=log),
                call("two", world.add("two"), save={"total": Save(Expr("output"))}),
            ),
        },
    )

    async def names(data: Any) -> AsyncIterator[str]:
        for name in sorted(data):
            yield name

    choose = CallableRef("together:choose", lambda data: ["no", "yes"])
    routed = DynamicParallelRouterStep(
        name="routed",
        router=choose,
        branches={
            "yes": pipeline(call("say", world.add("yes", lambda n: n["beside"]))),
            "maybe": pipeline(call("say", world.add("maybe"))),
            "no": pipeline(call("say", world.add("no", lambda n: n["looping"]))),
        },
    )
    machine = StateMachineStep(
        name="machine",
        initial="up",
        states={
            "up": State(
                pipeline(
                    call(
                        "n",
                        world.add("up", lambda n: n + 1),
                        input=Text("{{ context.total }}"),
                        save={"total": Save(Expr("output"))},
                    )
                ),
                (Transition("end", Expr("context.total >= 5")), Transition("up")),
            ),
            "end": State(
                pipeline(call("closing", world.add("end", lambda n: -n), input=Text("{{ steps.n.output }}")))
            ),
        },
        final=("end",),
    )
    each = MapStep(
        name="each",
        over=CallableRef("together:names", names),
        body=pipeline(call("shout", world.add("shout", lambda name: name.upper()))),
        max_concurrency=3,
    )
    return pipeline(
        at_once,
        routed,
        each,
        machine,
        name="together",
        context_schema=COUNTER_SCHEMA,
        output={
            "routed": Text("{{ steps.routed.output }}"),
            "machine": Text("{{ steps.machine.output }}"),
            "each": Text("{{ steps.each.output }}"),
            "context": Text("{{ context }}"),
        },
    )


TOGETHER: Mapping[str, Any] = {
    "routed": {"yes": 2, "no": 4},
    "machine": -5,
    "each": ["NO", "YES"],
    "context": {"total": 5, "log": [0, 1, 1, 4, 2]},
}
TOGETHER_CALLS = [
    *["square"] * 4,
    *["last"] * 2,
    "one",
    "two",
    "yes",
    "no",
    *["shout"] * 2,
    *["up"] * 3,
    "end",
]


def remembered(world: World) -> Pipeline:
    """Return a pipeline with a repeated cached request and a search: see `REMEMBERED`."""
    ask = world.add("ask", lambda data: {"price": len(data)})
    log = {"log": Save(Expr("output.price"), append=True)}
    search = TreeSearchStep(
        name="search",
        propose=world.add("propose", lambda node: [(node["candidate"] or "") + letter for letter in "ab"]),
        evaluate=world.add("evaluate", lambda node: {"score": node["candidate"].count("b")}),
        goal=Expr("score == 2"),
        beam_width=1,
        max_depth=3,
        max_concurrency=2,
        input=Text("{{ steps.again.output }}"),
    )
    return pipeline(
        CacheStep(name="known", step=call("ask", ask, input=Text("tea")), save=log),
        call("again", ask, input=Text("tea"), cache=CachePolicy(ttl_s=3600), save=log),
        search,
        name="remembered",
        context_schema=COUNTER_SCHEMA,
        output={
            "cached": Text("{{ [steps.known.cached, steps.again.cached] }}"),
            "found": Text("{{ steps.search.output }}"),
            "context": Text("{{ context }}"),
        },
    )


REMEMBERED: Mapping[str, Any] = {
    "cached": [False, True],
    "found": {"candidate": "bb", "score": 2, "path": ["b", "bb"], "depth": 2, "goal_reached": True},
    "context": {"total": 0, "log": [3, 3]},
}
REMEMBERED_CALLS = ["ask", *["propose"] * 2, *["evaluate"] * 4]


def around(world: World) -> Pipeline:
    """Return a pipeline of steps with processors, validators, fallbacks and retries: see `AROUND`."""

    def shaky(data: Any) -> Any:
        if world.calls.count("shaky") == 1:
            raise RuntimeError("down")
        return data + 1

    def down(_: Any) -> Any:
        raise RuntimeError("down")

    spared = call(
        "spared",
        world.add("primary", down),
        processors=Processors(input=[world.add("before", lambda n: n + 1)]),
        fallback=call(
            "fallback",
            world.add("spare", lambda n: n * 10),
            validators=[world.add("judge", lambda n: n == 10)],
            processors=Processors(output=[world.add("after", lambda n: n)]),
        ),
        config=StepConfig(max_retries=1, retry=RetryPolicy(backoff="none")),
        save={"total": Save(Expr("output"))},
    )
    again = ParallelStep(
        name="again",
        branches={
            "steady": pipeline(
                call("steady", world.add("steady"), save={"log": Save(Expr("output"), append=True)})
            ),
            "shaky": pipeline(call("shaky", world.add("shaky", shaky))),
        },
        max_concurrency=1,
        config=StepConfig(timeout_s=60, max_retries=1, retry=RetryPolicy(backoff="none")),
    )
    return pipeline(
        spared,
        again,
        name="around",
        context_schema=COUNTER_SCHEMA,
        output={
            "again": Text("{{ steps.again.output }}"),
            "fell_back": Text("{{ steps.spared.fell_back }}"),
            "context": Text("{{ context }}"),
        },
    )


AROUND: Mapping[str, Any] = {
    "again": {"steady": 10, "shaky": 11},
    "fell_back": True,
    "context": {"total": 10, "log": [10]},
}
AROUND_CALLS = [*["before", "primary"] * 2, "spare", "after", "judge", "steady", *["shaky"] * 2]


@dataclass(frozen=True)
class Program:
    """A pipeline with a known run on 1: its result, its calls, and their concurrency."""

    build: Callable[[World], Pipeline]
    output: Any
    calls: list[str]
    in_flight: int


PROGRAMS = {
    "everything": Program(everything, EXPECTED, CALLS, 1),
    "together": Program(together, TOGETHER, TOGETHER_CALLS, 3),
    # One attempt of a step calls its processors and its validators as well.
    "around": Program(around, AROUND, AROUND_CALLS, 3),
    "remembered": Program(remembered, REMEMBERED, REMEMBERED_CALLS, 2),
}

__all__ = [
    "CALLS",
    "COUNTER_SCHEMA",
    "EXPECTED",
    "PROGRAMS",
    "TOGETHER",
    "Carried",
    "ConditionalStep",
    "DynamicParallelRouterStep",
    "Expr",
    "HumanInTheLoopStep",
    "ImportStep",
    "LoopStep",
    "MapStep",
    "ParallelStep",
    "Program",
    "RunStatus",
    "Save",
    "State",
    "StateMachineStep",
    "Step",
    "StepConfig",
    "StoppingStore",
    "Text",
    "Transition",
    "World",
    "answer",
    "call",
    "everything",
    "listener",
    "pipeline",
    "remembered",
    "resume",
    "start",
    "together",
]
