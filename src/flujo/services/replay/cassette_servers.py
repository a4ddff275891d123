"""The tools of MCP servers in a cassette: the schemas of their arguments, by server and tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.journal import TRANSCRIPT, EntryKind
from flujo.domain.tools import McpTools
from flujo.services.mcp_servers import locked_servers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.steps import BaseStep
    from flujo.services.project.project import Project

_ANY = {"type": "object"}
"""The schema of a tool whose own one is not recorded: it takes all arguments that a model has given it."""


def servers_of(
    project: Project, steps: Iterable[BaseStep], family: Sequence[RecordedRun]
) -> Mapping[str, Mapping[str, Any]]:
    """Return the tools of the MCP servers that the agents of some steps use, as they were in a run.

    A conversation in turns records the schemas. A step that calls its agent once records only the names of
    its tools; their schemas are those of flujo.lock.
    """
    used = {spec.server: spec for step in steps for spec in _specs(step)}
    if not used:
        return {}
    locked = {
        server: {name: tool.parameters for name, tool in tools.items()}
        for server, tools in locked_servers(project).items()
    }
    found: dict[str, dict[str, Any]] = {server: {} for server in used}
    for run in family:
        for server, name, parameters in _recorded(run):
            if server in found:
                found[server][name] = parameters
    for server, spec in used.items():
        names = spec.allow or (
            locked.get(server, {}) if len(used) > 1 else _named(family, locked.get(server))
        )
        for name in names:
            found[server].setdefault(name, locked.get(server, {}).get(name, _ANY))
    return found


def _specs(step: BaseStep) -> Iterator[McpTools]:
    agent = getattr(step, "agent", None)
    for each in agent.one_of.values() if isinstance(agent, OneOf) else [agent]:
        if isinstance(each, AgentSpec):
            yield from (tool for tool in each.tools if isinstance(tool, McpTools))


def _recorded(run: RecordedRun) -> Iterator[tuple[str, str, Any]]:
    """Yield server, tool and schema from the agents of conversations in turns."""
    for entry in run.entries:
        if entry.kind is EntryKind.DECISION and entry.fingerprint == "granular":
            for name, traits in canonical.decode(entry.output or b"{}").get("tools", {}).items():
                if "server" in traits:
                    yield traits["server"], name, traits["parameters"]


def _named(family: Sequence[RecordedRun], locked: Mapping[str, Any] | None) -> Iterable[str]:
    """Return the names of the tools of the only server: in the lock, or in the calls of transcripts."""
    if locked:
        return locked
    names: dict[str, None] = {}
    for run in family:
        for entry in run.entries:
            detail = canonical.decode(entry.detail or b"{}")
            if TRANSCRIPT in detail:
                names |= dict.fromkeys(canonical.decode(run.blobs[detail[TRANSCRIPT]]).get("tools", ()))
    return names
