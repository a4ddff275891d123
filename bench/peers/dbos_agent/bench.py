"""pydantic-ai's `DBOSAgent`: requests and tool calls are steps of DBOS, on SQLite in its WAL mode."""

import sqlite3
import sys
from pathlib import Path

if sqlite3.sqlite_version_info < (3, 42):
    # DBOS's schema uses unixepoch('subsec'), which SQLite has from 3.42 on.
    import pysqlite3

    sys.modules["sqlite3"] = sqlite3 = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dbos import DBOS, SetWorkflowID
from instant import Instant
from pydantic_ai import Agent
from pydantic_ai.durable_exec.dbos import DBOSAgent
from pydantic_ai.usage import UsageLimits
from turns import ANSWER, Script, lookup, main, measured


async def work(folder: Path) -> dict[str, float]:
    database = folder / "state.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    script = Script()
    agent = Agent(
        Instant(script), name="researcher", instructions="Look all customers up.", tools=[DBOS.step()(lookup)]
    )
    durable = DBOSAgent(agent)
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{database}", "log_level": "ERROR"})
    DBOS.launch()

    async def talk(name: str, turns: int) -> None:
        with SetWorkflowID(name):
            result = await durable.run("Go.", usage_limits=UsageLimits(request_limit=turns))
        assert result.output == ANSWER

    return await measured(script, talk, database)


if __name__ == "__main__":
    main(("pydantic-ai-slim", "dbos"), work)
