"""Progress of a run on stderr: a live tree on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from flujo.domain import paths
from flujo.domain.events import (
    Chunk,
    Event,
    ItemsKept,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepStarted,
)
from flujo.domain.outcomes import (
    Aborted,
    BackgroundLaunched,
    BegunAgain,
    Ended,
    Failure,
    Paused,
    StepOutcome,
    Success,
)
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.wording import plural, size
from flujo.governance.screen import visible_line
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType
    from rich.text import Text

    from flujo.cli.terminal import Terminal
    from flujo.domain.run import RunStatus

COLLAPSE_BEYOND = 60
"""In a finished tree with more lines, completed composites collapse to one line each."""

_MARKS = {
    "done": "✓",
    "kept": "✓",
    "skipped": "-",
    "failed": "✗",
    "waiting": "⏸",
    "stopped": "■",
    "launch": "→",
}
_STYLES = {"done": "green", "kept": "green dim", "skipped": "dim", "failed": "red", "waiting": "yellow"}
_COUNTED = ("turn", "summary", "tool")
"""The kinds of what happens inside a conversation; its paths have numbers in place of names."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress(Protocol):
    """Shows events; entered before the run and exited after it."""

    run_id: str
    """Known once the run is accepted or claimed."""
    status: RunStatus | None
    """How the run has ended or paused; None while its steps are executed."""

    async def __call__(self, event: Event) -> None:
        """Show an event."""
        ...

    def download(self, done: int, total: int) -> None:
        """Show the progress of a model download in bytes; called from any thread."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def progress(terminal: Terminal, *, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return the progress display for this terminal."""
    is_live = terminal.err.isatty() and not terminal.logs_messages
    return LiveTree(terminal, clock) if is_live else PlainLines(terminal)


def outcome_state(outcome: StepOutcome, *, recorded: bool = False) -> str:
    """Return one word for the outcome of a step."""
    match outcome:
        case Success(skipped=True):
            return "skipped"
        case Success() | BegunAgain() | Ended():
            return "kept" if recorded else "done"
        case Failure():
            return "failed"
        case Paused():
            return "waiting"
        case BackgroundLaunched():
            return "kept" if recorded else "launch"
        case Aborted():
            return "stopped"


# In a pipe ----------------------------------------------------------------------------------------------


class PlainLines:
    """One line per event, the verb first, to read and search in a log.

    The message of a failure stands in one line: that of the first step which failed with it, or, when it ends
    the run, the error at the end.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.run_id = ""
        self.status: RunStatus | None = None
        self._terminal = terminal
        self._tenth = -1
        self._held: list[StepEnded] = []
        """Failures that may end the run: the first one, and those of the steps around it."""

    async def __call__(self, event: Event) -> None:
        """Write the event's line."""
        if self._holds(event):
            return
        self._tell(ends_run=isinstance(event, RunEnded) and event.status == "failed")
        match event:
            case RunStarted():
                goes_on = event.resumed or event.run_id == self.run_id  # after a wait in this process
                self.run_id, self.status = event.run_id, None
                self._say("resume" if goes_on else "run", f"{event.pipeline}  {event.run_id}")
            case StepStarted():
                attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
                self._step("start", event.path, event.tool or "", attempt)
            case StepEnded():
                self._step(outcome_state(event.outcome, recorded=event.recorded), event.path, *_facts(event))
            case StepRetried():
                reason = formatting.brief(event.error.message)
                self._step("retry", event.path, f"in {formatting.seconds(event.delay_s)}: {reason}")
            case ItemsKept():
                self._step("kept", event.path, plural(event.count, "item"))
            case RunEnded():
                self.status = event.status
            case Chunk():
                pass

    def download(self, done: int, total: int) -> None:
        """Write a line every 10 %."""
        tenth = done * 10 // total if total else 0
        if tenth > self._tenth:
            self._tenth = tenth
            self._say("fetch", f"the model: {size(done)} of {size(total)}")

    def _holds(self, event: Event) -> bool:
        """Return whether the line of a failure waits: the next event tells whether the run continues."""
        if not isinstance(event, StepEnded) or not isinstance(event.outcome, Failure):
            return False
        if self._held and error_of(self._held[0]) != error_of(event):
            self._tell(ends_run=False)
        self._held.append(event)
        return True

    def _tell(self, *, ends_run: bool) -> None:
        """Write the lines of failures that wait, the first one with its message unless that ends the run."""
        for number, event in enumerate(self._held):
            has_message = not number and not ends_run
            self._step("failed", event.path, *_facts(event, has_message=has_message))
        self._held = []

    def _step(self, verb: str, path: StepPath, *facts: str) -> None:
        self._say(verb, paths.shown(path), *facts)

    def _say(self, verb: str, *rest: str) -> None:
        if self._terminal.logs_messages:
            return  # the log has a line for each event
        self._terminal.say(visible_line(f"{verb:<8}{'  '.join(word for word in rest if word)}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(ends_run=False)


def error_of(event: StepEnded) -> tuple[str, str] | None:
    """Return the code and the message of a failure."""
    outcome = event.outcome
    return (outcome.error.code, outcome.error.message) if isinstance(outcome, Failure) else None


def _awaited(event: StepEnded, outcome: Paused) -> str:
    """Return what a step itself waits for, other than a human."""
    mine = (each for each in outcome.pauses if each.pause_id == event.path and not each.kind.asks_human)
    return next((each.message for each in mine), "")


def _facts(event: StepEnded, *, has_message: bool = True) -> Iterator[str]:
    """Yield the details of a completed step: seconds, tokens, cost, and the reason of a failure."""
    if not event.recorded and not isinstance(event.outcome, Paused):
        yield formatting.seconds(event.seconds)
    if event.cached:
        yield "cached"
    yield formatting.usage(event.usage)
    match event.outcome:
        case Failure(error=error):
            message = f"{formatting.brief(error.message, 160)} " if has_message else ""
            yield f"{message}[{error.code}]"
        case Aborted(reason=reason):
            yield formatting.brief(reason, 120)
        case Paused():
            yield formatting.brief(_awaited(event, event.outcome), 120)
        case _:
            pass


# On a terminal ------------------------------------------------------------------------------------------


@dataclass
class Node:
    """A line of the tree: a step, or an iteration, branch, turn or tool call of one."""

    name: str
    kind: str = ""
    state: str = ""
    started: float = 0.0
    seconds: float = 0.0
    usage: Usage = NOTHING
    note: str = ""
    error: tuple[str, str] | None = None
    """The code and the message of its failure."""
    children: dict[StepPath, Node] = field(default_factory=dict)


class LiveTree:
    """The tree of the run, redrawn in place: step, state, seconds, tokens, cost."""

    def __init__(self, terminal: Terminal, clock: Callable[[], float]) -> None:
        from rich.live import Live

        self.run_id = ""
        self.status: RunStatus | None = None
        self._clock = clock
        self._root = Node("")
        self._nodes: dict[StepPath, Node] = {ROOT: self._root}
        self._final = False
        self._fetching = ""
        self._console = terminal.console()
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._final = True
        self._live.stop()

    async def __call__(self, event: Event) -> None:
        """Update the tree."""
        match event:
            case RunStarted():
                self.run_id, self.status = event.run_id, None
                verb = "resumed" if event.resumed else "run"
                self._root.name = f"{event.pipeline}  {verb} {formatting.short_id(event.run_id)}"
            case StepStarted():
                node = self._node(event.path, event.kind)
                node.name = event.tool or node.name
                node.state, node.started = "running", self._clock()
                node.note = f"attempt {event.attempt}" if event.attempt > 1 else ""
            case StepEnded():
                self._end(self._node(event.path, event.kind), event)
            case StepRetried():
                self._node(
                    event.path
                ).note = f"retry in {formatting.seconds(event.delay_s)}: {event.error.message}"
            case ItemsKept():
                self._node(event.path).note = f"{plural(event.count, 'item')} kept"
            case Chunk():
                node = self._node(event.path)
                node.note = (node.note + event.text)[-400:]
            case RunEnded():
                self.status = event.status
                if event.status == "failed":
                    self._leave_to_the_end()

    def _leave_to_the_end(self) -> None:
        """Shorten the notes about the failure that ends the run: its message is written below the tree."""
        fatal = {node.error for node in self._root.children.values() if node.error is not None}
        for node in self._nodes.values():
            if node.error in fatal and node.error is not None:
                node.note = f"[{node.error[0]}]"

    def download(self, done: int, total: int) -> None:
        """Show the download below the tree until it is complete."""
        self._fetching = "" if done >= total else f"downloading the model: {size(done)} of {size(total)}"

    def _end(self, node: Node, event: StepEnded) -> None:
        node.state = outcome_state(event.outcome, recorded=event.recorded)
        node.seconds, node.usage, node.note = event.seconds, event.usage, ""
        node.error = error_of(event)
        match event.outcome:
            case Failure(error=error):
                inside = any(child.error == node.error for child in _below(node))
                node.note = f"[{error.code}]" if inside else error.message
            case Aborted(reason=reason):
                node.note = reason
            case Paused():
                node.note = _awaited(event, event.outcome)
            case _:
                pass

    def _node(self, path: StepPath, kind: str = "") -> Node:
        """Return the node of `path`; adds missing parents, which may have no event of their own.

        A turn is directly below its step, and a tool call directly below its turn.
        """
        if path not in self._nodes:
            above, name = paths.parent(path), paths.name(path).removeprefix(":")
            if kind in _COUNTED:
                above, name = paths.parent(above), f"{kind} {paths.last_count(path)}"
            upper = self._node(above, "turn" if kind == "tool" else "")
            self._nodes[path] = upper.children[path] = Node(name, kind)
        return self._nodes[path]

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        room = COLLAPSE_BEYOND if self._final else max(4, self._console.height - 2)
        lines = self._lines(collapse=False)
        if len(lines) > room:
            lines = self._lines(collapse=True)
        if len(lines) > room and not self._final:
            hidden = len(lines) - room + 1
            lines = [Text(f"… {plural(hidden, 'line')} above", style="dim"), *lines[hidden:]]
        return Group(*lines)

    def _lines(self, *, collapse: bool) -> list[Text]:
        from rich.text import Text

        head = [Text(visible_line(self._root.name), style="bold")] if self._root.name else []
        nodes = _walk(self._root, collapse=collapse, is_final=self._final)
        steps = [self._line(node, depth) for node, depth in nodes]
        return [*head, *steps, *([Text(self._fetching, style="cyan")] if self._fetching else [])]

    def _line(self, node: Node, depth: int) -> Text:
        from rich.text import Text

        now = self._clock()
        mark = _MARKS.get(node.state, " ")
        if node.state == "running":
            mark = _SPINNER[int(now * 10) % len(_SPINNER)]
        spent = now - node.started if node.state == "running" else node.seconds
        facts = [formatting.seconds(spent)] if node.state in ("running", "done", "failed") else []
        facts += ["recorded"] if node.state == "kept" else [node.state] if node.state == "skipped" else []
        facts += [used] if (used := formatting.usage(node.usage)) else []
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{'  ' * depth}{mark} ", style=_STYLES.get(node.state, "cyan"))
        style = "" if node.state else "dim"  # an iteration or a branch only groups what is inside it
        line.append(f"{visible_line(node.name):<{max(4, 24 - 2 * depth)}}", style=style)
        line.append(f"  {'  '.join(facts)}", style="dim")
        if node.note:
            line.append(f"  {formatting.brief(node.note[-160:], 160)}", style=_STYLES.get(node.state, "dim"))
        return line


def _below(node: Node) -> Iterator[Node]:
    """Yield every node below a node."""
    for child in node.children.values():
        yield child
        yield from _below(child)


def _walk(node: Node, *, collapse: bool, is_final: bool, depth: int = 0) -> Iterator[tuple[Node, int]]:
    """Yield the nodes below `node` with their depths; before the end, only the last turn of a step."""
    last = next(reversed(node.children), None)
    for path, child in node.children.items():
        if child.kind == "turn" and path != last and not is_final:
            continue
        yield child, depth
        if not (collapse and child.state in ("done", "kept")):
            yield from _walk(child, collapse=collapse, is_final=is_final, depth=depth + 1)
