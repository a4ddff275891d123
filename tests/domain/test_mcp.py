"""Lists of tools are compared by name, description and schema."""

from flujo.domain.mcp import ListedTool, differences, locked_tools

TOOL = ListedTool("Look up", {"type": "object"})


def test_equal_lists_have_no_differences() -> None:
    assert list(differences({"a": TOOL}, {"a": ListedTool("Look up", {"type": "object"})})) == []


def test_each_difference_is_named() -> None:
    changed = ListedTool("Look up", {"type": "object", "required": ["x"]})
    assert list(differences({"a": TOOL, "b": TOOL}, {"a": changed, "c": TOOL})) == [
        "tool `a`: the schema of its arguments has changed",
        "tool `b` was removed",
        "tool `c` is new",
    ]


def test_a_tool_survives_the_way_through_a_lock() -> None:
    assert locked_tools({"a": TOOL.to_json()}) == {"a": TOOL}
    assert TOOL.sha256 != ListedTool("Look up!", {"type": "object"}).sha256
