"""The key of a cached answer: the step, its input, and the values that its expressions read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
from flujo.engine.decisions import value_of
from flujo.exceptions import NotCacheable

if TYPE_CHECKING:
    from flujo.domain.ports import Chain
    from flujo.engine.frame import Frame

VERSION = 2
"""Increased when the parts of a key change, so that older answers are no longer found."""

_NOT_THE_ANSWERS = frozenset({"name", "when", "save", "cache", "tags", "config"})
"""Fields of a cached step that do not affect its answer."""
NOT_THE_AGENTS_ANSWERS = frozenset({"name", "instructions_file"})
"""Fields of an agent that do not affect its answers: its model does not see them."""


async def key_of(step: BaseStep, policy: CachePolicy, frame: Frame) -> str:
    """Return the cache key of a step.

    A callable that takes `context` may read all of it, so it needs a `key` that names its dependencies.

    Raises:
        NotCacheable: the answer depends on something that no key can contain.
    """
    found = _Parts(frame)
    asked = _asked(step, frame)
    parts = {
        "version": VERSION,
        "step": found.step(step, _NOT_THE_ANSWERS | asked.keys()),
        "asked": asked,
        "read": found.values(),
    }
    if policy.key is not None:
        parts["key"] = await value_of(policy.key, frame)
    elif found.takes_context is not None:
        raise NotCacheable(
            f"`{found.takes_context.target}` takes `context`",
            hint="name the fields that it reads: `key: context.…`",
        )
    return canonical.digest(canonical.encode(parts, what=f"cache key of step {step.name!r}"))


def code_of(step: BaseStep, frame: Frame) -> str:
    """Return a digest of what answers a step, without its input: its agents, callables and their values.

    Raises:
        NotCacheable: see `key_of`.
    """
    return canonical.digest(canonical.encode(_Parts(frame).step(step, _NOT_THE_ANSWERS)))


def _asked(step: BaseStep, frame: Frame) -> dict[str, Any]:
    """Return the input of a step, filled in, by the names of its fields.

    Different expressions with the same value give the same key.
    """
    match step:
        case Step():
            return _asked_of_a_leaf(step, frame)
        case ImportStep(arguments=Mapping() as given, on_failure=instead) if instead != "skip":
            return {"arguments": {name: frame.render(value) for name, value in given.items()}}
        case TreeSearchStep(input=given) if given is not None:
            return {"input": frame.render(given)}
        case _:
            return {"previous": frame.previous}


def _asked_of_a_leaf(step: Step, frame: Frame) -> dict[str, Any]:
    asked: dict[str, Any] = {"arguments": None, "input": None}
    if step.arguments is not None:
        asked["arguments"] = {name: frame.render(value) for name, value in step.arguments.items()}
    else:
        asked["input"] = frame.previous if step.input is None else frame.render(step.input)
    if step.fallback is not None:
        asked["previous"] = frame.previous
    if step.agent is not None:
        written = step.agent.instructions
        told = None if written is None else frame.render(written)
        asked["agent"] = [told, _Parts(frame).agent(step.agent, without=frozenset({"instructions"}))]
    return asked


class _Parts:
    """A part of the tree as JSON data, and the outside values that its expressions read."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._reads: set[Chain] = set()
        self.takes_context: CallableRef | None = None
        """A callable in it that takes the context."""

    def step(self, step: BaseStep, without: frozenset[str] = frozenset()) -> Any:
        """Return a step, except the fields in `without`."""
        own = self._import(step, without) if isinstance(step, ImportStep) else self.fields(step, without)
        return [step.kind, own]

    def fields(self, node: Any, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the fields of a node that are set, except those in `without`.

        Most fields are usually None, and encoding those would cost more than all the others.
        """
        names = [each.name for each in dataclasses.fields(node) if each.name not in without]
        fields = {name: getattr(node, name) for name in names}
        return {name: self._part(value) for name, value in fields.items() if value is not None}

    def values(self) -> list[Any]:
        """Return the values of the outside names that are read; inside names belong to the part itself."""
        found: list[Any] = []
        for chain in sorted(self._reads):
            try:
                found.append([list(chain), self._frame.lookup(chain)])
            except KeyError:
                continue
        return found

    def _part(self, node: Any) -> Any:
        match node:
            case Expr() | Text():
                self._reads.update(self._frame.run.binding.evaluator(node).reads)
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
        own = self.fields(agent, NOT_THE_AGENTS_ANSWERS | {"tools", "output_type"} | without)
        typed = None if agent.output_type is None else self._named(agent.output_type)
        tools = [self._named(each) for each in agent.tools]
        return [own, typed, tools, self._frame.run.binding.identity(agent)]

    def _import(self, step: ImportStep, without: frozenset[str]) -> Any:
        """Return an import; most names that its blueprint reads are its own."""
        inner = _Parts(self._frame)
        inside = inner._part(step.pipeline)
        around = {"run", "context"} if step.context == "inherit" else {"run"}
        if "context" in around and inner.takes_context is not None:
            self.takes_context = inner.takes_context
        self._reads |= {chain for chain in inner._reads if chain[0] in around}
        return [inside, self.fields(step, without | {"pipeline", "blueprint"})]

    def _called(self, ref: CallableRef) -> Any:
        binding, resources = self._frame.run.binding, self._frame.run.resources
        if binding.agent(ref).wants_context:
            self.takes_context = ref
        return [self._named(ref), binding.identity_of_resources(resources, ref)]

    def _named(self, ref: CallableRef) -> Any:
        return ["callable", ref.target, self._frame.run.binding.identity(ref)]
