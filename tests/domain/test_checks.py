"""A wrong pipeline reports the same error, code and words in YAML and in Python."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import flujo
from flujo import AgentSpec, Flujo, Pipeline
from flujo.blueprint.analysis.project_facts import ProjectFacts
from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.diagnostics import RULES
from flujo.blueprint.language.models import KINDS
from flujo.blueprint.sources.source_files import PinnedSource
from flujo.domain import checks
from flujo.domain.agents import OneOf
from flujo.domain.steps import (
    AwaitStep,
    CachePolicy,
    CacheStep,
    Carry,
    ContinueAsNewStep,
    EndStep,
    GranularStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    SetStep,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Transition,
)
from flujo.domain.steps.tools import AgentTool, BlueprintTool
from flujo.domain.tools import CallableTool, McpTools
from flujo.domain.usage import UsageLimits
from flujo.domain.values import CallableRef
from flujo.engine import interpreter
from flujo.exceptions import PipelineError
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from flujo.blueprint.diagnostics import Diagnostic


@dataclass(frozen=True)
class Case:
    """A pipeline with one error, as the `steps` of a blueprint and in Python."""

    code: str
    yaml: str
    tree: Pipeline[Any, Any]
    words: str
    where: str = ""
    """The step. Python names it in front of the message, where a blueprint has a line number."""
    top: str = ""
    """More keys of the blueprint."""
    imported: str = ""
    """The steps of `child.yaml`."""


TELLER = "agents: {writer: {model: 'test:model', tools: [{call: 's:f', %s}]}}\n"


def teller(**rules: Any) -> AgentSpec:
    return AgentSpec("writer", "test:model", tools=[CallableTool("s:f", **rules)])


def charge(amount: int, idempotency_key: str) -> None: ...


CHARGE = CallableRef("s:charge", charge)
CHARGING = AgentSpec("writer", "test:model", tools=[CHARGE])
CHARGING_YAML = "agents: {writer: {model: 'test:model', tools: ['s:charge']}}\n"


@flujo.tool(effect="unsafe")
def pay() -> None: ...


@flujo.tool(effect="transactional")
def book(seat: int, connection: Any) -> None: ...


PAY, BOOK = CallableRef("s:pay", pay), CallableRef("s:book", book)


def live_teller() -> AgentSpec:
    """Return a teller whose tool declares no effect, and is imported."""
    return AgentSpec("writer", "test:model", tools=[CallableRef("s:f", lambda: None)])


def nested_agents(depth: int, number: int = 0) -> AgentSpec:
    """Return the agent `a0`, which has `a1` as a tool, and so on."""
    tools = [AgentTool(nested_agents(depth, number + 1), "d")] if number < depth else []
    return AgentSpec(f"a{number}", "test:model", tools=tools)


def with_blueprint() -> AgentSpec:
    child = Pipeline(called("a"), name="child", input_schema={"type": "object"})
    return AgentSpec("writer", "test:model", tools=[BlueprintTool(child, "d")])


def called(name: str, **more: Any) -> Step[Any, Any]:
    return Step(name, "s:f", **more)


def machine(states: dict[str, list[Transition]], final: list[str]) -> Pipeline[Any, Any]:
    each = {name: State((), ways) for name, ways in states.items()}
    return Pipeline(StateMachineStep("m", initial="a", states=each, final=final))


AGENT = AgentSpec("writer", model="test:model")
ASK = HumanInTheLoopStep("ask", "?")
KEPT = CachePolicy(ttl_s=5)
BACKGROUND = StepConfig(execution_mode="background")
A = "{name: a, call: 's:f'}"
MACHINE = "[{kind: state_machine, name: m, initial: a, "
CACHED_LOOP = (
    "[{kind: loop, name: l, until: 'input == 1', cache: {ttl_s: 5}, steps: [%s]}]"  # the step inside
)
CASES = {
    "a name with a space": Case(
        "FLJ124",
        "[{name: a b, call: 's:f'}]",
        Pipeline(called("a b")),
        "'a b' is not a valid name",
        "step 'a%20b': ",
    ),
    "a name in another alphabet": Case(
        "FLJ124",
        "[{name: \u0430, call: 's:f'}]",
        Pipeline(called("\u0430")),
        "'\u0430' is not a valid name: '\u0430' is U+0430",
        "step '\u0430': ",
    ),
    "a branch without a valid name": Case(
        "FLJ124",
        f"[{{kind: parallel, name: p, branches: {{' ': [{A}]}}}}]",
        Pipeline(ParallelStep("p", {" ": called("a")})),
        "' ' is not a valid name of a branch",
        "step 'p': ",
    ),
    "a state without a valid name": Case(
        "FLJ124",
        f"[{{kind: state_machine, name: p, initial: a, final: [a], states: {{a: {{}}, a-b: {{steps: [{A}]}}}}}}]",
        Pipeline(
            StateMachineStep("p", initial="a", final=["a"], states={"a": State(), "a-b": State(called("a"))})
        ),
        "'a-b' is not a valid name",
        "step 'p': ",
    ),
    "no steps": Case("FLJ125", "[]", Pipeline(name="x"), "`steps` needs at least 1 entry", "pipeline 'x': "),
    "an empty loop": Case(
        "FLJ125",
        "[{kind: loop, name: l, until: 'true', steps: []}]",
        Pipeline(LoopStep("l", [], until="true")),
        "`steps` needs at least 1 entry",
        "step 'l': ",
    ),
    "no branches": Case(
        "FLJ125",
        "[{kind: parallel, name: p, branches: {}}]",
        Pipeline(ParallelStep("p", {})),
        "`branches` needs at least 1 entry",
        "step 'p': ",
    ),
    "no states": Case(
        "FLJ125",
        f"{MACHINE}states: {{}}, final: [a]}}]",
        machine({}, ["a"]),
        "`states` needs at least 1 entry",
        "step 'm': ",
    ),
    "no final state": Case(
        "FLJ125",
        f"{MACHINE}states: {{a: {{}}}}, final: []}}]",
        machine({"a": []}, []),
        "`final` needs at least 1 entry",
        "step 'm': ",
    ),
    "one name twice in a list": Case(
        "FLJ210",
        f"[{A}, {A}]",
        Pipeline([called("a"), called("a")]),
        "two steps of one list are called 'a': the second is 'a'",
    ),
    "a name of the list around": Case(
        "FLJ211",
        f"[{A}, {{kind: loop, name: l, until: 'input == 1', steps: [{A}]}}]",
        Pipeline([called("a"), LoopStep("l", called("a"), until="input == 1")]),
        "step 'l/a' hides step 'a', which has the same name",
    ),
    "the name of the composite around": Case(
        "FLJ211",
        f"[{{kind: loop, name: a, until: 'input == 1', steps: [{A}]}}]",
        Pipeline(LoopStep("a", called("a"), until="input == 1")),
        "step 'a/a' hides step 'a', which has the same name",
    ),
    "a name of another state, inside a step of a state": Case(
        "FLJ211",
        f"{MACHINE}states: {{a: {{steps: [{A}], transitions: [{{to: b}}]}}, b: {{steps: "
        f"[{{kind: loop, name: l, until: 'input == 1', steps: [{A}]}}]}}}}, final: [b]}}]",
        Pipeline(
            StateMachineStep(
                "m",
                initial="a",
                states={
                    "a": State(called("a"), [Transition("b")]),
                    "b": State(LoopStep("l", called("a"), until="input == 1")),
                },
                final=["b"],
            )
        ),
        "step 'm/l/a' hides step 'm/a', which has the same name",
    ),
    "a step called `in`": Case(
        "FLJ212", "[{name: in, call: 's:f'}]", Pipeline(called("in")), "'in' is a reserved word of CEL"
    ),
    "an item called `for`": Case(
        "FLJ212",
        f"[{{kind: map, name: m, over: input, as: for, steps: [{A}]}}]",
        Pipeline(MapStep("m", called("a"), over="input", item_name="for")),
        "'for' is a reserved word of CEL",
    ),
    "an item called as the one around": Case(
        "FLJ212",
        "[{kind: map, name: m, over: input, as: one, steps: [{kind: map, name: n, over: one, as: one, "
        f"steps: [{A}]}}]}}]",
        Pipeline(
            MapStep(
                "m", MapStep("n", called("a"), over="one", item_name="one"), over="input", item_name="one"
            )
        ),
        "step 'm/n': 'one' is already the name of another value here",
    ),
    "a loop variable called `index`": Case(
        "FLJ212",
        f"[{{kind: loop, name: l, until: 'input == 1', carry: {{index: {{initial: 0, next: '1'}}}}, steps: [{A}]}}]",
        Pipeline(LoopStep("l", called("a"), until="input == 1", carry={"index": Carry(0, "1")})),
        "step 'l': `loop.index` already counts the iterations",
    ),
    "a context field with underscores": Case(
        "FLJ212",
        f"[{A}]",
        Pipeline(called("a"), context_schema={"properties": {"__class__": {"type": "string"}}}),
        "'__class__' cannot be the name of a context field",
        top="context_schema: {properties: {__class__: {type: string}}}\n",
    ),
    "a history without room for the task": Case(
        "FLJ431",
        "[{kind: granular, name: g, agent: writer, input: Count the letters., history: {max_tokens: 5}}]",
        Pipeline(GranularStep("g", AGENT, input="Count the letters.", history={"max_tokens": 5})),
        "step 'g': its `input` has about 6 tokens, and `history.max_tokens` is 5",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "tools below each other, too deep": Case(
        "FLJ456",
        "[{kind: granular, name: g, agent: a0}]",
        Pipeline(GranularStep("g", nested_agents(5))),
        "step 'g': its tools call agents and blueprints more than 4 deep",
        top="agents:\n"
        + "".join(
            f"  a{n}: {{model: 'test:model', tools: [{{agent: a{n + 1}, description: d}}]}}\n"
            for n in range(5)
        )
        + "  a5: {model: 'test:model'}\n",
    ),
    "a tool of steps in a step that records none": Case(
        "FLJ457",
        "[{name: g, agent: a0}]",
        Pipeline(Step("g", agent=nested_agents(1))),
        "step 'g': tool `a1` consists of steps, which a `step` does not record",
        top="agents:\n  a0: {model: 'test:model', tools: [{agent: a1, description: d}]}\n  a1: {model: 'test:model'}\n",
    ),
    "a tool whose steps record no effect": Case(
        "FLJ464",
        "[{kind: granular, name: g, agent: writer, enforce_idempotency: true}]",
        Pipeline(GranularStep("g", with_blueprint(), enforce_idempotency=True)),
        "step 'g' has `enforce_idempotency`, and step 'child/a' of its tool `child` may have an effect",
        top="agents: {writer: {model: 'test:model', tools: [{blueprint: ./child.yaml, description: d}]}}\n",
        imported="[{name: a, call: 's:f'}]\ninput_schema: {type: object}",
    ),
    "a conversation without what reconciles its calls": Case(
        "FLJ266",
        "[{kind: granular, name: g, agent: writer, enforce_idempotency: true, in_doubt: reconcile}]",
        Pipeline(GranularStep("g", AGENT, enforce_idempotency=True, in_doubt="reconcile")),
        "step 'g' has `in_doubt: reconcile` without `reconcile`",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a conversation that never reconciles its calls": Case(
        "FLJ266",
        "[{kind: granular, name: g, agent: writer, enforce_idempotency: true, reconcile: 's:f'}]",
        Pipeline(GranularStep("g", AGENT, enforce_idempotency=True, reconcile="s:f")),
        "step 'g' has `reconcile` without `in_doubt: reconcile`",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a conversation that is never in doubt": Case(
        "FLJ266",
        "[{kind: granular, name: g, agent: writer, in_doubt: fail}]",
        Pipeline(GranularStep("g", AGENT, in_doubt="fail")),
        "step 'g' has `in_doubt` without `enforce_idempotency`, so it is never in doubt",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a cached conversation": Case(
        "FLJ261",
        "[{kind: granular, name: g, agent: writer, cache: {ttl_s: 9}}]",
        Pipeline(GranularStep("g", AGENT, cache=CachePolicy(ttl_s=9))),
        "step 'g' is a conversation, and a cached answer would leave out its tool calls",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a conversation in a cache": Case(
        "FLJ261",
        "[{kind: cache, name: c, step: {kind: granular, name: g, agent: writer}}]",
        Pipeline(CacheStep("c", GranularStep("g", AGENT))),
        "step 'c/g' is a conversation, inside step 'c', whose answers are cached",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a thread without a name": Case(
        "FLJ124",
        "[{name: a, agent: writer, thread: ''}]",
        Pipeline(Step("a", agent=AGENT, thread="")),
        "'' is not a valid name",
        "step 'a': ",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a thread of a callable": Case(
        "FLJ429",
        "[{name: a, call: 's:f', thread: talk}]",
        Pipeline(called("a", thread="talk")),
        "step 'a' is on the thread 'talk', and asks no agent",
    ),
    "a thread of two branches": Case(
        "FLJ428",
        "[{kind: parallel, name: p, branches: {one: [{name: a, agent: writer, thread: talk}], "
        "two: [{kind: granular, name: b, agent: writer, thread: talk}]}}]",
        Pipeline(
            ParallelStep(
                "p",
                {
                    "one": Step("a", agent=AGENT, thread="talk"),
                    "two": GranularStep("b", AGENT, thread="talk"),
                },
            )
        ),
        "branches 'one' and 'two' both add to the thread 'talk'",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a thread of all items": Case(
        "FLJ428",
        "[{kind: map, name: m, over: input, merge: context_update, "
        "steps: [{name: a, agent: writer, thread: talk}]}]",
        Pipeline(MapStep("m", Step("a", agent=AGENT, thread="talk"), over="input", merge="context_update")),
        "every item of map 'm' adds to the thread 'talk'",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a cached step on a thread": Case(
        "FLJ261",
        "[{name: a, agent: writer, thread: talk, cache: {ttl_s: 9}}]",
        Pipeline(Step("a", agent=AGENT, thread="talk", cache=CachePolicy(ttl_s=9))),
        "step 'a' is on a thread, and a cached answer would not be in the thread",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a thread in a cache": Case(
        "FLJ261",
        "[{kind: cache, name: c, step: {name: a, agent: writer, thread: talk}}]",
        Pipeline(CacheStep("c", Step("a", agent=AGENT, thread="talk"))),
        "step 'c/a' is on a thread, inside step 'c', whose answers are cached",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "on a thread in the background": Case(
        "FLJ280",
        "[{name: a, agent: writer, thread: talk, config: {execution_mode: background}}]",
        Pipeline(Step("a", agent=AGENT, thread="talk", config=BACKGROUND)),
        "step 'a' runs in the background, and the thread 'talk' is of its run",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "the end of a run in a branch": Case(
        "FLJ311",
        "[{kind: parallel, name: p, branches: {x: [{kind: continue_as_new, name: next}]}}]",
        Pipeline(ParallelStep("p", {"x": Pipeline(ContinueAsNewStep("next"))})),
        "step 'p/next' ends the run, inside step 'p', which is of `kind: parallel`",
    ),
    "a misspelt setting of a model": Case(
        "FLJ152",
        "[{name: a, agent: writer}]",
        Pipeline(Step("a", agent=AgentSpec("writer", "test:model", model_settings={"temprature": 0}))),
        "`temprature` is not a setting of models",
        where="step 'a': ",
        top="agents: {writer: {model: 'test:model', model_settings: {temprature: 0}}}\n",
    ),
    "a value that is set in the background": Case(
        "FLJ280",
        "[{kind: set, name: a, set: {n: 1}, config: {execution_mode: background}}]",
        Pipeline(
            SetStep("a", {"n": 1}, config=BACKGROUND),
            context_schema={"properties": {"n": {"type": "integer"}}},
        ),
        "step 'a' only evaluates expressions, and cannot run in the background",
        top="context_schema: {properties: {n: {type: integer}}}\n",
    ),
    "the end of a blueprint in a map": Case(
        "FLJ313",
        "[{kind: map, name: m, over: '[1]', steps: [{kind: end, name: stop}]}]",
        Pipeline(MapStep("m", EndStep("stop"), over="[1]")),
        "step 'm/stop' ends the blueprint, inside step 'm', which is of `kind: map`",
    ),
    "the import of a pipeline with on_failure": Case(
        "FLJ314",
        "[{kind: import, name: i, blueprint: ./child.yaml}]",
        Pipeline(ImportStep("i", Pipeline(called("a"), on_failure=[called("b")]))),
        "step 'i' runs a pipeline with `on_failure`",
        imported="[{name: a, call: 's:f'}]\non_failure: [{name: b, call: 's:f'}]",
    ),
    "a new run after a failure": Case(
        "FLJ315",
        "[{name: a, call: 's:f'}]",
        Pipeline(called("a"), on_failure=[ContinueAsNewStep("next")]),
        "step ':failure/next' begins a new run, and the run has failed already",
        top="on_failure: [{kind: continue_as_new, name: next}]\n",
    ),
    "the import of a pipeline with finally": Case(
        "FLJ314",
        "[{kind: import, name: i, blueprint: ./child.yaml}]",
        Pipeline(ImportStep("i", Pipeline(called("a"), finally_=[called("b")]))),
        "step 'i' runs a pipeline with `finally`, which is executed only when a run of that pipeline ends",
        imported="[{name: a, call: 's:f'}]\nfinally: [{name: b, call: 's:f'}]",
    ),
    "a new run at the end": Case(
        "FLJ315",
        "[{name: a, call: 's:f'}]",
        Pipeline(called("a"), finally_=[ContinueAsNewStep("next")]),
        "step ':finally/next' begins a new run, and the run has ended already",
        top="finally: [{kind: continue_as_new, name: next}]\n",
    ),
    "a question at the end": Case(
        "FLJ317",
        "[{name: a, call: 's:f'}]",
        Pipeline(called("a"), finally_=[HumanInTheLoopStep("ask", message="?")]),
        "step ':finally/ask' asks a human, and `finally` waits for nothing",
        top="finally: [{kind: hitl, name: ask, message: '?'}]\n",
    ),
    "a branch called unfinished": Case(
        "FLJ316",
        "[{kind: parallel, name: p, branches: {unfinished: [{name: a, call: 's:f'}]}}]",
        Pipeline(ParallelStep("p", {"unfinished": [called("b")]})),
        "step 'p': 'unfinished' cannot be the name of a branch or state",
    ),
    "an await in the background": Case(
        "FLJ280",
        "[{kind: await, name: a, task: '{{ input }}', config: {execution_mode: background}}]",
        Pipeline(AwaitStep("a", task="{{ input }}", config=BACKGROUND)),
        "step 'a' waits for background tasks, and cannot be one",
    ),
    "the inner step of a cache in the background": Case(
        "FLJ280",
        "[{kind: parallel, name: p, branches: {x: [{name: a, call: 's:f', fallback: "
        "{call: 's:f', config: {execution_mode: background}}}]}}]",
        Pipeline(
            ParallelStep("p", {"x": called("a", fallback=called("f", config=BACKGROUND))}),
        ),
        "step 'p/a/fallback' is the inner step of another one, and cannot run in the background",
    ),
    "a task inside a cached composite": Case(
        "FLJ261",
        CACHED_LOOP % "{name: a, call: 's:f', config: {execution_mode: background}}",
        Pipeline(
            LoopStep("l", called("a", config=BACKGROUND), until="input == 1", cache=KEPT),
        ),
        "step 'l/a' runs in the background, inside step 'l', whose answers are cached",
    ),
    "an await of a step that is not in the background": Case(
        "FLJ282",
        f"[{A}, {{kind: await, name: b, task: a}}]",
        Pipeline([called("a"), AwaitStep("b", task="a")]),
        "step 'b' awaits 'a', which does not run in the background",
    ),
    "an await before its task": Case(
        "FLJ282",
        "[{kind: await, name: b, tasks: [a]}, {name: a, call: 's:f', config: {execution_mode: background}}]",
        Pipeline([AwaitStep("b", tasks=["a"]), called("a", config=BACKGROUND)]),
        "step 'b' awaits 'a', and no earlier step has that name",
    ),
    "a task under a budget": Case(
        "FLJ283",
        "[{name: a, call: 's:f', config: {execution_mode: background}}]",
        Pipeline(called("a", config=BACKGROUND), budget=UsageLimits(requests_limit=3)),
        "step 'a' runs in the background under a limit on `requests_limit`, and has no `budget` of its own",
        top="budget: {requests_limit: 3}\n",
    ),
    "a task with a budget that is not covered": Case(
        "FLJ283",
        "[{name: a, call: 's:f', config: {execution_mode: background, "
        "budget: {requests_limit: 4, tool_calls_limit: 1}}}]",
        Pipeline(
            called(
                "a",
                config=StepConfig(
                    execution_mode="background", budget=UsageLimits(requests_limit=4, tool_calls_limit=1)
                ),
            ),
            budget=UsageLimits(requests_limit=3),
        ),
        "step 'a' runs in the background under a limit, and its own `budget` allows more of `requests_limit`",
        top="budget: {requests_limit: 3}\n",
    ),
    "a queue of a step that launches no task": Case(
        "FLJ288",
        "[{name: a, call: 's:f', config: {queue: default}}]",
        Pipeline(called("a", config=StepConfig(queue="default"))),
        "step 'a' has `queue`, and does not run in the background",
    ),
    "a budget of a step that launches no task": Case(
        "FLJ288",
        "[{name: a, call: 's:f', config: {budget: {requests_limit: 1}}}]",
        Pipeline(called("a", config=StepConfig(budget=UsageLimits(requests_limit=1)))),
        "step 'a' has `budget`, and does not run in the background",
    ),
    "a priority without a queue": Case(
        "FLJ288",
        "[{name: a, call: 's:f', config: {execution_mode: background, priority: 3}}]",
        Pipeline(called("a", config=StepConfig(execution_mode="background", priority=3))),
        "step 'a' has a priority and no queue",
    ),
    "an executor of a step that asks an agent": Case(
        "FLJ321",
        "[{name: a, agent: writer, config: {executor: threads}}]",
        Pipeline(Step("a", agent=AgentSpec("writer", "test:model"), config=StepConfig(executor="threads"))),
        "step 'a' names an executor, and asks an agent",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "resources without an executor": Case(
        "FLJ322",
        "[{name: a, call: 's:f', config: {resources: {cpu: 2}}}]",
        Pipeline(called("a", config=StepConfig(resources={"cpu": 2}))),
        "step 'a' has `resources`, and names no executor that could have them",
    ),
    "workers for a step without items": Case(
        "FLJ331",
        "[{name: a, call: 's:f', config: {executor: queue}}]",
        Pipeline(called("a", config=StepConfig(executor="queue"))),
        "step 'a' is of `kind: step`, and has no items that workers could execute",
    ),
    "a map over workers in the background": Case(
        "FLJ331",
        "[{kind: map, name: a, over: input, config: {executor: queue, execution_mode: background},"
        " steps: [{name: b, call: 's:f'}]}]",
        Pipeline(
            MapStep(
                "a",
                Pipeline(called("b")),
                over="input",
                config=StepConfig(executor="queue", execution_mode="background"),
            )
        ),
        "step 'a' runs in the background, and lets workers execute its items",
    ),
    "a thread inside a map over workers": Case(
        "FLJ333",
        "[{kind: map, name: a, over: input, config: {executor: queue},"
        " steps: [{name: b, agent: writer, thread: talk}]}]",
        Pipeline(
            MapStep(
                "a",
                Pipeline(Step("b", agent=AGENT, thread="talk")),
                over="input",
                config=StepConfig(executor="queue"),
            )
        ),
        "step 'a/b' is in the thread 'talk' of the run, and workers execute it",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "a batch that is too large": Case(
        "FLJ332",
        "[{kind: map, name: a, over: input, config: {executor: queue, batch_size: 10001},"
        " steps: [{name: b, call: 's:f'}]}]",
        Pipeline(
            MapStep(
                "a",
                Pipeline(called("b")),
                over="input",
                config=StepConfig(executor="queue", batch_size=10_001),
            )
        ),
        "step 'a' has `batch_size` 10001",
    ),
    "a priority out of range": Case(
        "FLJ288",
        "[{name: a, call: 's:f', config: {execution_mode: background, queue: default, priority: 2000000}}]",
        Pipeline(
            called("a", config=StepConfig(execution_mode="background", queue="default", priority=2_000_000))
        ),
        "step 'a' has the priority 2000000",
    ),
    "a human with a timeout": Case(
        "FLJ213",
        "[{kind: hitl, name: ask, message: '?', config: {timeout_s: 5}}]",
        Pipeline(HumanInTheLoopStep("ask", "?", config=StepConfig(timeout_s=5.0))),
        "step 'ask': `kind: hitl` does not support `timeout_s`",
    ),
    "a transition to an unknown state": Case(
        "FLJ231",
        f"{MACHINE}states: {{a: {{transitions: [{{to: dnoe}}]}}, done: {{}}}}, final: [done]}}]",
        machine({"a": [Transition("dnoe")], "done": []}, ["done"]),
        "state machine 'm' has no state 'dnoe'",
    ),
    "a state without a way out": Case(
        "FLJ233",
        f"{MACHINE}states: {{a: {{}}, b: {{}}}}, final: [b]}}]",
        machine({"a": [], "b": []}, ["b"]),
        "state machine 'm': state 'a' is not final and has no transitions",
    ),
    "a machine that never ends": Case(
        "FLJ233",
        f"{MACHINE}states: {{a: {{transitions: [{{to: a}}]}}, b: {{}}}}, final: [b]}}]",
        machine({"a": [Transition("a")], "b": []}, ["b"]),
        "state machine 'm': there is no path from 'a' to `b`",
    ),
    "a question whose answer is cached": Case(
        "FLJ261",
        "[{kind: hitl, name: ask, message: '?', cache: {ttl_s: 5}}]",
        Pipeline(HumanInTheLoopStep("ask", "?", cache=KEPT)),
        "step 'ask' asks a human, and a cached answer would end that wait",
    ),
    "a question inside a cached loop": Case(
        "FLJ261",
        CACHED_LOOP % "{kind: hitl, name: ask, message: '?'}",
        Pipeline(LoopStep("l", ASK, until="input == 1", cache=KEPT)),
        "step 'l/ask' asks a human, inside step 'l', whose answers are cached",
    ),
    "a question inside a cached import": Case(
        "FLJ261",
        "[{kind: import, name: i, blueprint: ./child.yaml, cache: {ttl_s: 5}}]",
        Pipeline(ImportStep("i", Pipeline(ASK), cache=KEPT)),
        "step 'i/ask' asks a human, inside step 'i', whose answers are cached",
        imported="[{kind: hitl, name: ask, message: '?'}]",
    ),
    "a save inside a cache": Case(
        "FLJ261",
        "[{kind: cache, name: c, step: {name: a, call: 's:f', save: {note: output}}}]",
        Pipeline(
            CacheStep("c", called("a", save={"note": "output"})),
            context_schema={"properties": {"note": {"type": "string"}}},
        ),
        "step 'c/a' saves 'note', inside step 'c', whose answers are cached",
        top="context_schema: {properties: {note: {type: string}}}\n",
    ),
    "a cache with `cache`": Case(
        "FLJ261",
        f"[{{kind: cache, name: c, cache: {{ttl_s: 5}}, step: {A}}}]",
        Pipeline(CacheStep("c", called("a"), cache=KEPT)),
        "step 'c' is already a cache",
    ),
    "`when` inside a cache": Case(
        "FLJ261",
        "[{kind: cache, name: c, step: {name: a, call: 's:f', when: 'input == 1'}}]",
        Pipeline(CacheStep("c", called("a", when="input == 1"))),
        "step 'c/a' has `when` and is inside the cache 'c'",
    ),
    "an agent with an effect": Case(
        "FLJ265",
        "[{name: a, agent: writer, effect: read}]",
        Pipeline(Step("a", agent=AGENT, effect="read")),
        "step 'a' asks an agent, and `effect` is about calls",
        top="agents: {writer: {model: 'test:model'}}\n",
    ),
    "an agent with tools whose calls are not recorded": Case(
        "FLJ265",
        "[{name: a, agent: writer, enforce_idempotency: true}]",
        Pipeline(Step("a", agent=AgentSpec("writer", "test:model", tools=["s:f"]), enforce_idempotency=True)),
        "step 'a' asks an agent, and `enforce_idempotency` is about calls",
        top="agents: {writer: {model: 'test:model', tools: ['s:f']}}\n",
    ),
    "files for a local model": Case(
        "FLJ434",
        "[{name: a, agent: writer, files: [scan.png]}]",
        Pipeline(Step("a", agent=AgentSpec("writer", "local:smollm2"), files=["scan.png"])),
        "step 'a': 'local:smollm2' takes text only, and `files` are not text",
        top="agents: {writer: {model: 'local:smollm2'}}\n",
    ),
    "files in turns for a local model": Case(
        "FLJ434",
        "[{kind: granular, name: a, agent: writer, files: '{{ input }}'}]",
        Pipeline(GranularStep("a", AgentSpec("writer", "local:smollm2"), files="{{ input }}")),
        "step 'a': 'local:smollm2' takes text only, and `files` are not text",
        top="agents: {writer: {model: 'local:smollm2'}}\n",
    ),
    "files for an agent that may be local": Case(
        "FLJ434",
        "[{name: a, agent: {one_of: [writer, small], by: input}, files: [scan.png]}]",
        Pipeline(
            Step(
                "a",
                agent=OneOf(
                    [AgentSpec("writer", "test:model"), AgentSpec("small", "local:smollm2")], by="input"
                ),
                files=["scan.png"],
            )
        ),
        "step 'a': 'local:smollm2' takes text only, and `files` are not text",
        top="agents: {writer: {model: 'test:model'}, small: {model: 'local:smollm2'}}\n",
    ),
    "files for a callable": Case(
        "FLJ434",
        "[{name: a, call: 's:f', files: [scan.png]}]",
        Pipeline(called("a", files=["scan.png"])),
        "step 'a': `files` are sent to a model, and the step calls a callable",
    ),
    "a recorded tool in one attempt": Case(
        "FLJ444",
        "[{name: a, agent: writer}]",
        Pipeline(Step("a", agent=teller(enforce_idempotency=True))),
        "step 'a': tool `f` of agent 'writer' has `enforce_idempotency`, and this kind of step does not record "
        "tool calls",
        top=TELLER % "enforce_idempotency: true",
    ),
    "a tool that needs a key": Case(
        "FLJ432",
        "[{kind: granular, name: a, agent: writer}]",
        Pipeline(GranularStep("a", CHARGING)),
        "step 'a': tool `charge` of agent 'writer' requires an `idempotency_key`, and the step does not record "
        "its calls",
        top=CHARGING_YAML,
    ),
    "a tool that needs a key, in one attempt": Case(
        "FLJ432",
        "[{name: a, agent: writer}]",
        Pipeline(Step("a", agent=CHARGING)),
        "step 'a': tool `charge` of agent 'writer' requires an `idempotency_key`, and the step does not record "
        "its calls",
        top=CHARGING_YAML,
    ),
    "a call that needs a key": Case(
        "FLJ432",
        "[{name: a, call: 's:charge', with: {amount: 5}}]",
        Pipeline(Step("a", CHARGE, arguments={"amount": 5})),
        "step 'a': `s:charge` requires an `idempotency_key`, and the step does not record its calls",
    ),
    "a tool that is never in doubt": Case(
        "FLJ266",
        "[{kind: granular, name: a, agent: writer}]",
        Pipeline(GranularStep("a", teller(in_doubt="fail"))),
        "step 'a': tool `f` of agent 'writer' has `in_doubt` without `enforce_idempotency`, so it is never in "
        "doubt",
        top=TELLER % "in_doubt: fail",
    ),
    "resources of a tool without an executor": Case(
        "FLJ322",
        "[{kind: granular, name: a, agent: writer}]",
        Pipeline(GranularStep("a", teller(resources={"cpu": 2}))),
        "step 'a': tool `f` of agent 'writer' has `resources`, and names no executor that could have them",
        top=TELLER % "resources: {cpu: 2}",
    ),
    "a tool over workers": Case(
        "FLJ331",
        "[{kind: granular, name: a, agent: writer}]",
        Pipeline(GranularStep("a", teller(executor="queue"))),
        "step 'a': tool `f` of agent 'writer' has `executor: queue`, and has no items that workers could execute",
        top=TELLER % "executor: queue",
    ),
    "a transactional tool with an executor": Case(
        "FLJ325",
        "[{kind: granular, name: a, agent: writer}]",
        Pipeline(GranularStep("a", teller(executor="threads", effect="transactional"))),
        "step 'a': tool `f` of agent 'writer' names an executor, and writes in the transaction of its entry",
        top=TELLER % "executor: threads, effect: transactional",
    ),
    "a tool that nothing reconciles": Case(
        "FLJ266",
        "[{kind: granular, name: a, agent: writer, enforce_idempotency: true}]",
        Pipeline(GranularStep("a", teller(in_doubt="reconcile"), enforce_idempotency=True)),
        "step 'a': tool `f` of agent 'writer' has `in_doubt: reconcile`, and the step has no `reconcile`",
        top=TELLER % "in_doubt: reconcile",
    ),
    "an unsafe tool that a step repeats": Case(
        "FLJ433",
        "[{kind: granular, name: a, agent: writer, enforce_idempotency: true, in_doubt: retry_same_key}]",
        Pipeline(GranularStep("a", live_teller(), enforce_idempotency=True, in_doubt="retry_same_key")),
        "step 'a': its tool `f` is `unsafe`, and with `in_doubt: retry_same_key` a call would be made again",
        top=TELLER % "effect: unsafe",
    ),
    "an unsafe tool that repeats itself once it is approved": Case(
        "FLJ433",
        "[{kind: granular, name: a, agent: writer}]",
        Pipeline(GranularStep("a", teller(effect="unsafe", approve=True, in_doubt="retry_same_key"))),
        "step 'a': its tool `f` is `unsafe`, and with `in_doubt: retry_same_key` a call would be made again",
        top=TELLER % "effect: unsafe, approve: true, in_doubt: retry_same_key",
    ),
    "a tool of an MCP server that a step repeats": Case(
        "FLJ433",
        "[{kind: granular, name: a, agent: writer, enforce_idempotency: true, in_doubt: retry_same_key}]",
        Pipeline(
            GranularStep(
                "a",
                AgentSpec("writer", "test:model", tools=[McpTools("kb", allow=["find"])]),
                enforce_idempotency=True,
                in_doubt="retry_same_key",
            )
        ),
        "step 'a': its tool `mcp:kb/find` is `unsafe`, and with `in_doubt: retry_same_key` a call would be made",
        top="agents: {writer: {model: 'test:model', tools: [{mcp: kb, allow: [find]}]}}\n",
    ),
    "an unsafe call that is repeated": Case(
        "FLJ433",
        "[{name: a, call: 's:pay', enforce_idempotency: true, in_doubt: retry_same_key}]",
        Pipeline(Step("a", PAY, enforce_idempotency=True, in_doubt="retry_same_key")),
        "step 'a' has `in_doubt: retry_same_key`, and its call `s:pay` has `effect: unsafe`: it would be made again",
    ),
    "a call that would write in the transaction of a tool": Case(
        "FLJ447",
        "[{name: a, call: 's:book', with: {seat: 5}, effect: transactional}]",
        Pipeline(Step("a", BOOK, arguments={"seat": 5}, effect="transactional")),
        "step 'a': `s:book` writes on a `connection`, in the transaction of its entry, and only a tool has one",
    ),
    "in doubt without a key": Case(
        "FLJ266",
        "[{name: a, call: 's:f', in_doubt: fail}]",
        Pipeline(called("a", in_doubt="fail")),
        "step 'a' has `in_doubt` without `enforce_idempotency`, so it is never in doubt",
    ),
    "nothing to reconcile with": Case(
        "FLJ266",
        "[{name: a, call: 's:f', enforce_idempotency: true, in_doubt: reconcile}]",
        Pipeline(called("a", enforce_idempotency=True, in_doubt="reconcile")),
        "step 'a' has `in_doubt: reconcile` without `reconcile`",
    ),
    "a callable that never reconciles": Case(
        "FLJ266",
        "[{name: a, call: 's:f', enforce_idempotency: true, reconcile: 's:g'}]",
        Pipeline(called("a", enforce_idempotency=True, reconcile="s:g")),
        "step 'a' has `reconcile` without `in_doubt: reconcile`",
    ),
}
WARNINGS = {
    "a state that cannot be reached": Case(
        "FLJ232",
        f"{MACHINE}states: {{a: {{}}, b: {{transitions: [{{to: a}}]}}}}, final: [a]}}]",
        machine({"a": [], "b": [Transition("a")]}, ["a"]),
        "state machine 'm': there is no path from 'a' to state 'b'",
    ),
    "a transition after one that always holds": Case(
        "FLJ234",
        f"{MACHINE}states: {{a: {{transitions: [{{to: b}}, {{to: a}}]}}, b: {{}}}}, final: [b]}}]",
        machine({"a": [Transition("b"), Transition("a")], "b": []}, ["b"]),
        "state machine 'm': transition 2 of state 'a' is never taken: the transition before it is always taken",
    ),
    "a step after an early end": Case(
        "FLJ312",
        "[{kind: end, name: stop, of: body}, {name: late, call: 's:f'}]",
        Pipeline((EndStep("stop", of="body"), called("late"))),
        "step 'late' is never executed: 'stop' before it ends the steps around it",
    ),
    "a step after the end of the run": Case(
        "FLJ312",
        "[{kind: continue_as_new, name: next}, {name: late, call: 's:f'}]",
        Pipeline((ContinueAsNewStep("next"), called("late"))),
        "step 'late' is never executed: 'next' before it ends the run",
    ),
    "a retry that a human has to allow": Case(
        "FLJ267",
        "[{name: a, call: 's:f', enforce_idempotency: true, config: {max_retries: 2}}]",
        Pipeline(called("a", enforce_idempotency=True, config=StepConfig(max_retries=2))),
        "a retry of step 'a' follows harmless failures only; after any other failure it asks a human",
    ),
}


def reported(case: Case) -> list[Diagnostic]:
    files = {
        "x.yaml": f'version: "1"\nname: x\n{case.top}steps: {case.yaml}\n',
        "child.yaml": f'version: "1"\nname: child\nsteps: {case.imported}\n',
        "s.py": "import flujo\ndef f(data): ...\ndef g(key): ...\ndef charge(amount, idempotency_key): ...\n"
        "@flujo.tool(effect='unsafe')\ndef pay(): ...\n"
        "@flujo.tool(effect='transactional')\ndef book(seat, connection): ...\n",
    }
    source = PinnedSource({path: text.encode() for path, text in files.items()})
    found = compile_blueprint(
        "x.yaml", source, allow_callables=["s"], project=ProjectFacts(providers=())
    ).diagnostics
    return [one for one in found if one.code == case.code]


@pytest.mark.parametrize("name", CASES)
def test_yaml_and_python_report_the_same_error(name: str) -> None:
    case = CASES[name]
    (in_yaml,) = reported(case)
    with pytest.raises(PipelineError) as caught:
        Flujo(case.tree)
    in_python = caught.value
    assert in_yaml.is_error
    assert in_yaml.message.startswith(case.words)
    assert in_python.message == f"{case.where}{in_yaml.message}"
    assert (in_python.code, in_python.hint) == (in_yaml.code, in_yaml.hint)


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_has_the_same_words_in_yaml_and_python_and_stops_neither(name: str) -> None:
    case = WARNINGS[name]
    (in_yaml,) = reported(case)
    assert not in_yaml.is_error
    (found,) = checks.findings(case.tree)
    assert (found.code, found.message, found.hint) == (in_yaml.code, in_yaml.message, in_yaml.hint)
    assert found.message == case.words
    Flujo(case.tree)


def test_a_call_that_is_recorded_or_gets_a_key_is_fine() -> None:
    steps = [
        GranularStep("a", CHARGING, enforce_idempotency=True),
        GranularStep(
            "b", AgentSpec("w", "test:model", tools=[CallableTool(CHARGE, enforce_idempotency=True)])
        ),
        Step("c", CHARGE, arguments={"amount": 5}, enforce_idempotency=True),
        Step("d", CHARGE, arguments={"amount": 5, "idempotency_key": "k"}),
    ]
    assert list(checks.findings(Pipeline(steps))) == []


ENFORCED: dict[str, Any] = {"enforce_idempotency": True, "in_doubt": "retry_same_key"}


@pytest.mark.parametrize(
    "rules", [{"effect": "idempotent"}, {"effect": "read"}, {"effect": "unsafe", "in_doubt": "pause"}]
)
def test_a_step_may_repeat_calls_that_are_not_unsafe(rules: dict[str, Any]) -> None:
    steps = [GranularStep("a", teller(**rules), **ENFORCED), called("b", **ENFORCED)]
    assert list(checks.findings(Pipeline(steps))) == []


def test_an_unsafe_tool_of_an_agent_that_is_a_tool_is_not_repeated_either() -> None:
    boss = AgentSpec("boss", "test:model", tools=[AgentTool(live_teller(), "d")])
    (found,) = checks.findings(Pipeline(GranularStep("a", boss, **ENFORCED)))
    assert (found.code, "its tool `f` is `unsafe`" in found.message) == ("FLJ433", True)


def test_an_unsafe_tool_of_a_scripted_agent_is_not_repeated_either() -> None:
    script = ScriptedAgent([], tools=[CallableTool(pay), CallableTool(charge, effect="idempotent")])
    (found,) = checks.findings(Pipeline(GranularStep("a", script, **ENFORCED)))
    assert (found.code, "its tool `pay` is `unsafe`" in found.message) == ("FLJ433", True)


def test_a_call_may_pass_a_connection_of_its_own() -> None:
    own = Step("a", BOOK, arguments={"seat": 5, "connection": "mine"}, effect="transactional")
    assert list(checks.findings(Pipeline(own))) == []


def test_an_agent_as_a_tool_records_its_calls_like_the_step_around_it() -> None:
    boss = AgentSpec("boss", "test:model", tools=[AgentTool(CHARGING, "d")])
    (found,) = checks.findings(Pipeline(GranularStep("a", boss)))
    assert (found.code, "tool `charge` of agent 'writer'" in found.message) == ("FLJ432", True)
    assert list(checks.findings(Pipeline(GranularStep("a", boss, enforce_idempotency=True)))) == []


def test_a_budget_of_a_task_covers_the_limits_around_it_and_those_inside_it() -> None:
    limits = UsageLimits(requests_limit=3, wall_time_s_limit=60)
    inner = StepConfig(execution_mode="background", budget=UsageLimits(requests_limit=1))
    outer = StepConfig(execution_mode="background", budget=UsageLimits(requests_limit=2))
    fits = ImportStep("a", Pipeline(called("b", config=inner)), config=outer)
    assert list(checks.findings(Pipeline(fits, budget=limits))) == []
    larger = ImportStep("a", Pipeline(called("b", config=outer)), config=inner)
    (found,) = checks.findings(Pipeline(larger, budget=limits))
    assert (found.code, "allows more of `requests_limit`" in found.message) == ("FLJ283", True)


def test_a_task_may_not_send_requests_of_unknown_price_under_a_limit_that_refuses_them() -> None:
    allows = UsageLimits(total_cost_usd_limit=1, unknown_price="allow")
    step = called("a", config=StepConfig(execution_mode="background", budget=allows))
    (found,) = checks.findings(Pipeline(step, budget=UsageLimits(total_cost_usd_limit=2)))
    assert "allows more of `unknown_price`" in found.message
    assert list(checks.findings(Pipeline(step, budget=replace(allows, total_cost_usd_limit=2)))) == []


def test_every_check_has_a_case_and_a_page() -> None:
    here = Path(checks.__file__)
    sources = (here, *here.with_name("tree_checks").glob("*.py"))
    codes = {code for each in sources for code in re.findall(r'"(FLJ\d+)"', each.read_text("utf-8"))}
    assert codes == {case.code for case in (*CASES.values(), *WARNINGS.values())}
    assert codes <= RULES.keys()


def test_the_code_of_a_check_survives_pickling() -> None:
    with pytest.raises(PipelineError) as caught:
        Flujo(CASES["an await in the background"].tree)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.code, copied.message) == ("FLJ280", caught.value.message)
    assert copied.hint == "remove `execution_mode`"


def test_a_finding_inside_an_import_names_the_imported_file() -> None:
    (found,) = reported(CASES["a question inside a cached import"])
    assert found.span.file == "x.yaml"
    assert [(span.file, label) for span, label in found.related] == [
        ("x.yaml", "cached here"),
        ("child.yaml", "here"),
    ]


def test_a_name_that_is_not_a_string_is_refused() -> None:
    with pytest.raises(PipelineError, match="7 is not a valid name") as caught:
        Flujo(Pipeline(Step(7, "s:f")))  # type: ignore[call-overload]
    assert caught.value.code == "FLJ124"


def test_a_cached_step_and_its_cache_may_have_one_name() -> None:
    tree = Pipeline([called("a"), CacheStep("b", called("b")), CacheStep("c", called("a"))])
    assert list(checks.findings(tree)) == []


def test_a_branch_called_fallback_is_a_branch_like_any_other() -> None:
    tree = Pipeline([called("a"), ParallelStep("p", {"fallback": called("a")})])
    assert [found.code for found in checks.findings(tree)] == ["FLJ211"]


def test_names_are_free_again_in_an_imported_pipeline() -> None:
    tree = Pipeline([called("a"), ImportStep("i", Pipeline(called("a")))])
    assert list(checks.findings(tree)) == []
    (found,) = checks.findings(Pipeline(ImportStep("i", Pipeline([called("a"), called("a")]))))
    assert found.message == "two steps of one list are called 'a': the second is 'i/a'"


def test_branches_and_states_may_have_steps_of_one_name() -> None:
    leaf = called("a")
    states = {"x": State(leaf, [Transition("y")]), "y": State(leaf)}
    both = ParallelStep("p", {"x": leaf, "y": leaf})
    assert (
        list(
            checks.findings(Pipeline([both, StateMachineStep("m", initial="x", states=states, final=["y"])]))
        )
        == []
    )


@pytest.mark.parametrize("word", sorted(checks.RESERVED - checks.KEYWORDS))
def test_a_python_step_may_have_any_name_that_expressions_can_read_after_a_dot(word: str) -> None:
    # Pipelines of earlier releases have steps called `loop`; their runs must still resume.
    assert (
        list(checks.findings(Pipeline([called(word), called("a_", input=f"{{{{ steps.{word}.output }}}}")])))
        == []
    )
    (found,) = reported(Case("FLJ212", f"[{{name: {word}, call: 's:f'}}]", Pipeline(), ""))
    assert found.message == f"{word!r} is a reserved word of CEL, the language of expressions"


def test_the_engine_runs_every_kind() -> None:
    assert KINDS.keys() == interpreter.KINDS
