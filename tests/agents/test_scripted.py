from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.agents import Ask, Reply
from flujo.domain.conversations import FinalAnswer, ToolCalls, ToolResult
from flujo.domain.mcp import ListedTool, ListedTools
from flujo.domain.tools import McpTools
from flujo.domain.usage import Usage
from flujo.exceptions import AgentError
from flujo.testing import ScriptedAgent, ToolCall
from support import listener


async def test_answers_are_returned_in_order_and_requests_are_recorded() -> None:
    agent = ScriptedAgent(["one", {"two": 2}], usage=Usage(requests=1))
    assert (await agent.ask(Ask(data="a"))).output == "one"
    assert await agent.ask(Ask(data="b")) == Reply(
        output={"two": 2}, usage=Usage(requests=1), model="scripted"
    )
    assert [ask.data for ask in agent.asked] == ["a", "b"]
    with pytest.raises(AgentError, match="has 2 answers, and this is call number 3"):
        await agent.ask(Ask(data="c"))
    assert agent.count == 3


async def test_an_answer_may_be_a_function_an_exception_or_a_complete_reply() -> None:
    async def answer(ask: Ask) -> Any:
        if ask.data == "fail":
            return ValueError("no")
        return Reply(output=ask.data * 2, model="m")

    agent = ScriptedAgent(answer)
    assert await agent.ask(Ask(data=2)) == Reply(output=4, model="m")
    with pytest.raises(ValueError, match="no"):
        await agent.ask(Ask(data="fail"))


async def test_text_is_streamed_to_a_listener() -> None:
    heard: list[str] = []
    await ScriptedAgent(["hello"]).ask(Ask(on_text=listener(heard)))
    assert heard == ["hello"]


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@pytest.mark.parametrize("answer", ["four", "4", 4, {"n": [4]}, None, '{"n": 4}'])
async def test_a_conversation_takes_the_answer_of_its_turn_in_every_process(answer: Any) -> None:
    script = [[ToolCall("double", {"number": 2})], answer]
    agent = ScriptedAgent(script, tools=[double], usage=Usage(requests=1))
    session = agent.converse(Ask(), [])
    prompt = session.prompt("go")
    first = await session.request([prompt], may_call=True, meter=None, on_text=None)
    assert session.read(first.message) == ToolCalls((ToolCall("double", {"number": 2}, "call_0_0"),))

    again = ScriptedAgent(script, tools=[double]).converse(Ask(), [prompt, first.message])
    results = again.results([(ToolCall("double", {"number": 2}), ToolResult(4))])
    last = await again.request([results], may_call=True, meter=None, on_text=None)
    assert again.read(last.message) == FinalAnswer(answer)


async def test_a_script_without_a_further_turn_fails() -> None:
    session = ScriptedAgent([]).converse(Ask(), [])
    with pytest.raises(AgentError, match="has 0 answers, and this is call number 1"):
        await session.request([session.prompt("go")], may_call=True, meter=None, on_text=None)


class Shelf:
    """A fake MCP server with one tool."""

    name = "kb"
    timeout_s = 1.0

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def tools(self) -> ListedTools:
        return {"find": ListedTool("Find a book", {"type": "object", "required": ["title"]})}

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None) -> Any:
        self.calls.append((tool, arguments, key))
        return ["Emma"]


async def test_it_calls_tools_of_an_mcp_server_that_may_be_a_fake() -> None:
    shelf = Shelf()
    agent = ScriptedAgent(
        [ToolCall("find", {}), ToolCall("find", {"title": "Emma"}), "done"],
        tools=[McpTools("kb", effect="read")],
        servers={"kb": shelf},
    )
    await agent.prepare()
    await agent.ask(Ask(data="Find Emma"))
    assert shelf.calls == [("find", {"title": "Emma"}, None)], "arguments that do not fit are refused"


async def test_an_mcp_server_that_it_does_not_have_is_an_error() -> None:
    agent = ScriptedAgent(["done"], tools=[McpTools("kb", allow=["find"])])
    with pytest.raises(AgentError, match="tools of MCP server 'kb', which its `servers` do not have"):
        await agent.prepare()
