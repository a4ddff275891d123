"""Every tool call goes through `ToolGate.call`, or through the one attempt of a plain step; none goes round them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from architecture.source import modules

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLERS = {
    "engine/tool_calls.py": "the gate: each call is a leaf of the run",
    "agents/conversation.py": "a plain step: one attempt, which refuses tools that must be recorded",
}
"""Modules that call a tool."""

KINDS = {
    "agents/tools.py": "FunctionTool and StepsTool",
    "agents/mcp_tools.py": "McpTool",
    "services/replay/recorded_agents.py": "RecordedTool, which calls nothing",
}
"""Modules with a class that is a tool: it has `approve` and `ask`."""


def test_only_the_gate_and_the_plain_step_call_tools() -> None:
    found = {module for module, tree in modules().items() if any(_calls_of_tools(tree))}
    assert found == CALLERS.keys()


def test_steps_of_tools_run_behind_the_gate_only() -> None:
    found = {module for module, tree in modules().items() if "composed_call" in _called(tree)}
    assert found == {"engine/tool_calls.py"}


def test_every_kind_of_tool_is_known_to_the_gate() -> None:
    found = {module for module, tree in modules().items() if any(_kinds(tree))}
    assert found - {"domain/conversations.py"} == KINDS.keys()


def test_pydantic_ai_never_calls_a_tool_or_an_output_function() -> None:
    """Its agents, toolsets and output functions have a loop of their own; only single requests are sent."""
    taken = {
        name.name
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pydantic_ai"
        for name in node.names
    }
    assert not taken & {
        "Agent",
        "FunctionToolset",
        "ToolOutput",
        "ToolManager",
        "AbstractToolset",
        "MCPServer",
    }
    assert "direct" in taken


def _calls_of_tools(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield calls `tool.ask(…)`, `tools[name].ask(…)` and `self._tool.ask(…)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=of, attr="ask")) if "tool" in ast.unparse(of).lower():
                yield node


def _called(tree: ast.Module) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def _kinds(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names = {each.name for each in node.body if isinstance(each, ast.AsyncFunctionDef)}
            said = ast.unparse(node)
            if "ask" in names and "approve" in said and "is_sequential" in said:
                yield node
