from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.agents import Ask, Reply
from flujo.domain.usage import Usage
from flujo.exceptions import AgentError
from flujo.testing import ScriptedAgent
from support import listener


async def test_answers_come_in_order_and_asks_are_kept() -> None:
    agent = ScriptedAgent(["one", {"two": 2}], usage=Usage(requests=1))
    assert (await agent.ask(Ask(data="a"))).output == "one"
    assert await agent.ask(Ask(data="b")) == Reply(
        output={"two": 2}, usage=Usage(requests=1), model="scripted"
    )
    assert [ask.data for ask in agent.asked] == ["a", "b"]
    with pytest.raises(AgentError, match="has 2 answers, and this is call number 3"):
        await agent.ask(Ask(data="c"))
    assert agent.count == 3


async def test_an_answer_may_be_computed_raised_or_given_whole() -> None:
    async def answer(ask: Ask) -> Any:
        if ask.data == "fail":
            return ValueError("no")
        return Reply(output=ask.data * 2, model="m")

    agent = ScriptedAgent(answer)
    assert await agent.ask(Ask(data=2)) == Reply(output=4, model="m")
    with pytest.raises(ValueError, match="no"):
        await agent.ask(Ask(data="fail"))


async def test_text_is_sent_on_when_somebody_listens() -> None:
    heard: list[str] = []
    await ScriptedAgent(["hello"]).ask(Ask(on_text=listener(heard)))
    assert heard == ["hello"]
