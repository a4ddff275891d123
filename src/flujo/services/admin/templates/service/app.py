"""The service: `python app.py` in the folder of the project."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from flujo import Flujo, PipelineResult, TaskClient, read_blueprint
from flujo.exceptions import FlujoError, RunNotFound, SettingsError, StateBackendUnavailable


class Refund(BaseModel):
    """The body of a request for a refund."""

    order: Annotated[str, Field(min_length=1, max_length=20)]
    amount: Annotated[float, Field(gt=0)]


class Answer(BaseModel):
    """The answer of a human."""

    ok: bool


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one runner for all requests. Closing it releases its runs, which the next process continues."""
    runner: Flujo[Any, Any, Any] = Flujo(read_blueprint("refund"))
    async with runner, TaskClient(runners=[runner]) as client:
        app.state.runner, app.state.client = runner, client
        app.state.stopping = asyncio.Event()
        yield


app = FastAPI(title="@NAME@", lifespan=lifespan)


@app.post("/refunds", status_code=202)
async def start(
    refund: Refund, request: Request, idempotency_key: Annotated[str | None, Header()] = None
) -> dict[str, Any]:
    """Start a run. The same `Idempotency-Key` starts no second one."""
    return seen(await request.app.state.runner.run_result_async(refund.model_dump(), run_id=idempotency_key))


@app.get("/refunds/{run_id}")
async def show(run_id: str, request: Request) -> dict[str, Any]:
    """Return how far a run is."""
    detail = await request.app.state.client.get_task(run_id)
    return {"run_id": detail.task.run_id, "status": detail.task.status, "output": detail.output}


@app.get("/refunds/{run_id}/events")
async def follow(
    run_id: str, request: Request, last_event_id: Annotated[int, Header(ge=0)] = 0
) -> StreamingResponse:
    """Send what a run does as server-sent events, until it ends, the client goes or the service stops."""
    client: TaskClient = request.app.state.client
    await client.get_task(run_id)  # an unknown run is an answer with its status, and not a stream
    events = sent(client.follow(run_id, after=last_event_id), request.app.state.stopping)
    return StreamingResponse(events, media_type="text/event-stream")


async def sent(lines: AsyncGenerator[Any, None], stopping: asyncio.Event) -> AsyncIterator[str]:
    """Yield an event for each line; its `id` is the place after which a client continues."""
    stopped = asyncio.ensure_future(stopping.wait())
    coming = asyncio.ensure_future(anext(lines, None))
    async with aclosing(lines):
        try:
            while True:
                await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() or (line := coming.result()) is None:
                    return
                data = json.dumps({"step": line.path, "text": line.text})
                yield f"id: {line.offset}\nevent: {line.kind}\ndata: {data}\n\n"
                coming = asyncio.ensure_future(anext(lines, None))
        finally:
            for task in (coming, stopped):
                task.cancel()
            await asyncio.wait({coming, stopped})


@app.post("/refunds/{run_id}/answer")
async def answer(run_id: str, body: Answer, request: Request) -> dict[str, Any]:
    """Answer the question of a run, and continue it."""
    return seen(await request.app.state.client.resume_task(run_id, body.model_dump()))


@app.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Return whether the database answers."""
    await request.app.state.client.list_tasks(limit=1)
    return {"status": "ok"}


@app.exception_handler(FlujoError)
async def refuse(request: Request, error: FlujoError) -> JSONResponse:
    """Answer with the code and the hint of an error."""
    match error:
        case RunNotFound():
            status = 404
        case SettingsError():  # an input or an answer that does not fit its schema
            status = 422
        case StateBackendUnavailable():
            status = 503
        case _:
            status = 409
    return JSONResponse({"code": error.code, "message": error.message, "hint": error.hint}, status)


def seen(result: PipelineResult[Any, Any]) -> dict[str, Any]:
    """Return a run as the client sees it."""
    return {
        "run_id": result.run_id,
        "status": result.status,
        "output": result.output,
        "questions": [pause.message for pause in result.pauses],
        "error": result.error.message if result.error else None,
    }


class Server(uvicorn.Server):
    """A server that ends its streams when it stops; each would keep it open until its run ends."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, and wait for the other requests."""
        app.state.stopping.set()
        await super().shutdown(sockets)


if __name__ == "__main__":
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    Server(uvicorn.Config(app, host=host, port=port, timeout_graceful_shutdown=10)).run()
