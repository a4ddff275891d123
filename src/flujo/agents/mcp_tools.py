"""The tools of MCP servers as tools of an agent."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic_ai.tools import ToolDefinition

from flujo.domain.agents import Reply
from flujo.exceptions import ArgumentsRejected, McpServerFailed
from flujo.json_schema.complexity import SchemaTooComplex
from flujo.json_schema.re2_patterns import PatternRefused
from flujo.json_schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.agents import Ask
    from flujo.domain.mcp import ListedTool, ToolServer
    from flujo.domain.pipeline import Effect

_NAMED_ERRORS = 5


class McpTool:
    """One tool of an MCP server.

    Raises:
        McpServerFailed: its schema cannot be checked in bounded time.
    """

    is_sequential = False
    wants_context = False

    def __init__(
        self,
        server: ToolServer,
        name: str,
        listed: ListedTool,
        *,
        effect: Effect,
        timeout_s: float | None = None,
    ) -> None:
        self._server = server
        self._listed = listed
        self.name = name
        self.target = f"mcp:{server.name}/{name}"
        self.effect: Effect = effect
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
        }

    def check_arguments(self, ask: Ask) -> None:
        """Refuse arguments that do not fit the schema, in words for a model.

        Raises:
            ArgumentsRejected: names the arguments and the reasons.
        """
        found = list(islice(self._validator.violations(dict(ask.arguments or {})), _NAMED_ERRORS))
        if found:
            raise ArgumentsRejected("; ".join(found), callable=self.target)

    async def ask(self, ask: Ask) -> Reply:
        """Call it once.

        Raises:
            NotSent: the call had no effect.
            McpCallFailed: the server answers with an error, or its response was lost.
        """
        arguments = dict(ask.arguments or {})
        return Reply(output=await self._server.call(self.name, arguments, ask.idempotency_key))
