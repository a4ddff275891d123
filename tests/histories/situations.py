"""Runs in every state that a released version can leave, and the end of each. They never change.

`record.py` brings the runs into their states with the version of its day; `test_situations.py` resumes, answers,
retries and purges them with today's. Both import only what every version exports.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo import (
    CallableRef,
    ConditionalStep,
    Expr,
    HumanInTheLoopStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Pipeline,
    PipelineContext,
    Save,
    State,
    StateMachineStep,
    Step,
    Text,
    Transition,
    UsageLimits,
)
from flujo.domain.run import RunStatus
from flujo.domain.usage import Usage
from flujo.exceptions import PipelineAbortSignal
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LARGE = "0123456789abcdef" * 2500
"""40,000 bytes: stored beside the row, as a blob."""


class Context(PipelineContext):
    """The context of the runs that have one."""

    user_id: str = ""
    log: list[Any] = []  # noqa: RUF012 - pydantic copies it
    text: str = ""


@dataclass
class Life:
    """The execution of a run by one process: its calls, and whether this process fails or dies."""

    is_first: bool = False
    calls: list[str] = field(default_factory=list)

    def step(self, name: str, work: Callable[[Any], Any] = lambda data: data, **more: Any) -> Step:
        """Return a step that logs its call, then does `work`."""

        async def call(data: Any) -> Any:
            self.calls.append(name)
            return work(data)

        return Step(name=name, call=CallableRef(f"situations:{name}", call), **more)

    def failing(self, name: str, error: Callable[[], BaseException], **more: Any) -> Step:
        """Return a step that raises in the first process and returns its input in every other one."""

        def work(data: Any) -> Any:
            if self.is_first:
                raise error()
            return data

        return self.step(name, work, **more)

    def dying(self, name: str, when: Callable[[Any], bool] = lambda _: True, **more: Any) -> Step:
        """Return a step in which the first process dies, without any cleanup."""

        def work(data: Any) -> Any:
            if self.is_first and when(data):
                os._exit(9)
            return data

        return self.step(name, work, **more)


@dataclass(frozen=True)
class Situation:
    """A run as a version left it, and its expected end."""

    name: str
    """The name of the run and of its pipeline."""
    build: Callable[[Life], Pipeline]
    left: RunStatus
    output: Any = None
    ends: RunStatus = RunStatus.COMPLETED
    answers: Mapping[str, Any] = field(default_factory=dict)
    """By the name of the asking step, as in the text of the question."""
    calls: tuple[str, ...] = ()
    """The calls that a resumed run may make; all others are recorded."""
    input: Any = 1
    has_context: bool = False
    limits: UsageLimits | None = None
    kills: bool = False
    """Whether the first process dies."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def _pipeline(name: str, *steps: Any, **more: Any) -> Pipeline:
    return Pipeline(steps, name=name, **more)


def _ask(name: str, **more: Any) -> HumanInTheLoopStep:
    return HumanInTheLoopStep(name=name, message=Text(f"{name}?"), **more)


# The pipelines ------------------------------------------------------------------------------------------------


def _large(life: Life) -> Pipeline:
    return _pipeline(
        "large",
        life.step(
            "write",
            lambda _: LARGE,
            save={"text": Save(Expr("output")), "log": Save(Expr("size(output)"), append=True)},
        ),
        life.step("echo"),
    )


def _shared(life: Life) -> Pipeline:
    return _pipeline("shared", life.step("write", lambda _: LARGE), _ask("ask"), life.step("end"))


def _deadline(name: str, life: Life) -> Pipeline:
    late = _ask("ask", deadline_s=0.01, on_deadline={"answer": "late"})
    return _pipeline(name, life.step("first"), late, life.step("end"))


def _deadline_open(life: Life) -> Pipeline:
    patient = _ask("ask", deadline_s=3.0e8, on_deadline="fail")
    return _pipeline("deadline-open", life.step("first"), patient, life.step("end"))


def _several(life: Life) -> Pipeline:
    branches = {
        "refund": Pipeline((life.step("one"), _ask("ask_one"), life.step("after_one"))),
        "claim": Pipeline((_ask("ask_two"),)),
        "plain": Pipeline((life.step("three"),)),
    }
    return _pipeline("several", ParallelStep(name="both", branches=branches))


def _pay(life: Life, **more: Any) -> Pipeline:
    return _pipeline(
        "doubt-asked",
        life.step("first"),
        life.failing("pay", TimeoutError, enforce_idempotency=True, **more),
        life.step("end"),
    )


def _pay_in_a_map(life: Life) -> Pipeline:
    pay = life.failing("pay", TimeoutError, enforce_idempotency=True)
    items = MapStep(name="items", over=Expr("[1, 2]"), body=Pipeline((pay,)))
    return _pipeline("doubt-retried", items)


def _pay_and_die(life: Life) -> Pipeline:
    pay = life.dying("pay", enforce_idempotency=True, output_schema={"type": "integer"})
    return _pipeline("doubt-cut", life.step("first"), pay, life.step("end"))


def _failed(life: Life) -> Pipeline:
    tick = life.step("tick", lambda n: n + 1)
    check = life.step("check", lambda n: _raise(ValueError("broken")) if life.is_first and n == 7 else n)
    return _pipeline(
        "failed",
        MapStep(
            name="items",
            over=Expr("[1, 2]"),
            body=Pipeline((life.step("square", lambda n: n * n),)),
        ),
        life.step("total", sum),
        LoopStep(name="rounds", body=Pipeline((tick, check)), until=Expr("steps.check.output >= 8")),
    )


def _raise(error: BaseException) -> Any:
    raise error


def _failed_large(life: Life) -> Pipeline:
    return _pipeline("failed-large", life.failing("write", lambda: ValueError(LARGE)), life.step("end"))


def _interrupted(life: Life) -> Pipeline:
    def work(n: int) -> int:
        if life.is_first and n == 2:
            life.calls.append("now")
        return n + 1

    async def rest(data: Any) -> Any:
        import asyncio

        life.calls.append("rest")
        if "now" in life.calls:
            await asyncio.Event().wait()
        return data

    body = Pipeline((life.step("tick", work), Step(name="rest", call=CallableRef("situations:rest", rest))))
    return _pipeline("interrupted", LoopStep(name="rounds", body=body, until=Expr("steps.rest.output >= 4")))


def _abandoned(life: Life) -> Pipeline:
    branches = {
        "left": Pipeline((life.step("left"),)),
        "refund": Pipeline(
            (
                life.step("one"),
                MapStep(
                    name="items",
                    over=Expr("[1, 2, 3]"),
                    body=Pipeline((life.step("twice", lambda n: n * 2), life.dying("die", lambda n: n == 4))),
                    max_concurrency=1,
                ),
            )
        ),
    }
    return _pipeline("abandoned", ParallelStep(name="both", branches=branches, max_concurrency=1))


def _never_begun(life: Life) -> Pipeline:
    return _pipeline("never-begun", life.dying("die"), life.step("end"))


def _cancelled(life: Life) -> Pipeline:
    return _pipeline("cancelled", life.step("first"), _ask("ask"))


def _aborted(life: Life) -> Pipeline:
    return _pipeline(
        "aborted", life.step("first"), life.failing("stop", lambda: PipelineAbortSignal("enough"))
    )


def _parked(life: Life) -> Pipeline:
    return _pipeline("parked", life.step("first"), life.dying("die"))


USED = Usage(input_tokens=8, output_tokens=2, requests=1, cost_micro_usd=100_000)
WORST = Usage(input_tokens=20, output_tokens=20, requests=1, cost_micro_usd=250_000)


def _budget(life: Life) -> Pipeline:
    def say(name: str, *, dies: bool = False) -> Step:
        def answers(ask: Any) -> Any:
            life.calls.append(name)
            if dies and life.is_first:
                os._exit(9)
            return ask.data

        agent: Any = ScriptedAgent(answers, usage=USED, worst=WORST)
        return Step(name=name, call=CallableRef(f"situations:{name}", agent))

    return _pipeline("budget", say("draft"), say("review", dies=True))


def _broken_machine(life: Life) -> Pipeline:
    inner = ConditionalStep(
        name="route",
        condition=Expr("'refund'"),
        branches={
            "refund": Pipeline(
                (
                    life.step("one"),
                    LoopStep(
                        name="rounds",
                        body=Pipeline((life.step("tick", lambda n: n + 1),)),
                        until=Expr("steps.tick.output >= 3"),
                    ),
                )
            ),
            "else": Pipeline((life.step("other"),)),
        },
    )
    machine = StateMachineStep(
        name="machine",
        initial="open",
        states={
            "open": State(
                Pipeline((life.step("more", lambda n: n + 1), life.failing("break_once", ValueError))),
                (Transition("closed", Expr("previous >= 5")), Transition("open")),
            ),
            "closed": State(Pipeline((life.step("close", lambda n: -n),))),
        },
        final=("closed",),
    )
    return _pipeline("broken-machine", inner, machine)


def _pay_in_a_branch(life: Life) -> Pipeline:
    pay = life.failing("pay", TimeoutError, enforce_idempotency=True)
    branches = {"refund": Pipeline((pay,)), "claim": Pipeline((life.step("two"),))}
    return _pipeline("doubt-in-a-branch", ParallelStep(name="both", branches=branches))


SITUATIONS = (
    Situation("large", _large, RunStatus.COMPLETED, LARGE, input=LARGE[:20_000], has_context=True),
    Situation("shared", _shared, RunStatus.PAUSED, "yes", answers={"ask": "yes"}, calls=("end",)),
    # The deadline watch of another situation expires this one during the recording.
    Situation(
        "deadline-fired", partial(_deadline, "deadline-fired"), RunStatus.PAUSED, "late", calls=("end",)
    ),
    Situation(
        "deadline-open", _deadline_open, RunStatus.PAUSED, "yes", answers={"ask": "yes"}, calls=("end",)
    ),
    Situation(
        "several",
        _several,
        RunStatus.PAUSED,
        {"refund": "a", "claim": "b", "plain": 1},
        answers={"ask_one": "a", "ask_two": "b"},
        calls=("after_one",),
        has_context=True,
        metadata={"team": "red", "attempt": 2},
    ),
    Situation(
        "doubt-asked",
        _pay,
        RunStatus.PAUSED,
        7,
        answers={"pay": {"resolution": "done", "result": 7}},
        calls=("end",),
    ),
    Situation(
        "doubt-retried",
        _pay_in_a_map,
        RunStatus.PAUSED,
        [1, 2],
        answers={"pay": {"resolution": "retry"}},
        calls=("pay", "pay"),
    ),
    Situation(
        "doubt-cut",
        _pay_and_die,
        RunStatus.RUNNING,
        9,
        answers={"pay": {"resolution": "done", "result": 9}},
        calls=("end",),
        input=LARGE[:17_000],
        kills=True,
    ),
    Situation("failed", _failed, RunStatus.FAILED, 8, input=None, calls=("check", "tick", "check")),
    Situation("failed-large", _failed_large, RunStatus.FAILED, 1, calls=("write", "end")),
    Situation("interrupted", _interrupted, RunStatus.INTERRUPTED, 4, calls=("rest", "tick", "rest")),
    Situation(
        "abandoned",
        _abandoned,
        RunStatus.RUNNING,
        {"left": 1, "refund": [2, 4, 6]},
        calls=("die", "twice", "die"),
        kills=True,
    ),
    Situation("never-begun", _never_begun, RunStatus.RUNNING, 1, calls=("die", "end"), kills=True),
    Situation("cancelled", _cancelled, RunStatus.CANCELLED, ends=RunStatus.CANCELLED),
    Situation("aborted", _aborted, RunStatus.CANCELLED, ends=RunStatus.CANCELLED),
    Situation("parked", _parked, RunStatus.PARKED, 1, calls=("die",), kills=True),
    Situation(
        "budget",
        _budget,
        RunStatus.RUNNING,
        1,
        calls=("review",),
        limits=UsageLimits(total_cost_usd_limit=0.7),
        kills=True,
    ),
    Situation(
        "broken-machine",
        _broken_machine,
        RunStatus.FAILED,
        -5,
        calls=("break_once", "more", "break_once", "close"),
    ),
    Situation(
        "doubt-in-a-branch",
        _pay_in_a_branch,
        RunStatus.PAUSED,
        {"refund": 5, "claim": 1},
        answers={"pay": {"resolution": "done", "result": 5}},
    ),
    Situation(
        "deadline-passed", partial(_deadline, "deadline-passed"), RunStatus.PAUSED, "late", calls=("end",)
    ),
)

# Blueprints only: pinned files, and answers cached in the state database ----------------------------------

BLUEPRINT_RUN = "blueprint"
BLUEPRINT_ANSWER = "fine"
BLUEPRINT_OUTPUT = {"shouted": "HELLO!", "answer": "fine"}
PROJECT = {
    "flujo.toml": """\
[project]
name = "history"

[blueprints]
paths = ["blueprints"]
allow_callables = ["skills.*"]

[cache]
backend = "state"
""",
    "skills/__init__.py": "",
    "skills/shout.py": 'async def shout(data):\n    """Return a text in capitals."""\n    return data.upper() + "!"\n',
    "blueprints/shouting.yaml": """\
version: "1"
name: shouting
input_schema: {type: string}
steps:
  - name: shout
    call: skills.shout:shout
    cache: {}
  - kind: import
    name: confirm
    blueprint: confirm.yaml
    with: {text: "{{ previous }}"}
output: {shouted: "{{ steps.shout.output }}", answer: "{{ steps.confirm.output }}"}
""",
    "blueprints/confirm.yaml": """\
version: "1"
name: confirm
input_schema:
  type: object
  required: [text]
  properties:
    text: {type: string}
steps:
  - kind: hitl
    name: ask
    message: "Is {{ input.text }} loud enough?"
output: "{{ steps.ask.output }}"
""",
}
