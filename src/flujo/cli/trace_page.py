"""The trace of a run as one HTML file: timeline, costs, and each step with its values and messages.

The page loads nothing and needs no JavaScript. Every text of the run is escaped. The policy of the page also
forbids scripts and requests.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from flujo.cli import formatting
from flujo.cli.trace_rendering import change, lines_of, value_text
from flujo.domain.paths import shown
from flujo.domain.usage import NOTHING
from flujo.domain.wording import plural
from flujo.governance.screen import visible
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.trace_tree import AttemptMade, TraceNode

MOST_BARS = 1000
"""How many steps the timeline shows."""
MOST_IN_LINE = 100
"""How many characters of a value are shown without a box."""
MOST_CHARACTERS = 20_000
"""How many characters of a value are shown without `--full`."""

_STYLE = """\
:root { color-scheme: light dark;
  --ink: #1c2024; --dim: #60646c; --line: #d9d9e0; --page: #fff; --box: #f5f5f7;
  --completed: #2b9a66; --failed: #ce2c31; --paused: #ab6400; --other: #0d74ce; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #edeef0; --dim: #b0b4ba; --line: #43484e; --page: #111113; --box: #1b1c1f;
  --completed: #3dd68c; --failed: #ff9592; --paused: #ffca16; --other: #70b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 75rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { margin: 0; padding: .5rem; background: var(--box); border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 30rem; overflow: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--dim); font-weight: 500; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .3rem .8rem; margin: .4rem 0; }
dt { color: var(--dim); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
details { border-left: 2px solid var(--line); padding-left: .8rem; margin: .25rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary > span { color: var(--dim); margin-left: .6rem; }
.completed { color: var(--completed); }
.failed { color: var(--failed); }
.paused { color: var(--paused); }
.other, .waiting, .running { color: var(--other); }
.skipped, .dim { color: var(--dim); }
.row { display: grid; grid-template-columns: 16rem 1fr 4.5rem; gap: .6rem; align-items: center;
  font-size: 13px; }
.row > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.row > span:last-child { text-align: right; }
.track { position: relative; height: .8rem; background: var(--box); border-radius: 2px; }
.bar { position: absolute; top: 0; height: 100%; min-width: 2px; border-radius: 2px;
  background: currentcolor; }
@media (max-width: 45rem) {
  .row { grid-template-columns: 8rem 1fr 4rem; }
  dl { grid-template-columns: 1fr; }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(detail: TaskDetail, *, full: bool = False) -> str:
    """Return the page of a run whose transcripts were read.

    Args:
        detail: the run.
        full: show values of any length whole.
    """
    root, task = detail.trace, detail.task
    title = _text(f"{task.pipeline} {task.run_id}")
    limit = None if full else MOST_CHARACTERS
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>\n{_STYLE}</style>",
        f"<h1>{_text(task.pipeline)} <code>{_text(task.run_id)}</code></h1>",
        *_facts(_head(detail), limit),
        *(f"<p>warning: {_text(warning)}</p>" for warning in detail.warnings),
        "<h2>Timeline</h2>",
        *_timeline(root),
        "<h2>Costs</h2>",
        *_costs(root),
        "<h2>Steps</h2>",
        *(line for child in root.children for line in _step(child, limit)),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _text(text: str) -> str:
    """Return a text for HTML: secrets masked, invisible characters shown, and escaped."""
    return escape(visible(GATE.result(text)))


def _head(detail: TaskDetail) -> Iterator[tuple[str, Any]]:
    root, task = detail.trace, detail.task
    yield "status", str(task.display_status)
    yield "began", formatting.moment(task.created_at)
    yield "time", " ".join(filter(None, [formatting.seconds(root.seconds), _work(root)]))
    yield "spent", formatting.usage(root.total(), root.unconfirmed)
    if detail.lock_digest:
        yield "lock", detail.lock_digest
    yield "input", detail.input
    if detail.context:
        yield "context", detail.context
    if detail.error is not None:
        yield "error", f"{detail.error.message} [{detail.error.code}]"
        yield "at", formatting.code_place(detail.error.frame)
    if detail.output is not None:
        yield "output", detail.output
    for act in detail.acts:
        words = [formatting.moment(act.at or 0.0), act.actor.by, str(act.verb).replace("_", " "), act.object]
        yield "act", " ".join(filter(None, words))


def _work(node: TraceNode) -> str:
    differs = abs(node.work_s - node.seconds) > max(1.0, 0.1 * node.seconds)
    return f"({formatting.seconds(node.work_s)} of work)" if differs else ""


def _status(node: TraceNode) -> str:
    """Return the class of a node's status."""
    known = ("completed", "failed", "paused", "skipped", "waiting", "running")
    return str(node.status) if str(node.status) in known else "other"


def _facts(facts: Iterable[tuple[str, Any]], limit: int | None) -> Iterator[str]:
    yield "<dl>"
    for name, value in facts:
        if value != "":
            yield f"<dt>{_text(name)}</dt><dd>{_value(value, limit)}</dd>"
    yield "</dl>"


def _value(value: Any, limit: int | None) -> str:
    """Return a short value in the line, and any other in a box."""
    if not isinstance(value, str) and len(brief := value_text(value, MOST_IN_LINE)) < MOST_IN_LINE:
        return f"<code>{_text(brief)}</code>"
    text = GATE.result(value_text(value, None))
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}\n… ({len(text):,} characters; `--full` shows all)"
    if isinstance(value, str) and len(text) <= 200 and "\n" not in text:
        return _text(text)
    return f"<pre>{_text(text)}</pre>"


# Timeline and costs --------------------------------------------------------------------------------------


def _timeline(root: TraceNode) -> Iterator[str]:
    """Yield a bar for each step that has begun, on the scale of the run."""
    began = [(node, depth) for node, depth in _below(root) if node.began is not None]
    first = min((node.began or 0.0 for node, _ in began), default=0.0)
    last = max((node.ended or 0.0 for node, _ in began), default=0.0)
    whole = max(last - first, 1e-9)
    for node, depth in began[:MOST_BARS]:
        left = 100 * ((node.began or 0.0) - first) / whole
        width = min(100 * node.seconds / whole, 100 - left)
        name = f'<span style="padding-left: {0.7 * min(depth, 8):.1f}rem" title="{_text(shown(node.path))}">'
        bar = f'<div class="bar {_status(node)}" style="left: {left:.3f}%; width: {width:.3f}%"></div>'
        yield (
            f'<div class="row">{name}{_text(node.name)}</span><div class="track">{bar}</div>'
            f"<span>{formatting.seconds(node.seconds)}</span></div>"
        )
    if len(began) > MOST_BARS:
        yield f'<p class="dim">{len(began) - MOST_BARS:,} more steps are not in the timeline.</p>'
    if not began:
        yield '<p class="dim">No step has begun.</p>'


def _below(node: TraceNode, depth: int = 0) -> Iterator[tuple[TraceNode, int]]:
    """Yield everything inside a node with its depth."""
    for child in node.children:
        yield child, depth
        yield from _below(child, depth + 1)


def _costs(root: TraceNode) -> Iterator[str]:
    """Yield a table of the steps that have used something, and their sum."""
    spent = [node for node in root.walk() if node.usage != NOTHING]
    if not spent:
        yield '<p class="dim">The run has used no model and no tool.</p>'
        return
    heads = ("requests", "tool calls", "input tokens", "output tokens", "spent")
    numbers = "".join(f'<th class="number" scope="col">{head}</th>' for head in heads)
    yield f'<table><tr><th scope="col">step</th><th scope="col">model</th>{numbers}</tr>'
    rows = [(shown(node.path), node.model or "", node.usage) for node in spent]
    for name, model, usage in [*rows, ("the whole run", "", root.total())]:
        counts = (usage.requests, usage.tool_calls, usage.input_tokens, usage.output_tokens)
        cells = [*(f"{count:,}" for count in counts), formatting.usage(usage)]
        tail = "".join(f'<td class="number">{_text(cell)}</td>' for cell in cells)
        yield f"<tr><td>{_text(name)}</td><td>{_text(model)}</td>{tail}</tr>"
    yield "</table>"


# Steps ---------------------------------------------------------------------------------------------------


def _step(node: TraceNode, limit: int | None) -> Iterator[str]:
    """Yield a step with everything inside it; one that has failed or waits is open."""
    is_open = " open" if str(node.status) not in ("completed", "skipped") else ""
    facts = [
        "" if node.kind in ("", "step", "turn", "tool") else node.kind,
        str(node.detail.get("tool", "")) if node.kind == "tool" else "",
        "" if str(node.status) == "completed" else str(node.status),
        plural(node.attempts, "attempt") if node.attempts > 1 else "",
        formatting.seconds(node.seconds) if node.began is not None else "",
        _work(node),
        formatting.usage(node.usage, node.unconfirmed),
        node.model or "",
    ]
    said = "".join(f"<span>{_text(fact)}</span>" for fact in facts if fact)
    yield f'<details{is_open}><summary><b class="{_status(node)}">{_text(node.name)}</b>{said}</summary>'
    yield from _facts(_of_step(node), limit)
    yield from _messages(node, limit)
    for child in node.children:
        yield from _step(child, limit)
    if node.task is not None and node.task.trace is not None:
        yield from _step(node.task.trace, limit)
    yield "</details>"


def _of_step(node: TraceNode) -> Iterator[tuple[str, Any]]:
    yield "path", shown(node.path)
    if node.kind != "turn" and node.input is not None:
        yield "input", node.input
    for file in node.files:
        yield "file", str(file)
    if node.decision is not None:
        yield "decision", node.decision
    if node.state is not None:
        yield "state", node.state
    for made in node.made if len(node.made) > 1 or node.failures else ():
        yield "attempt", _attempt(made)
    if not node.failures and node.error is not None:
        yield "error", f"{node.error.message} [{node.error.code}]"
        yield "at", formatting.code_place(node.error.frame)
    yield "at", formatting.code_place(node.frame)
    for op in node.changed:
        yield "context", change(op, None)
    if node.kind != "turn" and node.output is not None:
        yield "output", node.output
    if node.task is not None:
        yield "task", f"{node.task.run_id} {node.task.status}"


def _attempt(made: AttemptMade) -> str:
    error = "" if made.error is None else f"{made.error.message} [{made.error.code}]"
    place = "" if made.error is None else formatting.code_place(made.error.frame)
    facts = [
        f"{made.number} {made.status}",
        formatting.seconds(made.seconds),
        formatting.usage(made.usage),
        error,
        f"at {place}" if place else "",
    ]
    return "  ".join(filter(None, facts))


def _messages(node: TraceNode, limit: int | None) -> Iterator[str]:
    """Yield the messages to and from the model: of each attempt, or of a turn."""
    turn = [*(node.input or ()), *([node.output] if node.output else ())] if node.kind == "turn" else []
    if turn:
        yield from _facts((line for message in turn for line in lines_of(message)), limit)
    for said in node.transcripts:
        messages = [line for message in said["messages"] for line in lines_of(message)]
        head = f"messages of attempt {said['attempt']}" if len(node.transcripts) > 1 else "messages"
        yield f"<details><summary>{head}</summary>"
        asked = [("system", said["instructions"])] if said.get("instructions") else []
        yield from _facts([*asked, *messages], limit)
        yield "</details>"
