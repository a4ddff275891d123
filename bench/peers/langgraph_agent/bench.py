"""LangGraph's prebuilt agent with its SQLite saver, which stores each step before the next one (`sync`)."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["LANGSMITH_TRACING"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.prebuilt import create_react_agent
from turns import ANSWER, Script, lookup, main, measured


class Instant(BaseChatModel):
    """Calls `lookup` until the script ends."""

    script: Any

    @property
    def _llm_type(self) -> str:
        return "instant"

    def bind_tools(self, *_: Any, **__: Any) -> "Instant":
        """Return this model, which knows its tool."""
        return self

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        number = self.script.next()
        call = {"name": "lookup", "args": {"name": f"Ada {number}"}, "id": f"c{number}"}
        usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
        said = (
            AIMessage(ANSWER, usage_metadata=usage)
            if number is None
            else AIMessage("", tool_calls=[call], usage_metadata=usage)
        )
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
        return self._generate()


async def work(folder: Path) -> dict[str, float]:
    script = Script()
    database = folder / "state.db"
    async with AsyncSqliteSaver.from_conn_string(str(database)) as saver:
        agent = create_react_agent(
            Instant(script=script), [tool(lookup)], prompt="Look all customers up.", checkpointer=saver
        )

        async def talk(name: str, turns: int) -> None:
            config = {"configurable": {"thread_id": name}, "recursion_limit": 2 * turns + 10}
            given = {"messages": [("user", "Go.")]}
            result = await agent.ainvoke(given, config, durability="sync")
            assert result["messages"][-1].content == ANSWER

        return await measured(script, talk, database)


if __name__ == "__main__":
    main(("langgraph", "langgraph-prebuilt", "langgraph-checkpoint-sqlite"), work)
