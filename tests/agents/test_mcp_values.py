"""What a result of an MCP server is as a value of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp.types import CallToolResult, ImageContent, TextContent

from flujo.agents import mcp_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.agents.mcp_servers import McpServer

TEXT = TextContent(type="text", text="a")
IMAGE = ImageContent(type="image", data="AAAA", mime_type="image/png")


def test_one_text_is_the_value() -> None:
    assert mcp_values.value(CallToolResult(content=[TEXT])) == "a"


def test_several_parts_are_a_list() -> None:
    image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
    assert mcp_values.value(CallToolResult(content=[TEXT, IMAGE])) == ["a", image]


def test_no_content_is_null() -> None:
    assert mcp_values.value(CallToolResult(content=[])) is None


def test_structured_content_is_the_value_and_keeps_an_image_beside_it() -> None:
    assert mcp_values.value(CallToolResult(content=[TEXT], structured_content={"n": 1})) == {"n": 1}
    both = mcp_values.value(CallToolResult(content=[TEXT, IMAGE], structured_content={"n": 1}))
    assert both == {
        "structured": {"n": 1},
        "content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}],
    }


async def test_an_image_is_a_part_of_the_value(make_server: Callable[..., McpServer]) -> None:
    text, image = await make_server().call("picture", {}, None)
    assert text == "a dot"
    assert (image["type"], image["mimeType"]) == ("image", "image/png")
    assert image["data"].startswith("iVBOR")
