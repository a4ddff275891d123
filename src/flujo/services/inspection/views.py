"""Runs, questions, results and log lines as JSON data: what `--json` writes and the API answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flujo.domain import chains
from flujo.domain.outbox import MessageState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.evaluations import Evaluation
    from flujo.domain.models import PipelineResult
    from flujo.domain.outbox import Message
    from flujo.domain.run import Intent, Pause
    from flujo.domain.sent_events import Delivery
    from flujo.domain.usage import Usage
    from flujo.services.inspection.following import LogLine
    from flujo.services.inspection.tasks import Task


def run_data(task: Task) -> dict[str, Any]:
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
        "error": task.error.to_json() if task.error else None,
        "questions": [pause_data(pause) for pause in task.questions],
        "waits": [pause_data(pause) for pause in task.waits],
        "answer": answer
        and {"pause_id": answer.pause_id, "by": answer.by, "answered_at": answer.answered_at},
        "queue": task.queue,
        "cursor": task.cursor,
    }


def result_data(result: PipelineResult[Any, Any]) -> dict[str, Any]:
    """Return a run's result as JSON data; an unknown cost is null."""
    return {
        "run_id": result.run_id,
        "status": str(result.status),
        "output": result.output,
        "error": result.error.to_json() if result.error else None,
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


def line_data(line: LogLine) -> dict[str, Any]:
    """Return a line of the log as JSON data."""
    return {
        "offset": line.offset,
        "at": line.at,
        "kind": str(line.kind),
        "path": line.path,
        "attempt": line.attempt,
        "seconds": round(line.seconds, 3),
        "usage": usage_data(line.usage),
        "error": line.error.to_json() if line.error else None,
        "value": line.value,
        "text": line.text,
        "provisional": line.provisional,
        "number": line.number,
    }


def pause_data(pause: Pause) -> dict[str, Any]:
    """Return an open question as JSON data."""
    return {
        "pause_id": pause.pause_id,
        "kind": str(pause.kind),
        "message": pause.message,
        "answer_schema": decoded(pause.answer_schema),
        "deadline_at": pause.deadline_at,
        **({} if pause.digest is None else {"digest": pause.digest}),
        **(
            {}
            if pause.event is None
            else {"event": pause.event, "key": pause.event_key, "asked_at": pause.asked_at}
        ),
    }


def question_data(task: Task, pause: Pause) -> dict[str, Any]:
    """Return an open question with what tells its run, and with the digest that its answer names."""
    return {
        "run_id": task.run_id,
        "pipeline": task.pipeline,
        "user_id": task.user_id,
        "metadata": dict(task.metadata),
        **pause_data(pause),
        "digest": pause.seen(task.run_id),
        "asked_at": pause.asked_at,
    }


def delivery_data(delivery: Delivery) -> dict[str, Any]:
    """Return what became of an event as JSON data."""
    return {
        "event_id": delivery.event_id,
        "taken": [{"run_id": each.run_id, "path": each.path} for each in delivery.taken],
        "repeated": delivery.is_repeated,
    }


def evaluation_data(each: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON data."""
    names = ("run_id", "path", "pipeline", "user_id", "closure", "lock_digest", "evaluator", "version")
    data = {name: getattr(each, name) for name in (*names, "score", "reason", "error", "by")}
    cost = None if each.cost_micro_usd is None else each.cost_micro_usd / 1e6
    return {"key": each.key, **data, "cost_usd": cost, "created_at": each.created_at}


def calls_data(calls: Sequence[Intent]) -> list[dict[str, Any]]:
    """Return calls whose outcome is not recorded as JSON data."""
    return [
        {"path": call.path, "tool": call.tool, "key": call.key, "sent_at": call.sent_at} for call in calls
    ]


def message_data(message: Message) -> dict[str, Any]:
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


def usage_data(used: Usage) -> dict[str, Any]:
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
