"""The trace of a run: a tree of its steps, built from the journal and the questions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flujo.agents.messages import calls_in
from flujo.domain import canonical, paths
from flujo.domain.files import File
from flujo.domain.journal import (
    CACHE_MISS,
    FILES,
    TRANSCRIPT,
    UNFINISHED,
    Entry,
    EntryKind,
    EntryStatus,
    ErrorInfo,
)
from flujo.domain.paths import ROOT, StepPath, branch, parent
from flujo.domain.remote_work import RAN
from flujo.domain.run import PauseKind, RunStatus
from flujo.engine.agent_choice import CHOICE
from flujo.engine.threads import recorded
from flujo.governance.events import of_run, read_error
from flujo.services.inspection.state_machine_status import current_states
from flujo.services.inspection.trace_tree import OF_TURNS, AttemptMade, TraceNode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.store import JournalSource

_CONVERSATION = "granular"
"""The kind of a step whose decision is its agent."""
_AWAIT = "await"
"""The kind of a step that waits for background tasks; its entry is not an answer."""


async def trace(store: JournalSource, record: RunRecord) -> TraceNode:
    """Return the tree of what happened in a run, from its journal and its questions."""
    root = TraceNode(ROOT, kind="run", status=record.status, run_id=record.run_id)
    nodes: dict[StepPath, TraceNode] = {ROOT: root}
    entries, pauses = await store.entries(record.run_id), await store.pauses(record.run_id)
    for entry in entries:
        if entry.path == paths.END and entry.attempt == 0:
            continue  # says only that the run has `finally`
        if entry.kind is EntryKind.DECISION and _is_beside(entry):
            _prepare(_node(nodes, parent(entry.path)), entry)
        else:
            _record(_node(nodes, entry.path), entry)
    for sent in sorted(await store.intents(record.run_id), key=lambda each: each.sends):
        _node(nodes, sent.path).call = sent
    for pause in pauses:
        _ask(_node(nodes, pause.pause_id), pause)
    for path, state in current_states(entries, pauses).items():
        machine = _node(nodes, path)
        machine.kind, machine.state = "state_machine", state
    if record.error is not None:
        _fail(nodes, read_error(record.error, record.run_id))
    _name_in_hints(nodes, record.run_id)
    _end_items(nodes)
    _fold_items(nodes)
    ledger = await store.ledger(record.run_id)
    for hold in ledger.holds:
        _node(nodes, hold.path).unconfirmed += hold.usage
    root.unconfirmed = ledger.unconfirmed
    _sort(nodes)
    for node in [each for each in nodes.values() if each.agent is not None]:
        _fold(node)
        node.children.sort(key=_turn)
        _add_calls(node, "running" if record.status is RunStatus.RUNNING else "pending")
    threads = [node.thread for node in nodes.values() if node.thread is not None]
    root.exchanges = recorded([each["after"] for each in threads if each["after"] is not None], entries)
    ended = record.status in (RunStatus.COMPLETED, RunStatus.CANCELLED)
    _infer(root, str(record.status) if ended else "running")
    root.status = record.status
    root.began, root.ended = record.created_at, record.updated_at
    return root


def _name_in_hints(nodes: Mapping[StepPath, TraceNode], run_id: str) -> None:
    """Let the hints of errors name the run and the step."""
    for node in nodes.values():
        if node.error is not None:
            node.error = of_run(node.error, run_id)


def _end_items(nodes: Mapping[StepPath, TraceNode]) -> None:
    """Give the items of ended maps the ends of their only steps, whose entries are those of the items."""
    for each in nodes.values():
        for item in each.children if each.kind == "map" else ():
            is_item = not item.kind and item.path.startswith(f"{each.path}[")
            if is_item and [inner.status for inner in item.children] == ["completed"]:
                item.kind, item.status, item.output = each.kind, "completed", item.children[0].output


def _fold_items(nodes: Mapping[StepPath, TraceNode]) -> None:
    """Put the items of each range of a map below the range."""
    folded: dict[StepPath, set[StepPath]] = {}
    for node in list(nodes.values()):
        if node.items is not None:
            above, (first, last) = parent(node.path), node.items
            inside = [paths.indexed(above, number) for number in range(first, last + 1)]
            node.children += [nodes[path] for path in inside if path in nodes]
            folded.setdefault(above, set()).update(inside)
    for above, inner in folded.items():
        nodes[above].children = [each for each in nodes[above].children if each.path not in inner]


def _ask(node: TraceNode, pause: Pause) -> None:
    if pause.kind is PauseKind.APPROVAL:
        _approve(node, pause)
        return
    # The answers of these have no entry of their own.
    answers_call = pause.kind in (PauseKind.DOUBT, PauseKind.LIMIT, PauseKind.STUB)
    node.kind = node.kind or ("hitl" if pause.kind is PauseKind.QUESTION else str(pause.kind))
    node.input = node.input if node.input is not None else pause.message
    if pause.is_open:
        node.status = "paused" if pause.kind.asks_human else "waiting"
    elif pause.answer is not None and answers_call:
        node.status, node.output = "completed", canonical.decode(pause.answer)
    elif pause.void and node.status == "running":
        node.status = "cancelled"


def _approve(node: TraceNode, pause: Pause) -> None:
    """Show the approval of a call that has no entry yet; an entry names who decided."""
    if pause.is_open:
        node.status = "paused"
    elif pause.answer is not None and not node.kind:
        approved = canonical.decode(pause.answer)["approved"]
        node.status, node.detail = "pending", {"approval": {"approved": approved, "by": pause.by}}
    elif pause.void and node.status == "running":
        node.status = "cancelled"


def _count(node: TraceNode) -> int:
    """Return the count of an item, a range or a turn, which sorts them in the order of the input."""
    if node.items is not None:
        return node.items[0]
    count = paths.last_count(node.path)
    return -1 if count is None else count


def _sort(nodes: Mapping[StepPath, TraceNode]) -> None:
    """Put items, iterations and turns in order, and the visits of the states of a machine by their time."""
    began = {path: number for number, path in enumerate(nodes)}  # the entries are in the order of time
    for node in nodes.values():
        if node.kind == "state_machine":
            visits = [visit for state in node.children for visit in state.children or [state]]
            node.children = sorted(visits, key=lambda each: began[each.path])
        else:
            node.children.sort(key=_count)


def _turn(node: TraceNode) -> tuple[float, bool]:
    """Return the turn before which something happened in a conversation; a turn comes after that."""
    if node.kind == "turn":
        return _count(node), True
    return node.detail.get("turns", math.inf), False


def _node(nodes: dict[StepPath, TraceNode], path: StepPath) -> TraceNode:
    if path not in nodes:
        nodes[path] = TraceNode(path)
        _node(nodes, parent(path)).children.append(nodes[path])
    return nodes[path]


def _fail(nodes: dict[StepPath, TraceNode], error: ErrorInfo) -> None:
    """Show at its step what a run failed with: that of a composite is nowhere else."""
    node = _node(nodes, StepPath(error.path))
    if error.path and node.error is None:
        node.status, node.error = "failed", error


def _is_beside(entry: Entry) -> bool:
    """Return whether a decision is about the execution of the step above it."""
    is_named = entry.fingerprint in (CACHE_MISS, FILES, UNFINISHED)
    return is_named or entry.path == branch(parent(entry.path), CHOICE)


def _prepare(node: TraceNode, entry: Entry) -> None:
    """Add the records beside a step: its agent, its files, the missing cache key, an unfinished attempt."""
    if entry.path == branch(node.path, CHOICE):
        node.chosen = canonical.decode(entry.output or b"null")
        return
    if entry.fingerprint == FILES:
        node.files = [File.from_json(each) for each in canonical.decode(entry.output or b"[]")]
        return
    detail = canonical.decode(entry.detail) if entry.detail else {}
    if entry.fingerprint == UNFINISHED:
        _add_unfinished(node, entry, detail)
        return
    node.not_cached = detail.get("not_cached", node.not_cached)


def _add_unfinished(node: TraceNode, entry: Entry, detail: Mapping[str, Any]) -> None:
    """Add an attempt that ended without a result and without a failure; a later entry has the status."""
    node.kind, node.status = node.kind or detail["kind"], canonical.decode(entry.output or b"null")
    node.usage += entry.usage
    node.note_time(entry.started_at, entry.ended_at)
    _add_attempt(node, entry, detail, node.status, detail.get("attempt"))
    _add_transcript(node, entry, detail)


def _record(node: TraceNode, entry: Entry) -> None:
    detail = canonical.decode(entry.detail) if entry.detail else {}
    if "asked" in detail:
        node.answered.append((detail["asked"], detail["model"]))
    if entry.kind is EntryKind.DECISION:
        _decide(node, entry, detail)
        return
    node.kind = entry.fingerprint or node.kind
    node.status = entry.status
    node.attempts = max(node.attempts, entry.attempt)
    node.usage += entry.usage
    is_wait = entry.kind is EntryKind.ANSWER or entry.fingerprint == _AWAIT
    node.note_time(entry.started_at, entry.ended_at, is_work=not is_wait)
    if entry.status is not EntryStatus.SKIPPED:
        _add_attempt(node, entry, detail, str(entry.status))
    node.detail = detail
    node.model = detail.get("model", node.model)
    _add_transcript(node, entry, detail)
    if entry.input is not None:
        node.input = canonical.decode(entry.input)
    if entry.output is not None:
        node.output = canonical.decode(entry.output)
    if entry.patch is not None:
        node.changed = canonical.decode(entry.patch)
    completed = entry.status is EntryStatus.COMPLETED
    if detail.get("fell_back"):
        node.fell_back = node.error
    elif entry.kind is EntryKind.DONE and (replaced := _replaced(detail)) is not None:
        node.fell_back = replaced
    node.error = None if completed or not entry.error else read_error(entry.error)


def _replaced(detail: Mapping[str, Any]) -> ErrorInfo | None:
    """Return the error of a composite whose `on_error` or `on_failure` gave its output."""
    found = detail.get("error") or detail.get("failed")
    return ErrorInfo.from_json(found) if isinstance(found, dict) else None


def _add_attempt(
    node: TraceNode, entry: Entry, detail: Mapping[str, Any], status: str, number: int | None = None
) -> None:
    seconds = max(0.0, entry.ended_at - entry.started_at)
    error = None if entry.error is None else read_error(entry.error)
    number = entry.attempt if number is None else number
    ran = detail.get(RAN, ())
    node.made.append(AttemptMade(number, status, entry.started_at, seconds, entry.usage, error, ran))


def _add_transcript(node: TraceNode, entry: Entry, detail: Mapping[str, Any]) -> None:
    """Add the transcript of an attempt; that of one without an entry of its own names it in `detail`."""
    if TRANSCRIPT in detail:
        status = node.status if entry.fingerprint == UNFINISHED else str(entry.status)
        why = read_error(entry.error).message if entry.error else None
        kept = {"attempt": detail.get("attempt", entry.attempt), "status": status, "error": why}
        node.transcripts.append({**kept, "digest": detail[TRANSCRIPT]})


def _decide(node: TraceNode, entry: Entry, detail: Mapping[str, Any]) -> None:
    """Add a decision at a step: its agent, the beginning of its call, or its way."""
    kind, decided = entry.fingerprint, canonical.decode(entry.output or b"null")
    if kind == _CONVERSATION and entry.attempt > 0:
        node.kind, node.agent = node.kind or kind, decided or {}
        return
    node.usage += entry.usage
    if entry.status is EntryStatus.FAILED:
        _add_attempt(node, entry, detail, str(entry.status))
    _add_transcript(node, entry, detail)
    if kind == "tool" and entry.attempt == 0:  # a call that runs steps
        node.kind, node.detail, node.input = kind, detail, canonical.decode(entry.input or b"null")
    # That of a turn is the verdict of validators: the next turn has the reason of a rejection.
    elif entry.path == paths.END:
        node.decision, node.status = decided, EntryStatus.COMPLETED
    elif kind not in OF_TURNS and entry.attempt <= 1:
        node.decision = decided


def _fold(node: TraceNode) -> None:
    """Put the turns of a conversation directly below its step, and the tool calls below their turns."""
    for kind in OF_TURNS:
        for group in [each for each in node.children if paths.name(each.path) == kind and not each.kind]:
            at = node.children.index(group)
            node.children[at : at + 1] = group.children
            for each in group.children:
                each.kind = kind
                _fold(each)


def _add_calls(node: TraceNode, state: str) -> None:
    """Add the calls of each response that have no entry yet; name the tool and the effect of every call."""
    tools = (node.agent or {}).get("tools", {})
    for turn in [each for each in node.children if each.kind == "turn" and each.output is not None]:
        known = {each.path: each for each in turn.children}
        for number, call in enumerate(calls_in(turn.output)):
            path = paths.tool(turn.path, number)
            if path not in known:
                turn.children.insert(number, TraceNode(path, status=state))
            made = known.get(path) or turn.children[number]
            made.kind = "tool"
            made.input = call.arguments if made.input is None else made.input
            effect = tools.get(call.name, {}).get("effect")
            made.detail = {"tool": call.name, **({"effect": effect} if effect else {}), **made.detail}


def _infer(node: TraceNode, unended: str) -> None:
    """Give a composite the times of what is inside it, and its state if it has no entry of its own.

    Args:
        node: the composite.
        unended: the state of a composite in which everything has ended well: `completed` in a completed run,
            because a step inside it has ended the blueprint or the run, and `cancelled` in a cancelled one.
    """
    for inner in node.children:
        _infer(inner, unended)
    if node.children:
        began = [inner.began for inner in node.children if inner.began is not None]
        ended = [inner.ended for inner in node.children if inner.ended is not None]
        if began and ended:
            own = node.work_s
            node.note_time(min(began), max(ended))
            node.work_s = own + sum(inner.work_s for inner in node.children)
        states = {inner.status for inner in node.children}
        states |= {each.status for inner in node.children if inner.kind == "turn" for each in inner.children}
        is_done = node.kind == "" and states <= {"completed", "skipped"}
        if node.status == "running" and is_done:
            node.status = "completed"
        elif node.status == "running":
            node.status = next((each for each in ("paused", "failed", "waiting") if each in states), unended)
