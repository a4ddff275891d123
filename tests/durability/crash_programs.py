"""Kills programs at every point where they could die: a script, because only a single-threaded process may fork.

    python crash_programs.py SHAPE URI FOLDER [--every N] [--twice] [--lone] [--encrypted]

prints the report as JSON. With `--lone` the event loop commits every lone step, also on a slow disk. With `--encrypted` the
database encrypts values. Every step causes an effect in the world. Every acknowledged step is written
to the same log, so that their order can be checked.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

import flujo
from durability.crash_servers import Shop, shop
from durability.world import World, verdict
from flujo.domain import canonical, chains, paths
from flujo.domain.acts import Actor, Via
from flujo.domain.agents import OneOf
from flujo.domain.approvals import Approval, arguments_in
from flujo.domain.conversations import ToolCall
from flujo.domain.evaluations import EvaluationQuery, evaluation_id
from flujo.domain.events import StepEnded
from flujo.domain.journal import RunId
from flujo.domain.ledger import HoldState
from flujo.domain.migrations import Migrations
from flujo.domain.outcomes import Success
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import DEFAULT_QUEUE, ClaimOrder, QueueLimits
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import AT_A_PAUSE, PauseKind, RunQuery, RunStatus
from flujo.domain.sent_events import NewEvent
from flujo.domain.steps import (
    AwaitStep,
    BaseStep,
    CacheStep,
    CallableRef,
    Carry,
    ConditionalStep,
    ContinueAsNewStep,
    DynamicParallelRouterStep,
    EndStep,
    EventStep,
    Expr,
    GranularStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    SetStep,
    SleepStep,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Text,
    Transition,
    TreeSearchStep,
)
from flujo.domain.steps.tools import AgentTool, BlueprintTool
from flujo.domain.tools import CallableTool, McpTools
from flujo.domain.usage import Usage, UsageLimits
from flujo.exceptions import ModelUnavailable, ResumeConflict, RunNotFound
from flujo.governance.key_ring import NO_KEYS, Key, KeyRing
from flujo.services.runs.chains import find_last
from flujo.services.runs.queue_consumer import QueueConsumer
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.state.writer.writer import Pace
from flujo.testing import ScriptedAgent
from flujo.testing.crash_points import enumerate_crashes, in_a_fork, reach

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from flujo.domain.agents import Ask, Reply
    from flujo.domain.models import PipelineResult
    from flujo.domain.run import RunRecord
    from flujo.services.runs.execution import Stop

CONTEXT = {"type": "object", "properties": {"log": {"type": "array", "default": []}}}


class _Counting(ScriptedAgent):
    """Knows the number of the turn that it answers, whatever part of the history it gets."""

    turn = 0

    async def answer(self, ask: Ask, number: int | None) -> Reply:
        """Return the answer of a number."""
        self.turn = self.turn if number is None else number
        return await super().answer(ask, number)


class Effects:
    """Steps that cause and log effects in the world."""

    def __init__(self, world: World, run: str, shop: Shop | None = None) -> None:
        self._world = world
        self.run = self._run = run
        self.shop = shop

    def step(self, name: str, work: Callable[[Any], int] = lambda n: n + 1, **more: Any) -> Step:
        """Return a step that causes `name=result` and returns the result."""
        return Step(name=name, call=self.call(name, work), **more)

    def call(self, name: str, work: Callable[[Any], Any]) -> CallableRef:
        """Return a callable that causes `name=result` and returns the result."""

        async def call(data: Any) -> Any:
            result = work(data)
            reach("before call")
            self._world.effect(f"{self._run}:{name}={result}", data)
            reach("after call")
            return result

        return CallableRef(f"effects:{name}", call)

    def asking(self, name: str, work: Callable[[Any], int] = lambda n: n + 1) -> Step:
        """Return a step that makes one request, which causes `name=result`."""
        call = self.call(name, work).live
        assert call is not None
        one = Usage(requests=1)

        async def answer(ask: Ask) -> Any:
            return await call(ask.data)

        agent: Any = ScriptedAgent(answer, usage=one, worst=one)
        return Step(name, CallableRef(f"effects:{name}", agent))

    def has_happened(self, place: str) -> bool:
        """Return whether the world knows an effect."""
        return f"{place}=done" in self._world.effects(f"{self._run}:")

    def cause(self, place: str, why: Any = None) -> None:
        """Cause `place=done`: an effect of a turn or a tool call, with the arguments that the model wrote."""
        reach("before call")
        self._world.effect(f"{self._run}:{place}=done", why)
        reach("after call")

    def write(self, connection: Any, place: str) -> None:
        """Write a row about a tool call to the user's table."""
        connection.execute(f"INSERT INTO written VALUES ('{self._run}', '{place}')")

    def agent(self, name: str, script: list[Any], tools: list[Any]) -> ScriptedAgent:
        """Return an agent whose requests are effects, and whose words differ with each request."""

        def answer(ask: Any) -> Any:
            turn = agent.turn
            self.cause(f"{name}/turn[{turn}]")
            said, why = script[turn], f"{os.getpid():9} {time.monotonic_ns():18}"  # of one length
            if not isinstance(said, list):
                return said(ask) if callable(said) else said
            places = [f"{name}/turn[{turn}]/tool[{number}]" for number in range(len(said))]
            at_shop = [f"{self._run}:{place}" for place in places]  # the server knows nothing of runs
            return [
                ToolCall(tool, {"prompt": why} if tool == "helper" else {"place": place, "why": why})
                for tool, place in zip(said, places if self.shop is None else at_shop, strict=True)
            ]

        def summary(ask: Any) -> str:
            number = len(ask.data[0]["parts"]) - 1  # the first message has the summary before
            self.cause(f"{name}/summary[{number}]")
            return f"summary {number}"

        one = Usage(requests=1, input_tokens=5)
        servers = {} if self.shop is None else {self.shop.name: self.shop}
        agent = _Counting(answer, tools=tools, servers=servers, usage=one, summary=summary)
        return agent

    def speaker(self, name: str) -> ScriptedAgent:
        """Return an agent that causes `name=answer`; its answer is a digest of the thread that it saw."""

        def answer(ask: Any) -> str:
            reach("before call")
            self._world.effect(f"{self._run}:{name}={seen_by(ask)}")
            reach("after call")
            return seen_by(ask)

        return ScriptedAgent(answer, usage=Usage(requests=1, input_tokens=5))

    async def acknowledge(self, event: Any) -> None:
        """Log that a step was acknowledged: from now on it must never run again."""
        if (
            isinstance(event, StepEnded)
            and event.kind in ("turn", "summary", "tool")
            and isinstance(event.outcome, Success)
        ):
            self._world.effect(f"{self._run}:ack {event.path}=done")
        if isinstance(event, StepEnded) and event.kind == "step" and isinstance(event.outcome, Success):
            name = event.path.rpartition("/")[2]
            self._world.effect(f"{self._run}:ack {name}={event.outcome.output}")


def seen_by(ask: Any) -> str:
    """Return a digest of the thread that an agent saw."""
    seen = [[each.author, each.prompt, each.answer, each.is_own] for each in ask.history]
    return f"{len(seen)}:{canonical.digest(canonical.encode(seen))[:8]}"


def _pipeline(*steps: BaseStep, **more: Any) -> Pipeline:
    return Pipeline(steps, **{"name": "crashing", "context_schema": CONTEXT, **more})


def _body(*steps: BaseStep, **more: Any) -> Pipeline:
    return Pipeline(steps, **more)


LOGGED = {"log": Save(Expr("output"), append=True)}


def linear(do: Effects) -> Pipeline:
    return _pipeline(do.step("a"), do.step("b", save=LOGGED), do.step("c"), do.step("d", save=LOGGED))


def conditional(do: Effects) -> Pipeline:
    ways = {"then": _body(do.step("b", save=LOGGED), do.step("c")), "else": _body(do.step("never"))}
    route = ConditionalStep(name="route", condition=Expr("previous > 1"), branches=ways)
    return _pipeline(do.step("a"), route, do.step("d"))


def loop(do: Effects) -> Pipeline:
    rounds = LoopStep(
        name="rounds",
        body=_body(do.step("x"), do.step("y", save=LOGGED)),
        until=Expr("loop.index == 2"),
        max_iterations={"value": "{{ input + 2 }}", "max": 9},
        carry={"sum": Carry(0, Expr("loop.sum + steps.y.output"))},
        output=Text("{{ loop.sum }}"),
    )
    return _pipeline(rounds, do.step("z"))


def mapped(do: Effects) -> Pipeline:
    items = MapStep(
        name="items",
        over=Expr("[10, 20, 30]"),
        body=_body(do.step("x", save=LOGGED)),
        merge="context_update",
        max_concurrency=2,
        output=Text("{{ previous[0] + previous[1] + previous[2] }}"),
    )
    return _pipeline(do.step("a"), items, do.step("z"))


def streamed(do: Effects) -> Pipeline:
    """A map over an iterator, with ranges of two items of which some fail; it keeps only those."""

    def given(n: int) -> Iterator[int]:
        yield from range(n, n + 5)

    def odd(n: int) -> int:
        if n % 2 == 0:
            raise ValueError(f"{n} is even")
        return n

    items = MapStep(
        name="items",
        over=CallableRef("crashing:given", given),
        body=_body(do.step("x", odd)),
        on_error="skip",
        keep="failed",
        max_concurrency=2,
        output=Text("{{ previous.map(one, one.index) }}"),
    )
    return _pipeline(do.step("a"), items, do.step("z", sum, save=LOGGED))


def parallel(do: Effects) -> Pipeline:
    branches = {
        "p": _body(do.step("p1"), do.step("p2", save=LOGGED)),
        "q": _body(do.step("q1", save=LOGGED)),
        "r": _body(do.step("r1")),
    }
    both = ParallelStep(name="both", branches=branches, output=Text("{{ previous.p + previous.q }}"))
    return _pipeline(both, do.step("z"))


def nested(do: Effects) -> Pipeline:
    inner = Pipeline((do.step("x"), do.step("y")), name="inner", output=Text("{{ steps.y.output }}"))
    middle = Pipeline(
        (ImportStep(name="inner", blueprint="inner.yaml", pipeline=inner), do.step("m")), name="middle"
    )
    outer = ImportStep(name="middle", blueprint="middle.yaml", pipeline=middle, save=LOGGED)
    return _pipeline(do.step("a"), outer, do.step("z"))


def asking(do: Effects) -> Pipeline:
    branches = {
        "p": _body(
            HumanInTheLoopStep(
                name="ok",
                message=Text("{{ previous }}?"),
                answer_schema={"enum": "{{ ['yes', string(previous)] }}"},
            ),
            do.step("p1", len),
        ),
        "q": _body(do.step("q1", save=LOGGED)),
    }
    return _pipeline(
        do.step("a"), ParallelStep(name="both", branches=branches), do.step("z", lambda n: n["p"] + n["q"])
    )


def searching(do: Effects) -> Pipeline:
    def scored(node: Any) -> Any:
        return {"score": node["candidate"].count("b"), "reason": node["candidate"]}

    search = TreeSearchStep(
        name="search",
        propose=do.call("propose", lambda node: [(node["candidate"] or "") + letter for letter in "ab"]),
        evaluate=do.call("evaluate", scored),
        goal=Expr("score == 2"),
        beam_width=1,
        max_depth=3,
        max_concurrency=1,
    )
    kept = CacheStep(name="kept", step=do.step("x", lambda found: found["score"]))
    return _pipeline(do.step("a"), search, kept, do.step("z", save=LOGGED))


def talking(do: Effects, *, is_enforced: bool = False, **more: Any) -> Pipeline:
    """Parallel tools, one that fails, one that writes the context, a rejected answer, retries, a fallback."""

    def work(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    def fail(place: str, why: str) -> str:
        do.cause(place, why)
        raise flujo.NotSent("no")

    def note(place: str, why: str, context: Any) -> str:
        do.cause(place, why)
        context.log = [*context.log, place]
        return "done"

    def is_long(answer: str) -> bool:
        return len(answer) > 3

    def down(_: Any) -> Any:
        return ModelUnavailable("down", retryable=True)

    # A human who says that a call was made cannot say what it wrote to the context.
    second = ["work", "work"] if is_enforced else ["note", "note"]
    script = [["work", "fail", "work"], second, "no", "the end"]
    talk = GranularStep(
        "talk",
        do.agent("talk", script, [work, fail, note]),
        validators=[is_long],
        enforce_idempotency=is_enforced,
        save=LOGGED,
        **more,
    )
    spare = GranularStep(
        "broken",
        ScriptedAgent(down),
        fallback=do.step("spare", lambda _: 1),
        config=StepConfig(max_retries=1, retry=RetryPolicy(backoff="none")),
    )
    return _pipeline(do.step("a"), talk, spare, do.step("z"))


def limited(do: Effects) -> Pipeline:
    """A conversation that reaches its limit of turns twice: a human allows one more, then has it finish."""

    def work(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    agent = do.agent("talk", [["work"], ["work", "work"], "the end"], [work])
    talk = GranularStep("talk", agent, max_turns=1, on_limit="pause", enforce_idempotency=True, save=LOGGED)
    return _pipeline(do.step("a"), talk, do.step("z", len))


def summarising(do: Effects) -> Pipeline:
    """A conversation whose older turns are replaced by a summary, and that by another one."""

    def work(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    script: list[Any] = [["work"], ["work", "work"], *([["work"]] * 4), "the end"]
    talk = GranularStep(
        "talk",
        do.agent("talk", script, [work]),
        history={"max_tokens": 120, "keep": "summary"},
        enforce_idempotency=True,
        save=LOGGED,
    )
    return _pipeline(do.step("a"), talk, do.step("z", len))


def promising(do: Effects) -> Pipeline:
    """The same with calls that are announced, so that none is made twice."""
    return talking(do, is_enforced=True)


def reconciling(do: Effects) -> Pipeline:
    """The same with a callable that looks in the world whether a call in doubt was made."""

    def look(data: Any) -> dict[str, Any]:
        return {"done": do.has_happened(data["arguments"]["place"]), "result": "done"}

    looked = CallableRef("effects:look", look)
    return talking(do, is_enforced=True, in_doubt="reconcile", reconcile=looked)


def delegating(do: Effects) -> Pipeline:
    """A blueprint and an agent as tools at once: a question, a map, and a blueprint below an agent below an agent."""

    def work(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    def blueprint(name: str, *steps: BaseStep) -> BlueprintTool:
        given = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
        return BlueprintTool(_pipeline(*steps, name=name, input_schema=given), f"Runs {name}")

    items = MapStep(
        "items",
        over=Expr("[10, 20]"),
        body=_body(do.step("x", save=LOGGED, effect="read")),
        merge="context_update",
    )
    order = blueprint(
        "order",
        items,
        HumanInTheLoopStep("ok", message=Text("{{ input.place }}?")),
        do.step("after", len, effect="read"),
    )
    deep = blueprint("deep", do.step("deep", lambda given: len(given["place"]), effect="read"))
    helper = do.agent("talk/turn[0]/tool[1]", [["work", "deep"], ["work"], "helped"], [work, deep])
    script = [["order", "helper", "work"], ["work"], "the end"]
    agent = do.agent("talk", script, [work, order, AgentTool(helper, "Helps", "helper")])
    talk = GranularStep("talk", agent, enforce_idempotency=True, save=LOGGED)
    return _pipeline(do.step("a"), talk, do.step("z", len))


def writing(do: Effects) -> Pipeline:
    """Tools that write to a table of the user in the commit of their entries, beside other tools."""

    @flujo.tool(effect="transactional")
    def write(place: str, why: str, connection: Any) -> str:
        reach("before call")
        do.write(connection, place)
        reach("after call")
        return "done"

    @flujo.tool(effect="transactional")
    def fail(place: str, why: str, connection: Any) -> str:
        do.write(connection, place)
        reach("after call")
        raise ValueError("no")

    def work(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    script = [["write", "work", "write", "fail"], ["fail", "write"], "the end"]
    talk = GranularStep("talk", do.agent("talk", script, [write, fail, work]), save=LOGGED)
    return _pipeline(do.step("a"), talk, do.step("z", len))


def serving(do: Effects) -> Pipeline:
    """Tools of a real MCP server: one that is announced, one that knows its keys, and one that a human approves."""
    tools = [
        McpTools("shop", allow=["pay"]),
        McpTools("shop", allow=["note"], effect="idempotent"),
        McpTools("shop", allow=["grant"], approve=Approval(when="args.why != ''", editable=True)),
    ]
    agent = do.agent("talk", [["pay", "note", "pay"], ["grant"], ["note"], "the end"], tools)
    talk = GranularStep("talk", agent, enforce_idempotency=True, save=LOGGED)
    return _pipeline(do.step("a"), talk, do.step("z", len))


def approved(do: Effects) -> Pipeline:
    """Calls that a human approves, denies (`pay_back`) and changes, also below an agent and a blueprint as tools."""

    def pay(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    def pay_back(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    def work(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    paying, paying_back = (CallableTool(each, approve=Approval(editable=True)) for each in (pay, pay_back))
    given = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    helper = do.agent("talk/turn[0]/tool[2]", [["pay", "pay_back"], "helped"], [paying, paying_back])
    inner = do.agent("talk/turn[1]/tool[0]/inner", [["pay"], "paid"], [paying])
    order = _pipeline(
        GranularStep("inner", inner, enforce_idempotency=True), name="order", input_schema=given
    )
    tools = [paying, paying_back, work, AgentTool(helper, "Helps", "helper"), BlueprintTool(order, "Orders")]
    script = [["pay", "pay_back", "helper", "work"], ["order", "pay"], "the end"]
    talk = GranularStep("talk", do.agent("talk", script, tools), enforce_idempotency=True, save=LOGGED)
    return _pipeline(do.step("a"), talk, do.step("z", len))


ENFORCED = (promising, reconciling, limited, summarising, delegating, serving, approved)


def sharing(do: Effects) -> Pipeline:
    """A thread of plain steps, turns, branches, retries, a fallback and chosen agents; each answers with what it saw."""

    def work(place: str, why: str) -> str:
        do.cause(place, why)
        return "done"

    def down(_: Any) -> Any:
        return ModelUnavailable("down", retryable=True)

    def says(name: str, **more: Any) -> Step:
        return Step(name, agent=do.speaker(name), **{"thread": "panel", "input": name, **more})

    def talks(path: str, thread: str = "panel") -> GranularStep:
        agent = do.agent(path, [["work", "work"], seen_by], [work])
        return GranularStep(path.rpartition("/")[2], agent, thread=thread, input=path)

    either = OneOf(
        {"say": do.speaker("say"), "other": do.speaker("never")}, by="size(previous) > 0 ? 'say' : 'other'"
    )
    rounds = _body(says("ask", input="{{ loop.index }}"), says("add"))
    return _pipeline(
        says("a"),
        talks("reply"),
        LoopStep(name="rounds", body=rounds, until=Expr("loop.index == 1")),
        ParallelStep(
            name="both",
            branches={
                "one": _body(says("b"), talks("both:one/deep")),
                "two": _body(says("c", thread="other")),
            },
        ),
        Step(
            "broken",
            agent=ScriptedAgent(down),
            thread="panel",
            fallback=Step("fallback", agent=do.speaker("fallback"), input="f"),
            config=StepConfig(max_retries=1, retry=RetryPolicy(backoff="none")),
        ),
        Step("say", agent=either, thread="panel", input="s", save=LOGGED),
        talks("late", "other"),
        says("z"),
    )


def sleeping(do: Effects) -> Pipeline:
    """Waits between steps, in branches of different length, and until a moment that has passed."""
    naps = {
        "short": _body(SleepStep("nap", for_s=0.001), do.step("p1")),
        "long": _body(do.step("p2"), SleepStep("nap", for_s=0.01), do.step("p3")),
    }
    return _pipeline(
        do.step("a"),
        SleepStep("rest", for_s=0.005),
        ParallelStep(name="both", branches=naps),
        SleepStep("past", until="'2026-01-31T08:00:00Z'"),
        do.step("z", len),
    )


def launching(do: Effects) -> Pipeline:
    """Launches tasks, one with steps of its own and one for each item, continues, and takes their results."""
    background = StepConfig(execution_mode="background")
    import_ = Pipeline((do.step("t1"), do.step("t2")), name="child")
    return _pipeline(
        do.step("a"),
        ImportStep("report", import_, config=background),
        do.step("b", lambda _: 3),
        MapStep(name="m", over=Expr("[1, 2]"), body=_body(do.step("item", config=background))),
        do.step("c", lambda _: 7),
        AwaitStep("one", task="report"),
        AwaitStep("all", tasks="{{ steps.m.output }}"),
        do.step("z", len),
        output={"one": "{{ steps.one.output }}", "all": "{{ steps.all.output }}"},
    )


def awaiting(do: Effects) -> Pipeline:
    """Waits for events: one that comes first, several of one name, one that never comes."""
    branches = {
        "one": _body(EventStep("told", event_schema={"type": "string"}), do.step("p1", len)),
        "two": _body(do.step("p2", len), EventStep("told"), do.step("p3", len)),
    }
    return _pipeline(
        do.step("a"),
        EventStep("early", key=f"'{do.run}'"),
        ParallelStep(name="both", branches=branches),
        EventStep("never", deadline_s={"value": "0.005", "max": 1}, on_deadline={"answer": "none"}),
        do.step("z", len),
    )


def queueing(do: Effects) -> Pipeline:
    """Is executed from a queue, and comes back to it after the answer of a human."""
    return asking(do)


def lending(do: Effects) -> Pipeline:
    """Launches a task into a queue, with a budget that is held of its own until the task has ended."""
    task = StepConfig(execution_mode="background", queue=DEFAULT_QUEUE, budget=UsageLimits(requests_limit=4))
    import_ = Pipeline((do.asking("t1"), do.step("t2"), do.asking("t3")), name="child")
    return _pipeline(
        do.step("a"),
        ImportStep("report", import_, config=task),
        do.asking("b", lambda _: 3),
        AwaitStep("one", task="report"),
        do.step("z"),
        budget=UsageLimits(requests_limit=_LIMIT),
        output={"one": "{{ steps.one.output }}"},
    )


def spreading(do: Effects) -> Pipeline:
    """Lets workers execute the items of a map in batches, of which two are under way at once."""
    return _pipeline(
        do.step("a"),
        MapStep(
            name="m",
            over=Expr("[1, 2, 3, 4, 5]"),
            body=_body(do.step("one"), do.step("two")),
            max_concurrency=2,
            config=StepConfig(executor="queue", batch_size=2),
        ),
        do.step("z", len),
    )


_LIMIT = 8
"""How many requests the shape `lending` may make: enough for those that a kill leaves without a result."""


def continuing(do: Effects) -> Pipeline:
    """Ends twice, in a branch and at the top, and a new run continues with the context."""
    return _pipeline(
        do.step("a", when="input == 1", save=LOGGED),
        ConditionalStep("way", condition="input == 1", then=_body(ContinueAsNewStep("two", input=2))),
        do.step("b", when="input == 2"),
        ContinueAsNewStep("three", input="{{ input + 1 }}", when="input == 2"),
        do.step("z"),
    )


def ending(do: Effects) -> Pipeline:
    """Counts without a callable, ends iterations and an imported blueprint early, and then the whole."""
    count = SetStep("count", {"log": "{{ context.log + [size(context.log)] }}"})
    body = [
        count,
        EndStep("next", of="body", when="size(context.log) < 3"),
        do.step("b", lambda put: len(put["log"])),
    ]
    child = _pipeline(do.step("c"), EndStep("stop", when="size(context.log) < 9", output=7), do.step("never"))
    return _pipeline(
        do.step("a"),
        LoopStep("l", _body(*body), until="steps.b.output != null"),
        ImportStep("sub", child, arguments=None, context="inherit"),
        do.step("d"),
        LoopStep("bad", _body(do.step("x"), SetStep("no", {"log": "none"})), until="true", on_error="skip"),
        ConditionalStep("way", condition="size(context.log) > 2", then=_body(EndStep("enough"))),
        do.step("z", len),
    )


def failing(do: Effects) -> Pipeline:
    """Fails after a step; its `on_failure` calls, writes, and asks a human, and its `finally` calls."""

    def fail(_: Any) -> int:
        raise ValueError("no")

    after = [
        do.step("u", lambda failure: len(failure["step"]), save=LOGGED),
        HumanInTheLoopStep("ok", message="{{ failure.error.message }}", save={"log": "context.log + [7]"}),
        LoopStep("l", _body(do.step("v", lambda said: len(str(said)))), until="loop.index == 1"),
    ]
    last = do.step("w", lambda ended: len(ended["status"]), save=LOGGED)
    return _pipeline(do.step("a", save=LOGGED), do.step("broken", fail), on_failure=after, finally_=last)


def closing(do: Effects) -> Pipeline:
    """Completes, and writes and calls in its `finally`."""
    last = [
        do.step("u", lambda ended: len(ended["status"]), save=LOGGED),
        LoopStep("l", _body(do.step("v")), until="loop.index == 1"),
    ]
    return _pipeline(do.step("a", save=LOGGED), do.step("b"), finally_=last)


def cancelled(do: Effects) -> Pipeline:
    """Is cancelled while it asks a human, inside a step that has written; its `finally` writes and calls."""
    body = do.step("b", save=LOGGED), HumanInTheLoopStep("ok", message="?")
    last = [
        do.step("u", lambda ended: len(ended["status"]), save=LOGGED),
        LoopStep("l", _body(do.step("v")), until="loop.index == 1"),
    ]
    return _pipeline(do.step("a", save=LOGGED), LoopStep("each", _body(*body), until="true"), finally_=last)


def deployed(do: Effects) -> Pipeline:
    """Is continued by `redeployed` after a question or a crash: with other names, and steps in new places."""
    ways = {"p": _body(do.step("p1"), do.step("p2", save=LOGGED)), "q": _body(do.step("q1"))}
    return _pipeline(
        do.step("a", save=LOGGED),
        do.step("b"),
        ParallelStep("both", ways, output=Text("{{ previous.p + previous.q }}")),
        _pick(do, "p", "q"),
        _machine(do, "machine", "go", "end"),
        HumanInTheLoopStep("ok", message="go on?"),
        do.step("z", len),
    )


def redeployed(do: Effects) -> Pipeline:
    """Return the version that continues runs of `deployed`."""
    ways = {"x": _body(do.step("p1"), do.step("p2", save=LOGGED)), "q": _body(do.step("q1"))}
    asking = HumanInTheLoopStep("fine", message="go on?")
    first = _body(do.step("a", save=LOGGED), do.step("b"))
    return _pipeline(
        ParallelStep("intro", {"only": first}, output=Text("{{ previous.only }}")),
        ParallelStep("both", ways, output=Text("{{ previous.x + previous.q }}")),
        _pick(do, "x", "y"),
        ConditionalStep(
            "maybe", condition=Expr("size(context.log) > 0"), then=_machine(do, "device", "run", "stop")
        ),
        ImportStep("sub", _pipeline(asking), context="inherit"),
        do.step("z", len),
        migrations={
            "a": "intro:only/a",
            "b": "intro:only/b",
            "both:p": "both:x",
            "pick:p": "pick:x",
            "pick:q": "pick:y",
            "machine": "maybe:then/device",
            "machine:go": "maybe:then/device:run",
            "machine:end": "maybe:then/device:stop",
            "ok": "sub/fine",
        },
    )


def _pick(do: Effects, *names: str) -> DynamicParallelRouterStep:
    ways = {name: _body(do.step(f"r{number}", lambda _: 1)) for number, name in enumerate(names)}
    choose = do.call("pick", lambda _: [*names])
    return DynamicParallelRouterStep("pick", ways, router=choose, output=Text("{{ size(previous) }}"))


def _machine(do: Effects, name: str, first: str, last: str) -> StateMachineStep:
    again = (Transition(last, Expr("size(context.log) > 3")), Transition(first))
    body = _body(do.step("m", save=LOGGED))
    states = {first: State(body, again), last: State(_body(do.step("n")))}
    return StateMachineStep(name, initial=first, states=states, final=(last,))


NOTIFY = '[notify.here]\ncallable = "nowhere:called"\nblueprints = []\n'


def notifying(do: Effects) -> Pipeline:
    """Messages about a pause and about the end, each in the commit of its move."""
    ask = HumanInTheLoopStep(name="ask", message="go on?")
    return _pipeline(do.step("a"), ask, do.step("z", len), notify=["here"])


def recovering(do: Effects) -> Pipeline:
    """A state whose failure leads to another one, which asks a human; what it wrote is dropped."""

    def fail(_: Any) -> int:
        raise ValueError("no")

    states = {
        "work": State(_body(do.step("w1", save=LOGGED), do.step("w2", fail)), (Transition("end"),)),
        "mend": State(
            _body(HumanInTheLoopStep("ok", message="{{ error.message }}"), do.step("m1", len, save=LOGGED)),
            (Transition("end"),),
        ),
        "end": State(_body(do.step("n", save=LOGGED))),
    }
    machine = StateMachineStep("machine", initial="work", states=states, final=("end",), on_error="mend")
    return _pipeline(do.step("a"), machine, do.step("z"))


GOVERNED = """
[governance]
pii_scrub = true
journal = "scrubbed"

[[budgets.rule]]
name = "team"
window = "none"
requests_limit = 1000000

[evaluation]
enabled = true

[evaluation.evaluators.positive]
expr = "output > 0"
"""
_MAIL = "ana@example.org"


def governed(do: Effects) -> Pipeline:
    """Requests that count in a budget of all runs, a value that is masked, and an output that is scored."""
    mail = do.call("mail", lambda _: _MAIL)
    return _pipeline(
        do.asking("a"), Step("mail", mail, pii="scrub"), do.asking("b", len), do.step("z", save=LOGGED)
    )


SHAPES: dict[str, Callable[[Effects], Pipeline]] = {
    "linear": linear,
    "conditional": conditional,
    "loop": loop,
    "map": mapped,
    "stream": streamed,
    "parallel": parallel,
    "import": nested,
    "hitl": asking,
    "search": searching,
    "granular": talking,
    "granular_enforced": promising,
    "granular_limit": limited,
    "granular_summary": summarising,
    "granular_reconciled": reconciling,
    "granular_delegating": delegating,
    "granular_mcp": serving,
    "granular_transactional": writing,
    "threads": sharing,
    "sleep": sleeping,
    "background": launching,
    "event": awaiting,
    "granular_approved": approved,
    "queue": queueing,
    "background_lent": lending,
    "notify": notifying,
    "continue_as_new": continuing,
    "migrated": deployed,
    "end": ending,
    "machine": recovering,
    "governed": governed,
    "on_failure": failing,
    "finally": closing,
    "cancelled": cancelled,
    "batches": spreading,
}
ENDS = {"on_failure": RunStatus.FAILED, "cancelled": RunStatus.CANCELLED}
"""How the run of a shape ends that does not complete."""
SETTINGS = {"notify": NOTIFY, "governed": GOVERNED}
"""The flujo.toml of a shape."""


class Crashing:
    """One shape on one database: how it runs, how it recovers, and the conditions that must hold then."""

    def __init__(
        self, shape: str, uri: str, folder: Path, *, lone: bool, shop: str | None, keys: KeyRing = NO_KEYS
    ) -> None:
        self._build = SHAPES[shape]
        self._folder = folder
        self._shop_url = shop
        self._lone = lone
        self._uri = uri
        self._keys = keys
        self._world = World(folder)
        self._whole: dict[str, Any] = {}

    async def run(self, run: int) -> Any:
        """Execute or resume the run; return all that can be observed of it."""
        store = await SqlStateStore.open(self._uri, keys=self._keys)
        if self._lone:
            store.writer.pace = _AlwaysFast()
        shop = None if self._shop_url is None else Shop(self._shop_url, self._folder)
        effects = Effects(self._world, str(run), shop)
        run_id = RunId(f"run-{run}")
        try:
            await store.write_apart(make_table)
            seen_before = await _consistent(store, run_id) or await _written_apart(store, run)
            if self._build is awaiting:
                await store.send_event(sent_event(f"early {run}", "early", key=str(run)))
            tree = self._build(effects)
            if self._build is deployed:
                tree = await _redeployed(tree, effects, store, run_id)
            async with Flujo[Any, Any, Any](
                tree, store=store, hooks=[effects.acknowledge], range_length=2
            ) as runner:
                if self._build is queueing:
                    await worked_off(runner, store, run_id)
                result = await runner.run_result_async(1, run_id=run_id)
                result = await ended(self._build, result, effects, runner, store)
                if self._build is governed:
                    await _scored(runner, store, run_id)
                await runner.replay_from_trace(run_id)  # raises at a difference
            record = await find_last(store, run_id)
            chain = range(1, chains.number_of(record.run_id) + 1)
            entries = [
                entry for each in chain for entry in await store.entries(chains.numbered(run_id, each))
            ]
            entries = [*map(Migrations(tree.migrations, tree).read_entry, entries)]
            seen_before = seen_before or await _written_apart(store, run)
            if self._build is lending:
                seen_before = seen_before or await _overspent(store, run_id)
            if self._build is governed:
                seen_before = seen_before or await _ungoverned(store, run_id)
            return {
                "status": str(result.status),
                "output": result.output,
                "context": canonical.decode(record.context_now or b"null"),
                "usage": record.usage.to_json(),
                "denied": sorted(e.path for e in entries if b'"outcome":"denied"' in (e.detail or b"")),
                "entries": sorted([e.path, str(e.kind), str(e.status)] for e in entries),
                "messages": sorted(str(each.event) for each in await store.messages(run_id=run_id)),
                "broken": seen_before,
                "lone": store.writer.lone_commits,
            }
        finally:
            await store.aclose()
            if shop is not None:
                await shop.aclose()

    def check(self, run: int, result: Any) -> Iterator[str]:
        """Yield violations in the result, the journal, or the effects in the world."""
        broken, _ = result.pop("broken"), result.pop("lone")
        if broken:
            yield broken
        is_enforced = self._build in ENFORCED
        for key, value in self._whole.items():
            if key == "usage" and is_enforced:
                continue  # a call whose result a human or `reconcile` says is not counted
            if result[key] != value:
                yield f"`{key}` is {result[key]}, but {value} without a crash"
        yield from _repeated(self._world.effects(f"{run}:"))
        recorded = {path for path, _, _ in result["entries"]}
        for key, arguments in self._world.causes(f"{run}:").items():
            place = key.removesuffix("=done")
            if _is_call(place) and not place.startswith("ack "):
                found = verdict(arguments, is_recorded=place in recorded)
                allowed = ("EXACTLY_ONCE",) if is_enforced else ("EXACTLY_ONCE", "DUPLICATED")
                if found not in allowed:
                    yield f"the call at {place} is {found}: {arguments}"
        denied: list[str] = result["denied"]
        for place in [] if self._build is writing else _made(recorded):  # `_written_apart` has looked
            if bool(self._world.causes(f"{run}:{place}=done")) is (place in denied):
                yield (
                    f"the call at {place} was denied and made"
                    if place in denied
                    else f"the call at {place} is LOST"
                )

    def measure(self) -> None:
        """Use a run without a crash as the reference for the others."""
        self._whole = in_a_fork(self.run, 0)
        assert bool(self._whole.pop("lone")) or not self._lone, "the event loop has committed no step"
        status = next((end for shape, end in ENDS.items() if SHAPES[shape] is self._build), "completed")
        assert (self._whole["status"], self._whole.pop("broken")) == (status, ""), self._whole


async def _redeployed(tree: Pipeline, effects: Effects, store: SqlStateStore, run_id: RunId) -> Pipeline:
    """Execute a new run to its question, and return the version of the pipeline that continues it."""
    try:
        await store.run(run_id)
    except RunNotFound:
        async with Flujo[Any, Any, Any](tree, store=store, hooks=[effects.acknowledge]) as runner:
            await runner.run_result_async(1, run_id=run_id)
    return redeployed(effects)


async def ended(
    build: Callable[[Effects], Pipeline],
    result: PipelineResult[Any, Any],
    effects: Effects,
    runner: Flujo[Any, Any, Any],
    store: SqlStateStore,
) -> PipelineResult[Any, Any]:
    """Do what a run waits for, as its human, its sender of events and its worker, until it has ended."""
    run_id = RunId(result.run_id)
    if build is cancelled and result.status in AT_A_PAUSE:
        await flujo.TaskClient(store, runners=[runner], by="ada").cancel_task(run_id)
        return await runner.run_result_async(1, run_id=run_id, if_exists="return")
    while result.status in AT_A_PAUSE:
        await _send(store, run_id)
        await _resolve_doubts(effects, store, run_id)
        await _decide(store, run_id)
        if build in (lending, spreading):
            await _tasks_worked_off(runner, store)
        result = await _answered(runner, store, run_id)
    return result


class _AlwaysFast(Pace):
    is_fast = True


async def _resolve_doubts(effects: Effects, store: SqlStateStore, run_id: RunId) -> None:
    """Answer each question about a call as a human would who asks the world."""
    for pause in await store.pauses(run_id):
        if pause.is_open and pause.kind is PauseKind.DOUBT:
            happened = effects.has_happened(pause.pause_id.partition("!")[0])
            said = {"resolution": "done", "result": "done"} if happened else {"resolution": "retry"}
            with suppress(ResumeConflict):
                await store.answer(run_id, pause.pause_id, canonical.encode(said))


async def _decide(store: SqlStateStore, run_id: RunId) -> None:
    """Approve each call that waits, with other arguments, or deny it."""
    for pause in await store.pauses(run_id):
        if pause.is_open and pause.kind is PauseKind.APPROVAL:
            changed = {**arguments_in(pause.answer_schema), "why": "a human changed it"}
            is_denied = "`pay_back`" in pause.message
            said = {"approved": False} if is_denied else {"approved": True, "arguments": changed}
            with suppress(ResumeConflict):
                answer = canonical.encode({**said, "digest": pause.digest})
                await store.answer(run_id, pause.pause_id, answer)


def sent_event(event_id: str, name: str, **to: Any) -> NewEvent:
    payload = canonical.encode("yes")
    event_id = event_id.translate(str.maketrans(" []", "---"))
    return NewEvent(event_id=event_id, name=name, payload=payload, actor=Actor("ada", Via.API), **to)


async def _send(store: SqlStateStore, run_id: RunId) -> None:
    """Send the event of each wait, with the id that it always has; waits of one name may swap theirs."""
    for pause in await store.pauses(run_id):
        if pause.is_open and pause.event == "told":
            for number in range(2):
                await store.send_event(sent_event(f"{run_id} {number}", pause.event, run_id=run_id))


async def _overspent(store: SqlStateStore, run_id: RunId) -> str:
    """Return what is wrong with the budget of a run whose only task has ended."""
    ledger = await store.ledger(run_id)
    (task,) = ledger.tasks
    (child,) = await store.runs(RunQuery(parent=run_id))
    used = (await store.ledger(child.run_id)).most
    if (task.state, task.usage) != (HoldState.SPENT, used):
        return f"the task is {child.status} and has used {used}, and its run counts {task}"
    return "" if ledger.most.requests <= _LIMIT else f"{ledger.most} is more than {_LIMIT} requests"


async def _scored(runner: Flujo[Any, Any, Any], store: SqlStateStore, run_id: RunId) -> None:
    """Execute the evaluation of a run as a worker does, where the process has not ended it."""
    await runner._open()
    services = runner._services
    assert services is not None
    await services.tasks.settled()
    judging = await store.run(evaluation_id(run_id, paths.ROOT, "positive"))
    while judging.status is not RunStatus.COMPLETED:
        service = await services.of_run(judging)
        with suppress(ResumeConflict):  # the runner recovers it, too
            await service.recover(judging.run_id, max_recoveries=1000)
        judging = await store.run(judging.run_id)


async def _ungoverned(store: SqlStateStore, run_id: RunId) -> str:
    """Return what is wrong with the shared budget, the scores or the masks after a run has ended."""
    made = 0
    for run in await store.runs(RunQuery(limit=1000)):
        made += (await store.ledger(run.run_id)).most.requests
    [counter] = await store.budget_counters()
    if (counter.used, counter.held) != (made, 0):
        return f"the runs have made {made} requests at most, and the budget counts {counter}"
    scores = await store.evaluations(EvaluationQuery(run_id=run_id))
    if [each.score for each in scores] != [1.0]:
        return f"the scores of the run are {scores}"
    kept = [entry.path for entry in await store.entries(run_id) if _MAIL.encode() in (entry.output or b"")]
    return f"personal data is recorded at {kept}" if kept else ""


async def _tasks_worked_off(runner: Flujo[Any, Any, Any], store: SqlStateStore) -> None:
    """Execute the tasks of the queue as a worker does."""
    await runner._open()
    services = runner._services
    assert services is not None

    async def opened() -> SqlStateStore:
        return store

    async def prepare(record: RunRecord) -> Callable[[Stop], Awaitable[None]]:
        service = await services.of_run(record)

        async def execute(stop: Stop) -> None:
            await service.execute(record, max_recoveries=1000, sink=runner._told(None), stop=stop)

        return execute

    order = ClaimOrder(queues=((DEFAULT_QUEUE, QueueLimits()),), limit=1)
    worker = QueueConsumer(opened, order, at_once=1, retries={}, prepare=prepare, tell=lambda *_: None)
    await worker.drain(later=True)


async def worked_off(runner: Flujo[Any, Any, Any], store: SqlStateStore, run_id: RunId) -> None:
    """Submit the run, and execute it as a worker does until it has ended."""
    await runner.submit(1, run_id=run_id)
    service = await runner._open()

    async def opened() -> SqlStateStore:
        return store

    async def prepare(record: RunRecord) -> Callable[[Stop], Awaitable[None]]:
        async def execute(stop: Stop) -> None:
            await service.execute(record, max_recoveries=1000, sink=runner._told(None), stop=stop)

        return execute

    order = ClaimOrder(queues=((DEFAULT_QUEUE, QueueLimits(concurrency=1)),), limit=1)
    worker = QueueConsumer(opened, order, at_once=2, retries={}, prepare=prepare, tell=lambda *_: None)
    await worker.drain(later=True)
    while (await store.run(run_id)).status is RunStatus.PAUSED:
        for pause in await store.pauses(run_id):
            if pause.is_open:
                await store.answer(run_id, pause.pause_id, canonical.encode("yes"))
        await worker.drain(later=True)


async def _answered(
    runner: Flujo[Any, Any, Any], store: SqlStateStore, run_id: RunId
) -> PipelineResult[Any, Any]:
    """Resume a run that waits for a human; the answer may already be recorded.

    What waits for no human may be resumed by the runner itself meanwhile, so that is attached to.
    """
    asked = await store.pauses(run_id)
    if not any(pause.needs_answer for pause in asked):
        try:
            return await runner.resume_async(run_id)
        except ResumeConflict:
            return await runner.run_result_async(1, run_id=run_id)
    limits = [pause for pause in asked if pause.kind is PauseKind.LIMIT]
    said = "yes" if not limits else {"turns": 1} if len(limits) == 1 else {"finish": True}
    return await runner.resume_async(run_id, said)


def _is_call(place: str) -> bool:
    """Return whether a path is that of a tool call."""
    return paths.last_count(StepPath(place)) is not None and paths.parent(StepPath(place)).endswith("/tool")


def _made(recorded: set[str]) -> list[str]:
    """Return the tool calls among recorded paths, without those that consist of steps."""
    return sorted(each for each in recorded if _is_call(each) and not _runs_steps(each, recorded))


def _runs_steps(place: str, recorded: set[str]) -> bool:
    return any(paths.is_inside(StepPath(each), StepPath(place)) for each in recorded)


def _repeated(log: list[str]) -> Iterator[str]:
    acknowledged: set[str] = set()
    times: Counter[str] = Counter()
    for line in log:
        if line.startswith("ack "):
            acknowledged.add(line.removeprefix("ack "))
        elif line in acknowledged:
            yield f"{line} was acknowledged and ran again"
        else:
            times[line] += 1
    if "never" in "".join(times):
        yield "a branch ran that was not chosen"


async def _consistent(store: SqlStateStore, run_id: RunId) -> str:
    """Return the damage that a new reader finds in the run after the crash."""
    try:
        record = await store.run(run_id)
    except RunNotFound:
        return ""  # the run was never acknowledged
    entries = await store.entries(run_id)
    numbers = [entry.seq for entry in entries]
    if numbers != list(range(1, len(numbers) + 1)):
        return f"the journal has gaps: {numbers}"
    progress = await store.progress(run_id)
    if progress.last_seq != len(numbers):
        return f"the journal ends at {progress.last_seq} and holds {len(numbers)} entries"
    if record.status.is_settled and record.entries != len(numbers):
        return f"the run counts {record.entries} entries, but has {len(numbers)}"
    return ""


def make_table(connection: Any) -> None:
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS written (run text, place text)"))


async def _written_apart(store: SqlStateStore, run: int) -> str:
    """Return the calls whose row in the user's table is there without the entry, or the entry without the row."""
    rows = await store.read(lambda c: c.execute(_WRITTEN, {"run": str(run)}).scalars().all())
    entries = await store.entries(RunId(f"run-{run}"))
    made = [each for each in entries if canonical.decode(each.detail or b"{}").get("tool") == "write"]
    if sorted(rows) == sorted(each.path for each in made):
        return ""
    return f"the table has {sorted(rows)}, and the journal {sorted(each.path for each in made)}"


_WRITTEN = sa.text("SELECT place FROM written WHERE run = :run")


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--lone", action="store_true")
    parser.add_argument("--encrypted", action="store_true")
    given = parser.parse_args()
    if given.shape in SETTINGS:
        (given.folder / "flujo.toml").write_text(SETTINGS[given.shape], "utf-8")
        os.chdir(given.folder)
    with shop(given.folder) if SHAPES[given.shape] is serving else nullcontext() as url:
        keys = KeyRing((Key("k", b"k" * 32),), source="KEYS") if given.encrypted else NO_KEYS
        crashing = Crashing(given.shape, given.uri, given.folder, lone=given.lone, shop=url, keys=keys)
        crashing.measure()
        report = enumerate_crashes(
            crashing.run,
            crashing.run,
            crashing.check,
            every=given.every,
            first=given.first,
            twice=given.twice,
        )
    print(json.dumps(report.to_json()))  # noqa: T201 - the script's output


if __name__ == "__main__":
    main()
