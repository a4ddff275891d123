"""The service: `uvicorn app:app` in the folder of the project."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
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
