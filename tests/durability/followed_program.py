"""A process that executes or resumes a run which is followed.

    python followed_program.py URI FOLDER RUN

Its model writes text in pieces, and each piece waits for a file of its name in FOLDER. It prints the output of the run.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

from flujo.domain.agents import Ask, Reply
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, Step
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent

PIECES = ("Hello", " and", " goodbye")


def pipeline(folder: Path) -> Pipeline:
    """Return a step of code that waits, and one of a model that writes."""

    async def allowed(name: str) -> None:
        while not (folder / name.strip()).exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.01)

    async def begin(_: Any) -> str:
        await allowed("begin")
        logging.getLogger("mine").warning("begun")
        return "begun"

    async def write(ask: Ask) -> Reply:
        for piece in PIECES:
            await allowed(piece)
            if ask.on_text is not None:
                await ask.on_text(piece)
        return Reply(output="".join(PIECES))

    agent = ScriptedAgent(write)
    return Pipeline(
        [Step("begin", call=CallableRef("followed:begin", begin)), Step("write", agent=agent)],
        name="followed",
    )


async def main(uri: str, folder: Path, run: str) -> str:
    """Execute or resume the run."""
    store = SqlStateStore(uri)
    try:
        async with Flujo[Any, Any, Any](pipeline(folder), store=store) as runner:
            return str((await runner.run_result_async(None, run_id=run)).output)
    finally:
        await store.aclose()


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])) + "\n")
