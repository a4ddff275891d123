"""Binds a pipeline for a replay: its agents know what they would send, and cannot send it.

Callables are not imported, except those that a replay reads: the tools of an agent, for their schemas, the
types of a context and of an answer, and a `granular` agent that is written in Python.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.agents.chat import ChatAgent
from flujo.agents.no_model import NoModel
from flujo.domain.conversations import ConversingAgent
from flujo.domain.values import CallableRef
from flujo.engine.recording import EndOfRecord
from flujo.exceptions import CallableError
from flujo.services.binding.binding import PipelineBinding
from flujo.services.binding.contexts import SchemaContext
from flujo.services.mcp_servers import locked_servers
from flujo.services.project.imports import importable
from flujo.services.workspace import agent_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.agents import AgentSpec, Ask, Reply
    from flujo.domain.mcp import ListedTools
    from flujo.domain.models import PipelineContext
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Agent, Binding, ContextType
    from flujo.domain.steps import BaseStep
    from flujo.domain.tools import ToolSpec
    from flujo.services.workspace import Workspace


def recorded_binding(
    ws: Workspace,
    pipeline: Pipeline,
    context_model: type[PipelineContext] | None = None,
    *,
    is_elsewhere: bool = False,
) -> RecordedBinding:
    """Return `pipeline` bound for a replay: no key is needed, and no server is started.

    With `is_elsewhere`, a tool of an agent and the type of the context may be missing.

    Raises:
        CallableError: a type or the tool of an agent cannot be imported.
    """
    settings = ws.project.settings
    if ws.project.config_file is not None:  # otherwise no callable is allowed
        importable(ws.project.root)
    locked = locked_servers(ws.project)
    bound = RecordedBinding(
        allow_callables=settings.blueprints.allow_callables,
        agent_settings=agent_settings(settings, None, lambda name: _LockedServer(name, locked)),
        context_model=context_model,
    )
    bound.is_elsewhere = is_elsewhere
    bound.bind(pipeline)
    return bound


class RecordedBinding(PipelineBinding):
    """The binding of a replay."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.is_elsewhere = False
        """Whether code may be missing, because the run is of another project."""
        self.absent: set[str] = set()
        """The tools whose code is missing, by name."""

    def bind(self, pipeline: Pipeline) -> None:
        """Import and compile what a replay of `pipeline` reads.

        Raises:
            CallableError: a type or the tool of an agent cannot be imported.
        """
        for _, step in pipeline.walk():
            if step.kind == "granular":
                for each in step.names():
                    if isinstance(each, CallableRef):
                        self._agents[each.target, id(each.live)] = self._function(each)
        super().bind(pipeline)

    async def prepare(self) -> None:
        """Read the tools of MCP servers from flujo.lock; agents with a server that it lacks do without."""
        for agent in self._prepared:
            with suppress(_Unlocked):
                await agent.prepare()

    def _built(self, who: AgentSpec | CallableRef) -> Agent:
        return _Silent() if isinstance(who, CallableRef) else self._chat(who)

    def _model_agent(self, spec: AgentSpec, tools: Sequence[ToolSpec], output_type: Any) -> Agent:
        settings = self._agent_settings
        return ChatAgent(spec, NoModel(), tools=tools, output_type=output_type, settings=settings)

    def _tools(self, spec: AgentSpec) -> list[ToolSpec]:
        found = []
        for each in spec.tools:
            try:
                found.append(self._tool(each))
            except CallableError:
                if not self.is_elsewhere:
                    raise
                self.absent.add(each.name)
        return found

    def _context_type(self, pipeline: Pipeline, model: type[PipelineContext] | None) -> ContextType:
        try:
            return super()._context_type(pipeline, model)
        except CallableError:
            if not self.is_elsewhere:
                raise
            return SchemaContext(None, None)

    def _require_declared(self, step: BaseStep) -> None:
        """Require nothing, because nothing is called."""

    def _require_turns(self, step: BaseStep) -> None:
        """Require nothing, because nothing is called."""

    def _require_no_repeats(self, step: BaseStep) -> None:
        """Require nothing, because nothing is called."""


class SilentBinding:
    """A binding whose agents are not asked; those that work in turns still tell what they would send."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.evaluator = binding.evaluator
        self.placed = binding.placed
        self.schema = binding.schema
        self.identity = binding.identity
        self.identity_of_resources = binding.identity_of_resources
        self.context = binding.context

    async def prepare(self) -> None:
        """Prepare nothing."""

    def agent(self, who: AgentSpec | CallableRef) -> Agent:
        """Return the agent for a step."""
        found = self._binding.agent(who)
        return found if isinstance(found, ConversingAgent) else _Silent()


class _Silent:
    """A callable that is not called: what depends on its answer is in the record, or the record ends."""

    wants_context = False

    async def ask(self, ask: Ask) -> Reply:
        """Raise `EndOfRecord`."""
        del ask
        raise EndOfRecord


class _Unlocked(Exception):
    """The tools of an MCP server are not known, because a replay starts none."""


@dataclass(slots=True)
class _LockedServer:
    """An MCP server that is not started: its tools are those of flujo.lock."""

    name: str
    locked: Mapping[str, ListedTools]
    timeout_s: float = 0.0

    async def tools(self) -> ListedTools:
        """Return the tools in the lock.

        Raises:
            _Unlocked: the lock has no server of this name.
        """
        if self.name not in self.locked:
            raise _Unlocked(self.name)
        return self.locked[self.name]

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None) -> Any:
        """Refuse a call."""
        del arguments, key
        raise AssertionError(f"a replay does not call {tool}")
