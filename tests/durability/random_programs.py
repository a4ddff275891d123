"""Random programs with results known beforehand: a generator, and a reference that works without the engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import psycopg
import requests
import urllib3

from flujo.domain import canonical
from flujo.domain.conversations import ToolCall
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import (
    AwaitStep,
    BaseStep,
    CallableRef,
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
from flujo.exceptions import ModelUnavailable, NotSent
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from random import Random

    from flujo.domain.run import Intent, Pause

    Act = Callable[[str, int, str], Awaitable[None]]
    """Causes `name` in the world, for the input number; may raise, so that a `flaky` step retries.

    The text is the idempotency key of a `paid` call, otherwise empty.
    """

Far = tuple[CallableRef, Mapping[str, Any]]

MAX_DEPTH = 4
MAX_STEPS = 20
ELSEWHERE = "far"
"""The executor of the callables that are executed elsewhere."""
TIMEOUT_S = 7.0
"""The time limit of an attempt of a `hangs`."""
DEADLINE_S = 60.0
"""The deadline of the question of a `silent`."""
SLEEP_S = 45.0
"""How long a `sleeps` waits, unless `tree` gets another time."""
WORKED = "done"
"""What an agent gets for a call that has succeeded."""
CONTEXT = {
    "type": "object",
    "properties": {"log": {"type": "array", "default": []}, "rounds": {"type": "integer", "default": 0}},
}
BEGUN = {"log": [], "rounds": 0}
"""The context of a run that begins."""


class Misbehaved(BaseException):
    """An exception of step code that `except Exception` does not catch."""


def misbehaviour(number: int) -> BaseException:
    """Return what an attempt of a `flaky` raises; each kind fails the attempt, and nothing else."""
    return (ConnectionError, asyncio.CancelledError, SystemExit, GeneratorExit, Misbehaved)[number % 5]()


def lost_reply(number: int) -> Exception:
    """Return what a client library raises when a `paid` call has happened and its reply is lost."""
    kinds = (
        requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted")),
        httpx.ReadTimeout("timed out"),
        aiohttp.ServerDisconnectedError(),
        psycopg.OperationalError("server closed the connection unexpectedly"),
        urllib3.exceptions.IncompleteRead(3, 5),
        ConnectionResetError(),
    )
    return kinds[number % len(kinds)]


def unsent(number: int) -> Exception:
    """Return what a client library raises when a `paid` call was not sent, or the other side refused it."""
    kinds = (
        httpx.ConnectError("refused"),
        requests.exceptions.ConnectTimeout(),
        psycopg.errors.SerializationFailure(),
        ConnectionRefusedError(),
    )
    return kinds[number % len(kinds)]


@dataclass(frozen=True)
class Known:
    """The result of a program, independent of workers and interruptions."""

    output: int
    effects: Counter[str]
    """How often each step runs, and how often each background task is launched."""
    fails: bool = False
    """Whether the run fails in the end, without an output."""


def parts(program: Sequence[Part]) -> Iterator[Part]:
    """Yield every part of a program, including nested ones."""
    for part in program:
        yield part
        for body in part.bodies:
            yield from parts(body)


@dataclass
class Part:
    """A step of a random program: its structure, and its effect on a number."""

    kind: str
    name: str
    number: int = 1
    bodies: tuple[tuple[Part, ...], ...] = ()


HUMAN = ("human", "paid")
"""Steps that ask a human."""
SLOW = ("hangs", "stubborn", "silent")
"""Steps that wait: attempts that never return or return late, and questions without an answer."""
TOLD = ("told", "told")
"""Steps that wait for an event from outside, with a key that several of them may share."""
ASLEEP = ("sleeps",)
"""Steps that wait for a time."""
EARLY = ("ends",)
"""Imported blueprints that count without a callable, and that end before their last step."""
BEHIND = ("behind",)
"""Composites that are executed as a background task, whose result is awaited after it."""
CAUGHT = ("caught",)
"""Composites whose last step always fails, and whose `on_error` passes that over or replaces their output."""
PICKS = ("picks",)
"""Steps that ask a human for one of several choices, which come from data."""
UNDONE = ("undone",)
"""At most one step of a program, its last: it fails the run, and `on_failure` undoes something."""
NEXT = ("next",)
"""At most one step of a program: in the first runs of a chain it ends the run, and the next one continues."""
AROUND = ("spare", "search")
"""Steps with other active parts: a fallback, agents that evaluate candidates."""
AGENTS = ("agent", "paying")
"""Agents in turns, which choose their calls from what they have seen; the calls of the second are announced."""
FAR = ("far", "far_paid", "far_map")
"""Callables that an executor executes: a step's, a recorded call, and those of all steps in a map."""
SPREAD = ("spread",)
"""Maps whose items are executed by workers of a queue, in batches of two."""
LEAVES = ("step", "step", "flaky", "perhaps")
COMPOSITES = ("if", "loop", "map", "parallel", "import", "inherit", "again", "machine", "router")
_WITH_BODIES = (*BEHIND, *CAUGHT, *SPREAD, "far_map")
INSIDE = ("fallback", "evaluate")
"""The names of those active parts; they end before the step does."""


def random_program(chance: Random, *, also: Sequence[str] = HUMAN) -> tuple[Part, ...]:
    """Return a random program of at most `MAX_STEPS` steps, `MAX_DEPTH` deep; `also` names more kinds of steps."""
    parts = _Generator(chance, [kind for kind in also if kind not in (*NEXT, *UNDONE)]).body(0)
    if set(UNDONE) & {*also} and chance.random() < 0.5:
        parts = (*parts, Part("undone", "undone", 0))
    rounds = chance.randint(0, 2) if set(NEXT) & {*also} else 0
    if not rounds:
        return parts
    at = chance.randint(1, len(parts))
    return (*parts[:at], Part("next", "next", rounds), *parts[at:])


class _Generator:
    def __init__(self, chance: Random, also: Sequence[str]) -> None:
        self._chance = chance
        self._names = 0
        self._leaves = [*LEAVES, *(kind for kind in also if kind not in _WITH_BODIES)]
        self._composites = [*COMPOSITES, *(kind for kind in also if kind in _WITH_BODIES)]

    def body(self, depth: int) -> tuple[Part, ...]:
        return tuple(self._part(depth) for _ in range(self._chance.randint(1, 3)))

    def _part(self, depth: int) -> Part:
        self._names += 1
        name = f"s{self._names}"
        nested = depth < MAX_DEPTH - 1 and self._names < MAX_STEPS - 6 and self._chance.random() < 0.45
        kind = self._chance.choice(self._composites if nested else self._leaves)
        if not nested:
            return Part(kind, name, self._chance.randint(1, 9))
        count = {"if": 2, "parallel": 2, "router": 3, "machine": 2}.get(kind, 1)
        bodies = tuple(self.body(depth + 1) for _ in range(count))
        return Part(kind, name, self._chance.randint(1, 3), bodies)


# The reference: plain Python over the same parts ----------------------------------------------------------


def known(program: Sequence[Part], start: int) -> Known:
    """Return the result of the program for `start`, computed without the engine."""
    effects: Counter[str] = Counter()
    for number, part in enumerate(program):
        for _ in range(part.number if part.kind == "next" else 0):
            start = _value(program[:number], start, effects)
    return Known(_value(program, start, effects), effects, fails=program[-1].kind in UNDONE)


def _value(parts: Sequence[Part], n: int, effects: Counter[str]) -> int:
    for part in parts:
        n = _part_value(part, n, effects)
    return n


def _part_value(part: Part, n: int, effects: Counter[str]) -> int:
    match part.kind:
        case "far" | "far_paid":
            effects[part.name] += 1
            return n + part.number
        case "step" | "flaky" | "paid" | "hangs" | "stubborn" | "spare" | "agent" | "paying" | "undone":
            effects[part.name] += calls_of(part)
            return n + part.number
        case "perhaps" | "ends":
            first, is_run = (5, n % 3 == 0) if part.kind == "ends" else (0, n % 2 == 1)
            effects[part.name] += is_run
            return n + first + part.number * is_run
        case "search":
            effects[part.name] += 2 * depth(part)
            return n + 3 * depth(part)
        case (
            "human" | "silent" | "told" | "sleeps" | "picks" | "next"
        ):  # the last run of a chain skips `next`
            return n + {"human": 1, "silent": 2, "told": 4, "picks": 6}.get(part.kind, 0)
        case _:
            return _composite_value(part, n, effects)


def _composite_value(part: Part, n: int, effects: Counter[str]) -> int:
    def body(index: int, value: int) -> int:
        return _value(part.bodies[index], value, effects)

    match part.kind:
        case "behind":
            effects[task_of(part)] += 1
            return body(0, n)
        case "caught":
            body(0, n)
            return n + replaced(part)
        case "if":
            return body(n % 2, n)
        case "loop" | "machine":
            for _ in range(part.number):
                n = body(0, n)
            return n if part.kind == "loop" else body(1, n)
        case _:
            return sum(body(index, value) for index, value in _arms(part, n))


def replaced(part: Part) -> int:
    """Return what the output of a `caught` adds to its input; 0 when its failure is passed over."""
    return 0 if part.number % 2 else part.number


def task_of(part: Part) -> str:
    """Return the name of the step that launches the task of a `behind`."""
    return f"task_{part.name}"


def depth(part: Part) -> int:
    """Return the depth of a search; each level has two candidates, of which the second is better."""
    return 1 + part.number % 2


def calls_of(part: Part) -> int:
    """Return how often the code of a leaf succeeds: a step once, an agent at each of its calls."""
    return 1 + part.number % 3 if part.kind in AGENTS else 1


def _arms(part: Part, n: int) -> list[tuple[int, int]]:
    """Return which bodies run for `n`, each with its input."""
    match part.kind:
        case "map" | "far_map" | "spread":
            return [(0, n % 1000 * 10 + index) for index in range(part.number)]
        case "router":
            return [(index, n) for index in range(3) if (n + index) % 3]
        case _:
            return [(index, n) for index in range(len(part.bodies))]


# The answers of a human who checks the world first --------------------------------------------------------


def answered(pause: Pause) -> Any:
    """Return the answer to the question of a step: the next number, or the last of its choices."""
    schema = canonical.decode(pause.answer_schema or b"{}")
    return schema["enum"][-1] if "enum" in schema else int(pause.message) + 1


def in_doubt(pause: Pause, intents: Sequence[Intent]) -> Intent | None:
    """Return the call that a question is about; None for the question of a `hitl` step."""
    path, mark, _ = pause.pause_id.rpartition("!doubt")
    called = [intent for intent in intents if intent.path == path]
    return called[-1] if mark and called else None


def looked_up(intent: Intent, named: Mapping[str, Part], *, happened: bool) -> dict[str, Any]:
    """Return the resolution of a call in doubt: its result when it has happened, otherwise a retry.

    A tool that never works is not retried: its next failure would not settle the doubt about the first one.
    """
    if intent.tool.endswith(".fail"):
        return {"resolution": "done", "result": "it never works"}
    if not happened:
        return {"resolution": "retry"}
    name = intent.path.rpartition("/")[2]
    if name.startswith("tool["):
        return {"resolution": "done", "result": WORKED}
    number = named[name].number
    return {"resolution": "done", "result": canonical.decode(intent.input) + number}


# The pipeline ---------------------------------------------------------------------------------------------


def tree(
    program: Sequence[Part],
    act: Act,
    *,
    name: str = "random",
    first: Callable[[str], bool] | None = None,
    sleep_s: float = SLEEP_S,
    far: Far | None = None,
) -> Pipeline:
    """Return the program as a pipeline.

    Args:
        program: its parts.
        act: called by each step with an effect.
        name: the name of the pipeline.
        first: returns whether something happens for the first time in any process; by default, all calls
            are in this process.
        sleep_s: how long each `sleeps` waits.
        far: the callable of each `far`, which another process imports, and its further arguments; by default
            each has its own, which calls `act`.
    """
    builder = _Builder(act, first or _first_of_all(), sleep_s, far)
    return Pipeline(
        builder.body(program).steps,
        name=name,
        context_schema=CONTEXT,
        output=Text("{{ previous }}"),
        on_failure=builder.undoing(program),
    )


def _first_of_all() -> Callable[[str], bool]:
    seen: set[str] = set()

    def first(what: str) -> bool:
        before = len(seen)
        seen.add(what)
        return len(seen) > before

    return first


class _Builder:
    def __init__(self, act: Act, first: Callable[[str], bool], sleep_s: float, far: Far | None) -> None:
        self._far = far
        self._act = act
        self._first = first
        self._sleep_s = sleep_s

    def body(self, parts: Sequence[Part]) -> Pipeline:
        return Pipeline(tuple(_fails(part) if part.kind in UNDONE else self._step(part) for part in parts))

    def undoing(self, program: Sequence[Part]) -> Sequence[Step]:
        """Return the steps of `on_failure`."""
        undone = (part for part in program if part.kind in UNDONE)
        return [replace(self._leaf(part), input=Text("{{ input }}")) for part in undone]

    def _step(self, part: Part) -> BaseStep:
        match part.kind:
            case "step" | "flaky" | "hangs" | "stubborn" | "perhaps":
                return self._leaf(part)
            case "far" | "far_paid":
                return self._elsewhere(part)
            case "spare":
                return self._spare(part)
            case "ends":
                return self._ends(part)
            case "search":
                return self._search(part)
            case "agent" | "paying":
                return self._agent(part)
            case "paid":
                return self._paid(part)
            case "human" | "silent" | "told" | "sleeps" | "picks":
                return self._wait(part)
            case "next":
                return ContinueAsNewStep(
                    part.name,
                    input="{{ previous }}",
                    when=f"context.rounds < {part.number}",
                    save={"rounds": "context.rounds + 1"},
                )
            case _:
                return self._composite(part, [self.body(body) for body in part.bodies])

    def _wait(self, part: Part) -> BaseStep:
        match part.kind:
            case "human":
                schema = {"type": "integer"}
                return HumanInTheLoopStep(
                    name=part.name, message=Text("{{ string(previous) }}"), answer_schema=schema
                )
            case "told":
                return EventStep(
                    part.name, event="told", key="string(previous)", event_schema={"type": "integer"}
                )
            case "sleeps":
                return SleepStep(part.name, for_s=self._sleep_s)
            case "picks":
                return _picks(part)
            case _:
                return HumanInTheLoopStep(
                    name=part.name,
                    message="silent",
                    deadline_s=DEADLINE_S,
                    on_deadline={"answer": Text("{{ previous + 2 }}")},
                )

    def _leaf(self, part: Part) -> Step:
        async def work(data: int) -> int:
            await self._act(part.name, data, "")
            return data + part.number

        retry = RetryPolicy(initial_s=0.1, jitter=0.5)
        timeout_s = TIMEOUT_S if part.kind in ("hangs", "stubborn") else 60
        return Step(
            name=part.name,
            call=CallableRef(f"random:{part.name}", work),
            config=StepConfig(max_retries=5, retry=retry, timeout_s=timeout_s),
            output_schema={"type": "integer"},
            when=Expr("previous % 2 == 1") if part.kind == "perhaps" else None,
        )

    def _elsewhere(self, part: Part) -> Step:
        """Return a step with a callable that an executor executes."""
        if self._far is None:
            step = self._leaf(part) if part.kind == "far" else self._paid(part)
            return replace(step, config=replace(step.config, executor=ELSEWHERE))
        call, arguments = self._far
        return Step(
            name=part.name,
            call=call,
            arguments={
                "data": "{{ previous }}",
                "number": part.number,
                "name": part.name,
                **arguments,
            },
            config=StepConfig(max_retries=5, retry=RetryPolicy(initial_s=0.01), executor=ELSEWHERE),
            output_schema={"type": "integer"},
        )

    def _ends(self, part: Part) -> ImportStep:
        """Return a blueprint that counts to 5 in its own context, and ends before its last step but for a third."""
        count = SetStep("count", {"rounds": "{{ context.rounds + 1 }}"})
        skips = EndStep("skips", of="body", when="context.rounds < 5", output="{{ false }}")
        counts = LoopStep(
            "counts", [count, skips, SetStep("five", {"log": [5]})], until="context.rounds == 5"
        )
        stops = EndStep("stops", when="input % 3 != 0", output="{{ input + context.rounds }}")
        last = replace(self._leaf(part), input=Text("{{ input + context.rounds }}"))
        inner = Pipeline((counts, stops, last), name=f"ends_{part.name}", context_schema=CONTEXT)
        return ImportStep(name=part.name, blueprint=f"{part.name}.yaml", pipeline=inner)

    def _spare(self, part: Part) -> Step:
        async def down(data: int) -> int:
            raise ConnectionError("this service is always down")

        return Step(
            name=part.name,
            call=CallableRef(f"random:down_{part.name}", down),
            config=StepConfig(max_retries=1, retry=RetryPolicy(initial_s=0.1)),
            fallback=self._leaf(part),
        )

    def _search(self, part: Part) -> ImportStep:
        async def propose(node: dict[str, Any]) -> list[int]:
            first = node["input"] if node["candidate"] is None else node["candidate"]
            return [first + 1, first + 3]

        async def evaluate(node: dict[str, Any]) -> int:
            await self._act(part.name, node["candidate"], "")
            return int(node["candidate"])

        search = TreeSearchStep(
            name="search",
            propose=CallableRef(f"random:propose_{part.name}", propose),
            evaluate=CallableRef(f"random:evaluate_{part.name}", evaluate),
            beam_width=1,
            max_depth=depth(part),
        )
        found = Pipeline((search,), name=f"search_{part.name}", output=Text("{{ previous.candidate }}"))
        return ImportStep(name=part.name, blueprint=f"{part.name}.yaml", pipeline=found)

    def _agent(self, part: Part) -> GranularStep:
        """Return an agent with parallel calls, a call that fails, a rejected answer, a model that is down once."""
        is_enforced = part.kind == "paying"
        has_limit = part.number % 2 == 0 and not is_enforced

        async def work(data: int, why: int) -> str:
            await self._act(part.name, data, "")
            return WORKED

        async def pay(data: int, why: int, idempotency_key: str) -> str:
            await self._act(part.name, data, idempotency_key)
            return WORKED

        async def fail() -> str:
            raise NotSent("this never works")

        tool = pay if is_enforced else work
        whys = count()

        async def answer(ask: Any) -> Any:
            await asyncio.sleep(0.5)
            said = [each for message in ask.data for each in message["parts"]]
            n = int(said[0]["content"])
            if part.number % 4 == 1 and self._first(f"down_{part.name}-{n}-{len(said)}"):
                return ModelUnavailable("down", retryable=True)
            left = calls_of(part) - sum(each.get("content") == WORKED for each in said)
            if left:
                calls = [ToolCall(tool.__name__, {"data": n, "why": next(whys)}) for _ in range(min(left, 2))]
                return [*calls, *[ToolCall("fail", {})][: int(len(said) == 1)]]
            is_first = sum(each["part_kind"] == "user-prompt" for each in said) == 1
            return "no" if is_first and not has_limit else n + part.number

        return GranularStep(
            part.name,
            ScriptedAgent(answer, tools=[tool, fail]),
            enforce_idempotency=is_enforced,
            max_turns=(calls_of(part) + 1) // 2 if has_limit else 40,
            on_limit="finish",
            output_schema={"type": "integer"},
            config=StepConfig(max_retries=5, retry=RetryPolicy(initial_s=0.1)),
        )

    def _paid(self, part: Part) -> Step:
        async def pay(data: int, idempotency_key: str) -> int:
            await self._act(part.name, data, idempotency_key)
            return data + part.number

        return Step(
            name=part.name,
            call=CallableRef(f"random:{part.name}", pay),
            enforce_idempotency=True,
            in_doubt="pause",
            config=StepConfig(max_retries=3, retry=RetryPolicy(initial_s=0.1)),
            output_schema={"type": "integer"},
        )

    def _composite(self, part: Part, bodies: list[Pipeline]) -> BaseStep:
        match part.kind:
            case "if":
                return ConditionalStep(
                    name=part.name,
                    condition=Expr("previous % 2 == 0"),
                    branches={"then": bodies[0], "else": bodies[1]},
                )
            case "caught":
                body = Pipeline((*bodies[0].steps, _fails(part)))
                more = {"output": Text(f"{{{{ previous + {part.number} }}}}")}
                return ConditionalStep(
                    name=part.name,
                    condition=Expr("true"),
                    then=body,
                    on_error=more if replaced(part) else "skip",
                )
            case "loop":
                until = Expr(f"loop.index == {part.number - 1}")
                return LoopStep(name=part.name, body=bodies[0], until=until)
            case "machine":
                return self._machine(part, bodies)
            case "map" | "far_map" | "spread":
                items = ", ".join(f"previous % 1000 * 10 + {index}" for index in range(part.number))
                return MapStep(
                    name=part.name,
                    over=Expr(f"[{items}]"),
                    body=bodies[0],
                    max_concurrency=2,
                    config=_of_map(part, bodies[0]),
                    output=Text("{{ " + " + ".join(f"previous[{i}]" for i in range(part.number)) + " }}"),
                )
            case "parallel":
                return ParallelStep(
                    name=part.name,
                    branches={"p": bodies[0], "q": bodies[1]},
                    output=Text("{{ previous.p + previous.q }}"),
                )
            case "router":
                return self._router(part, bodies)
            case "behind":
                return self._behind(part, bodies[0])
            case _:
                return self._import(part, bodies[0])

    def _import(self, part: Part, body: Pipeline) -> ImportStep:
        inner = Pipeline(
            (*body.steps, self._breaks(part)) if part.kind == "again" else body.steps,
            name=f"inner_{part.name}",
            context_schema=CONTEXT,
            output=Text("{{ previous }}"),
        )
        return ImportStep(
            name=part.name,
            blueprint=f"{part.name}.yaml",
            pipeline=inner,
            context="inherit" if part.kind == "inherit" else "own",
            config=StepConfig(max_retries=int(part.kind == "again"), retry=RetryPolicy(initial_s=0.1)),
        )

    def _behind(self, part: Part, body: Pipeline) -> ImportStep:
        inner = Pipeline(
            body.steps, name=f"task_of_{part.name}", context_schema=CONTEXT, output="{{ previous }}"
        )
        launch = ImportStep(
            name=task_of(part),
            blueprint=f"{task_of(part)}.yaml",
            pipeline=inner,
            context="own",
            config=StepConfig(execution_mode="background"),
        )
        result = AwaitStep(f"await_{part.name}", task=task_of(part))
        both = Pipeline((launch, result), name=f"both_{part.name}", output="{{ previous }}")
        return ImportStep(name=part.name, blueprint=f"{part.name}.yaml", pipeline=both, context="own")

    def _breaks(self, part: Part) -> Step:
        """Return a step that fails its enclosing steps once; their completed parts are kept."""

        async def breaks(data: int) -> int:
            if self._first(f"breaks_{part.name}-{data}"):
                raise ConnectionError("the enclosing steps fail once")
            return data

        return Step(name=f"breaks_{part.name}", call=CallableRef(f"random:breaks_{part.name}", breaks))

    def _machine(self, part: Part, bodies: list[Pipeline]) -> StateMachineStep:
        # The visits are counted in the context, which no other step changes.
        again = Step(
            name=f"count_{part.name}",
            call=CallableRef(f"random:count_{part.name}", _given),
            save={"log": Save(Expr(f"'{part.name}'"), append=True)},
        )
        visits = f"context.log.filter(x, x == '{part.name}').size() % {part.number} == 0"
        states = {
            "go": State(
                Pipeline((*bodies[0].steps, again)), (Transition("end", Expr(visits)), Transition("go"))
            ),
            "end": State(bodies[1]),
        }
        return StateMachineStep(name=part.name, initial="go", states=states, final=("end",))

    def _router(self, part: Part, bodies: list[Pipeline]) -> DynamicParallelRouterStep:
        async def choose(data: int) -> list[str]:
            return [name for index, name in enumerate("pqr") if (data + index) % 3]

        branches = dict(zip("pqr", bodies, strict=True))
        sums = " + ".join(f"get(previous, '{name}', 0)" for name in branches)
        return DynamicParallelRouterStep(
            name=part.name,
            router=CallableRef(f"random:choose_{part.name}", choose),
            branches=branches,
            output=Text("{{ " + sums + " }}"),
        )


def _of_map(part: Part, body: Pipeline) -> StepConfig:
    """Return the settings of a map; one without callables cannot have an executor for them."""
    if part.kind in SPREAD:
        return StepConfig(executor="queue", batch_size=2)
    has_calls = any(getattr(step, "call", None) is not None for _, step in body.walk())
    return StepConfig(executor=ELSEWHERE if part.kind == "far_map" and has_calls else None)


def _picks(part: Part) -> ImportStep:
    choices = {"enum": "{{ [string(input), string(input + 6)] }}"}
    ask = HumanInTheLoopStep("choice", "Which?", answer_schema=choices)
    asked = Pipeline((ask,), name=f"picks_{part.name}", output=Text("{{ int(previous) }}"))
    return ImportStep(name=part.name, blueprint=f"{part.name}.yaml", pipeline=asked)


def _fails(part: Part) -> Step:
    async def fails(data: int) -> int:
        raise NotSent("this never works")

    return Step(f"fails_{part.name}", call=CallableRef(f"random:fails_{part.name}", fails))


async def _given(data: int) -> int:
    return data
