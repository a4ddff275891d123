"""Runs as JSON: the list, one run, its history, its log, its result, and the open questions of all runs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field

from flujo.domain.access import Right
from flujo.exceptions import InputRejected, RequestRefused
from flujo.serve.api.requests import Asked, answered, parameters
from flujo.serve.endpoints import API_PREFIX, Endpoint, Operation
from flujo.serve.serving import tasks
from flujo.services.inspection.trace_views import detail_data, task_data
from flujo.services.inspection.views import line_data, question_data, result_data, run_data
from flujo.services.project.inputs import read_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

RUNS = f"{API_PREFIX}/runs"
RUN = f"{RUNS}/{{run_id}}"

_MAX_PAGE = 1000
LAST_OFFSET = 10**18 - 1
"""The largest offset of a line of a log."""

Moment = float | AwareDatetime
"""Seconds since the epoch, or a time in ISO 8601 with its zone."""


def _json(text: str) -> Any:
    try:
        return read_json(text, option="it")
    except InputRejected as error:
        raise ValueError(error.message) from None


class Page(Asked):
    """A part of a list."""

    limit: int = Field(default=100, ge=1, le=_MAX_PAGE)
    """The most runs of the answer."""
    cursor: str | None = None
    """The `cursor` of the answer before; it continues the list."""


class RunList(Page):
    """The conditions of a list of runs; all of them must hold."""

    status: list[str] | None = None
    """One of these: a status, or `orphaned`, `answered`, `in_doubt`. Repeat it for several."""
    metadata: Annotated[dict[str, Any] | None, BeforeValidator(_json)] = None
    """Conditions on the metadata, as a JSON object: `{"customer": "c1", "total": {">=": 100}}`."""
    user_id: str | None = None
    blueprint: str | None = None
    queue: str | None = None
    pause: str | None = None
    """The id of a question that is open."""
    kind: list[str] | None = None
    """`run`, `task` (launched by a step in the background), or both."""
    parent: str | None = None
    """The run that has launched it."""
    chain: str | None = None
    """Any run of its chain."""
    since: Moment | None = None
    """The earliest start, or with the order `updated` the earliest last change."""
    until: Moment | None = None
    """The time before which it must be."""
    order: str = "newest"
    """`newest` or `oldest` by start, or `updated`."""


class QuestionList(Page):
    """Which questions are listed."""

    run_id: str | None = None
    """The run; without it those of all runs."""


class TracePart(Asked):
    """A part of the history of a run."""

    step: str | None = None
    """The path of a step; without it the whole run."""
    transcripts: bool = False
    """Whether the messages to and from models are included."""
    children: bool = False
    """Whether the steps of background tasks are included."""


class LogPart(Asked):
    """A part of the log of a run."""

    after: int = Field(default=0, ge=0, le=LAST_OFFSET)
    """The offset of the last line that is known."""


class Waiting(Asked):
    """How long a request waits."""

    wait: float = Field(default=0.0, ge=0, le=60)
    """For how many seconds it waits for the run to end or to ask."""


async def list_runs(request: Request) -> Response:
    """Answer with a page of runs."""
    asked = parameters(request, RunList)
    conditions = asked.model_dump(exclude={"metadata", "since", "until"})
    found = await tasks(request).list_tasks(
        **conditions,
        metadata_filter=asked.metadata,
        since=_moment(asked.since),
        until=_moment(asked.until),
    )
    is_full = len(found) == asked.limit
    return answered(
        {"runs": [run_data(each) for each in found], "cursor": found[-1].cursor if is_full else None}
    )


async def show_run(request: Request) -> Response:
    """Answer with a run: its facts, questions, acts and background tasks, and its steps."""
    parameters(request, Asked)
    return answered(task_data(await tasks(request).get_task(run_in(request))))


async def show_trace(request: Request) -> Response:
    """Answer with the steps of a run, or one of them, as a tree."""
    asked = parameters(request, TracePart)
    detail = await tasks(request).get_task(
        run_in(request), transcripts=asked.transcripts, children=asked.children, step=asked.step
    )
    node = detail.trace if asked.step is None else detail.trace.at(asked.step)
    return answered(detail_data(detail, node, tracebacks=False))


async def show_log(request: Request) -> Response:
    """Answer with the log of a run."""
    asked = parameters(request, LogPart)
    lines = await tasks(request).get_log(run_in(request), after=asked.after)
    return answered({"lines": [line_data(each) for each in lines]})


async def show_result(request: Request) -> Response:
    """Answer with the result of a run that has ended, or asks."""
    asked = parameters(request, Waiting)
    return answered(result_data(await tasks(request).wait(run_in(request), timeout=asked.wait)))


async def list_questions(request: Request) -> Response:
    """Answer with the open questions, those of the run that has waited longest first."""
    asked, client = parameters(request, QuestionList), tasks(request)
    if asked.run_id is not None:
        found = [(await client.get_task(asked.run_id)).task]
    else:
        found = await client.list_tasks(
            "paused", kind=["run", "task"], order="oldest", limit=asked.limit, cursor=asked.cursor
        )
    questions = [question_data(run, pause) for run in found for pause in run.questions]
    is_full = asked.run_id is None and len(found) == asked.limit
    return answered({"questions": questions, "cursor": found[-1].cursor if is_full else None})


def run_in(request: Request) -> str:
    """Return the run that the path of a request names: an id, a unique prefix of one, or `@last`."""
    run: str = request.path_params["run_id"]
    if "\x00" in run:
        raise RequestRefused("the id of a run has no zero byte", where="run_id")
    return run


def _moment(given: float | datetime | None) -> float | None:
    return given.timestamp() if isinstance(given, datetime) else given


ENDPOINTS = (
    Endpoint("GET", RUNS, list_runs, Right.READ, Operation("List runs", RunList)),
    Endpoint("GET", RUN, show_run, Right.READ, Operation("Show a run", Asked)),
    Endpoint("GET", f"{RUN}/trace", show_trace, Right.READ, Operation("Show the steps of a run", TracePart)),
    Endpoint("GET", f"{RUN}/log", show_log, Right.READ, Operation("Show the log of a run", LogPart)),
    Endpoint(
        "GET", f"{RUN}/result", show_result, Right.READ, Operation("Wait for the result of a run", Waiting)
    ),
    Endpoint(
        "GET",
        f"{API_PREFIX}/questions",
        list_questions,
        Right.READ,
        Operation("List the open questions", QuestionList),
    ),
)
