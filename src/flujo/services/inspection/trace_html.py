"""The trace of a run as HTML without a page around it: timeline, costs, and each step with its values.

Every text of the run is masked and escaped. There is neither a script nor a style in it, so a page
may forbid both.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from flujo.domain.paths import ROOT, shown
from flujo.domain.usage import NOTHING
from flujo.domain.wording import plural
from flujo.governance.screen import visible
from flujo.governance.sink import GATE
from flujo.services.inspection import formatting
from flujo.services.inspection.value_text import change, lines_of, value_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flujo.domain.paths import StepPath
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.trace_tree import AttemptMade, TraceNode

MOST_BARS = 1000
"""How many steps the timeline shows."""
MOST_IN_LINE = 100
"""How many characters of a value are shown without a box."""
MOST_CHARACTERS = 20_000
"""How many characters of a value are shown before the rest is left out."""
_DEEPEST = 8
"""The depth from which names in the timeline are not moved further to the right."""
_STATUSES = ("completed", "failed", "paused", "skipped", "waiting", "running", "cancelled")


class Html(str):
    """A text that is HTML already, and not escaped again."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the text, for templates that escape every other one."""
        return self


def text(text: str) -> Html:
    """Return a text for HTML: secrets masked, invisible characters shown, and escaped."""
    return Html(escape(visible(GATE.result(text))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a trace is shown: what is left out, and what is a link to another page."""

    limit: int | None = MOST_CHARACTERS
    """The most characters of a value; None for no limit."""
    rest: Callable[[StepPath, str, int], str]
    """Returns the HTML behind a value that was cut: by its step, its name such as `output`, its length."""
    most_steps: int | None = None
    """The most steps of a tree; None for no limit."""
    path: Callable[[StepPath], str] = lambda path: text(shown(path))
    """Returns the HTML of the path of a step."""
    run: Callable[[str], str] = text
    """Returns the HTML of the id of another run."""


def head(detail: TaskDetail, manner: Manner) -> Html:
    """Return the facts about a run."""
    return _joined(_facts(_of_run(detail), manner, ROOT))


def timeline(root: TraceNode) -> Html:
    """Return a bar for each step that has begun, on the scale of the run."""
    return _joined(_timeline(root))


def costs(root: TraceNode) -> Html:
    """Return a table of the steps that have used something, and their sum."""
    return _joined(_costs(root))


def steps(nodes: Iterable[TraceNode], manner: Manner) -> Html:
    """Return steps with everything inside them, folded. Those that failed or wait are open."""
    return _joined(_Steps(manner).all(nodes))


def _joined(lines: Iterable[str]) -> Html:
    return Html("\n".join(lines))


# Facts ---------------------------------------------------------------------------------------------------


def _of_run(detail: TaskDetail) -> Iterator[tuple[str, Any]]:
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
    return str(node.status) if str(node.status) in _STATUSES else "other"


def _facts(facts: Iterable[tuple[str, Any]], manner: Manner, path: StepPath) -> Iterator[str]:
    yield "<dl>"
    for name, value in facts:
        if value != "":
            yield f"<dt>{text(name)}</dt><dd>{_value(value, manner, path, name)}</dd>"
    yield "</dl>"


def _value(value: Any, manner: Manner, path: StepPath, name: str) -> str:
    """Return a short value in the line, and any other in a box."""
    if isinstance(value, Html):
        return value
    if not isinstance(value, str) and len(brief := value_text(value, MOST_IN_LINE)) < MOST_IN_LINE:
        return f"<code>{text(brief)}</code>"
    whole = GATE.result(value_text(value, None))
    if manner.limit is not None and len(whole) > manner.limit:
        return f"<pre>{text(whole[: manner.limit])}</pre>{manner.rest(path, name, len(whole))}"
    if isinstance(value, str) and len(whole) <= 200 and "\n" not in whole:
        return text(whole)
    return f"<pre>{text(whole)}</pre>"


# Timeline and costs --------------------------------------------------------------------------------------


def _timeline(root: TraceNode) -> Iterator[str]:
    began = [(node, depth) for node, depth in _below(root) if node.began is not None]
    first = min((node.began or 0.0 for node, _ in began), default=0.0)
    last = max((node.ended or 0.0 for node, _ in began), default=0.0)
    whole = max(last - first, 1e-9)
    for node, depth in began[:MOST_BARS]:
        left = 100 * ((node.began or 0.0) - first) / whole
        width = max(min(100 * node.seconds / whole, 100 - left), 0.2)
        name = f'<span class="depth-{min(depth, _DEEPEST)}" title="{text(shown(node.path))}">'
        bar = f'<rect class="{_status(node)}" x="{left:.3f}%" width="{width:.3f}%" height="100%"></rect>'
        yield (
            f'<div class="row">{name}{text(node.name)}</span>'
            f'<svg class="track" aria-hidden="true">{bar}</svg>'
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
        tail = "".join(f'<td class="number">{text(cell)}</td>' for cell in cells)
        yield f"<tr><td>{text(name)}</td><td>{text(model)}</td>{tail}</tr>"
    yield "</table>"


# Steps ---------------------------------------------------------------------------------------------------


class _Steps:
    """Writes the tree, up to a number of steps."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._left = manner.most_steps

    def all(self, nodes: Iterable[TraceNode]) -> Iterator[str]:
        """Yield the lines of several steps, and how many were left out."""
        left_out = 0
        for node in nodes:
            if self._left == 0:
                left_out += 1
                continue
            yield from self._step(node)
        if left_out:
            yield f'<p class="dim">{plural(left_out, "more step")} here: open this step by its path.</p>'

    def _step(self, node: TraceNode) -> Iterator[str]:
        if self._left is not None:
            self._left -= 1
        manner = self._manner
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
        said = "".join(f"<span>{text(fact)}</span>" for fact in facts if fact)
        name = f'<b class="{_status(node)}">{text(node.name)}</b>'
        yield f'<details{is_open} data-path="{text(node.path)}"><summary>{name}{said}</summary>'
        yield from _facts(_of_step(node, manner), manner, node.path)
        yield from _messages(node, manner)
        yield from self.all(node.children)
        if node.task is not None and node.task.trace is not None:
            yield from self.all([node.task.trace])
        yield "</details>"


def _of_step(node: TraceNode, manner: Manner) -> Iterator[tuple[str, Any]]:
    yield "path", Html(manner.path(node.path))
    if node.kind != "turn" and node.input is not None:
        yield "input", node.input
    for file in node.files:
        yield "file", str(file)
    if node.decision is not None:
        yield "decision", node.decision
    if node.state is not None:
        yield "state", node.state
    yield from _attempts(node)
    yield "at", formatting.code_place(node.frame)
    for op in node.changed:
        yield "context", change(op, None)
    if node.kind != "turn" and node.output is not None:
        yield "output", node.output
    if node.task is not None:
        yield "task", Html(f"{manner.run(node.task.run_id)} {text(str(node.task.status))}")


def _attempts(node: TraceNode) -> Iterator[tuple[str, Any]]:
    """Yield each attempt; of one that has completed only where it ran."""
    for made in node.made if len(node.made) > 1 or node.failures else ():
        yield "attempt", _attempt(made)
    if len(node.made) == 1 and not node.failures:
        yield from (("ran", where) for where in formatting.where_ran(node.made[0].ran))
    if not node.failures and node.error is not None:
        yield "error", f"{node.error.message} [{node.error.code}]"
        yield "at", formatting.code_place(node.error.frame)


def _attempt(made: AttemptMade) -> str:
    error = "" if made.error is None else f"{made.error.message} [{made.error.code}]"
    place = "" if made.error is None else formatting.code_place(made.error.frame)
    facts = [
        f"{made.number} {made.status}",
        formatting.seconds(made.seconds),
        formatting.usage(made.usage),
        error,
        f"at {place}" if place else "",
        *(f"on {where}" for where in formatting.where_ran(made.ran)),
    ]
    return "  ".join(filter(None, facts))


def _messages(node: TraceNode, manner: Manner) -> Iterator[str]:
    """Yield the messages to and from the model: of each attempt, or of a turn."""
    turn = [*(node.input or ()), *([node.output] if node.output else ())] if node.kind == "turn" else []
    if turn:
        yield from _facts((line for message in turn for line in lines_of(message)), manner, node.path)
    for said in node.transcripts:
        messages = [line for message in said["messages"] for line in lines_of(message)]
        title = f"messages of attempt {said['attempt']}" if len(node.transcripts) > 1 else "messages"
        yield f"<details><summary>{title}</summary>"
        asked = [("system", said["instructions"])] if said.get("instructions") else []
        yield from _facts([*asked, *messages], manner, node.path)
        yield "</details>"
