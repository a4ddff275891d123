"""Which tools may be called: the allow-list of a project (`[governance]`).

It holds for every tool that a model can call, and with `calls` for the callables of `call` steps. The run's
own task has it as `TOOL_POLICY`, so that the gate of turns and that of plain steps read the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from flujo.domain.wording import listed
from flujo.exceptions import ToolDenied

OnDenied = Literal["refuse", "fail"]
"""What happens to a denied call of a model: the model reads a refusal, or the step fails."""

BY_THE_LIST = "allow_list"
"""What an entry of a denied call has as `refused_by`."""

_MCP = "mcp:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPolicy:
    """An allow-list: what is not on it is denied."""

    allowed: frozenset[str] | None = None
    """Names of tools, `SERVER:*` or `SERVER:TOOL` of an MCP server, `module:callable`; None allows all."""
    calls: bool = False
    """Whether the callables of `call` steps must be on it."""
    on_denied: OnDenied = "refuse"

    def allows(self, name: str, target: str) -> bool:
        """Return whether a tool may be called: `name` for models, `target` the code behind it."""
        return self.allowed is None or not self.allowed.isdisjoint(names_of(name, target))

    def denial(self, name: str, target: str) -> str:
        """Return why a tool may not be called, in words for the model; empty when it may.

        Raises:
            ToolDenied: it may not, and the step fails (`on_denied`).
        """
        if self.allows(name, target):
            return ""
        if self.on_denied == "fail":
            raise self._error(name, target)
        return f"this project does not allow the tool `{name}`"

    def require_call(self, target: str) -> None:
        """Check the callable of a `call` step.

        Raises:
            ToolDenied: it is not on the list, and `calls` is set.
        """
        if self.calls and not self.allows(target, target):
            raise self._error(target, target)

    def _error(self, name: str, target: str) -> ToolDenied:
        known = listed(sorted(self.allowed or ()), "and")
        return ToolDenied(
            f"`{name}` is not on the list of allowed tools" + (f": {known}" if known else ", which is empty"),
            hint=f"add {next(iter(_addable(target)))!r} to `[governance] tools`, or to "
            "FLUJO_GOVERNANCE_TOOL_ALLOWLIST, which overrides it",
            tool=name,
            target=target,
        )


EVERY_TOOL = ToolPolicy()
TOOL_POLICY: ContextVar[ToolPolicy] = ContextVar("flujo_tool_policy", default=EVERY_TOOL)
"""The allow-list of the run that is executed here."""


def names_of(name: str, target: str) -> frozenset[str]:
    """Return every text of a list that allows a tool."""
    return frozenset((name, *_addable(target)))


def _addable(target: str) -> Iterator[str]:
    """Yield the texts that mean this tool and no other, then the others."""
    if target.startswith(_MCP):
        server, _, tool = target.removeprefix(_MCP).partition("/")
        yield f"{server}:{tool}"
        yield f"{server}:*"
    else:
        yield target
