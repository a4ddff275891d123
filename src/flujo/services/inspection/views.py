"""Runs, questions, results and log lines as JSON data: what `--json` writes and the API answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from flujo.domain import chains
from flujo.domain.outbox import MessageState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.evaluations import Evaluation
    from flujo.domain.journal import ErrorInfo
    from flujo.domain.models import PipelineResult
    from flujo.domain.outbox import Message
    from flujo.domain.questions import QuestionClaim
    from flujo.domain.run import Intent, Pause
    from flujo.domain.sent_events import Delivery
    from flujo.domain.usage import Usage
    from flujo.services.inspection.following import LogLine
    from flujo.services.inspection.questions import Question
    from flujo.services.inspection.tasks import Task
    from flujo.services.inspection.view_shapes import (
        CallData,
        ClaimData,
        DeliveryData,
        ErrorData,
        EvaluationData,
        LineData,
        MessageData,
        PauseData,
        QuestionData,
        ResultData,
        RunData,
        UsageData,
    )


def run_data(task: Task) -> RunData:
    """Return a run as JSON data."""
    answer = task.answer
    return {
        "run_id": task.run_id,
        "pipeline": task.pipeline,
        "status": str(task.status),
        "display_status": str(task.display_status),
        "kind": str(task.kind),
        "parent": task.parent,
        "parent_path": task.parent_path,
        "continues": chains.predecessor_of(task.run_id),
        "user_id": task.user_id,
        "metadata": dict(task.metadata),
        "usage": usage_data(task.usage),
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "deadline_at": task.deadline_at,
        "ends_by": task.ends_by,
        "error": error_data(task.error),
        "questions": [pause_data(pause) for pause in task.questions],
        "waits": [pause_data(pause) for pause in task.waits],
        "answer": None
        if answer is None
        else {"pause_id": answer.pause_id, "by": answer.by, "answered_at": answer.answered_at},
        "queue": task.queue,
        "cursor": task.cursor,
    }


def result_data(result: PipelineResult[Any, Any]) -> ResultData:
    """Return a run's result as JSON data; an unknown cost is null."""
    return {
        "run_id": result.run_id,
        "status": str(result.status),
        "output": result.output,
        "error": error_data(result.error),
        "pauses": [pause_data(pause) for pause in result.pauses],
        "ends_by": result.ends_by,
        "usage": usage_data(result.usage),
        "unconfirmed": usage_data(result.unconfirmed),
        "in_doubt": calls_data(result.in_doubt),
        "steps": [
            {
                "path": step.path,
                "kind": step.kind,
                "status": step.status,
                "attempt": step.attempt,
                "seconds": round(step.seconds, 3),
                "usage": usage_data(step.usage),
            }
            for step in result.steps
        ],
    }


def line_data(line: LogLine) -> LineData:
    """Return a line of the log as JSON data."""
    return {
        "offset": line.offset,
        "at": line.at,
        "kind": str(line.kind),
        "path": line.path,
        "attempt": line.attempt,
        "seconds": round(line.seconds, 3),
        "usage": usage_data(line.usage),
        "error": error_data(line.error),
        "value": line.value,
        "text": line.text,
        "provisional": line.provisional,
        "number": line.number,
    }


def pause_data(pause: Pause) -> PauseData:
    """Return an open question as JSON data."""
    data: PauseData = {
        "pause_id": pause.pause_id,
        "kind": str(pause.kind),
        "message": pause.message,
        "answer_schema": decoded(pause.answer_schema),
        "deadline_at": pause.deadline_at,
    }
    if pause.digest is not None:
        data["digest"] = pause.digest
    if pause.event is not None:
        data["event"] = pause.event
        data["key"] = pause.event_key
        data["asked_at"] = pause.asked_at
    return data


def question_data(question: Question) -> QuestionData:
    """Return an open question with what tells its run, and with the digest that its answer names."""
    claim, escalation = question.claim, question.escalation
    return {
        "run_id": question.run_id,
        "pipeline": question.pipeline,
        "user_id": question.user_id,
        "metadata": dict(question.metadata),
        **pause_data(question.pause),
        "digest": question.digest,
        "asked_at": question.pause.asked_at,
        "queue": question.queue,
        "usage": usage_data(question.usage),
        "claim": None if claim is None else claim_data(claim),
        "escalation": None
        if escalation is None
        else {"by": escalation.by, "at": escalation.at, "reason": escalation.reason},
        "risk": str(question.risk),
        "cursor": question.cursor,
    }


def claim_data(claim: QuestionClaim) -> ClaimData:
    """Return who works on a question as JSON data."""
    return {"by": claim.by, "at": claim.at, "until": claim.until}


def delivery_data(delivery: Delivery) -> DeliveryData:
    """Return what became of an event as JSON data."""
    return {
        "event_id": delivery.event_id,
        "taken": [{"run_id": each.run_id, "path": each.path} for each in delivery.taken],
        "repeated": delivery.is_repeated,
    }


def evaluation_data(each: Evaluation) -> EvaluationData:
    """Return an evaluation as JSON data."""
    return {
        "key": each.key,
        "run_id": each.run_id,
        "path": each.path,
        "pipeline": each.pipeline,
        "user_id": each.user_id,
        "closure": each.closure,
        "lock_digest": each.lock_digest,
        "evaluator": each.evaluator,
        "version": each.version,
        "score": each.score,
        "reason": each.reason,
        "error": each.error,
        "by": each.by,
        "cost_usd": None if each.cost_micro_usd is None else each.cost_micro_usd / 1e6,
        "created_at": each.created_at,
    }


def calls_data(calls: Sequence[Intent]) -> list[CallData]:
    """Return calls whose outcome is not recorded as JSON data."""
    return [
        {"path": call.path, "tool": call.tool, "key": call.key, "sent_at": call.sent_at} for call in calls
    ]


def message_data(message: Message) -> MessageData:
    """Return a message of the outbox as JSON data."""
    return {
        "id": message.id,
        "webhook_id": message.key,
        "run_id": message.run_id,
        "target": message.target,
        "event": str(message.event),
        "state": str(message.state),
        "tries": message.tries,
        "error": message.error,
        "payload": decoded(message.payload),
        "created_at": message.created_at,
        "next_try_at": message.available_at if message.state is MessageState.PENDING else None,
        "delivered_at": message.delivered_at,
        "given_up_at": message.given_up_at,
    }


def error_data(error: ErrorInfo | None) -> ErrorData | None:
    """Return an error as JSON data."""
    return None if error is None else cast("ErrorData", error.to_json())


def usage_data(used: Usage) -> UsageData:
    """Return usage as JSON data; an unknown cost is null."""
    return {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "requests": used.requests,
        "tool_calls": used.tool_calls,
        "cost_usd": used.cost_usd,
    }


def decoded(data: bytes | None) -> Any:
    """Return the value of canonical JSON bytes, or None for None."""
    return None if data is None else json.loads(data)
