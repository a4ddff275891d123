"""A service around the lifespan of section 7: `python -m manual.application` serves it with uvicorn.

It works in the current folder. `notes` gets a line for each run whose first step has completed. Runs of `wait`
end only when the file `go` exists. `left-open` gets the number of open connections after the shutdown.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import uvicorn
from fastapi import FastAPI

from flujo import HumanInTheLoopStep, Pipeline
from flujo.domain.steps import CallableRef, ConditionalStep, Expr, Text
from manual.blocks import lifecycle
from manual.supplied import Flujo
from support import call

GRACE_S = 1
"""How long uvicorn waits for requests before it cancels them."""


def note(data: str) -> str:
    """Write a line to `notes`."""
    with Path("notes").open("a", encoding="utf-8") as notes:
        notes.write(f"{data}\n")
    return data


async def wait(data: str) -> str:
    """Wait until cancelled, unless the file `go` exists."""
    if not Path("go").exists():  # noqa: ASYNC240 - one quick check
        await asyncio.Event().wait()
    return data


TREE = Pipeline(
    (
        call("note", CallableRef("application:note", note)),
        ConditionalStep(
            name="what",
            form="switch",
            condition=Expr("input.split(' ')[0]"),
            branches={
                "ask": Pipeline((HumanInTheLoopStep(name="question", message=Text("Go on?")),)),
                "wait": Pipeline((call("gate", CallableRef("application:wait", wait)),)),
            },
        ),
    ),
    name="service",
    input_schema={"type": "string"},
)


@asynccontextmanager
async def watched(app: FastAPI) -> AsyncIterator[None]:
    """Count the connections still open after the shutdown, while this process is alive."""
    async with lifecycle.lifespan(app):
        yield
    for _ in range(100):  # a process of Postgres ends a moment after its connection
        left = await asyncio.to_thread(connections, os.environ["FLUJO_STATE_URI"])
        if not left:
            break
        await asyncio.sleep(0.05)
    Path("left-open").write_text(str(left), "utf-8")  # noqa: ASYNC240 - no other task is running


app = FastAPI(lifespan=watched)


@app.post("/runs/{kind}/{number}")
async def run(kind: str, number: int) -> dict[str, Any]:
    """Start a run and answer when it has ended or waits for a human."""
    result = await lifecycle.adapter.runner.run_result_async(f"{kind} {number}", run_id=f"{kind}-{number}")
    return {"run_id": result.run_id, "status": result.status, "output": result.output}


@app.get("/connections")
async def count() -> int:
    """Return how many connections to the database there are."""
    return await asyncio.to_thread(connections, os.environ["FLUJO_STATE_URI"])


def connections(uri: str) -> int:
    """Return how many connections this process has to its database (SQLite: its open files)."""
    if uri.startswith("sqlite"):
        database = uri.removeprefix("sqlite:///")
        return sum(each.startswith(database) for each in map(_target, Path("/dev/fd").iterdir()))
    with psycopg.connect(uri) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        ).fetchone()
    return int(found[0]) if found else 0


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # the descriptor of the listing itself, or not a link on this system
        return ""


def main() -> None:
    """Serve on a free port, which is written to stdout."""
    Flujo.left_out = {"pipeline": TREE}
    lifecycle.adapter = lifecycle.FlujoAdapter()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)  # from here on, connections wait until they are accepted
        print(listening.getsockname()[1], flush=True)  # noqa: T201 - to the test
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_S)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
