"""The key of a cached answer: the step, its input, and the values that its expressions read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import (
    BaseStep,
    CachePolicy,
    CallableRef,
    Expr,
    ImportStep,
    Step,
    Text,
    TreeSearchStep,
)
from flujo.domain.tools import CallableTool, ToolSpec
from flujo.engine.attachments import attached
from flujo.engine.decisions import value_of
from flujo.exceptions import EngineError, NotCacheable

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding, Chain
    from flujo.engine.frame import Frame

_SHORT = 12
"""How many characters of the digest of a part are kept."""
VERSION = 2
"""Increased when the parts of a key change, so that older answers are no longer found."""

_NOT_THE_ANSWERS = frozenset({"name", "when", "save", "cache", "tags", "config", "evaluate"})
"""Fields of a cached step that do not affect its answer."""
NOT_THE_AGENTS_ANSWERS = frozenset({"name", "instructions_file"})
"""Fields of an agent that do not affect its answers: its model does not see them."""


@dataclass(frozen=True, slots=True)
class Key:
    """The key of a cached answer, and what it is made of."""

    digest: str
    _outline: Callable[[], Any]
    _noted: Mapping[str, Any]

    def parts(self) -> dict[str, str]:
        """Return a short digest of each part of the key, by the part's name in words.

        Two keys with equal parts are equal, so the parts that differ tell why an answer was not found.
        """
        named = {"step": self._outline(), **self._noted}
        return {name: canonical.digest(canonical.encode(value))[:_SHORT] for name, value in named.items()}


async def key_of(step: BaseStep, policy: CachePolicy, frame: Frame, path: StepPath) -> Key:
    """Return the cache key of the step at `path`; it contains the digests of its files, not their paths.

    A callable that takes `context` may read all of it, so it needs a `key` that names its dependencies.

    Raises:
        NotCacheable: the answer depends on something that no key can contain.
    """
    found = _Parts(frame.run.binding, frame.run.resources)
    asked = _asked(step, frame, found)
    if isinstance(step, Step):
        try:
            sent = (await attached(step, frame, path)).files
        except EngineError as error:
            raise NotCacheable(error.message) from error  # the attempt reports it
        if sent:
            asked["files"] = found.noted["files"] = [[file.media_type, file.sha256] for file in sent]
    without = _without(step) | asked.keys()
    parts = {
        "version": VERSION,
        "step": found.step(step, without),
        "asked": asked,
        "read": found.values(frame),
    }
    if frame.run.pii is not None:  # as `GATE.masks_of_requests`, which has the masks of the project
        parts["pii"] = frame.run.pii
    if policy.key is not None:
        parts["key"] = found.noted["key"] = await value_of(policy.key, frame)
    else:
        found.require_no_context()
    digest = canonical.digest(canonical.encode(parts, what=f"cache key of step {step.name!r}"))
    outline = _Parts(frame.run.binding, None, is_outline=True)
    return Key(digest, partial(outline.step, step, without), {"format": VERSION, **found.noted})


def require_cacheable(step: BaseStep, policy: CachePolicy, binding: Binding, resources: Any) -> None:
    """Check what `key_of` checks at each call, as far as it is known before the run.

    Raises:
        NotCacheable: see `key_of`.
    """
    found = _Parts(binding, resources)
    found.step(step, _without(step))
    if policy.key is None:
        found.require_no_context()


def code_of(step: BaseStep, frame: Frame) -> str:
    """Return a digest of what answers a step, without its input: its agents, callables and their values.

    Raises:
        NotCacheable: see `key_of`.
    """
    found = _Parts(frame.run.binding, frame.run.resources)
    return canonical.digest(canonical.encode(found.step(step, _without(step))))


def _without(step: BaseStep) -> frozenset[str]:
    """Return the fields of a cached step that are not in its part of the key; `key_of` reads its files."""
    return _NOT_THE_ANSWERS | {"files"} if isinstance(step, Step) else _NOT_THE_ANSWERS


def _asked(step: BaseStep, frame: Frame, found: _Parts) -> dict[str, Any]:
    """Return the input of a step, filled in, by the names of its fields; and note it.

    Different expressions with the same value give the same key.
    """
    asked = _asked_of_a_leaf(step, frame, found) if isinstance(step, Step) else _asked_of_others(step, frame)
    for name, value in asked.items():
        if name == "arguments" and value is not None:
            found.noted |= {f"argument {one}": each for one, each in value.items()}
        elif name != "agent" and value is not None:
            found.noted[name] = value
    return asked


def _asked_of_others(step: BaseStep, frame: Frame) -> dict[str, Any]:
    match step:
        case ImportStep(arguments=Mapping() as given, on_failure=instead) if instead != "skip":
            return {"arguments": {name: frame.render(value) for name, value in given.items()}}
        case TreeSearchStep(input=given) if given is not None:
            return {"input": frame.render(given)}
        case _:
            return {"previous": frame.previous}


def _asked_of_a_leaf(step: Step, frame: Frame, found: _Parts) -> dict[str, Any]:
    asked: dict[str, Any] = {"arguments": None, "input": None}
    if step.arguments is not None:
        asked["arguments"] = {name: frame.render(value) for name, value in step.arguments.items()}
    else:
        asked["input"] = frame.previous if step.input is None else frame.render(step.input)
    if step.fallback is not None:
        asked["previous"] = frame.previous
    if isinstance(step.agent, AgentSpec):
        written = step.agent.instructions
        told = None if written is None else frame.render(written)
        asked["agent"] = [told, found.agent(step.agent, without=frozenset({"instructions"}))]
        found.noted[f"agent {step.agent.name}: instructions"] = told
    return asked


class _Parts:
    """A part of the tree as JSON data, and the outside values that its expressions read."""

    def __init__(self, binding: Binding, resources: Any, *, is_outline: bool = False) -> None:
        """Start with an empty part.

        Args:
            binding: that of the pipeline.
            resources: those of the run.
            is_outline: whether callables and agents stand in it by name only.
        """
        self._binding = binding
        self._resources = resources
        self._is_outline = is_outline
        self._reads: set[Chain] = set()
        self.takes_context: CallableRef | None = None
        """A callable in it that takes the context."""
        self.noted: dict[str, Any] = {}
        """What the key is made of beside the step's own fields, by name in words."""

    def require_no_context(self) -> None:
        """Check that no callable in it takes the context.

        Raises:
            NotCacheable: naming the callable.
        """
        if self.takes_context is not None:
            raise NotCacheable(
                f"`{self.takes_context.target}` takes `context`",
                hint="name the fields that it reads: `key: context.…`",
            )

    def step(self, step: BaseStep, without: frozenset[str] = frozenset()) -> Any:
        """Return a step, except the fields in `without`."""
        if "files" not in without and step.sends is not None:
            raise NotCacheable(
                f"step {step.name!r} inside it sends files, and the key has no part for their bytes",
                hint=f"write `cache:` on step {step.name!r} itself",
            )
        own = self._import(step, without) if isinstance(step, ImportStep) else self.fields(step, without)
        return [step.kind, own]

    def fields(self, node: Any, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the fields of a node that are set, except those in `without`.

        Most fields are usually None, and encoding those would cost more than all the others.
        """
        names = [each.name for each in dataclasses.fields(node) if each.name not in without]
        fields = {name: getattr(node, name) for name in names}
        return {name: self._part(value) for name, value in fields.items() if value is not None}

    def values(self, frame: Frame) -> list[Any]:
        """Return the values of the outside names that are read; inside names belong to the part itself."""
        found: list[Any] = []
        for chain in sorted(self._reads):
            try:
                value = frame.lookup(chain)
            except KeyError:
                continue
            found.append([list(chain), value])
            self.noted[f"value of {'.'.join(chain)}"] = value
        return found

    def _part(self, node: Any) -> Any:
        match node:
            case Expr() | Text():
                self._reads.update(self._binding.evaluator(node).reads)
                return [type(node).__name__, node.source, isinstance(node, Text) and node.literal]
            case CallableRef():
                return self._called(node)
            case AgentSpec():
                return self.agent(node)
            case Pipeline(context_type=CallableRef() as named):
                return [self.fields(node, frozenset({"context_type"})), self._named(named)]
            case Mapping():
                # In order, because the order of branches may matter; not a list of pairs.
                return {"map": [[name, self._part(value)] for name, value in node.items()]}
            case tuple() | list():
                return [self._part(value) for value in node]
            case BaseStep():
                return self.step(node)
            case _:
                return self.fields(node) if dataclasses.is_dataclass(node) else node

    def agent(self, agent: AgentSpec, without: frozenset[str] = frozenset()) -> Any:
        """Return an agent; its classes and tools are named, not called by the step."""
        if self._is_outline:
            return agent.name
        own = self.fields(agent, NOT_THE_AGENTS_ANSWERS | {"tools", "output_type"} | without)
        typed = None if agent.output_type is None else self._named(agent.output_type)
        tools = [self._tool(each) for each in agent.tools]
        answered_with = self._binding.identity(agent)
        whole = {**own, **answered_with, "tools": [str(each) for each in agent.tools]}
        self.noted |= {f"agent {agent.name}: {name}": value for name, value in whole.items()}
        return [own, typed, tools, answered_with]

    def _tool(self, tool: ToolSpec) -> Any:
        """Return a tool: its callable, and the rules of its calls if it has some."""
        if not isinstance(tool, CallableTool):
            return self.fields(tool)
        rules = self.fields(tool, frozenset({"call", "executor", "resources"}))
        has_rules = dataclasses.replace(tool, executor=None, resources=None) != type(tool)(tool.call)
        return [self._named(tool.call), rules] if has_rules else self._named(tool.call)

    def _import(self, step: ImportStep, without: frozenset[str]) -> Any:
        """Return an import; most names that its blueprint reads are its own."""
        inner = _Parts(self._binding, self._resources, is_outline=self._is_outline)
        inside = inner._part(step.pipeline)
        around = {"run", "context"} if step.context == "inherit" else {"run"}
        if "context" in around and inner.takes_context is not None:
            self.takes_context = inner.takes_context
        self._reads |= {chain for chain in inner._reads if chain[0] in around}
        self.noted |= inner.noted
        return [inside, self.fields(step, without | {"pipeline", "blueprint"})]

    def _called(self, ref: CallableRef) -> Any:
        if self._is_outline:
            return ref.target
        if self._binding.agent(ref).wants_context:
            self.takes_context = ref
        named = self._named(ref)
        taken = self._binding.identity_of_resources(self._resources, ref)
        if taken is not None:
            self.noted[f"resources of {ref.target}"] = taken
        return [named, taken]

    def _named(self, ref: CallableRef) -> Any:
        if self._is_outline:
            return ref.target
        value = self.noted[f"callable {ref.target}"] = self._binding.identity(ref)
        return ["callable", ref.target, value]
