"""Tools of an agent that consist of steps: a blueprint, or another agent.

    research/turn[0]/tool[1]          work: input = the arguments, output = what the model gets
    research/turn[0]/tool[1]/STEP     the steps of a blueprint
    research/turn[0]/tool[1]/turn[0]  the turns of an agent

Neither has an effect of its own: its steps and its tools have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Any, ClassVar

from flujo.domain import canonical, values
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.conversations import ConversingAgent
from flujo.domain.pipeline import Pipeline
from flujo.domain.tools import ComposedTool
from flujo.domain.values import CallableRef
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TURNS = 20
"""The usual limit of turns of an agent that works in turns."""

PROMPT = "prompt"
"""The parameter of an agent as a tool."""

_PROMPT_SCHEMA = {
    "type": "object",
    "properties": {
        PROMPT: {"type": "string", "description": "The task, with all that the agent needs to know."}
    },
    "required": [PROMPT],
    "additionalProperties": False,
}

_NOT_IN_NAMES = re.compile(r"\W", re.ASCII)


def schema_problem(input_schema: Any) -> tuple[str, str] | None:
    """Return why an input schema cannot be the schema of a tool, with a hint, or None."""
    if input_schema is None:
        return "it has no `input_schema`", "declare its input: the fields are the arguments of the tool"
    if not isinstance(input_schema, Mapping) or input_schema.get("type") != "object":
        return (
            "its `input_schema` is not of `type: object`",
            "declare an object: its fields are the arguments of the tool",
        )
    return None


def tool_name(blueprint: str) -> str:
    """Return the usual name of a blueprint as a tool, which is an identifier."""
    return _NOT_IN_NAMES.sub("_", blueprint)


@node
class BlueprintTool(ComposedTool):
    """A blueprint as a tool: its input schema is the tool's, and its output is the result."""

    owner: ClassVar[str] = "`BlueprintTool`: "

    pipeline: Pipeline = takes(values.instance(Pipeline))
    """The pipeline; `flujo.read_blueprint` reads one from a file."""
    description: str
    """When to call it, in words for the model."""
    name: Takes[str | None, str] = takes(values.instance(str), default=None)
    """The name by which the model calls it; by default that of the pipeline."""
    _: KW_ONLY
    blueprint: str = ""
    """The path, relative to the project's root; empty for a pipeline written in Python."""

    def _adapt(self, arguments: dict[str, Any]) -> None:
        if arguments["name"] is None and isinstance(arguments["pipeline"], Pipeline):
            arguments["name"] = tool_name(arguments["pipeline"].name)

    @property
    def traits(self) -> Any:
        """The digest of the tree."""
        return canonical.digest(repr(self.pipeline).encode())

    @property
    def runs(self) -> str:
        """The blueprint."""
        return f"blueprint {self.blueprint or self.pipeline.name}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON Schema of the arguments.

        Raises:
            PipelineError: the pipeline takes something else than an object.
        """
        if problem := schema_problem(self.pipeline.input_schema):
            why, hint = problem
            raise PipelineError(f"pipeline {self.pipeline.name!r} cannot be a tool: {why}", hint=hint)
        return dict(self.pipeline.input_schema)


def _agent(given: Any, where: str) -> AgentSpec | CallableRef:
    if isinstance(given, CallableRef | ConversingAgent):
        return values.callable_ref(given, where, takes="an `AgentSpec`")
    spec: AgentSpec = values.instance(AgentSpec)(given, where)
    return spec


@node
class AgentTool(ComposedTool):
    """An agent as a tool: a call is a conversation of its own, whose answer is the result."""

    owner: ClassVar[str] = "`AgentTool`: "

    agent: Takes[AgentSpec | CallableRef | ConversingAgent, AgentSpec | CallableRef] = takes(_agent)
    """The agent, with its own tools."""
    description: str
    """When to call it, in words for the model."""
    name: Takes[str | None, str] = takes(values.instance(str), default=None)
    """The name by which the model calls it; by default that of the agent."""
    _: KW_ONLY
    max_turns: int = takes(values.count, default=MAX_TURNS)
    """The maximum number of turns of one call; at that limit the call fails."""

    def _adapt(self, arguments: dict[str, Any]) -> None:
        if arguments["name"] is None:
            arguments["name"] = getattr(arguments["agent"], "name", None)
        if arguments["name"] is None:
            raise PipelineError(
                "an agent without a name needs one as a tool", hint="write `AgentTool(…, name='…')`"
            )

    @property
    def traits(self) -> Any:
        """What the agent's conversations depend on, as far as the agent is built."""
        live: Any = self.agent.live if isinstance(self.agent, CallableRef) else None
        return {"max_turns": self.max_turns, "agent": {} if live is None else live.traits(Ask())}

    @property
    def runs(self) -> str:
        """The agent."""
        return f"agent {getattr(self.agent, 'name', self.agent)}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON Schema of the arguments: a prompt."""
        return _PROMPT_SCHEMA

    @property
    def wants_context(self) -> bool:
        """Whether a tool of the agent takes the context, as far as the agent is built."""
        return isinstance(self.agent, CallableRef) and getattr(self.agent.live, "wants_context", False)


def composed_tools(agent: AgentSpec | CallableRef) -> Iterator[BlueprintTool | AgentTool]:
    """Yield the tools of an agent that consist of steps."""
    tools = getattr(agent.live, "composed", ()) if isinstance(agent, CallableRef) else agent.tools
    yield from (tool for tool in tools if isinstance(tool, BlueprintTool | AgentTool))
