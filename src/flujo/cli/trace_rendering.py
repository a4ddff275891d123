"""Renders a trace as a tree: each step with input, output, duration, tokens and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.paths import shown
from flujo.domain.run_forks import Forked, forks_of
from flujo.domain.usage import NOTHING
from flujo.domain.wording import plural
from flujo.governance.sink import GATE
from flujo.services.inspection import formatting
from flujo.services.inspection.value_text import lines_of, value_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flujo.cli.terminal import Terminal
    from flujo.domain.acts import Act
    from flujo.domain.journal import ErrorInfo
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.trace_tree import AttemptMade, TraceNode

_MARKS = {
    "completed": ("✓", ("green",)),
    "skipped": ("-", ("dim",)),
    "cancelled": ("-", ("dim",)),
    "failed": ("✗", ("red",)),
    "paused": ("⏸", ("yellow",)),
    "waiting": ("◷", ("cyan",)),
}
_OTHER = ("•", ("cyan",))
LABEL = 8
"""The width of the label of a fact."""
_MOST_UNITS = 3
"""How many units of an attempt are shown, unless everything is shown in full."""
_SHOW_OUTPUT = ("granular", "tool")
"""Kinds whose output is not that of one of their substeps."""
_WIDTH = 120
"""The width of a trace in a pipe, if values are shortened."""


def show_trace(terminal: Terminal, root: TraceNode, *, title: str, full: bool = False) -> None:
    """Write the tree to stdout.

    Args:
        terminal: the output.
        root: the run's node.
        title: the text of the first line.
        full: show values in full instead of one line each.
    """
    spent = formatting.usage(root.total(), root.unconfirmed)
    head = "  ".join(filter(None, [title, root.status, formatting.seconds(root.seconds), spent]))
    terminal.data(terminal.styled(head, "bold", to=terminal.out))
    for line in lines_below(terminal, root, "", full=full):
        terminal.data(line)


def show_acts(terminal: Terminal, acts: Sequence[Act]) -> None:
    """Write the acts of a run, one line each."""
    for act in acts:
        who = f"{act.actor.by} ({act.actor.via})"
        verb = str(act.verb).replace("_", " ")
        line = "  ".join(filter(None, [formatting.moment(act.at or 0.0), who, verb, shown(act.object)]))
        terminal.data(f"act:       {line}")


def show_family(terminal: Terminal, detail: TaskDetail) -> None:
    """Write the runs before and after this one, its parent and its forks, on one line, if there are any."""
    parts, acts = [], detail.acts
    if detail.continues is not None:
        parts.append(f"continues {formatting.short_id(detail.continues)}")
    if detail.continued_as is not None:
        parts.append(f"continued as {formatting.short_id(detail.continued_as)}")
    if (forked := Forked.of(acts)) is not None:
        parts.append(f"fork of {formatting.short_id(forked.parent)} at `{shown(forked.at)}`")
    if forks := [f"{formatting.short_id(run_id)} at `{shown(at)}`" for run_id, at in forks_of(acts)]:
        parts.append(f"forks: {', '.join(forks)}")
    if parts:
        terminal.data("; ".join(parts))


def lines_below(terminal: Terminal, node: TraceNode, indent: str, *, full: bool) -> Iterator[str]:
    """Yield the lines of everything inside a node."""
    for child in node.children:
        last = child is node.children[-1]
        yield indent + ("└─ " if last else "├─ ") + node_line(terminal, child)
        if child.items is not None and child.task is None:
            continue
        inner = indent + ("   " if last else "│  ")
        stem = inner + ("│  " if child.children else "   ")
        for name, text in _facts(child, limit=None if full else _room(terminal, stem)):
            label = terminal.styled(f"{name:<{LABEL}}", "dim", to=terminal.out)
            first, *rest = text.removesuffix("\n").split("\n")
            yield f"{stem}{label}{first}"
            yield from (f"{stem}{'':<{LABEL}}{line}" for line in rest)
        yield from lines_below(terminal, child, inner, full=full)
        if child.task is not None and child.task.trace is not None:
            yield from lines_below(terminal, child.task.trace, inner, full=full)


def node_line(terminal: Terminal, node: TraceNode) -> str:
    """Return the line of a node: its name, kind, state, attempts, times, usage and model."""
    mark, style = _MARKS.get(str(node.status), _OTHER)
    usage = (node.usage, node.unconfirmed) if node.items is None else (node.total(), NOTHING)
    parts = [
        f"{terminal.styled(mark, *style, to=terminal.out)} {node.name}",
        _kind(node),
        "" if str(node.status) == "completed" else str(node.status),
        *_items(node),
        "cached" if node.detail.get("cached") else "",
        f"resolved by {node.detail['resolved']}" if "resolved" in node.detail else "",
        f"{node.attempts} attempts" if node.attempts > 1 else "",
        formatting.seconds(node.seconds) if node.kind or node.children else "",
        _work(node),
        formatting.usage(*usage),
        node.model or "",
    ]
    return "  ".join(filter(None, parts))


def _work(node: TraceNode) -> str:
    """Return how long the attempts in a step took, if that differs clearly from the time of the step."""
    differs = abs(node.work_s - node.seconds) > max(1.0, 0.1 * node.seconds)
    return f"{formatting.seconds(node.work_s)} of work" if differs else ""


def _items(node: TraceNode) -> Iterator[str]:
    """Yield how many items a range of a map has, and how many of them failed."""
    if node.items is not None:
        first, last = node.items
        yield f"{last - first + 1:,} items"
        if failed := node.detail.get("failed"):
            yield f"{failed:,} failed"


def _kind(node: TraceNode) -> str:
    """Return what a line says about the kind of its step; for a tool call, the tool and its effect."""
    if node.kind == "tool":
        facts = [node.detail.get("tool", node.detail.get("call", "")), node.detail.get("effect", "")]
        outcome = node.detail.get("outcome", "result")
        approval = _approval(node.detail.get("approval"))
        is_said = outcome == "result" or approval.startswith(outcome)
        return "  ".join(filter(None, [*facts, "" if is_said else outcome, approval]))
    return "" if node.kind in ("step", "turn", "summary") or node.name[0] in ":[" else node.kind


def _approval(said: Any) -> str:
    """Return who approved or denied a tool call, if it needed an approval."""
    if said is None:
        return ""
    if said.get("deadline"):
        return "not approved in time"
    verb = "approved" if said["approved"] else "denied"
    return f"{verb} by {said['by']}" + (", with changed arguments" if said.get("changed") else "")


def _room(terminal: Terminal, stem: str) -> int:
    """Return the room for a shortened value after `stem` and its label."""
    width = terminal.width or _WIDTH
    return max(20, width - len(stem) - LABEL)


def way(node: TraceNode, *, limit: int | None) -> Iterator[tuple[str, str]]:
    """Yield the decisions of a step: a branch, the next state, the number of items, its agent and thread."""
    if node.chosen is not None:
        yield "agent", node.chosen
    if node.thread is not None:
        yield "thread", node.thread["name"]
    if node.state is not None:
        yield "state", node.state
    if node.kind == "state_machine":
        if node.detail.get("to"):
            yield "next", value_text(node.detail["to"], limit)
    elif node.decision is not None and node.kind != "loop":
        yield "items" if node.kind == "map" else "took", value_text(node.decision, limit)


def _facts(node: TraceNode, *, limit: int | None) -> Iterator[tuple[str, str]]:
    """Yield the lines below a step: input, decision, output, repairs, fallback and error."""
    if node.kind == "turn":
        yield from said(node, limit=limit)
    elif node.input is not None and node.kind != "summary" and node.task is None:
        yield "input", value_text(node.input, limit)
    yield from sent(node)
    yield from way(node, limit=limit)
    if (
        node.output is not None
        and node.kind != "turn"
        and node.task is None
        and (not node.children or node.kind in ("granular", "tool"))
    ):
        yield "output", value_text(node.output, limit)
    if node.frame is not None:
        yield "at", formatting.code_place(node.frame)
    last = node.made[-1].ran if node.made else ()
    for where in formatting.where_ran(last, None if limit is None else _MOST_UNITS):
        yield "ran", where
    if node.task is not None:
        yield "task", f"{formatting.short_id(node.task.run_id)} {node.task.status}"
    yield from _failures(node)
    for repair in node.detail.get("repairs", ()):
        yield "repair", value_text(repair, limit)
    yield from reasons(node)


def _failures(node: TraceNode) -> Iterator[tuple[str, str]]:
    """Yield the failed attempts of a step, apart from the last one if that is the reason of its state."""
    has_reason = node.error is not None or node.fell_back is not None
    for failed in node.failures[: -1 if has_reason else None]:
        if failed.error is not None:
            yield "failed", "  ".join(filter(None, _of_failure(failed, failed.error)))


def reasons(node: TraceNode) -> Iterator[tuple[str, str]]:
    """Yield why a step was not cached, why its fallback ran, and with what it failed."""
    if node.not_cached is not None:
        yield "reason", f"not cached: {node.not_cached}"
    if node.fell_back is not None:
        yield "reason", f"fell back: {node.fell_back.message} [{node.fell_back.code}]"
    if node.error is not None:
        yield "error", f"{node.error.message} [{node.error.code}]"
        if node.error.frame is not None:
            yield "at", formatting.code_place(node.error.frame)
        if node.error.hint:
            yield "hint", node.error.hint


def _of_failure(failed: AttemptMade, error: ErrorInfo) -> Iterator[str]:
    """Yield which attempt failed, how, what it cost, and where in the code of the user."""
    yield f"attempt {failed.number}: {error.message} [{error.code}]"
    yield formatting.seconds(failed.seconds)
    yield formatting.usage(failed.usage, NOTHING)
    yield f"at {error.frame}" if error.frame else ""
    yield from (f"on {where}" for where in formatting.where_ran(failed.ran, _MOST_UNITS))


def sent(node: TraceNode) -> Iterator[tuple[str, str]]:
    """Yield what a step sends beside its input: files, and the key of an announced call."""
    for file in node.files:
        yield "file", str(file)
    if node.call is not None:
        yield "key", node.call.key


def said(node: TraceNode, *, limit: int | None) -> Iterator[tuple[str, str]]:
    """Yield the lines below a turn: why it was needed, and the text of the response."""
    if left_out := node.detail.get("left_out"):
        yield "history", f"without the oldest {plural(left_out, 'turn')}"
    if node.detail.get("again"):
        yield "reason", f"the answer before was rejected: {node.detail['again']}"
    for label, text in lines_of(node.output or {"parts": []}):
        if label in ("model", "thinks"):
            yield "says" if label == "model" else label, value_text(text, limit)


# Messages ------------------------------------------------------------------------------------------------


def show_messages(terminal: Terminal, node: TraceNode) -> None:
    """Write the messages to and from the model of a conversation."""
    _show_agent(terminal, node.agent or {})
    _show_all(terminal, node.heard)
    if node.agent is None:
        _show_attempts(terminal, node)
        if not node.transcripts:  # of a script, or not kept
            for label, value in (("user", node.input), ("model", node.output)):
                _write(terminal, label, value_text(value, None))
        return
    for part in node.children:
        if part.kind == "turn":
            _show_all(terminal, part.input or ())
            _show_attempts(terminal, part)
            _show_all(terminal, [part.output] if part.output else ())
        elif part.kind == "summary" and part.output is not None:
            _write(terminal, "summary", part.output)


def _show_attempts(terminal: Terminal, node: TraceNode) -> None:
    """Write the transcript of each attempt, and why a failed one failed."""
    for said in node.transcripts:
        if said["attempt"] > 1:
            _write(terminal, "attempt", str(said["attempt"]))
        _show_agent(terminal, said)
        _show_all(terminal, said["messages"])
        if said["error"]:
            _write(terminal, "failed", said["error"])


def _show_agent(terminal: Terminal, agent: Mapping[str, Any]) -> None:
    tools = ", ".join(agent.get("tools", ()))
    for label, value in (("system", agent.get("instructions")), ("tools", tools)):
        if value:
            _write(terminal, label, value)


def _show_all(terminal: Terminal, messages: Iterable[Any]) -> None:
    for message in messages:
        for label, text in lines_of(message):
            _write(terminal, label, text)


def _write(terminal: Terminal, label: str, text: str) -> None:
    first, *rest = GATE.text(text).split("\n")
    terminal.data(f"{terminal.styled(f'{label:<{LABEL}}', 'dim', to=terminal.out)}{first}")
    for line in rest:
        terminal.data(f"{'':<{LABEL}}{line}")
