"""The pipelines of the recorded histories. They never change, because their recorded runs must stay resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import (
    BaseStep,
    CallableRef,
    Carry,
    ConditionalStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    State,
    StateMachineStep,
    Step,
    Text,
    Transition,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CONTEXT = {
    "type": "object",
    "properties": {"total": {"type": "integer", "default": 0}, "log": {"type": "array", "default": []}},
}
LOGGED = {"log": Save(Expr("output"), append=True)}


def history(calls: list[str]) -> Pipeline:
    """Return a pipeline with every kind of step that needs no model; it logs its calls in `calls`."""

    def step(name: str, work: Callable[[Any], Any], **more: Any) -> Step:
        async def call(data: Any) -> Any:
            calls.append(name)
            return work(data)

        return Step(name=name, call=CallableRef(f"history:{name}", call), **more)

    def body(*steps: BaseStep) -> Pipeline:
        return Pipeline(steps)

    child = Pipeline(
        (step("double", lambda data: data["n"] * 2),),
        name="child",
        output={"result": Text("{{ steps.double.output }}")},
    )
    return Pipeline(
        (
            step("first", lambda n: n + 1, save={"total": Save(Expr("output"))}),
            ConditionalStep(
                name="route",
                condition=Expr("previous > 1"),
                branches={
                    "then": body(step("big", lambda n: n * 10)),
                    "else": body(step("small", lambda n: n)),
                },
            ),
            LoopStep(
                name="rounds",
                body=body(step("tick", lambda n: n + 1, save=LOGGED)),
                until=Expr("steps.tick.output >= 22"),
                carry={"seen": Carry(0, Expr("loop.seen + 1"))},
            ),
            ImportStep(
                name="child", blueprint="child.yaml", pipeline=child, arguments={"n": Text("{{ previous }}")}
            ),
            MapStep(
                name="items",
                over=Expr("[1, 2, 3, 4]"),
                body=body(step("square", lambda n: n * n, save=LOGGED)),
                merge="context_update",
                max_concurrency=2,
            ),
            ParallelStep(
                name="both",
                branches={"left": body(step("left", sum)), "right": body(step("right", len))},
            ),
            HumanInTheLoopStep(name="ask", message=Text("Is {{ previous.left }} right?")),
            StateMachineStep(
                name="machine",
                initial="up",
                states={
                    "up": State(
                        body(
                            step(
                                "more",
                                lambda n: n + 1,
                                input=Text("{{ context.total }}"),
                                save={"total": Save(Expr("output"))},
                            )
                        ),
                        (Transition("end", Expr("context.total >= 4")), Transition("up")),
                    ),
                    "end": State(body(step("closing", lambda n: -n, input=Text("{{ context.total }}")))),
                },
                final=("end",),
            ),
        ),
        name="history",
        context_schema=CONTEXT,
        output={
            "answer": Text("{{ steps.ask.output }}"),
            "both": Text("{{ steps.both.output }}"),
            "machine": Text("{{ previous }}"),
            "context": Text("{{ context }}"),
        },
    )


def maps(calls: list[str]) -> Pipeline:
    """Return a pipeline of two maps: over a list, and over an iterator; items of both fail. It logs its calls."""

    async def square(data: int) -> int:
        calls.append(f"square {data}")
        if data % 4 == 1:
            raise ValueError(f"no square of {data}")
        return data * data

    async def halve(data: int) -> int:
        calls.append(f"halve {data}")
        if data % 2:
            raise ValueError(f"{data} is odd")
        return data // 2

    async def each(data: list[int]) -> AsyncIterator[int]:
        for number in data:
            yield number

    return Pipeline(
        (
            MapStep(
                name="squares",
                over=Expr("input"),
                body=Pipeline(
                    (Step(name="square", call=CallableRef("maps:square", square), save=LOGGED),),
                ),
                on_error="skip",
                merge="context_update",
                max_concurrency=2,
            ),
            MapStep(
                name="halves",
                over=CallableRef("maps:each", each),
                body=Pipeline((Step(name="halve", call=CallableRef("maps:halve", halve)),)),
                on_error="collect",
                max_concurrency=2,
            ),
        ),
        name="maps",
        context_schema=CONTEXT,
        output={
            "halves": Text("{{ previous.map(one, one.output) }}"),
            "failed": Text("{{ [steps.squares.failed, steps.halves.failed] }}"),
            "log": Text("{{ context.log }}"),
        },
    )


MAPS_INPUT = list(range(12))
MAPS_OUTPUT: dict[str, list[Any]] = {
    "halves": [0, 2, None, 8, 18, None, 32, 50, None],
    "failed": [3, 3],
    "log": [0, 4, 9, 16, 36, 49, 64, 100, 121],
}
MAPS_CALLS = [f"square {number}" for number in MAPS_INPUT] + [
    f"halve {number}" for number in MAPS_OUTPUT["log"]
]

ANSWER = "yes"
OUTPUT = {
    "answer": "yes",
    "both": {"left": 30, "right": 4},
    "machine": -4,
    "context": {"total": 4, "log": [21, 22, 1, 4, 9, 16]},
}
CALLS = [
    *["first", "big", "tick", "tick", "double"],
    *["square"] * 4,
    *["left", "right", "more", "more", "closing"],
]
