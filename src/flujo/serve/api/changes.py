"""What programs change: they start, answer, cancel, retry, resume, fork and rate runs, and send events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from flujo.domain.access import Right
from flujo.domain.queues import DEFAULT_QUEUE, MAX_PRIORITY, PRIORITIES
from flujo.exceptions import RequestRefused
from flujo.serve.api.requests import Asked, answered, body
from flujo.serve.api.runs import RUN, RUNS, run_in
from flujo.serve.endpoints import API_PREFIX, Endpoint, Operation
from flujo.serve.serving import serving, tasks
from flujo.services.inspection.view_shapes import DeliveryData, EvaluationData, ResultData, RunData
from flujo.services.inspection.views import delivery_data, evaluation_data, result_data, run_data
from flujo.services.runs.answers import NO_RESULT
from flujo.services.runs.forks import UNCHANGED, Fork

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.domain.models import PipelineResult

KEY = "Idempotency-Key"


class NewRun(Asked):
    """A run to start in a queue."""

    blueprint: str
    """The name of the blueprint, or its path in the project."""
    input: Any = None
    """It has to fit the `input_schema` of the blueprint."""
    context: dict[str, Any] = Field(default_factory=dict)
    """Fields of the context at the start."""
    user_id: str | None = None
    metadata: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Facts to find the run by."""
    queue: str = DEFAULT_QUEUE
    priority: int = Field(
        default=0,
        description=f"From {PRIORITIES}; a run with a higher one begins first.",
        json_schema_extra={"minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
    )
    delay_s: float = Field(default=0.0, ge=0)
    """After how many seconds it may begin."""


class Answer(Asked):
    """The answer to a question."""

    answer: Any
    """It has to fit the `answer_schema` of the question."""
    digest: str
    """The `digest` of the question that is answered."""
    pause_id: str | None = None
    """The question, if several of the run are open."""


class Outcome(Asked):
    """The outcome of a call in doubt."""

    outcome: Literal["done", "retry", "fail"]
    """`done`: the call took effect; `retry`: call again; `fail`: fail the step."""
    result: Any = None
    """The result of the call; only with `done`."""
    pause_id: str | None = None
    """The doubt, if several calls are in doubt."""


class Execution(Asked):
    """How long the answer waits for a run that the server executes."""

    wait: float = Field(default=1.0, ge=0, le=60)
    """For how many seconds. A run that takes longer continues, and the answer is 202."""


class NewFork(Execution):
    """A fork: the run again from a step, with other values."""

    at: str
    """The path of the step; everything before it is copied."""
    input: Any = None
    """The input, instead of that of the run."""
    context: dict[str, Any] = Field(default_factory=dict)
    """Fields of the context that have other values from `at` on."""
    answers: dict[str, Any] = Field(default_factory=dict)
    """Answers to questions, by the paths of their steps."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """Other instructions, by the names of agents."""
    models: dict[str, str] = Field(default_factory=dict)
    """Other models, by the names of agents."""
    run_id: str | None = None
    """The id of the fork. Default: a new one."""
    live_effects: bool = False
    """Whether calls with effects are made, instead of taking the recorded results."""


class Rating(Asked):
    """The score that a person gives to an output."""

    score: float
    """From 0, the worst, to 1."""
    path: str | None = None
    """The step whose output is rated; without it the output of the run."""
    name: str | None = None
    """The `evaluator`. Default: `rating`."""
    reason: str | None = None


class Event(Asked):
    """An event for a run, or for the run that waits for its name and key."""

    event: str
    """Its name."""
    payload: Any = None
    run_id: str | None = None
    """The run; or `key`."""
    key: str | None = None
    """The key of the wait."""
    all: bool = False
    """With a key: whether every run takes it that waits now."""
    event_id: str | None = None
    """The sender's id: a second event with the same id and content does nothing."""


class UnderwayData(TypedDict):
    """A run that the server executes after the answer."""

    run_id: str
    status: Literal["running"]


async def start_run(request: Request) -> Response:
    """Record a run in a queue, and answer with it."""
    asked = await body(request, NewRun)
    given = asked.model_dump(exclude={"blueprint", "input"})
    keys = request.headers.getlist(KEY)
    if len(keys) > 1:
        raise RequestRefused(f"the header `{KEY}` comes {len(keys)} times", where=KEY)
    task = await tasks(request).start_task(
        asked.blueprint, asked.input, **given, idempotency_key=keys[0] if keys else None
    )
    return answered(run_data(task), 202, {"location": _place(request, task.run_id)})


async def answer_run(request: Request) -> Response:
    """Record the answer to a question; a worker, or the owner of the run, continues it."""
    asked = await body(request, Answer)
    result = await tasks(request).resume_task(
        run_in(request), asked.answer, asked.pause_id, digest=asked.digest, detach=True
    )
    return answered(result_data(result))


async def resolve_run(request: Request) -> Response:
    """Record the outcome of a call in doubt."""
    asked = await body(request, Outcome)
    result = asked.result if "result" in asked.model_fields_set else NO_RESULT
    found = await tasks(request).resolve_task(
        run_in(request), asked.outcome, result=result, pause_id=asked.pause_id, detach=True
    )
    return answered(result_data(found))


async def cancel_run(request: Request) -> Response:
    """Cancel a run, and answer with it as it is then."""
    await body(request, Asked)
    return answered(run_data(await tasks(request).cancel_task(run_in(request))))


async def retry_run(request: Request) -> Response:
    """Retry the failed step of a run in the process of the server."""
    asked, run_id = await body(request, Execution), run_in(request)
    return await _executed(request, run_id, tasks(request).retry_task(run_id), asked.wait)


async def resume_run(request: Request) -> Response:
    """Resume a run in the process of the server."""
    asked, run_id = await body(request, Execution), run_in(request)
    return await _executed(request, run_id, tasks(request).continue_task(run_id), asked.wait)


async def fork_run(request: Request) -> Response:
    """Fork a run in the process of the server."""
    asked = await body(request, NewFork)
    run_id = asked.run_id or serving(request).workspace.random.run_id()
    given = asked.model_dump(exclude={"input", "wait", "run_id"})
    given["input"] = asked.input if "input" in asked.model_fields_set else UNCHANGED
    forking = tasks(request).fork_task(run_in(request), Fork(**given, run_id=run_id))
    return await _executed(request, run_id, forking, asked.wait)


async def rate_run(request: Request) -> Response:
    """Record the score that a person gives to the output of a run or of a step."""
    asked = await body(request, Rating)
    return answered(evaluation_data(await tasks(request).rate(run_in(request), **asked.model_dump())))


async def send_event(request: Request) -> Response:
    """Send an event, and answer with what has become of it."""
    asked = await body(request, Event)
    return answered(delivery_data(await tasks(request).send_event(**asked.model_dump())))


async def _executed(
    request: Request, run_id: str, work: Coroutine[Any, Any, PipelineResult[Any, Any]], wait_s: float
) -> Response:
    """Execute a run here; answer with its result, or with 202 and its place if it takes longer."""
    result = await serving(request).executing.begin(work, wait_s)
    if result is not None:
        return answered(result_data(result))
    return answered({"run_id": run_id, "status": "running"}, 202, {"location": _place(request, run_id)})


def _place(request: Request, run_id: str) -> str:
    return f"{request.scope.get('root_path', '')}{RUNS}/{run_id}"


def _on_run(verb: str, answer: Any, right: Right, operation: Operation) -> Endpoint:
    return Endpoint("POST", f"{RUN}/{verb}", answer, right, operation)


ENDPOINTS = (
    Endpoint(
        "POST",
        RUNS,
        start_run,
        Right.OPERATE,
        Operation(
            "Start a run in a queue",
            NewRun,
            status=202,
            shape=RunData,
            headers={KEY: "A key of the caller: a second start with it is the same run."},
        ),
    ),
    _on_run("answer", answer_run, Right.ANSWER, Operation("Answer a question", Answer, shape=ResultData)),
    _on_run(
        "resolve",
        resolve_run,
        Right.ANSWER,
        Operation("Set the outcome of a call in doubt", Outcome, shape=ResultData),
    ),
    _on_run("rate", rate_run, Right.ANSWER, Operation("Rate an output", Rating, shape=EvaluationData)),
    _on_run("cancel", cancel_run, Right.OPERATE, Operation("Cancel a run", Asked, shape=RunData)),
    _on_run(
        "retry",
        retry_run,
        Right.OPERATE,
        Operation("Retry the failed step of a run", Execution, shape=ResultData, later=UnderwayData),
    ),
    _on_run(
        "resume",
        resume_run,
        Right.OPERATE,
        Operation("Resume a run", Execution, shape=ResultData, later=UnderwayData),
    ),
    _on_run(
        "fork",
        fork_run,
        Right.OPERATE,
        Operation("Run again from a step", NewFork, shape=ResultData, later=UnderwayData),
    ),
    Endpoint(
        "POST",
        f"{API_PREFIX}/events",
        send_event,
        Right.OPERATE,
        Operation("Send an event", Event, shape=DeliveryData),
    ),
)
