"""Rules about the tools of MCP servers. No server is started: the lock has what it lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.blueprint.language import models as doc
from flujo.domain.wording import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

_STEPS = "steps:\n  - {kind: granular, name: serve, agent: clerk}"
_AGENT = "agents: {clerk: {model: a:b, tools: ["
_LOCKED = "# flujo.lock: the tool kb_search of the server kb\n"
UNKNOWN_SERVER = rule(
    "FLJ452",
    "unknown-mcp-server",
    "An MCP server that flujo.toml does not have",
    finds="A tool with `mcp: NAME`, and no table `[mcp.NAME]` in flujo.toml.",
    why="A blueprint cannot say which program is started: only flujo.toml can.",
    example=f"# flujo.toml: [mcp.kb]\n{_AGENT}{{mcp: kbs}}]}}}}\n{_STEPS}",
    instead=f"# flujo.toml: [mcp.kb]\n{_AGENT}{{mcp: kb}}]}}}}\n{_STEPS}",
)
UNKNOWN_TOOL = rule(
    "FLJ453",
    "unknown-mcp-tool",
    "A tool that the locked MCP server does not have",
    finds="A name in `allow` that is not among the tools of the server in flujo.lock.",
    why="The run would fail when the server is started.",
    example=f"{_LOCKED}{_AGENT}{{mcp: kb, allow: [search]}}]}}}}\n{_STEPS}",
    instead=f"{_LOCKED}{_AGENT}{{mcp: kb, allow: [kb_search]}}]}}}}\n{_STEPS}",
)
NO_TRANSACTION = rule(
    "FLJ454",
    "mcp-transaction",
    "A transactional tool of an MCP server",
    finds="`effect: transactional` on a tool with `mcp`.",
    why="A transactional tool commits together with its entry in the journal, in one database. An MCP server "
    "has none of it.",
    example=f"{_AGENT}{{mcp: kb, effect: transactional}}]}}}}\n{_STEPS}",
    instead=f"{_AGENT}{{mcp: kb, effect: idempotent}}]}}}}\n{_STEPS}",
)


def mcp_tools(unit: Unit) -> Iterator[Diagnostic]:
    """Report unknown MCP servers, tools that they do not have, and effects that their tools cannot have."""
    for name, agent in unit.blueprint.agents.items():
        for path, tool in doc.mcp_tools(agent):
            yield from _mcp_tool(unit, ("agents", name, *path), tool, tool.mcp or "")


def _mcp_tool(unit: Unit, path: Path, tool: doc.Tool, server: str) -> Iterator[Diagnostic]:
    if tool.effect == "transactional":
        yield NO_TRANSACTION.at(
            unit.span(*path, "effect"),
            f"a tool of MCP server {server!r} cannot be transactional",
            hint="write `read`, `idempotent` or `unsafe`",
        )
    if unit.project.servers is None:
        return
    if server not in unit.project.servers:
        yield UNKNOWN_SERVER.at(
            unit.span(*path, "mcp"),
            f"there is no [mcp.{server}] in flujo.toml",
            hint=suggest(server, unit.project.servers, what="there are", cutoff=0.6)
            or f"write a table [mcp.{server}] with its `command` or `url`",
        )
        return
    locked = unit.project.servers[server]
    for index, name in enumerate(() if locked is None else tool.allow or ()):
        if name not in (locked or ()):
            yield UNKNOWN_TOOL.at(
                unit.span(*path, "allow", index),
                f"MCP server {server!r} has no tool `{name}` in flujo.lock",
                hint=f"{suggest(name, locked or (), what='there are', cutoff=0.6)}; after a change of the "
                "server, lock it with `flujo lock`",
            )
