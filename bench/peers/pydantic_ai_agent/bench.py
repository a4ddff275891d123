"""An agent of pydantic-ai alone: nothing is stored."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from instant import Instant  # isort: skip - the line above finds it
from pydantic_ai import Agent
from pydantic_ai.usage import UsageLimits
from turns import ANSWER, Script, lookup, main, measured


async def work(_: Path) -> dict[str, float]:
    script = Script()
    agent = Agent(Instant(script), instructions="Look all customers up.", tools=[lookup])

    async def talk(_: str, turns: int) -> None:
        result = await agent.run("Go.", usage_limits=UsageLimits(request_limit=turns))
        assert result.output == ANSWER

    return await measured(script, talk, None)


if __name__ == "__main__":
    main(("pydantic-ai-slim",), work)
