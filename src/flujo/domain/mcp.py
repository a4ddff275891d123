"""The tools that an MCP server lists, and how two lists differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from flujo.domain import canonical
from flujo.domain.fast_dataclass import record
from flujo.domain.wording import short

IDEMPOTENCY_KEY = "flujo/idempotency_key"
"""The key of `_meta` under which a call carries its idempotency key."""


@record(frozen=True, slots=True)
class ListedTool:
    """What a model sees of one tool of an MCP server."""

    description: str
    parameters: Any
    """The JSON Schema of its arguments."""

    @property
    def sha256(self) -> str:
        """The digest of the description and the schema."""
        return canonical.digest(canonical.encode([self.description, self.parameters]))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data, for a lock."""
        return {"description": self.description, "parameters": self.parameters, "sha256": self.sha256}


ListedTools = Mapping[str, ListedTool]
"""The tools of a server, by name."""


class ToolServer(Protocol):
    """A server that has tools."""

    name: str

    @property
    def timeout_s(self) -> float:
        """The time limit of a call."""
        ...

    async def tools(self) -> ListedTools:
        """Return its tools; the first use in an event loop starts it.

        Raises:
            LockMismatch: they are not those of the lock, or not those that it had before.
            McpServerFailed: it cannot be started or reached.
        """
        ...

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None) -> Any:
        """Call a tool once, and return its result as JSON data.

        Args:
            tool: its name.
            arguments: its arguments.
            key: the idempotency key of the call, if it has one.

        Raises:
            NotSent: the call had no effect: the server was not reached, or it refused the call.
            LockMismatch: the tools of the server have changed.
            McpCallFailed: it answers with an error, or its response was lost.
        """
        ...


def locked_tools(held: Mapping[str, Any]) -> ListedTools:
    """Return the tools of one server from its entry in a lock."""
    return {
        name: ListedTool(str(one.get("description", "")), one.get("parameters"))
        for name, one in held.items()
        if isinstance(one, dict)
    }


def differences(before: ListedTools, now: ListedTools) -> Iterator[str]:
    """Yield each difference between two lists of tools, in words."""
    for name in sorted({*before, *now}):
        was, found = before.get(name), now.get(name)
        if was is None:
            yield f"tool `{name}` is new"
        elif found is None:
            yield f"tool `{name}` was removed"
        else:
            if was.description != found.description:
                shown = (repr(short(text, _LONG)) for text in (was.description, found.description))
                yield f"tool `{name}`: its description was {next(shown)} and is {next(shown)}"
            if was.parameters != found.parameters:
                yield f"tool `{name}`: the schema of its arguments has changed"


_LONG = 80
