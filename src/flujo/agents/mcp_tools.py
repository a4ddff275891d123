"""The tools of MCP servers as tools of an agent."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic_ai.tools import ToolDefinition

from flujo.domain.agents import Reply
from flujo.domain.conversations import BackToModel
from flujo.domain.wording import suggest
from flujo.exceptions import AgentError, ArgumentsRejected, McpCallFailed, McpServerFailed, NotSent
from flujo.json_schema.complexity import SchemaTooComplex
from flujo.json_schema.re2_patterns import PatternRefused
from flujo.json_schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flujo.agents.tools import ModelTool
    from flujo.domain.agents import Ask
    from flujo.domain.approvals import Approval
    from flujo.domain.mcp import ListedTool, ToolServer
    from flujo.domain.tools import Effect, InDoubt, McpTools

_NAMED_ERRORS = 5


class McpTool:
    """One tool of an MCP server.

    Raises:
        McpServerFailed: its schema cannot be checked in bounded time.
    """

    is_sequential = False
    connection: Literal["sync", "async"] | None = None
    wants_context = False

    def __init__(
        self,
        server: ToolServer,
        name: str,
        listed: ListedTool,
        spec: McpTools,
        *,
        timeout_s: float | None = None,
    ) -> None:
        self._server = server
        self._listed = listed
        self.name = name
        self.target = f"mcp:{server.name}/{name}"
        self.effect: Effect = spec.effect
        self.enforce_idempotency = spec.is_recorded
        self.approve: Approval | None = spec.approve
        self.parameters: Any = listed.parameters
        self.in_doubt: InDoubt | None = spec.in_doubt
        self.timeout_s: float | None = server.timeout_s if timeout_s is None else timeout_s
        try:
            self._validator = Validator(listed.parameters)
        except (PatternRefused, SchemaTooComplex) as error:
            raise McpServerFailed(
                f"tool `{name}` of MCP server {server.name!r} has a schema that cannot be used: {error}",
                hint="leave the tool out of `allow`",
                server=server.name,
                retryable=False,
            ) from error

    @property
    def definition(self) -> ToolDefinition:
        """What a model sees: name, description, and the JSON Schema of the arguments."""
        return ToolDefinition(
            name=self.name,
            description=self._listed.description,
            parameters_json_schema=self._listed.parameters,
        )

    @property
    def traits(self) -> Mapping[str, Any]:
        """What a conversation depends on, as JSON data."""
        return {
            "description": self._listed.description,
            "parameters": self._listed.parameters,
            "effect": self.effect,
            "server": self._server.name,
        } | ({} if self.approve is None else {"approve": str(self.approve)})

    def check_arguments(self, ask: Ask) -> None:
        """Refuse arguments that do not fit the schema, in words for a model.

        Raises:
            ArgumentsRejected: names the arguments and the reasons.
        """
        found = list(islice(self._validator.violations(dict(ask.arguments or {})), _NAMED_ERRORS))
        if found:
            raise ArgumentsRejected("; ".join(found), callable=self.target)

    async def ask(self, ask: Ask) -> Reply:
        """Call it once; when the response of a call that may be repeated is lost, once more with its key.

        Raises:
            NotSent: the call had no effect.
            BackToModel: the server answers with an error, and the tool only reads.
            McpCallFailed: the server answers with an error, or its response was lost.
        """
        try:
            return await self._sent(ask)
        except McpCallFailed as error:
            if error.is_answer and self.effect == "read":
                raise BackToModel(error.message) from error
            if error.is_answer or self.effect == "unsafe":
                raise
            try:
                return await self._sent(ask)
            except NotSent as unsent:  # only the second sending had no effect
                raise error from unsent

    async def _sent(self, ask: Ask) -> Reply:
        arguments = dict(ask.arguments or {})
        return Reply(output=await self._server.call(self.name, arguments, ask.idempotency_key))


async def with_mcp_tools(
    agent: str,
    functions: Mapping[str, ModelTool],
    specs: Sequence[McpTools],
    server: Callable[[str], ToolServer] | None,
    *,
    timeout_s: float | None = None,
) -> Mapping[str, ModelTool]:
    """Return the tools of an agent, by name; the MCP servers of some of them are started.

    Args:
        agent: the name of the agent.
        functions: its tools that belong to no server.
        specs: its tools that belong to servers.
        server: returns the server of a name; None where no server may be started.
        timeout_s: the timeout of a call; by default that of the server.

    Raises:
        AgentError: two tools have one name, or no server may be started here.
        McpServerFailed: a server cannot be started, or does not have a tool of `allow`.
        LockMismatch: the tools of a server are not those of the lock.
    """
    named = dict(functions)
    for spec in specs:
        if server is None:
            raise AgentError(
                f"agent {agent!r} has tools of MCP server {spec.server!r}, which only a run starts"
            )
        source = server(spec.server)
        listed = await source.tools()
        missing = [name for name in spec.allow or () if name not in listed]
        if missing:
            raise McpServerFailed(
                f"MCP server {spec.server!r} has no tool `{missing[0]}`, which agent {agent!r} may call",
                hint=suggest(missing[0], listed, what="there are", cutoff=0.6),
                server=spec.server,
                retryable=False,
            )
        for name in spec.allow or listed:
            if name in named:
                raise AgentError(
                    f"agent {agent!r} cannot be built with its tools: two are named `{name}`",
                    hint="give each tool a unique name, or leave one out of `allow`",
                )
            named[name] = McpTool(source, name, listed[name], spec, timeout_s=timeout_s)
    return named
