"""Checks of the syntax tree: blueprints report the findings with lines, pipelines in Python raise them.

`findings` yields each finding with its code, its place in the tree and its message. Checks that need source
text, schemas or settings are in `flujo.blueprint.rules` and `flujo.services.checks`. Longer checks are in
`flujo.domain.tree_checks`, by subject.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain.agents import AgentSpec
from flujo.domain.conversations import ConversingAgent, text_tokens
from flujo.domain.paths import ROOT, UNFINISHED, child
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import (
    AwaitStep,
    BaseStep,
    CacheStep,
    GranularStep,
    ParallelStep,
    SetStep,
    StateMachineStep,
    Step,
    StepConfig,
    Text,
)
from flujo.domain.tools import (
    Known,
    known,
    requirement,
)
from flujo.domain.tree_checks.background import awaited_tasks, in_background
from flujo.domain.tree_checks.batches import over_workers
from flujo.domain.tree_checks.caches import cacheable
from flujo.domain.tree_checks.composed import tool_steps
from flujo.domain.tree_checks.effects import (
    changed_fields,
    declared_effects,
    lent,
    never_in_doubt,
    reconciled,
    repeated_call,
)
from flujo.domain.tree_checks.endings import ending_inside, never_reached
from flujo.domain.tree_checks.executors import executed_elsewhere, tools_elsewhere
from flujo.domain.tree_checks.failures import SEEN, ending_steps, endings_inside, steps_at_the_end
from flujo.domain.tree_checks.findings import Field, Finding, Knows, Place, Requires, Site, Written
from flujo.domain.tree_checks.settings import unknown_settings
from flujo.domain.tree_checks.states import machine_states
from flujo.domain.tree_checks.threads import on_thread
from flujo.domain.tree_checks.tools import agent_tools, sent_again, unrecorded
from flujo.domain.usage import UsageLimits, tightest
from flujo.domain.values import CallableRef

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    steps = [Site(step, (index,), child(ROOT, str(step.name))) for index, step in enumerate(pipeline.steps)]
    walk = _Walk(
        into_imports,
        reserved,
        written or changed_fields,
        requires or _required_live,
        knows or _known_live,
    )
    yield from walk.body(steps, _Scope(limits=pipeline.budget))
    for name, ending in pipeline.endings().items():
        inside = ending_steps(name, ending)
        yield from steps_at_the_end(name, inside)
        names = frozenset({SEEN[name]})
        yield from walk.body(inside, _Scope(items=names, limits=pipeline.budget))


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


def branch_problem(name: Any) -> tuple[str, str] | None:
    """Return why text is not valid as the name of a branch, with a hint, or None."""
    if not isinstance(name, str):
        return f"{name!r} is not a valid name of a branch", "use text"
    if len(name) > MAX_NAME:
        return f"a name of {len(name)} characters is too long", f"use at most {MAX_NAME}"
    if not name.strip():
        return f"{name!r} is not a valid name of a branch", "write the value that chooses it"
    odd = next((char for char in name if not char.isprintable()), None)
    if odd is not None:
        return f"{name!r} is not a valid name of a branch: {odd!r} is U+{ord(odd):04X}", "use printable text"
    return None


def needs_entries(key: str) -> str:
    """Return the message for an empty list or mapping."""
    return f"`{key}` needs at least 1 entry"


@dataclass(frozen=True, slots=True)
class _Scope:
    """The steps and items whose names are taken at the start of a body."""

    steps: MutableMapping[str, Site] = field(default_factory=dict)
    items: frozenset[str] = frozenset()
    states: MutableMapping[str, Site] = field(default_factory=dict)
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

    def body(self, steps: Collection[Site], scope: _Scope, *, is_stand_in: bool = False) -> Iterator[Finding]:
        """Yield the problems of the steps of one body and of the steps inside them.

        A body that `is_stand_in` is the only step of a cache, a fallback, or a tool. No expression refers to
        it, so its name may be anything.
        """
        here: dict[str, Site] = {}
        yield from never_reached(steps)
        for site in steps:
            if not is_stand_in:
                yield from _repeated(site, here, scope.steps)
            yield from _names(site, scope.items, self.reserved)
            for check in _CHECKS:
                yield from check(site)
            yield from unrecorded(site, self.requires)
            yield from sent_again(site, self.knows)
            yield from tools_elsewhere(site, self.knows)
            yield from lent(site, self.knows)
            yield from in_background(site, scope.limits, is_stand_in=is_stand_in)
            yield from over_workers(site, is_stand_in=is_stand_in)
            if isinstance(site.step, AwaitStep):
                yield from awaited_tasks(site, site.step, ChainMap(here, scope.steps, scope.states))
            if isinstance(site.step, Step):
                written = self.written(site.place, site.step)
                yield from declared_effects(site, site.step, written)
                yield from repeated_call(site, site.step, written, self.knows)
            elif isinstance(site.step, GranularStep) and site.step.enforce_idempotency:
                yield from reconciled(site, site.step)
            elif isinstance(site.step, GranularStep):
                yield from never_in_doubt(site, self.written(site.place, site.step))
            here.setdefault(site.step.name, site)
            taken = ChainMap(here, scope.steps, scope.states)
            is_task = site.step.config.execution_mode == "background" or site.step.config.is_spread
            limits = site.step.config.budget if is_task else scope.limits
            yield from self._inside(site, _Scope(taken, scope.items, limits=limits))

    def _inside(self, site: Site, scope: _Scope) -> Iterator[Finding]:
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
                yield from unrecorded(steps[0], self.requires)
                yield from sent_again(steps[0], self.knows)
                yield from tools_elsewhere(steps[0], self.knows)
                yield from self._inside(steps[0], scope)
                continue
            stands_in = isinstance(site.step, CacheStep | Step | GranularStep)
            yield from self.body(steps, scope, is_stand_in=stands_in)


def _repeated(site: Site, here: Mapping[str, Site], around: Mapping[str, Site]) -> Iterator[Finding]:
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


_BRANCHING = ("choice", "fork")
"""The shapes of the steps whose bodies are branches, if they name them."""


def _names(site: Site, items: frozenset[str], reserved: frozenset[str]) -> Iterator[Finding]:
    """Check that expressions can refer to the names that a step introduces."""
    step = site.step
    fields: list[tuple[Field, str, bool]] = [(("name",), step.name, False)]
    fields += [((key, name), name, True) for key, name in step.writes()]
    branches = frozenset(step.bodies()) if step.names_bodies and step.shape in _BRANCHING else frozenset()
    fields += [((name,), name, True) for name in step.bodies()]
    fields += [(("thread",), step.joins, False)] if step.joins is not None else []
    for key, names in step.local_names().items():
        fields += [((key,) if key == "as" else (key, name), name, key != "as") for name in names]
    for keys, name, at_key in fields:
        if keys == (UNFINISHED,) and step.names_bodies:
            message = f"step {site.path!r}: {name!r} cannot be the name of a branch or state"
            hint = "rename it: records of unfinished attempts have its path"
            key = "states" if step.shape == "states" else "branches"
            yield Finding("FLJ316", site.place, message, hint, (key, UNFINISHED), at_key=True)
        elif problem := branch_problem(name) if keys == (name,) and name in branches else name_problem(name):
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


def _empty(site: Site) -> Iterator[Finding]:
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
        case SetStep(values=given) if not given:
            key = "set"
        case _:
            return
    yield Finding("FLJ125", site.place, f"step {site.path!r}: {needs_entries(key)}", keys=(key,))


_ATTEMPTS = ("timeout_s", "max_retries", "retry")


def _available(site: Site) -> Iterator[Finding]:
    """Check that the engine supports a step and its configuration."""
    step, where = site.step, f"step {site.path!r}"
    if step.only_waits or step.ends_run or step.is_computed:
        for key in _ATTEMPTS:
            if getattr(step.config, key) != getattr(StepConfig(), key):
                message = f"{where}: `kind: {step.kind}` does not support `{key}`"
                hint = "set it on an enclosing step" + (", or use `deadline_s`" if step.question else "")
                hint = "remove it: an expression is evaluated once" if step.is_computed else hint
                yield Finding("FLJ213", site.place, message, hint, ("config", key), at_key=True)


def _history(site: Site) -> Iterator[Finding]:
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


def _files(site: Site) -> Iterator[Finding]:
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


def _known_live(ref: CallableRef) -> Known | None:
    return None if ref.live is None else known(ref.live)


def _required_live(ref: CallableRef) -> str:
    return "" if ref.live is None else requirement(ref.live)


_CHECKS = (
    _empty,
    _available,
    tool_steps,
    _files,
    _history,
    machine_states,
    cacheable,
    ending_inside,
    endings_inside,
    on_thread,
    executed_elsewhere,
    agent_tools,
    unknown_settings,
)
"""The checks of a single step, in the order in which they are reported."""
