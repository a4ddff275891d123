"""Runs as JSON: the list, one run, its history, its log, its result, and the open questions of all runs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field
from starlette.responses import JSONResponse
from typing_extensions import TypedDict

from flujo.domain.access import Right
from flujo.exceptions import InputRejected, RequestRefused
from flujo.serve.api.requests import Asked, answered, body, parameters
from flujo.serve.endpoints import API_PREFIX, Endpoint, Operation
from flujo.serve.serving import tasks
from flujo.services.inspection.trace_views import detail_data, task_data
from flujo.services.inspection.view_shapes import (
    LineData,
    QuestionData,
    ResultData,
    RunData,
    TaskData,
    TraceData,
)
from flujo.services.inspection.views import line_data, question_data, result_data, run_data
from flujo.services.project.inputs import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.services.inspection.questions import Question
    from flujo.services.inspection.tasks import Task

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
    """The most entries of the answer."""
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
    """The conditions of a list of questions; all of them must hold."""

    run_id: str | None = None
    """The run, or the one that continues it; without it those of all runs."""
    blueprint: str | None = None
    queue: str | None = None
    user_id: str | None = None
    metadata: Annotated[dict[str, Any] | None, BeforeValidator(_json)] = None
    """Conditions on the metadata of the run, as in the list of runs."""
    kind: list[str] | None = None
    """`question`, `approval`, `doubt`, `limit`, `budget` or `stub`. Repeat it for several."""
    words: str | None = None
    """Words that the message, the step, the blueprint, the user or the run's id has, all of them."""
    claimed_by: str | None = None
    """Who has claimed it."""
    unclaimed: bool = False
    """Whether only questions without a claim are listed."""
    order: str = "urgency"
    """`urgency` (escalated, then by deadline, then the longest open), or `risk`, which decides before the
    deadline."""


class Shown(Asked):
    """A question to show with its personal data."""

    pause_id: str
    """The question."""


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


class RunsData(TypedDict):
    """A page of runs."""

    runs: list[RunData]
    cursor: str | None
    """Continues the list; null after the last page."""


class LogData(TypedDict):
    """The log of a run."""

    lines: list[LineData]


class RevealedData(TypedDict):
    """A question with its personal data."""

    message: str


class QuestionsData(TypedDict):
    """A page of open questions."""

    questions: list[QuestionData]
    cursor: str | None
    """Continues the list; null after the last page."""


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
    return answered({"runs": [run_data(each) for each in found], "cursor": _next(found, asked)})


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
    return answered(detail_data(detail, node))


async def show_log(request: Request) -> Response:
    """Answer with the log of a run."""
    asked = parameters(request, LogPart)
    lines = await tasks(request).get_log(run_in(request), after=asked.after)
    return answered({"lines": [line_data(each) for each in lines]})


async def show_result(request: Request) -> Response:
    """Answer with the result of a run that has ended, or asks."""
    asked = parameters(request, Waiting)
    return answered(result_data(await tasks(request).wait(run_in(request), timeout=asked.wait)))


async def reveal_question(request: Request) -> Response:
    """Answer with the message of a question and its personal data; it is recorded who has seen it."""
    asked = await body(request, Shown)
    message = await tasks(request).reveal_question(run_in(request), asked.pause_id)
    return JSONResponse({"message": message}, headers={"cache-control": "no-store"})


async def list_questions(request: Request) -> Response:
    """Answer with a page of the open questions of all runs, or of one."""
    asked = parameters(request, QuestionList)
    conditions = asked.model_dump(exclude={"metadata"})
    found = await tasks(request).questions(**conditions, metadata_filter=asked.metadata)
    return answered({"questions": [question_data(each) for each in found], "cursor": _next(found, asked)})


def run_in(request: Request) -> str:
    """Return the run that the path of a request names: an id, a unique prefix of one, or `@last`."""
    run: str = request.path_params["run_id"]
    if "\x00" in run:
        raise RequestRefused("the id of a run has no zero byte", where="run_id")
    return run


def _next(found: Sequence[Task] | Sequence[Question], page: Page) -> str | None:
    """Return what continues a list behind a page; None when there is nothing more."""
    return found[-1].cursor if len(found) == page.limit else None


def _moment(given: float | datetime | None) -> float | None:
    return given.timestamp() if isinstance(given, datetime) else given


ENDPOINTS = (
    Endpoint("GET", RUNS, list_runs, Right.READ, Operation("List runs", RunList, shape=RunsData)),
    Endpoint("GET", RUN, show_run, Right.READ, Operation("Show a run", Asked, shape=TaskData)),
    Endpoint(
        "GET",
        f"{RUN}/trace",
        show_trace,
        Right.READ,
        Operation("Show the steps of a run", TracePart, shape=TraceData),
    ),
    Endpoint(
        "GET", f"{RUN}/log", show_log, Right.READ, Operation("Show the log of a run", LogPart, shape=LogData)
    ),
    Endpoint(
        "GET",
        f"{RUN}/result",
        show_result,
        Right.READ,
        Operation("Wait for the result of a run", Waiting, shape=ResultData),
    ),
    Endpoint(
        "POST",
        f"{RUN}/reveal",
        reveal_question,
        Right.OPERATE,
        Operation("Show a question with its personal data", Shown, shape=RevealedData),
    ),
    Endpoint(
        "GET",
        f"{API_PREFIX}/questions",
        list_questions,
        Right.READ,
        Operation("List the open questions", QuestionList, shape=QuestionsData),
    ),
)
