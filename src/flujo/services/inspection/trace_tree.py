"""The tree of a trace: a node for each step of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.agents.messages import of_thread
from flujo.domain import paths
from flujo.domain.commands import command
from flujo.domain.journal import CodeFrame
from flujo.domain.unknown_steps import unknown_step
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.conversations import Message
    from flujo.domain.files import File
    from flujo.domain.journal import ErrorInfo
    from flujo.domain.merge import Patch
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Intent, RunStatus
    from flujo.domain.threads import Exchange

OF_TURNS = ("turn", "summary", "tool")
"""The kinds of the entries of a conversation, which are the names of the groups around them as well."""


@dataclass(frozen=True, slots=True)
class AttemptMade:
    """A recorded attempt of a step."""

    number: int
    status: str
    began: float
    """By the clock of its process, in seconds since the epoch."""
    seconds: float
    usage: Usage = NOTHING
    error: ErrorInfo | None = None
    ran: Sequence[Mapping[str, Any]] = ()
    """Where its units were executed, if an executor has sent them to other processes; see `RemoteWork`."""


@dataclass(slots=True)
class LaunchedTask:
    """A background task that a step has launched."""

    run_id: str
    status: RunStatus
    trace: TraceNode | None = None
    """Its trace, if it was read."""


@dataclass(slots=True)
class TraceNode:
    """A step of a run, with its result and its substeps."""

    path: StepPath
    kind: str = ""
    status: str = "running"
    run_id: str = ""
    """The id of the run; of the run's node."""
    attempts: int = 0
    made: list[AttemptMade] = field(default_factory=list)
    """Its recorded attempts, in order."""
    decision: Any = None
    """The decision: a branch's name, or whether a loop ended."""
    state: str | None = None
    """The current or last state of a state machine."""
    input: Any = None
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    unconfirmed: Usage = NOTHING
    """An upper bound for requests that may have been made without a recorded result."""
    work_s: float = 0.0
    """How long its attempts took; of a composite, the sum of those inside it."""
    began: float | None = None
    """When the first attempt in it began, by the clock of its process."""
    ended: float | None = None
    """When the last attempt in it ended."""
    model: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    changed: Patch = field(default_factory=list)
    """What the step has changed in the context."""
    files: Sequence[File] = ()
    """The files that the step sends to its model."""
    not_cached: str | None = None
    """Why a cached step was executed without a look into the cache."""
    agent: Mapping[str, Any] | None = None
    """The agent of a conversation: its model, instructions, tools and schemas."""
    call: Intent | None = None
    """The newest sending of its call, if calls are announced; its key is what the other system knows."""
    transcripts: list[dict[str, Any]] = field(default_factory=list)
    """The transcript of each attempt that has one: `attempt`, `status`, `error`, and `digest` or the text."""
    fell_back: ErrorInfo | None = None
    """The error of the step's last attempt before its fallback ran, or before its failure was replaced."""
    answered: list[tuple[str, str]] = field(default_factory=list)
    """For each agent request: the requested model and the id of the model that answered."""
    chosen: str | None = None
    """The agent that was chosen from a list."""
    heard: Sequence[Message] = ()
    """The messages of the step's thread, as its agent saw them; set by `conversation`."""
    exchanges: Mapping[StepPath, Exchange] = field(default_factory=dict)
    """The exchanges of all threads of the run, by the path of their step; of the run's node."""
    task: LaunchedTask | None = None
    """The background task that the step has launched."""
    children: list[TraceNode] = field(default_factory=list)

    @property
    def failures(self) -> list[AttemptMade]:
        """Its failed attempts, in order."""
        return [each for each in self.made if each.error is not None]

    @property
    def frame(self) -> CodeFrame | None:
        """Where the code of a tool raised the error that its model got."""
        return CodeFrame.from_json(self.detail["frame"]) if "frame" in self.detail else None

    @property
    def tracebacks(self) -> list[str]:
        """The digests of its tracebacks, in the order of its attempts."""
        errors = [*(each.error for each in self.made), self.error]
        found = [each.traceback for each in errors if each is not None] + [self.detail.get("traceback")]
        return list(dict.fromkeys(filter(None, found)))

    @property
    def seconds(self) -> float:
        """How long it took from its beginning to its end, waits between attempts included."""
        return 0.0 if self.began is None or self.ended is None else max(0.0, self.ended - self.began)

    def note_time(self, began: float, ended: float, *, is_work: bool = True) -> None:
        """Count an attempt, or a wait for a human, a time or an event."""
        self.began = began if self.began is None else min(self.began, began)
        self.ended = ended if self.ended is None else max(self.ended, ended)
        if is_work:
            self.work_s += max(0.0, ended - began)

    @property
    def thread(self) -> Mapping[str, Any] | None:
        """The thread of the step: its `name`, and the last exchange that the step saw (`after`)."""
        return (self.agent or self.detail).get("thread")

    @property
    def name(self) -> str:
        """The last part of the path; `turn 0` in a conversation, and `:draft[0]` for a visit of a state."""
        if self.kind in OF_TURNS:
            return f"{self.kind} {paths.last_count(self.path)}"
        name, above = paths.name(self.path), paths.parent(self.path)
        return paths.name(above) + name if name[:1] == "[" and paths.name(above)[:1] == ":" else name

    def at(self, path: str) -> TraceNode:
        """Return the node of the step at `path`; counts may be written `loop[2]/x` or `loop.2/x`.

        Raises:
            SettingsError: the run has no such step; the hint names the closest.
        """
        nodes = {node.path: node for node in self.walk()}
        if (found := paths.find(path, nodes)) is not None:
            return nodes[found]
        raise SettingsError(
            f"run {self.run_id} has no step {path!r}", hint=unknown_step(path, nodes, self.run_id)
        )

    @property
    def items(self) -> tuple[int, int] | None:
        """The first and last item of a range of a map; None for any other node."""
        return paths.bounds(self.path)

    def walk(self) -> Iterator[TraceNode]:
        """Yield this node and everything inside it, outer ones first."""
        yield self
        for inner in self.children:
            yield from inner.walk()

    def conversation(self, shown: TraceNode) -> TraceNode:
        """Return the conversation that `shown` is or is a turn of, up to and including that turn.

        A step that asks an agent once is a conversation too, if its transcript is kept.

        Raises:
            SettingsError: it contains no conversation, or several; the hint names them.
        """
        whole = [node for node in self.walk() if node.is_conversation]
        around = [node for node in whole if node.agent and paths.is_inside(shown.path, node.path)]
        inside = _outermost([node for node in whole if paths.is_within(node.path, shown.path)])
        if around and shown not in inside:
            parts = around[-1].children
            last = next(n for n, part in enumerate(parts) if paths.is_within(shown.path, part.path))
            return replace(around[-1], children=parts[: last + 1], heard=self._heard(around[-1]))
        if len(inside) == 1:
            inside[0].heard = self._heard(inside[0])
            return inside[0]
        names = ", ".join(paths.shown(node.path) for node in inside or whole)
        raise SettingsError(
            "name one conversation" if names else "this run has no conversation with a model",
            hint=f"`{command('flujo', 'trace', self.run_id, 'PATH', '--messages')}`, where PATH is one of "
            f"{names}"
            if names
            else "a step with an agent has one, unless flujo.toml has `[journal] transcripts = 'off'`",
        )

    @property
    def is_conversation(self) -> bool:
        """Whether this is a step with messages to and from a model."""
        has_messages = self.thread is not None or bool(self.transcripts)
        return self.agent is not None or (has_messages and self.kind not in OF_TURNS)

    def _heard(self, reader: TraceNode) -> Sequence[Message]:
        """Return the messages of a step's thread, found backwards from the last one that it saw."""
        nodes = {node.path: node for node in self.walk()}
        first = next((turn for turn in reader.children if turn.kind == "turn"), reader)
        me = first.detail.get("agent") or reader.name
        found: list[Exchange] = []
        thread = reader.thread
        while thread is not None and (path := thread["after"]) is not None:
            each = self.exchanges[path]
            found.append(replace(each, is_own=each.author == me))
            thread = nodes[path].thread
        return of_thread(found[::-1])

    def total(self) -> Usage:
        """Return the usage of this node and everything inside it."""
        total = self.usage
        for inner in self.children:
            total += inner.total()
        return total


def _outermost(nodes: Sequence[TraceNode]) -> list[TraceNode]:
    """Return the nodes that are inside no other one: a router, not the agents in its branches."""
    return [node for node in nodes if not any(paths.is_inside(node.path, other.path) for other in nodes)]
