"""Checks of the syntax tree: blueprints report the findings with lines, pipelines in Python raise them.

`findings` yields each finding with its code, its place in the tree and its message. Checks that need source
text, schemas or settings are in `flujo.blueprint.rules` and `flujo.services.checks`.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from flujo.domain.agents import AgentSpec
from flujo.domain.conversations import ConversingAgent, text_tokens
from flujo.domain.merge import CHOOSING, MergeStrategy
from flujo.domain.paths import ROOT, StepPath, child
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import MAX_PRIORITY
from flujo.domain.state_graph import Graph
from flujo.domain.steps import (
    AwaitStep,
    BaseStep,
    CacheStep,
    GranularStep,
    ParallelStep,
    StateMachineStep,
    Step,
    StepConfig,
    Text,
)
from flujo.domain.steps.tools import composed_tools
from flujo.domain.tools import (
    CallableTool,
    Known,
    callable_tools,
    called_tools,
    known,
    repeats_unsafe,
    requirement,
)
from flujo.domain.transactions import CONNECTION
from flujo.domain.usage import UsageLimits, tightest, uncovered
from flujo.domain.values import CallableRef
from flujo.domain.wording import did_you_mean, listed, suggest
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.conversations import Tool
    from flujo.domain.tools import CalledTool, InDoubt

MAX_NAME = 128

RESERVED = frozenset(
    """
    as break const continue else false for function if import in let loop namespace null package return
    true var void while
    """.split()  # noqa: SIM905  # a paragraph is easier to compare with CEL's than a column
)
"""The reserved words of CEL, which cannot be names of values."""
KEYWORDS = frozenset({"false", "in", "null", "true"})
"""The reserved words that are not allowed after a dot either: `steps.in.output` is a syntax error."""

Place: TypeAlias = tuple[int | str, ...]
"""A position in the tree: `(2, "then", 0)` is the first step of body `then` of the third step."""
Field: TypeAlias = tuple[int | str, ...]
"""The blueprint's keys that lead to a value of a step: `("config", "timeout_s")`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one step of a tree."""

    code: str
    place: Place
    """The step's place; `()` is the pipeline itself."""
    message: str
    hint: str | None = None
    keys: Field = ()
    """The keys of the wrong value."""
    at_key: bool = False
    """Whether the key itself is wrong, not its value."""
    is_warning: bool = False
    other: tuple[Place, str] | None = None
    """A second step that the finding refers to, and a label for it."""


@dataclass(frozen=True, slots=True)
class _Site:
    """A step with its place in the tree and its readable path."""

    step: BaseStep
    place: Place
    path: StepPath

    def inside(self) -> Iterator[tuple[str, Pipeline]]:
        yield from self.step.bodies().items()

    def below(self, body: str, pipeline: Pipeline) -> Iterator[_Site]:
        for index, step in enumerate(pipeline.steps):
            yield _Site(step, (*self.place, body, index), child(self.path, str(step.name)))


Written: TypeAlias = Callable[[Place, BaseStep], Collection[str]]
"""Returns the fields of a step that are written in its source."""
Requires: TypeAlias = Callable[[CallableRef], str]
"""Returns what a callable requires of a step that must record its calls; see `domain.tools.requirement`."""
Knows: TypeAlias = Callable[[CallableRef], Known | None]
"""Returns what a callable declares and takes, and None if that is not known yet."""


def findings(
    pipeline: Pipeline,
    *,
    into_imports: bool = True,
    reserved: frozenset[str] = KEYWORDS,
    written: Written | None = None,
    requires: Requires | None = None,
    knows: Knows | None = None,
) -> Iterator[Finding]:
    """Yield every problem of a tree, outer steps first.

    Args:
        pipeline: the tree.
        into_imports: whether imported pipelines are checked too; a blueprint's imports are checked as
            separate files.
        reserved: words that are not allowed as names of steps, loop variables and context fields. Blueprints
            refuse every reserved word of CEL; pipelines in Python only those that expressions cannot read.
        written: returns the written fields. Default: the fields that differ from their defaults.
        requires: returns what a callable requires. Default: what live callables require.
        knows: returns what a callable declares and takes. Default: that of live callables.
    """
    if not pipeline.steps:
        yield Finding("FLJ125", (), f"pipeline {pipeline.name!r}: {needs_entries('steps')}", keys=("steps",))
    yield from _context_fields(pipeline, (), reserved)
    steps = [_Site(step, (index,), child(ROOT, str(step.name))) for index, step in enumerate(pipeline.steps)]
    walk = _Walk(
        into_imports,
        reserved,
        written or _changed,
        requires or _required_live,
        knows or _known_live,
    )
    yield from walk.body(steps, _Scope(limits=pipeline.budget))


# Names ---------------------------------------------------------------------------------------------------

_USUAL_NAMES = frozenset({"input", "context", "previous", "steps", "run", "item", "index", "output", "loop"})
"""Names that expressions define in every map, or everywhere."""


def name_problem(name: Any, *, also: str = "") -> tuple[str, str] | None:
    """Return why a name is not valid, with a hint, or None; `also` are further allowed characters."""
    if isinstance(name, str) and len(name) > MAX_NAME:
        return f"a name of {len(name)} characters is too long", f"use at most {MAX_NAME}"
    if isinstance(name, str) and re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_{also}]*", name):
        return None
    odd = next((char for char in str(name) if not char.isascii()), None)
    seen = f": {odd!r} is U+{ord(odd):04X}" if odd else ""
    allowed = f"`_` and `{also}`" if also else "`_`"
    return (
        f"{name!r} is not a valid name{seen}",
        f"use ASCII letters, digits and {allowed}; do not start with a digit",
    )


def needs_entries(key: str) -> str:
    """Return the message for an empty list or mapping."""
    return f"`{key}` needs at least 1 entry"


@dataclass(frozen=True, slots=True)
class _Scope:
    """The steps and items whose names are taken at the start of a body."""

    steps: MutableMapping[str, _Site] = field(default_factory=dict)
    items: frozenset[str] = frozenset()
    states: MutableMapping[str, _Site] = field(default_factory=dict)
    """The steps of all states of a machine: their names must differ from those of nested steps."""
    limits: UsageLimits | None = None
    """What the budgets around the body allow: those of pipelines, or of the step in the background."""


@dataclass(frozen=True, slots=True)
class _Walk:
    """Walks a tree and checks each name against the names that are taken there."""

    into_imports: bool
    reserved: frozenset[str]
    written: Written
    requires: Requires
    knows: Knows

    def body(
        self, steps: Collection[_Site], scope: _Scope, *, is_stand_in: bool = False
    ) -> Iterator[Finding]:
        """Yield the problems of the steps of one body and of the steps inside them.

        A body that `is_stand_in` is the only step of a cache, a fallback, or a tool. No expression refers to
        it, so its name may be anything.
        """
        here: dict[str, _Site] = {}
        yield from _never_reached(steps)
        for site in steps:
            if not is_stand_in:
                yield from _repeated(site, here, scope.steps)
            yield from _names(site, scope.items, self.reserved)
            for check in _CHECKS:
                yield from check(site)
            yield from _unrecorded(site, self.requires)
            yield from _sent_again(site, self.knows)
            yield from _lent(site, self.knows)
            yield from _in_background(site, scope, is_stand_in=is_stand_in)
            if isinstance(site.step, AwaitStep):
                yield from _awaited(site, site.step, ChainMap(here, scope.steps, scope.states))
            if isinstance(site.step, Step):
                written = self.written(site.place, site.step)
                yield from _effects(site, site.step, written)
                yield from _repeated_call(site, site.step, written, self.knows)
            elif isinstance(site.step, GranularStep) and site.step.enforce_idempotency:
                yield from _reconciled(site, site.step)
            elif isinstance(site.step, GranularStep):
                yield from _never_in_doubt(site, self.written(site.place, site.step))
            here.setdefault(site.step.name, site)
            taken = ChainMap(here, scope.steps, scope.states)
            is_task = site.step.config.execution_mode == "background"
            limits = site.step.config.budget if is_task else scope.limits
            yield from self._inside(site, _Scope(taken, scope.items, limits=limits))

    def _inside(self, site: _Site, scope: _Scope) -> Iterator[Finding]:
        bodies = {name: (pipeline, list(site.below(name, pipeline))) for name, pipeline in site.inside()}
        items = scope.items.union(site.step.local_names().get("as", ()))
        scope = _Scope(scope.steps, items, limits=scope.limits)
        if site.step.imported is not None:
            if not self.into_imports:
                return
            yield from _context_fields(site.step.imported.pipeline, site.place, self.reserved)
            limits = tightest(scope.limits, site.step.imported.pipeline.budget)
            scope = _Scope(limits=limits)  # a child sees no names of its parent
        elif isinstance(site.step, StateMachineStep):
            states = {each.step.name: each for _, steps in reversed(bodies.values()) for each in steps[::-1]}
            scope = _Scope(scope.steps, scope.items, states, limits=scope.limits)
        for _, steps in bodies.values():
            if isinstance(site.step, GranularStep) and isinstance(steps[0].step, GranularStep):
                # An agent as a tool: it has the settings of `site`.
                yield from _unrecorded(steps[0], self.requires)
                yield from _sent_again(steps[0], self.knows)
                yield from self._inside(steps[0], scope)
                continue
            stands_in = isinstance(site.step, CacheStep | Step | GranularStep)
            yield from self.body(steps, scope, is_stand_in=stands_in)


def _repeated(site: _Site, here: Mapping[str, _Site], around: Mapping[str, _Site]) -> Iterator[Finding]:
    name = site.step.name
    if name in here:
        yield Finding(
            "FLJ210",
            site.place,
            f"two steps of one list are called {name!r}: the second is {site.path!r}",
            "rename one of them",
            keys=("name",),
            other=(here[name].place, "the first one"),
        )
    elif name in around:
        other = around[name]
        yield Finding(
            "FLJ211",
            site.place,
            f"step {site.path!r} hides step {other.path!r}, which has the same name",
            f"rename one of them: inside, `steps.{name}` would be ambiguous",
            keys=("name",),
            other=(other.place, "the other one"),
        )


def _names(site: _Site, items: frozenset[str], reserved: frozenset[str]) -> Iterator[Finding]:
    """Check that expressions can refer to the names that a step introduces."""
    step = site.step
    fields: list[tuple[Field, str, bool]] = [(("name",), step.name, False)]
    fields += [(("save", name), name, True) for name in step.save]
    fields += [((name,), name, True) for name in step.bodies()]
    fields += [(("thread",), step.joins, False)] if step.joins is not None else []
    for key, names in step.local_names().items():
        fields += [((key,) if key == "as" else (key, name), name, key != "as") for name in names]
    for keys, name, at_key in fields:
        if problem := name_problem(name):
            yield Finding("FLJ124", site.place, f"step {site.path!r}: {problem[0]}", problem[1], keys, at_key)
        elif name in (RESERVED if keys == ("as",) else reserved) and keys[0] in ("name", "carry", "as"):
            yield _reserved(name, site.place, keys, at_key=at_key)
        elif keys[0] == "as" and name in _USUAL_NAMES | items:
            message = f"step {site.path!r}: {name!r} is already the name of another value here"
            yield Finding("FLJ212", site.place, message, "rename the item; `item` always works", keys)
        elif keys == ("carry", "index"):
            message = f"step {site.path!r}: `loop.index` already counts the iterations"
            yield Finding("FLJ212", site.place, message, "rename the variable", keys, at_key=True)


def _context_fields(pipeline: Pipeline, place: Place, reserved: frozenset[str]) -> Iterator[Finding]:
    schema = pipeline.context_schema if isinstance(pipeline.context_schema, dict) else {}
    for name in schema.get("properties") or ():
        keys = ("context_schema", "properties", name)
        if name in reserved:
            yield _reserved(name, place, keys, at_key=True)
        elif name.startswith("__") or name_problem(name):
            message = f"{name!r} cannot be the name of a context field"
            hint = "use ASCII letters, digits and `_`, and no two leading underscores"
            yield Finding("FLJ212", place, message, hint, keys, at_key=True)


def _reserved(name: str, place: Place, keys: Field, *, at_key: bool) -> Finding:
    message = f"{name!r} is a reserved word of CEL, the language of expressions"
    return Finding("FLJ212", place, message, f"rename it, for instance `{name}_`", keys, at_key)


# Requirements of kinds -----------------------------------------------------------------------------------


def _empty(site: _Site) -> Iterator[Finding]:
    """Check that composites are not empty."""
    match site.step:
        case BaseStep() as step if any(not body.steps for body in (step.bodies().get("steps"),) if body):
            key = "steps"
        case ParallelStep(branches=branches) if not branches:
            key = "branches"
        case StateMachineStep(states=states) if not states:
            key = "states"
        case StateMachineStep(final=final) if not final:
            key = "final"
        case _:
            return
    yield Finding("FLJ125", site.place, f"step {site.path!r}: {needs_entries(key)}", keys=(key,))


_ATTEMPTS = ("timeout_s", "max_retries", "retry")


def _available(site: _Site) -> Iterator[Finding]:
    """Check that the engine supports a step and its configuration."""
    step, where = site.step, f"step {site.path!r}"
    if step.only_waits or step.ends_run:
        for key in _ATTEMPTS:
            if getattr(step.config, key) != getattr(StepConfig(), key):
                message = f"{where}: `kind: {step.kind}` does not support `{key}`"
                hint = "set it on an enclosing step" + (", or use `deadline_s`" if step.question else "")
                yield Finding("FLJ213", site.place, message, hint, ("config", key), at_key=True)


def _in_background(site: _Site, scope: _Scope, *, is_stand_in: bool) -> Iterator[Finding]:
    """Check that a step can be executed as a task, and that limits around it hold for the task."""
    step, where = site.step, f"step {site.path!r}"
    if step.config.execution_mode != "background":
        yield from _only_in_background(site)
        return
    keys: Field = ("config", "execution_mode")
    if is_stand_in:
        message = f"{where} is the inner step of another one, and cannot run in the background"
        hint = "set `execution_mode` on the enclosing step"
        yield Finding("FLJ280", site.place, message, hint, keys, at_key=True)
    elif step.ends_run:
        message = f"{where} ends the run, and cannot run in the background"
        yield Finding("FLJ280", site.place, message, "remove `execution_mode`", keys, at_key=True)
    elif isinstance(step, AwaitStep):
        message = f"{where} waits for background tasks, and cannot be one"
        yield Finding("FLJ280", site.place, message, "remove `execution_mode`", keys, at_key=True)
    for inner in (site, *(inner for inner, _ in _all_inside(site))):
        if inner.step.joins is not None:
            message = f"{where} runs in the background, and the thread {inner.step.joins!r} is of its run"
            hint = "remove `thread`: a task cannot read the messages of the run that launched it"
            yield Finding("FLJ280", inner.place, message, hint, ("thread",), at_key=True)
    if step.config.priority and step.config.queue is None:
        message = f"{where} has a priority and no queue"
        hint = "a priority orders the tasks of a queue: add `queue`"
        yield Finding("FLJ288", site.place, message, hint, ("config", "priority"), at_key=True)
    elif abs(step.config.priority) > MAX_PRIORITY:
        message = f"{where} has the priority {step.config.priority}"
        hint = f"use a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}"
        yield Finding("FLJ288", site.place, message, hint, ("config", "priority"))
    if missing := uncovered(scope.limits, step.config.budget):
        message, hint = task_under_limit(step, site.path, missing)
        keys = ("config", "budget") if step.config.budget is not None else keys
        yield Finding("FLJ283", site.place, message, hint, keys, at_key=True)


def task_under_limit(step: BaseStep, path: StepPath, missing: Sequence[str]) -> tuple[str, str]:
    """Return why a step cannot run in the background under limits, and what to do; see `usage.uncovered`."""
    names = listed(missing, "and")
    where = f"step {path!r} runs in the background under a limit"
    if step.config.budget is None:
        message = f"{where} on {names}, and has no `budget` of its own"
    else:
        message = f"{where}, and its own `budget` allows more of {names}"
    hint = "what its `budget` in `config` allows is held for the task until it has ended: limit "
    return message, hint + f"{names} there, to no more than around it"


def _only_in_background(site: _Site) -> Iterator[Finding]:
    """Report settings of tasks on a step that launches none."""
    for key in ("queue", "priority", "budget"):
        if getattr(site.step.config, key) != getattr(StepConfig(), key):
            message = f"step {site.path!r} has `{key}`, and does not run in the background"
            hint = "add `execution_mode: background`, or remove it"
            yield Finding("FLJ288", site.place, message, hint, ("config", key), at_key=True)


def _awaited(site: _Site, step: AwaitStep, earlier: Mapping[str, _Site]) -> Iterator[Finding]:
    """Check that the names of an `await` are those of earlier steps in the background."""
    key = "task" if step.task is not None else "tasks"
    for name in step.awaited():
        found = earlier.get(name)
        if found is not None and found.step.config.execution_mode == "background":
            continue
        where = f"step {site.path!r} awaits {name!r}"
        if found is None:
            tasks = [each for each in earlier if earlier[each].step.config.execution_mode == "background"]
            message, hint = f"{where}, and no earlier step has that name", did_you_mean(name, tasks)
            hint = hint or "name an earlier step with `config: {execution_mode: background}`"
        else:
            message = f"{where}, which does not run in the background"
            hint = f"read `steps.{name}.output`, or set `config: {{execution_mode: background}}` on it"
        yield Finding("FLJ282", site.place, message, hint, (key,))


def _history(site: _Site) -> Iterator[Finding]:
    """Check that a conversation whose task is written in its step has room for it."""
    step = site.step
    if not isinstance(step, GranularStep) or step.history is None or not isinstance(step.input, Text):
        return
    task, limit = step.input, step.history.max_tokens
    size = text_tokens(task.source)
    if size > limit and (task.literal or "{{" not in task.source):
        has = f"its `input` has about {size:,} tokens"
        message = f"step {site.path!r}: {has}, and `history.max_tokens` is {limit:,}"
        hint = "raise `max_tokens`: the task is never left out"
        yield Finding("FLJ431", site.place, message, hint, ("history", "max_tokens"))


MAX_TOOL_DEPTH = 4
"""How deep calls of tools that consist of steps may be inside each other."""


def _composed(site: _Site) -> Iterator[Finding]:
    """Check that the steps of tools are recorded, and that tools are not nested too deeply."""
    step, where = site.step, f"step {site.path!r}"
    if isinstance(step, GranularStep):
        if step.enforce_idempotency:
            yield from _unrecorded_inside(site, step)
        if _tool_depth(step) > MAX_TOOL_DEPTH:
            message = f"{where}: its tools call agents and blueprints more than {MAX_TOOL_DEPTH} deep"
            hint = "let an agent further up have the tool itself"
            yield Finding("FLJ456", site.place, message, hint, ("agent",))
        return
    for agent in step.names():
        for tool in composed_tools(agent):
            message = f"{where}: tool `{tool.name}` consists of steps, which a `{step.kind}` does not record"
            yield Finding("FLJ457", site.place, message, "write `kind: granular`", ("agent",))


def _unrecorded_inside(site: _Site, step: GranularStep) -> Iterator[Finding]:
    """Check that a step with announced calls has no tool whose steps make other ones."""
    for name, inside in step.composed.items():
        for path, inner in Pipeline((inside,)).walk():
            is_call = isinstance(inner, Step) and inner.call is not None and inner.effect not in _REPEATABLE
            has_tools = isinstance(inner, GranularStep) and inner is not inside
            if (is_call or has_tools) and not getattr(inner, "enforce_idempotency", False):
                message = (
                    f"step {site.path!r} has `enforce_idempotency`, and step {path!r} of its tool `{name}` "
                    "may have an effect that is not recorded"
                )
                hint = "write `enforce_idempotency: true` there, or `effect: read` if it has none"
                yield Finding("FLJ464", site.place, message, hint, ("enforce_idempotency",), at_key=True)
                break


_REPEATABLE = ("read", "idempotent")


def _tool_depth(step: BaseStep) -> int:
    """Return how many calls of tools that consist of steps may be inside each other, below a step."""
    if not isinstance(step, GranularStep):
        inside = (inner for body in step.bodies().values() for inner in body.steps)
        return max(map(_tool_depth, inside), default=0)
    return max((1 + _tool_depth(each) for each in step.composed.values()), default=0)


def _files(site: _Site) -> Iterator[Finding]:
    """Check that a step with files asks a model, and one that takes more than text."""
    step = site.step
    if not isinstance(step, Step | GranularStep) or not step.files:
        return
    where = f"step {site.path!r}"
    models = [each.model for each in step.names() if isinstance(each, AgentSpec)]
    local = next((model for model in models if model.startswith("local:")), None)
    if local is not None:
        message = f"{where}: {local!r} takes text only, and `files` are not text"
        hint = "use a model of a provider that takes files, or send text in `input`"
    elif isinstance(step, Step) and step.call is not None and not isinstance(step.call.live, ConversingAgent):
        message = f"{where}: `files` are sent to a model, and the step calls a callable"
        hint = "remove `files`; a callable reads files itself"
    else:
        return
    yield Finding("FLJ434", site.place, message, hint, ("files",), at_key=True)


# State machines ------------------------------------------------------------------------------------------


def _states(site: _Site) -> Iterator[Finding]:
    """Check that the states of a machine exist, can be reached, and lead to a final state."""
    step = site.step
    if not isinstance(step, StateMachineStep) or not step.states or not step.final:
        return
    unknown = list(_unknown_states(site, step))
    yield from unknown
    yield from _never_taken(site, step)
    if not unknown:  # a missing state may be the one that leads further
        yield from _ends(site, step)


def _unknown_states(site: _Site, step: StateMachineStep) -> Iterator[Finding]:
    named: list[tuple[Field, str]] = [(("initial",), step.initial)]
    named += [(("final", index), name) for index, name in enumerate(step.final)]
    named += [
        (("states", name, "transitions", index, "to"), transition.to)
        for name, state in step.states.items()
        for index, transition in enumerate(state.transitions)
    ]
    for keys, name in named:
        if name not in step.states:
            message = f"state machine {site.path!r} has no state {name!r}"
            hint = suggest(name, step.states, what="its states")
            yield Finding("FLJ231", site.place, message, hint, keys)


def _never_taken(site: _Site, step: StateMachineStep) -> Iterator[Finding]:
    where = f"state machine {site.path!r}"
    for name, state in step.states.items():
        is_final = name in step.final
        always = [index for index, each in enumerate(state.transitions) if each.when is None]
        first = 0 if is_final else (always or [len(state.transitions)])[0] + 1
        if first < len(state.transitions):
            why = "a final state ends the machine" if is_final else "the transition before it is always taken"
            yield Finding(
                "FLJ234",
                site.place,
                f"{where}: transition {first + 1} of state {name!r} is never taken: {why}",
                f"remove {name!r} from `final`, or remove the transition"
                if is_final
                else "move the transition without `when` to the end",
                ("states", name, "transitions", first, "to"),
                is_warning=True,
            )


def _ends(site: _Site, step: StateMachineStep) -> Iterator[Finding]:
    where, transitions = (
        f"state machine {site.path!r}",
        {
            name: [(each.to, each.when is None) for each in state.transitions]
            for name, state in step.states.items()
        },
    )
    reached = Graph(step.initial, step.final, transitions).reached
    stuck = [name for name, state in step.states.items() if name not in step.final and not state.transitions]
    for name in stuck:
        yield Finding(
            "FLJ233",
            site.place,
            f"{where}: state {name!r} is not final and has no transitions",
            "add a transition, or add the state to `final`",
            ("states", name),
            at_key=True,
        )
    if stuck:
        return
    if not any(name in reached for name in step.final):
        message = f"{where}: there is no path from {step.initial!r} to {listed(step.final, 'or')}"
        yield Finding("FLJ233", site.place, message, "add the transition that ends the machine", ("final",))
        return
    for name in step.states:
        if name not in reached:
            message = f"{where}: there is no path from {step.initial!r} to state {name!r}"
            hint = "add a transition to it, or remove it"
            keys = ("states", name)
            yield Finding("FLJ232", site.place, message, hint, keys, at_key=True, is_warning=True)


# Caches --------------------------------------------------------------------------------------------------


def _cacheable(site: _Site) -> Iterator[Finding]:
    """Check that a cached answer can replace the execution of the step."""
    step = site.step
    if isinstance(step, CacheStep):
        yield from _cached_twice(site, step)
    elif step.cache is None:
        return
    elif step.ends_run:
        message = f"step {site.path!r} ends the run, and has no answer to cache"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    elif step.only_waits:
        message = f"step {site.path!r} {step.only_waits}, and a cached answer would end that wait"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    elif isinstance(step, GranularStep):
        message = f"step {site.path!r} is a conversation, and a cached answer would leave out its tool calls"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    elif step.joins is not None:
        message = f"step {site.path!r} is on a thread, and a cached answer would not be in the thread"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    for inner, writes_here in _all_inside(site):
        yield from _answers_only(site, inner, writes_here=writes_here)


def _cached_twice(site: _Site, step: CacheStep) -> Iterator[Finding]:
    if step.cache is not None:
        message = f"step {site.path!r} is already a cache"
        yield Finding("FLJ261", site.place, message, "remove `cache`", ("cache",), at_key=True)
    inner = next(site.below("step", step.bodies()["step"]))
    for key, hint in (("when", f"write it on {step.name!r}"), ("cache", "one cache is enough")):
        if getattr(inner.step, key) is not None:
            message = f"step {inner.path!r} has `{key}` and is inside the cache {site.path!r}"
            yield Finding("FLJ261", inner.place, message, hint, (key,), at_key=True)


def _answers_only(site: _Site, inner: _Site, *, writes_here: bool) -> Iterator[Finding]:
    cached = (site.place, "cached here")
    if inner.step.config.execution_mode == "background":
        what = "runs in the background, inside step"
        message = f"step {inner.path!r} {what} {site.path!r}, whose answers are cached"
        hint = "move it out of the cache: a cached answer would launch no task"
        keys = ("config", "execution_mode")
        yield Finding("FLJ261", inner.place, message, hint, keys, at_key=True, other=cached)
    if inner.step.only_waits:
        what = f"{inner.step.only_waits}, inside step {site.path!r}, whose answers are cached"
        message = f"step {inner.path!r} {what}"
        hint = "move it out of the cache: a cached answer would end that wait"
        yield Finding("FLJ261", inner.place, message, hint, ("kind",), other=cached)
    if isinstance(inner.step, GranularStep):
        message = (
            f"step {inner.path!r} is a conversation, inside step {site.path!r}, whose answers are cached"
        )
        hint = "move it out of the cache: a cached answer would leave out its tool calls"
        yield Finding("FLJ261", inner.place, message, hint, ("kind",), other=cached)
    elif inner.step.joins is not None:
        message = f"step {inner.path!r} is on a thread, inside step {site.path!r}, whose answers are cached"
        hint = "move it out of the cache: a cached answer would not be in the thread"
        yield Finding("FLJ261", inner.place, message, hint, ("thread",), at_key=True, other=cached)
    for name in inner.step.save if writes_here else ():
        message = f"step {inner.path!r} saves {name!r}, inside step {site.path!r}, whose answers are cached"
        hint = f"write `save` on {site.path!r}: it is executed for cached answers too"
        yield Finding("FLJ261", inner.place, message, hint, ("save", name), at_key=True, other=cached)


def _all_inside(site: _Site, *, writes_here: bool = True) -> Iterator[tuple[_Site, bool]]:
    """Yield the steps inside a step, and whether they write to the context of that step."""
    own = writes_here and (site.step.imported is None or site.step.imported.inherits)
    for name, pipeline in site.inside():
        for inner in site.below(name, pipeline):
            yield inner, own
            yield from _all_inside(inner, writes_here=own)


# The end of a run ----------------------------------------------------------------------------------------


def _ending_inside(site: _Site) -> Iterator[Finding]:
    """Check that no step inside this one ends the run where other work of the run is not finished."""
    is_background = site.step.config.execution_mode == "background"
    if site.step.shape in _ONE_AT_A_TIME and not is_background:
        return
    what = "runs in the background" if is_background else f"is of `kind: {site.step.kind}`"
    for inner in _in_turn(site):
        if inner.step.ends_run:
            message = f"step {inner.path!r} ends the run, inside step {site.path!r}, which {what}"
            hint = "move it to the steps of the pipeline, or of a branch, a loop or a state"
            yield Finding("FLJ311", inner.place, message, hint, ("kind",), other=(site.place, what))


_ONE_AT_A_TIME = ("choice", "loop", "states")
"""The shapes of steps that execute one body of the run at a time."""


def _in_turn(site: _Site) -> Iterator[_Site]:
    """Yield the steps inside a step, and those inside steps that execute one body at a time."""
    for name, pipeline in site.inside():
        for inner in site.below(name, pipeline):
            yield inner
            if inner.step.shape in _ONE_AT_A_TIME:
                yield from _in_turn(inner)


def _never_reached(steps: Collection[_Site]) -> Iterator[Finding]:
    """Report the step that follows one which always ends the run."""
    for site, following in pairwise(steps):
        if site.step.ends_run and site.step.when is None:
            message = f"step {following.path!r} is never executed: {site.step.name!r} before it ends the run"
            hint = f"remove it, or give {site.step.name!r} a condition, `when`"
            yield Finding("FLJ312", following.place, message, hint, ("name",), is_warning=True)


# Threads -------------------------------------------------------------------------------------------------


def _thread(site: _Site) -> Iterator[Finding]:
    """Check that a step on a thread asks an agent, and that no two branches write one thread at once."""
    step = site.step
    if isinstance(step, Step) and step.thread is not None and not step.asks_agent:
        message = f"step {site.path!r} is on the thread {step.thread!r}, and asks no agent"
        hint = "remove `thread`, or ask an agent: a callable has no messages"
        yield Finding("FLJ429", site.place, message, hint, ("thread",), at_key=True)
    if getattr(step, "merge", None) not in (None, *CHOOSING):
        yield from _written_at_once(site)


def _written_at_once(site: _Site) -> Iterator[Finding]:
    first: dict[str, tuple[str, _Site]] = {}
    for name, pipeline in site.inside():
        for thread, each in _threads_of(site.below(name, pipeline)).items():
            if site.step.kind == "map":
                who, other = f"every item of map {site.path!r} adds", None
            elif thread not in first:
                first[thread] = name, each
                continue
            else:
                earlier, there = first[thread]
                who, other = f"branches {earlier!r} and {name!r} both add", (there.place, "the other one")
            is_router = site.step.kind == "router"
            yield Finding(
                "FLJ428",
                each.place,
                f"{who} to the thread {thread!r}" + (" when both are chosen" if is_router else ""),
                "use a thread in one branch only, or choose: `merge: keep_first` keeps the messages of one "
                "branch, `merge: no_merge` none",
                ("thread",),
                is_warning=is_router,
                other=other,
            )


def _threads_of(sites: Iterable[_Site]) -> dict[str, _Site]:
    """Return the threads to which steps add in the context around them, each with the first such step."""
    found: dict[str, _Site] = {}
    for site in sites:
        if site.step.joins is not None:
            found.setdefault(site.step.joins, site)
        is_apart = site.step.imported is not None and not site.step.imported.inherits
        if not is_apart and getattr(site.step, "merge", "") != MergeStrategy.NO_MERGE:
            for name, pipeline in site.inside():
                found = _threads_of(site.below(name, pipeline)) | found
    return found


# Effects -------------------------------------------------------------------------------------------------

_ABOUT_CALLS = {"effect": "unsafe", "enforce_idempotency": False, "in_doubt": "pause", "reconcile": None}
"""The fields that describe a call's effect, with their defaults."""


def _changed(_place: Place, step: BaseStep) -> Collection[str]:
    return [key for key, default in _ABOUT_CALLS.items() if getattr(step, key, default) != default]


def _effects(site: _Site, step: Step, written: Collection[str]) -> Iterator[Finding]:
    """Check a step's declarations about its call, and warn of effects that a retry may repeat."""
    given = [key for key in _ABOUT_CALLS if key in written]
    if step.call is None:
        for key in given:
            message = f"step {site.path!r} asks an agent, and `{key}` is about calls"
            has_tools = isinstance(step.agent, AgentSpec) and step.agent.tools
            hint = "write `kind: granular`, which records each tool call" if has_tools else "remove it"
            yield Finding("FLJ265", site.place, message, hint, (key,), at_key=True)
        return
    if not step.enforce_idempotency:
        yield from _never_in_doubt(site, given)
    else:
        yield from _reconciled(site, step)
    if step.config.max_retries:
        yield from _retried_effect(site, step, is_declared="effect" in given)


def _retried_effect(site: _Site, step: Step, *, is_declared: bool) -> Iterator[Finding]:
    """Warn of a retry that may repeat an effect, or that a doubt prevents."""
    where = f"step {site.path!r}"
    if step.enforce_idempotency and step.effect in ("unsafe", "transactional") and step.in_doubt == "pause":
        message = (
            f"a retry of {where} follows harmless failures only; after any other failure it asks a human"
        )
        hint = (
            "set `effect: idempotent` if the other system recognizes repetitions by key, raise "
            "`flujo.NotSent` where nothing was sent, or do not retry; `flujo explain BLUEPRINT` lists the "
            "harmless failures"
        )
    elif not step.enforce_idempotency and step.effect == "unsafe" and is_declared:
        message = f"a retry of {where} may repeat its effect"
        hint = "set `effect: idempotent` if the other system recognizes repetitions by key, or do not retry"
    else:
        return
    at = ("config", "max_retries")
    yield Finding("FLJ267", site.place, message, hint, at, at_key=True, is_warning=True)


def _tools(site: _Site) -> Iterator[Finding]:
    """Check the rules of the tools of a step's agents, as far as they depend on the step."""
    for agent in (each for each in site.step.names() if isinstance(each, AgentSpec)):
        for tool in called_tools(agent.tools):
            which = f"step {site.path!r}: tool `{tool.name}` of agent {agent.name!r} has"
            yield from (
                Finding(code, site.place, f"{which} {what}", hint, ("agent",))
                for code, what, hint in _tool(site.step, tool)
            )


def _tool(step: BaseStep, tool: CalledTool) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with a tool in a step: the code, the words, and the hint."""
    if step.kind != "granular" and (tool.is_recorded or tool.effect == "transactional"):
        key = "approve" if tool.approve is not None else "enforce_idempotency"
        key = key if tool.is_recorded else "effect: transactional"
        what = f"`{key}`, and this kind of step does not record tool calls"
        yield "FLJ444", what, "write `kind: granular`, which records each tool call"
    elif tool.in_doubt is not None and not (tool.is_recorded or _is_enforced(step)):
        what = "`in_doubt` without `enforce_idempotency`, so it is never in doubt"
        yield "FLJ266", what, "add `enforce_idempotency: true` to the tool"
    elif tool.in_doubt == "reconcile" and getattr(step, "reconcile", None) is None:
        yield (
            "FLJ266",
            "`in_doubt: reconcile`, and the step has no `reconcile`",
            "add `reconcile` to the step",
        )


def _unrecorded(site: _Site, requires: Requires) -> Iterator[Finding]:
    """Check that a step records the calls of callables that require it."""
    step, where, enforced = site.step, f"step {site.path!r}", "`enforce_idempotency: true`"
    if _is_enforced(step):
        return
    has_key = isinstance(step, Step) and "idempotency_key" in (step.arguments or {})
    if isinstance(step, Step) and step.call is not None and not has_key and (needs := requires(step.call)):
        message = f"{where}: `{step.call.target}` requires {needs}, and the step does not record its calls"
        yield Finding("FLJ432", site.place, message, f"add {enforced}", ("call",))
    hint = f"add {enforced}" if step.kind == "granular" else f"write `kind: granular` with {enforced}"
    for agent in (each for each in step.names() if isinstance(each, AgentSpec)):
        for tool in callable_tools(agent.tools):
            is_recorded = tool.is_recorded or tool.effect == "transactional"
            if not is_recorded and (needs := requires(tool.call)):
                which = f"tool `{tool.name}` of agent {agent.name!r}"
                message = f"{where}: {which} requires {needs}, and the step does not record its calls"
                yield Finding("FLJ432", site.place, message, hint, ("agent",))


_IF_IT_RECOGNIZES = (
    "declare the effect `idempotent` if the other system recognizes the key, or write another `in_doubt`: "
    "`pause`, `reconcile` or `fail`"
)


def _repeated_call(site: _Site, step: Step, written: Collection[str], knows: Knows) -> Iterator[Finding]:
    """Check that a call in doubt is not repeated although it is declared unsafe.

    If neither the step nor its callable declares an effect, `retry_same_key` says itself that the other
    system recognizes the key.
    """
    if step.call is None or not step.enforce_idempotency or step.in_doubt != "retry_same_key":
        return
    found = knows(step.call)
    declared = None if found is None else found.effect
    effect = step.effect if "effect" in written else declared
    if effect == "unsafe":
        message = (
            f"step {site.path!r} has `in_doubt: retry_same_key`, and its call `{step.call.target}` has "
            "`effect: unsafe`: it would be made again although it may have taken effect"
        )
        yield Finding("FLJ433", site.place, message, _IF_IT_RECOGNIZES, ("in_doubt",))


def _sent_again(site: _Site, knows: Knows) -> Iterator[Finding]:
    """Check that no recorded call of an unsafe tool is repeated while it is in doubt."""
    by_step = _is_enforced(site.step) and getattr(site.step, "in_doubt", None) == "retry_same_key"
    for tool in unsafe_and_repeated(site.step, knows):
        error = repeated_tool(f"step {site.path!r}", tool)
        keys = ("in_doubt",) if by_step else ("agent",)
        yield Finding(error.code, site.place, error.message, error.hint, keys)


def repeated_tool(where: str, tool: str) -> PipelineError:
    """Return the error about an unsafe tool of a step whose calls in doubt would be repeated."""
    return PipelineError(
        f"{where}: its tool `{tool}` is `unsafe`, and with `in_doubt: retry_same_key` a call would be made "
        "again although it may have taken effect",
        hint=_IF_IT_RECOGNIZES,
        code="FLJ433",
    )


def unsafe_and_repeated(step: BaseStep, knows: Knows) -> Iterator[str]:
    """Yield the unsafe tools of a step whose recorded calls are made again while they are in doubt."""
    if not isinstance(step, GranularStep):
        return
    enforced, policy = step.enforce_idempotency, step.in_doubt
    for agent in step.names():
        if isinstance(agent, AgentSpec):
            for spec in called_tools(agent.tools):
                effect = spec.effect
                if effect is None and isinstance(spec, CallableTool):
                    found = knows(spec.call)
                    effect = None if found is None else found.effect or "unsafe"
                if (spec.is_recorded or enforced) and repeats_unsafe(effect, spec.in_doubt or policy):
                    yield spec.name
        else:
            tools: Mapping[str, Tool] = getattr(agent.live, "tools", {})
            called = {name: tool for name, tool in tools.items() if name not in step.composed}
            yield from built_and_repeated(called, is_enforced=enforced, in_doubt=policy)


def built_and_repeated(tools: Mapping[str, Tool], *, is_enforced: bool, in_doubt: InDoubt) -> Iterator[str]:
    """Yield the unsafe tools of a built agent whose recorded calls are made again while they are in doubt.

    Args:
        tools: those that do not consist of steps, by name.
        is_enforced: whether the step records each call.
        in_doubt: the policy of the step.
    """
    for name, tool in tools.items():
        is_recorded = is_enforced or tool.enforce_idempotency or tool.approve is not None
        if is_recorded and repeats_unsafe(tool.effect, tool.in_doubt or in_doubt):
            yield name


def _lent(site: _Site, knows: Knows) -> Iterator[Finding]:
    """Check that no `call` step has a callable that writes in the transaction of a tool call."""
    step = site.step
    if isinstance(step, Step) and step.call is not None:
        found = knows(step.call)
        error = None if found is None else without_connection(f"step {site.path!r}", step, found)
        if error is not None:
            yield Finding(error.code, site.place, error.message, error.hint, ("call",))


def without_connection(where: str, step: Step, found: Known) -> PipelineError | None:
    """Return the error about a `call` step whose callable takes a connection that only a tool gets."""
    if step.call is None or not found.writes_in_transaction or CONNECTION in (step.arguments or {}):
        return None
    return PipelineError(
        f"{where}: `{step.call.target}` writes on a `{CONNECTION}`, in the transaction of its entry, and "
        "only a tool has one",
        hint="make it a tool of an agent in a `granular` step, or open a connection in the function, and "
        "write `enforce_idempotency: true`",
        code="FLJ447",
    )


def _known_live(ref: CallableRef) -> Known | None:
    return None if ref.live is None else known(ref.live)


def _required_live(ref: CallableRef) -> str:
    return "" if ref.live is None else requirement(ref.live)


def _is_enforced(step: BaseStep) -> bool:
    return bool(getattr(step, "enforce_idempotency", False))


def _reconciles_a_tool(step: BaseStep) -> bool:
    agents = (agent for agent in step.names() if isinstance(agent, AgentSpec))
    tools = (tool for agent in agents for tool in called_tools(agent.tools))
    return any(tool.in_doubt == "reconcile" for tool in tools)


def _never_in_doubt(site: _Site, given: Collection[str]) -> Iterator[Finding]:
    for key in ("in_doubt", "reconcile"):
        if key in given and not _reconciles_a_tool(site.step):
            message = f"step {site.path!r} has `{key}` without `enforce_idempotency`, so it is never in doubt"
            hint = "set `enforce_idempotency` to true"
            yield Finding("FLJ266", site.place, message, hint, (key,), at_key=True)
            return


def _reconciled(site: _Site, step: Step | GranularStep) -> Iterator[Finding]:
    where = f"step {site.path!r}"
    if step.in_doubt == "reconcile" and step.reconcile is None:
        message, key = f"{where} has `in_doubt: reconcile` without `reconcile`", "in_doubt"
        yield Finding("FLJ266", site.place, message, "add `reconcile`", (key,), at_key=True)
    elif step.reconcile is not None and step.in_doubt != "reconcile" and not _reconciles_a_tool(step):
        message, key = f"{where} has `reconcile` without `in_doubt: reconcile`", "reconcile"
        yield Finding("FLJ266", site.place, message, "add `in_doubt: reconcile`", (key,), at_key=True)


_CHECKS = (
    _empty,
    _available,
    _composed,
    _files,
    _history,
    _states,
    _cacheable,
    _ending_inside,
    _thread,
    _tools,
)
"""The checks of a single step, in the order in which they are reported."""
