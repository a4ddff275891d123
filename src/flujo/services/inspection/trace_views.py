"""The history of a run as JSON data: what `--json` writes and the API answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.services.inspection.views import (
    calls_data,
    decoded,
    error_data,
    pause_data,
    run_data,
    usage_data,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.acts import Act
    from flujo.domain.run import Intent
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.trace_tree import AttemptMade, LaunchedTask, TraceNode
    from flujo.services.inspection.view_shapes import (
        ActData,
        AttemptData,
        LaunchedData,
        NodeData,
        SentData,
        TaskData,
        TraceData,
    )


def task_data(detail: TaskDetail) -> TaskData:
    """Return a run with its history as JSON data."""
    return {
        **run_data(detail.task),
        "input": detail.input,
        "context": detail.context,
        "output": detail.output,
        "continues": detail.continues,
        "continued_as": detail.continued_as,
        "error": error_data(detail.error),
        "states": dict(detail.states),
        "pauses": [
            {
                **pause_data(pause),
                "open": pause.is_open,
                "answer": decoded(pause.answer),
                "by": pause.by,
                "answered_at": pause.answered_at,
            }
            for pause in detail.pauses
        ],
        "events": [
            {
                "event_id": event.event_id,
                "event": event.name,
                "key": event.key,
                "payload": decoded(event.payload),
                "by": event.actor.by,
                "at": event.at,
            }
            for event in detail.events
        ],
        "in_doubt": calls_data(detail.in_doubt),
        "acts": acts_data(detail.acts),
        "children": [run_data(each) for each in detail.children],
        "trace": node_data(detail.trace),
    }


def detail_data(detail: TaskDetail, node: TraceNode) -> TraceData:
    """Return a run, or a step of it, as JSON data."""
    return {
        "run_id": detail.task.run_id,
        "lock_digest": detail.lock_digest,
        "warnings": detail.warnings,
        "acts": acts_data(detail.acts),
        **node_data(node),
    }


def node_data(node: TraceNode) -> NodeData:
    """Return a node and its children as JSON data."""
    return {
        "path": node.path,
        "kind": node.kind,
        "status": str(node.status),
        "attempts": node.attempts,
        "decision": node.decision,
        "state": node.state,
        "input": node.input,
        "files": [file.to_json() for file in node.files],
        "call": _call_data(node.call),
        "output": node.output,
        "error": error_data(node.error),
        "not_cached": node.not_cached,
        "fell_back": error_data(node.fell_back),
        "agent": None if node.agent is None else dict(node.agent),
        "chosen": node.chosen,
        "usage": usage_data(node.usage),
        "unconfirmed": usage_data(node.unconfirmed),
        "seconds": round(node.seconds, 3),
        "work_seconds": round(node.work_s, 3),
        "attempts_made": [_attempt_data(each) for each in node.made],
        "failed_attempts": [_attempt_data(each) for each in node.failures],
        "began_at": node.began,
        "changed": node.changed,
        "model": node.model,
        "task": _task_data(node.task),
        "detail": dict(node.detail),
        "transcripts": node.transcripts,
        "children": [node_data(child) for child in node.children],
    }


def acts_data(acts: Sequence[Act]) -> list[ActData]:
    """Return acts as JSON data."""
    return [
        {
            "at": act.at,
            "by": act.actor.by,
            "via": str(act.actor.via),
            "verb": str(act.verb),
            "object": act.object,
            "before": decoded(act.before),
            "after": decoded(act.after),
        }
        for act in acts
    ]


def _call_data(call: Intent | None) -> SentData | None:
    """Return an announced call as JSON data: its key, its state, and how often it was sent."""
    if call is None:
        return None
    return {"key": call.key, "state": str(call.state), "sends": call.sends, "sent_at": call.sent_at}


def _attempt_data(made: AttemptMade) -> AttemptData:
    """Return an attempt as JSON data."""
    return {
        "attempt": made.number,
        "status": made.status,
        "error": error_data(made.error),
        "began_at": made.began,
        "seconds": round(made.seconds, 3),
        "usage": usage_data(made.usage),
        "ran": [
            {
                "executor": each["executor"],
                "host": each["host"],
                "pid": each["pid"],
                "seconds": each["seconds"],
            }
            for each in made.ran
        ],
    }


def _task_data(task: LaunchedTask | None) -> LaunchedData | None:
    """Return a launched task as JSON data."""
    if task is None:
        return None
    tree = None if task.trace is None else node_data(task.trace)
    return {"run_id": task.run_id, "status": str(task.status), "trace": tree}
