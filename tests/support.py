"""What several tests share: trees built in Python, callables that leave a trace, stores that stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import RunId, StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunStatus, Write
from flujo.domain.steps import (
    BaseStep,
    CallableRef,
    ConditionalStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    Save,
    Step,
    StepConfig,
    Text,
)
from flujo.domain.steps import Carry as Carried
from flujo.exceptions import StateBackendUnavailable
from flujo.services.runner import Flujo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flujo.domain.models import PipelineResult
    from flujo.domain.ports import StateStore

COUNTER_SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "integer", "default": 0}, "log": {"type": "array", "default": []}},
}


@dataclass
class World:
    """Callables that say what they were asked: the witness of what really ran."""

    calls: list[str] = field(default_factory=list)

    def add(self, name: str, work: Callable[[Any], Any] = lambda data: data) -> CallableRef:
        """Return a callable step's target: it notes its name and input, then does `work`."""

        async def call(data: Any) -> Any:
            self.calls.append(name)
            return work(data)

        return CallableRef(f"world:{name}", call)


def listener(heard: list[str]) -> Callable[[str], Awaitable[None]]:
    """Return an `on_text` that keeps what it is told."""

    async def hear(text: str) -> None:
        heard.append(text)

    return hear


def pipeline(*steps: BaseStep, **more: Any) -> Pipeline:
    """Return a pipeline of these steps."""
    return Pipeline(steps, **{"name": "test", **more})


def call(name: str, target: CallableRef, **more: Any) -> Step:
    """Return a step that calls."""
    return Step(name=name, call=target, **more)


async def start(
    tree: Pipeline, store: StateStore, value: Any = None, *, run_id: str = "run", **options: Any
) -> PipelineResult[Any, Any]:
    """Return how a run of `tree` came out."""
    async with Flujo[Any, Any, Any](tree, store=store) as runner:
        return await runner.run_result_async(value, run_id=run_id, **options)


async def resume(
    tree: Pipeline, store: StateStore, *, run_id: str = "run", **options: Any
) -> PipelineResult[Any, Any]:
    """Return how a run came out that was gone on with by a new runner."""
    async with Flujo[Any, Any, Any](tree, store=store) as runner:
        return await runner.resume_async(run_id, **options)


async def answer(store: StateStore, pause_id: str, value: Any, *, run_id: str = "run") -> None:
    """Answer a question of a run that is paused."""
    await store.answer(RunId(run_id), StepPath(pause_id), canonical.encode(value))


class StoppingStore:
    """A store whose n-th write and every later one is refused: the database goes away under a run."""

    def __init__(self, store: StateStore, allowed: int) -> None:
        self._store = store
        self._allowed = allowed

    def write(self, write: Write) -> Awaitable[None]:
        """Pass a write on while there are some left."""
        if self._allowed <= 0:
            return _refuse()
        self._allowed -= 1
        return self._store.write(write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def _refuse() -> None:
    raise StateBackendUnavailable("the database went away")


def everything(world: World) -> Pipeline:
    """Return a pipeline with every kind of step, whose result is known: see `EXPECTED`."""
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
    "context": {"total": 47, "log": [21, 22, 23]},
    "seen": 2,
}
CALLS = ["first", "big", "tick", "tock", "tick", "tock", "tick", "tock", "double", "plus", "last"]

__all__ = [
    "CALLS",
    "COUNTER_SCHEMA",
    "EXPECTED",
    "Carried",
    "ConditionalStep",
    "Expr",
    "HumanInTheLoopStep",
    "ImportStep",
    "LoopStep",
    "RunStatus",
    "Save",
    "Step",
    "StepConfig",
    "StoppingStore",
    "Text",
    "World",
    "answer",
    "call",
    "everything",
    "listener",
    "pipeline",
    "resume",
    "start",
]
