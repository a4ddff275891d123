"""The allow-list of tools: exact names, and everything else is denied."""

from __future__ import annotations

import pytest

from flujo.domain.tool_policy import EVERY_TOOL, ToolPolicy
from flujo.exceptions import ToolDenied


@pytest.mark.parametrize(
    ("allowed", "name", "target", "is_allowed"),
    [
        ({"search"}, "search", "app.tools:search", True),
        ({"app.tools:search"}, "search", "app.tools:search", True),
        ({"help:*"}, "find", "mcp:help/find", True),
        ({"help:find"}, "find", "mcp:help/find", True),
        ({"find"}, "find", "mcp:help/find", True),
        ({"help:find"}, "drop", "mcp:help/drop", False),
        ({"help:*"}, "find", "mcp:helper/find", False),
        ({"help:*"}, "find", "help:find", False),  # a module, not a server
        ({"app.tools:*"}, "search", "app.tools:search", False),
        ({"Search"}, "search", "app.tools:search", False),
        ({"sear"}, "search", "app.tools:search", False),
        (set(), "search", "app.tools:search", False),
    ],
)
def test_names_are_exact(allowed: set[str], name: str, target: str, is_allowed: bool) -> None:
    assert ToolPolicy(allowed=frozenset(allowed)).allows(name, target) is is_allowed


def test_without_a_list_every_tool_is_allowed() -> None:
    assert EVERY_TOOL.denial("any", "a:b") == ""
    EVERY_TOOL.require_call("a:b")


def test_a_denied_call_is_refused_or_ends_the_step() -> None:
    refuses = ToolPolicy(allowed=frozenset({"b", "a"}))
    assert refuses.denial("drop", "db:drop") == "this project does not allow the tool `drop`"
    fails = ToolPolicy(allowed=frozenset({"b", "a"}), on_denied="fail")
    with pytest.raises(ToolDenied, match=r"`drop` is not on the list of allowed tools: `a` and `b`") as error:
        fails.denial("drop", "mcp:db/drop")
    assert "'db:drop'" in (error.value.hint or "")
    assert (error.value.tool, error.value.target) == ("drop", "mcp:db/drop")


def test_callables_of_steps_are_on_the_list_only_with_calls() -> None:
    ToolPolicy(allowed=frozenset()).require_call("a:b")
    with pytest.raises(ToolDenied, match="which is empty"):
        ToolPolicy(allowed=frozenset(), calls=True).require_call("a:b")
    ToolPolicy(allowed=frozenset({"a:b"}), calls=True).require_call("a:b")
