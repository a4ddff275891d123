"""What bad input gets: a typed error that teaches, everything before it kept, and a way on from there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo import AppResources
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.runner import Flujo
from support import (
    COUNTER_SCHEMA,
    ConditionalStep,
    DynamicParallelRouterStep,
    Expr,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    State,
    StateMachineStep,
    StepConfig,
    Text,
    Transition,
    World,
    call,
    pipeline,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.steps import BaseStep

INTEGER = {"type": "integer"}


class Office(AppResources):
    """Resources that a step requires and that the runner was not given."""

    name: str = "office"


@dataclass
class Situation(World):
    """A world with an error in it until `fixed` is set."""

    fixed: bool = False

    def wrong(self, name: str, wrong: Callable[[Any], Any], right: Callable[[Any], Any]) -> CallableRef:
        """Return a callable that does `wrong` until `fixed` is set, and then `right`."""
        return self.add(name, lambda data: right(data) if self.fixed else wrong(data))


@dataclass(frozen=True)
class Case:
    """A step that goes wrong after `first`, which gives 2.

    Args:
        step: the step, before and after the fix.
        error: the error's class.
        code: its code.
        path: of the step that failed.
        says: a part of the message.
        again: all callables that the retry calls.
        output: the output of the retry.
        fix: further arguments of the runner that fix the cause.
    """

    step: Callable[[Situation], BaseStep]
    error: str
    code: str
    path: str
    says: str
    again: tuple[str, ...]
    output: Any
    fix: dict[str, Any] = field(default_factory=dict)


def raising(_: Any) -> Any:
    raise ValueError("the printer is on fire")


def three(_: Any) -> Any:
    return 3


def is_number(data: Any) -> None:
    if not isinstance(data, int):
        raise ValueError("not a number")  # noqa: TRY004 - what a validator says


def wrong_type(s: Situation) -> BaseStep:
    def strict(data: str) -> str:
        s.calls.append("strict")
        return data

    def lenient(data: int) -> int:
        s.calls.append("lenient")
        return data

    return call("bad", CallableRef("x:typed", lenient if s.fixed else strict))


def wants_resources(s: Situation) -> BaseStep:
    def post(data: Any, resources: Office) -> str:
        s.calls.append("post")
        return resources.name

    return call("bad", CallableRef("x:post", post))


def slow(s: Situation) -> BaseStep:
    async def wait(data: Any) -> Any:
        s.calls.append("wait")
        if not s.fixed:
            await asyncio.Event().wait()
        return data

    return call("bad", CallableRef("x:wait", wait), config=StepConfig(timeout_s=0.05))


def branches(s: Situation, *names: str) -> dict[str, Pipeline]:
    return {name: pipeline(call("say", s.add(name))) for name in names}


def switch(s: Situation) -> BaseStep:
    return ConditionalStep(
        name="bad",
        form="switch",
        condition=Expr("'n' + string(previous)"),
        branches=branches(s, "one", "n2") if s.fixed else branches(s, "one"),
    )


def writers(s: Situation) -> BaseStep:
    save = {"total": Save(Expr("output"))}
    return ParallelStep(
        name="bad",
        branches={
            name: pipeline(call("say", s.add(name, lambda _, n=n: n), save=save))  # type: ignore[misc]
            for n, name in enumerate("ab", 1)
        },
        merge="overwrite" if s.fixed else "context_update",
    )


def loop(s: Situation) -> BaseStep:
    return LoopStep(
        name="bad",
        body=pipeline(call("up", s.add("up", lambda n: n + 1))),
        until=Expr("steps.up.output >= 5"),
        max_iterations=9 if s.fixed else 2,
    )


def machine(s: Situation, guard: CallableRef | None = None) -> BaseStep:
    ways = (Transition("end", guard or Expr("steps.look.output > 100")),)
    return StateMachineStep(
        name="bad",
        initial="start",
        states={
            "start": State(
                pipeline(call("look", s.add("look"))),
                (*ways, Transition("end")) if s.fixed and guard is None else ways,
            ),
            "end": State(pipeline(call("close", s.add("close")))),
        },
        final=("end",),
    )


def circle(s: Situation) -> BaseStep:
    return StateMachineStep(
        name="bad",
        initial="go",
        states={
            "go": State(
                pipeline(call("up", s.add("up", lambda n: n + 1))),
                (Transition("end", Expr("steps.up.output >= 5")), Transition("go")),
            ),
            "end": State(pipeline()),
        },
        final=("end",),
        max_transitions=9 if s.fixed else 1,
    )


def imports(s: Situation) -> BaseStep:
    child = pipeline(call("fine", s.add("fine")), call("inner", s.wrong("inner", raising, three)))
    return ImportStep(name="bad", blueprint="child.yaml", pipeline=child)


def router(s: Situation) -> BaseStep:
    choose = s.wrong("choose", lambda _: ["nonsense"], lambda _: ["b"])
    return DynamicParallelRouterStep(name="bad", router=choose, branches=branches(s, "a", "b"))


def items(s: Situation) -> BaseStep:
    over = Expr("[1, previous]") if s.fixed else Expr("previous")
    return MapStep(name="bad", over=over, body=pipeline(call("each", s.add("each"))))


CASES = {
    "an input of the wrong type": Case(
        wrong_type, "ArgumentsRejected", "FLJ305", "bad", "argument `data`", ("lenient",), 2
    ),
    "an output that never validates": Case(
        lambda s: call("bad", s.wrong("answer", lambda _: "many", three), output_schema=INTEGER),
        "OutputRejected",
        "FLJ304",
        "bad",
        "integer",
        ("answer",),
        3,
    ),
    "a context that would not fit": Case(
        lambda s: call(
            "bad", s.wrong("answer", lambda _: "many", three), save={"total": Save(Expr("output"))}
        ),
        "OutputRejected",
        "FLJ304",
        "bad",
        "total",
        ("answer",),
        3,
    ),
    "code that raises": Case(
        lambda s: call("bad", s.wrong("print", raising, three)),
        "ValueError",
        "FLJ401",
        "bad",
        "the printer is on fire",
        ("print",),
        3,
    ),
    "what JSON cannot hold": Case(
        lambda s: call("bad", s.wrong("divide", lambda _: {"ratio": float("nan")}, three)),
        "NotJournalable",
        "FLJ405",
        "bad",
        "ratio",
        ("divide",),
        3,
    ),
    "a step that takes too long": Case(slow, "StepTimeout", "FLJ403", "bad", "`timeout_s`", ("wait",), 2),
    "resources that were not given": Case(
        wants_resources,
        "ResourcesMissing",
        "FLJ306",
        "bad",
        "takes `resources`",
        ("post",),
        "office",
        {"resources": Office()},
    ),
    "a text that cannot be filled in": Case(
        lambda s: call(
            "bad", s.add("say"), input=Text("{{ previous }}" if s.fixed else "{{ previous.title }}")
        ),
        "ExpressionFailed",
        "FLJ404",
        "bad",
        "previous.title",
        ("say",),
        2,
    ),
    "a switch without a branch": Case(switch, "NoBranch", "FLJ407", "bad", "'n2'", ("n2",), 2),
    "two branches that write one field": Case(
        writers, "MergeConflict", "FLJ411", "bad", "total", (), {"a": 1, "b": 2}
    ),
    "a loop that cannot end": Case(loop, "LoopLimitReached", "FLJ406", "bad", "ran 2 times", ("up",), 5),
    "a state that leads nowhere": Case(machine, "NoTransition", "FLJ412", "bad", "'start'", ("close",), 2),
    "a guard that lets nobody through": Case(
        lambda s: machine(s, s.wrong("guard", lambda _: False, lambda _: True)),
        "NoTransition",
        "FLJ412",
        "bad",
        "'start'",
        ("guard", "close"),
        2,
    ),
    "a switch by a callable that names no branch": Case(
        lambda s: ConditionalStep(
            name="bad",
            form="switch",
            condition=s.wrong("pick", lambda _: "nonsense", lambda _: "a"),
            branches=branches(s, "a", "b"),
        ),
        "NoBranch",
        "FLJ407",
        "bad",
        "'nonsense'",
        ("pick", "a"),
        2,
    ),
    "a machine that goes in circles": Case(
        circle, "TransitionLimitReached", "FLJ413", "bad", "1 transition", ("up",), 5
    ),
    "a step of an import that fails": Case(
        imports, "ValueError", "FLJ401", "bad/inner", "on fire", ("inner",), 3
    ),
    "a router that answers nonsense": Case(
        router, "UnknownBranch", "FLJ414", "bad", "'nonsense'", ("choose", "b"), {"b": 2}
    ),
    "an answer that its validator refuses": Case(
        lambda s: call(
            "bad",
            s.wrong("answer", lambda _: "many", three),
            validators=(CallableRef("x:number", is_number),),
        ),
        "OutputRejected",
        "FLJ304",
        "bad",
        "not a number",
        ("answer",),
        3,
    ),
    "a fallback that fails as well": Case(
        lambda s: call(
            "bad", s.add("own", raising), fallback=call("other", s.wrong("other", raising, three))
        ),
        "ValueError",
        "FLJ401",
        "bad/fallback",
        "on fire",
        ("own", "other"),
        3,
    ),
    "a condition that raises": Case(
        lambda s: ConditionalStep(
            name="bad",
            condition=s.wrong("decide", raising, lambda n: n > 1),
            branches=branches(s, "then", "else"),
        ),
        "StepFailed",
        "FLJ401",
        "bad",
        "`world:decide` raised ValueError",
        ("decide", "then"),
        2,
    ),
    "a condition that is neither true nor false": Case(
        lambda s: call("bad", s.add("say"), when=s.wrong("when", lambda _: "maybe", lambda _: True)),
        "ExpressionFailed",
        "FLJ404",
        "bad",
        "neither true nor false",
        ("when", "say"),
        2,
    ),
    "a map over what is no list": Case(
        items, "ExpressionFailed", "FLJ404", "bad", "not a list", ("each", "each"), [1, 2]
    ),
}
Runner = Flujo[Any, Any, Any]


def tree(case: Case, situation: Situation) -> Pipeline:
    first = call(
        "first", situation.add("first", lambda n: n + 1), save={"log": Save(Expr("output"), append=True)}
    )
    return pipeline(first, case.step(situation), context_schema=SCHEMA)


SCHEMA = {**COUNTER_SCHEMA, "additionalProperties": False}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_it_fails_with_a_reason_keeps_completed_steps_and_resumes_after_them(
    case: Case, store: StateStore
) -> None:
    situation = Situation()
    async with Runner(tree(case, situation), store=store) as runner:
        failed = await runner.run_result_async(1, run_id="run")
    error = failed.error
    assert (failed.success, failed.status) == (False, RunStatus.FAILED)
    assert error is not None
    assert (error.type, error.code, error.path) == (case.error, case.code, case.path)
    assert case.says in error.message
    assert error.hint

    shown = await TaskClient(store).get_task("run")
    assert (shown.task.status, shown.error) == (RunStatus.FAILED, error)
    failed_at = shown.trace.at(case.path)
    assert (failed_at.status, failed_at.error) == ("failed", error)
    assert (shown.trace.at("first").output, shown.context["log"]) == (2, [2])

    situation.calls.clear()
    fixed = replace(situation, fixed=True)
    async with Runner(tree(case, fixed), store=store, **case.fix) as runner:
        result = await runner.resume_async("run", retry_failed=True)
    assert (result.status, result.output) == (RunStatus.COMPLETED, case.output)
    assert fixed.calls[: len(case.again)] == list(case.again)
    assert "first" not in fixed.calls


async def test_an_output_of_the_whole_that_cannot_be_made_keeps_every_step(store: StateStore) -> None:
    world = World()

    def whole(output: str) -> Pipeline:
        return pipeline(call("first", world.add("first")), output=Text(output))

    async with Runner(whole("{{ steps.first.output.title }}"), store=store) as runner:
        failed = await runner.run_result_async(1, run_id="run")
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.path) == (RunStatus.FAILED, "FLJ404", "")
    async with Runner(whole("{{ steps.first.output }}"), store=store) as runner:
        assert (await runner.resume_async("run", retry_failed=True)).output == 1
    assert world.calls == ["first"]
