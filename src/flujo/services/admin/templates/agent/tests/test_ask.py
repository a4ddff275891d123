"""The blueprint with a script instead of the model: its tools are really called."""

import asyncio
from pathlib import Path
from typing import Any

from flujo.testing import ScriptedAgent, ToolCall, scripted_runner

PROJECT = Path(__file__).parent.parent


def ask(question: str, script: list[Any]) -> tuple[Any, ScriptedAgent]:
    """Run the blueprint, and return its result and the agent, which knows what it was sent."""
    clerk = ScriptedAgent(script)

    async def run() -> Any:
        async with scripted_runner("ask", {"clerk": clerk}, project=PROJECT) as runner:
            return await runner.run_result_async(question)

    return asyncio.run(run()), clerk


def test_the_agent_looks_up_the_order() -> None:
    result, clerk = ask(
        "Where is A-1001?", [ToolCall("find_order", {"number": "A-1001"}), "Your lamp is on its way."]
    )
    assert result.output == {"answer": "Your lamp is on its way.", "tool_calls": 1}
    assert "an oak desk lamp" in str(clerk.asked[-1].data)  # the result of the tool went to the model


def test_an_empty_answer_is_sent_back_to_the_model() -> None:
    result, _ = ask("Where is A-1001?", ["", "I do not know."])
    assert result.output["answer"] == "I do not know."
