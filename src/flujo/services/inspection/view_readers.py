"""Reads what `views` and `trace_views` have written, for a client of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.evaluations import Evaluation
from flujo.domain.files import File
from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.models import PipelineResult
from flujo.domain.paths import StepPath
from flujo.domain.questions import Escalation, QuestionClaim, Risk
from flujo.domain.queues import RunKind
from flujo.domain.run import Intent, IntentState, Pause, PauseKind, RunStatus
from flujo.domain.sent_events import Delivery, SentEvent, Taken
from flujo.domain.usage import MICRO_USD, Usage
from flujo.services.inspection.following import LogKind, LogLine
from flujo.services.inspection.questions import Question
from flujo.services.inspection.task_detail import TaskDetail
from flujo.services.inspection.tasks import STATUSES, Task
from flujo.services.inspection.trace_tree import AttemptMade, TraceNode

if TYPE_CHECKING:
    from collections.abc import Mapping

    Data = Mapping[str, Any]


def usage_of(data: Data) -> Usage:
    """Return usage; of an unknown cost one request without a price is known."""
    cost = data["cost_usd"]
    counts = {name: data[name] for name in ("input_tokens", "output_tokens", "requests", "tool_calls")}
    if cost is None:
        return Usage(**counts, unpriced_requests=1)
    return Usage(**counts, cost_micro_usd=round(cost * MICRO_USD))


def pause_of(data: Data) -> Pause:
    """Return a question or a wait."""
    answer, is_settled = data.get("answer"), data.get("answered_at") is not None
    is_answered = is_settled and data.get("by") is not None
    return Pause(
        pause_id=StepPath(data["pause_id"]),
        message=data["message"],
        answer_schema=_encoded(data["answer_schema"]),
        deadline_at=data["deadline_at"],
        asked_at=data.get("asked_at"),
        answer=canonical.encode(answer) if is_answered or answer is not None else None,
        answered_at=data.get("answered_at"),
        void=not data.get("open", True) and not is_settled,
        kind=PauseKind(data["kind"]),
        by=data.get("by"),
        event=data.get("event"),
        event_key=data.get("key"),
    )


def question_of_data(data: Data) -> Question:
    """Return an open question with its run."""
    names = ("run_id", "pipeline", "user_id", "metadata", "queue", "digest", "cursor")
    claim, escalation = data["claim"], data["escalation"]
    return Question(
        **{name: data[name] for name in names},
        usage=usage_of(data["usage"]),
        pause=pause_of(data),
        claim=None if claim is None else QuestionClaim(**claim),
        escalation=None if escalation is None else Escalation(**escalation),
        risk=Risk(data["risk"]),
    )


def task_of_data(data: Data) -> Task:
    """Return a run as a listing shows it."""
    answer = data["answer"]
    settled = None
    if answer is not None:
        path = StepPath(answer["pause_id"])
        settled = Pause(pause_id=path, message="", by=answer["by"], answered_at=answer["answered_at"])
    names = (
        "run_id",
        "pipeline",
        "user_id",
        "metadata",
        "created_at",
        "updated_at",
        "deadline_at",
        "ends_by",
    )
    same = {name: data[name] for name in (*names, "parent", "parent_path", "cursor", "queue")}
    return Task(
        **same,
        status=RunStatus(data["status"]),
        usage=usage_of(data["usage"]),
        display_status=next(each for each in STATUSES if each == data["display_status"]),
        error=_error(data["error"]),
        questions=tuple(map(pause_of, data["questions"])),
        waits=tuple(map(pause_of, data["waits"])),
        answer=settled,
        kind=RunKind(data["kind"]),
    )


def detail_of_data(data: Data) -> TaskDetail:
    """Return a run with its history. The states of its calls are not in its trace."""
    return TaskDetail(
        task=task_of_data(data),
        input=data["input"],
        output=data["output"],
        context=data["context"],
        error=_error(data["error"]),
        pauses=tuple(map(pause_of, data["pauses"])),
        trace=node_of_data(data["trace"]),
        acts=tuple(map(_act, data["acts"])),
        in_doubt=tuple(map(_call, data["in_doubt"])),
        children=tuple(map(task_of_data, data["children"])),
        events=tuple(map(_event, data["events"])),
    )


def node_of_data(data: Data) -> TraceNode:
    """Return a step with those inside it."""
    names = (
        "kind",
        "status",
        "attempts",
        "decision",
        "state",
        "input",
        "output",
        "model",
        "detail",
        "changed",
    )
    same = {name: data[name] for name in (*names, "not_cached", "agent", "transcripts", "chosen")}
    began = data["began_at"]
    return TraceNode(
        path=StepPath(data["path"]),
        **same,
        made=[_attempt(each) for each in data["attempts_made"]],
        error=_error(data["error"]),
        usage=usage_of(data["usage"]),
        unconfirmed=usage_of(data["unconfirmed"]),
        work_s=data["work_seconds"],
        began=began,
        ended=None if began is None else began + data["seconds"],
        files=[File.from_json(each) for each in data["files"]],
        fell_back=_error(data["fell_back"]),
        children=[node_of_data(each) for each in data["children"]],
    )


def result_of_data(data: Data) -> PipelineResult[Any, Any]:
    """Return the result of a run, without its steps: another process has executed them."""
    return PipelineResult(
        run_id=RunId(data["run_id"]),
        status=RunStatus(data["status"]),
        output=data["output"],
        usage=usage_of(data["usage"]),
        unconfirmed=usage_of(data["unconfirmed"]),
        error=_error(data["error"]),
        pauses=tuple(map(pause_of, data["pauses"])),
        in_doubt=tuple(map(_call, data["in_doubt"])),
        ends_by=data["ends_by"],
    )


def line_of_data(data: Data) -> LogLine:
    """Return a line of a log."""
    names = ("offset", "at", "attempt", "seconds", "value", "text", "provisional", "number")
    return LogLine(
        **{name: data[name] for name in names},
        kind=LogKind(data["kind"]),
        path=StepPath(data["path"]),
        usage=usage_of(data["usage"]),
        error=_error(data["error"]),
    )


def evaluation_of_data(data: Data) -> Evaluation:
    """Return a score."""
    cost = data["cost_usd"]
    same = {name: each for name, each in data.items() if name != "cost_usd"}
    return Evaluation(**same, cost_micro_usd=None if cost is None else round(cost * MICRO_USD))


def delivery_of_data(data: Data) -> Delivery:
    """Return what has become of an event."""
    taken = tuple(Taken(run_id=RunId(each["run_id"]), path=StepPath(each["path"])) for each in data["taken"])
    return Delivery(event_id=data["event_id"], taken=taken, is_repeated=data["repeated"])


def _error(data: Data | None) -> ErrorInfo | None:
    return None if data is None else ErrorInfo.from_json(data)


def _encoded(value: Any) -> bytes | None:
    return None if value is None else canonical.encode(value)


def _attempt(data: Data) -> AttemptMade:
    return AttemptMade(
        number=data["attempt"],
        status=data["status"],
        began=data["began_at"],
        seconds=data["seconds"],
        usage=usage_of(data["usage"]),
        error=_error(data["error"]),
        ran=data.get("ran", ()),  # of an older server there is none
    )


def _call(data: Data) -> Intent:
    path, key = StepPath(data["path"]), data["key"]
    return Intent(
        key=key,
        path=path,
        tool=data["tool"],
        state=IntentState.IN_DOUBT,
        input=b"null",
        sent_at=data["sent_at"],
    )


def _act(data: Data) -> Act:
    return Act(
        actor=Actor(data["by"], Via(data["via"])),
        verb=Verb(data["verb"]),
        object=data["object"],
        at=data["at"],
        before=_encoded(data["before"]),
        after=_encoded(data["after"]),
    )


def _event(data: Data) -> SentEvent:
    return SentEvent(
        event_id=data["event_id"],
        name=data["event"],
        key=data["key"],
        payload=canonical.encode(data["payload"]),
        actor=Actor(data["by"], Via.API),
        at=data["at"],
    )
