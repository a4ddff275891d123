"""The messages of a thread, read from the entries of the steps that had them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.paths import turn
from flujo.domain.threads import HUMAN, Exchange, exchanges
from flujo.exceptions import CorruptState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flujo.domain.conversations import Message
    from flujo.domain.journal import Entry
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep
    from flujo.engine.attempt import Attempt
    from flujo.engine.frame import Frame


async def hear(attempt: Attempt) -> None:
    """Read the thread of a step for one attempt, and note in its entry what the attempt saw."""
    attempt.history = await heard(attempt.step, attempt.frame)


async def heard(step: BaseStep, frame: Frame) -> tuple[Exchange, ...]:
    """Return the exchanges of a step's thread until now, as the agent of the step sees them.

    They are read from the journal, also in the execution that recorded them, so that a resumed run sees the
    same. Each is read once in an execution.

    Raises:
        CorruptState: the journal lacks the result of a step on the thread.
    """
    if step.joins is None:
        return ()
    run, named = frame.run, exchanges(frame.scope.tree, step.joins)
    unread = [path for path in named if path not in run.exchanges]
    if unread:
        found = await run.journal.read([*unread, *(turn(path, 0) for path in unread)])
        run.exchanges |= recorded(unread, found)
        if missing := [path for path in unread if path not in run.exchanges]:
            raise CorruptState(f"the journal has no result of `{missing[0]}`, which the thread names")
    me = author_of(step)
    return tuple(replace(each, is_own=each.author == me) for each in map(run.exchanges.__getitem__, named))


def seen(step: BaseStep, frame: Frame) -> dict[str, Any]:
    """Return the record of what a step sees of its thread: the name, and the last exchange."""
    if step.joins is None:
        return {}
    named = exchanges(frame.scope.tree, step.joins)
    return {"thread": {"name": step.joins, "after": named[-1] if named else None}}


def recorded(named: Sequence[StepPath], entries: Iterable[Entry]) -> Mapping[StepPath, Exchange]:
    """Return the exchanges of the steps at some paths; `entries` has theirs, and those of first turns."""
    results = {entry.path: entry for entry in entries if _is_result(entry)}
    ends = {path: results[path] for path in named if path in results}
    return {path: _exchange(end, results.get(turn(path, 0), end)) for path, end in ends.items()}


def author_of(step: BaseStep) -> str:
    """Return the name of a step's agent on a thread; an agent without a name has that of its step."""
    agent = getattr(step, "agent", None)
    return agent.name if isinstance(agent, AgentSpec) else step.name


def _is_result(entry: Entry) -> bool:
    return entry.status is EntryStatus.COMPLETED and entry.kind is not EntryKind.DECISION


def _exchange(end: Entry, first: Entry) -> Exchange:
    """Return the exchange of a step, from the entries of its end and of its prompt."""
    given, detail = _json(first.input), _json(first.detail) or {}
    author = detail.get("agent") or paths.name(end.path)
    if end.kind is EntryKind.DONE:
        given = _text_of(given[0])
    elif end.kind is EntryKind.ANSWER:
        author = HUMAN
    return Exchange(author, _text(given), _text(_json(end.output)))


def _text_of(message: Message) -> str:
    """Return the text of a message of a user; a part that is not text leaves its kind."""
    content = [part["content"] for part in message["parts"]]
    pieces = [each for one in content for each in (one if isinstance(one, list) else [one])]
    return "\n".join(each if isinstance(each, str) else f"[{each.get('kind', 'file')}]" for each in pieces)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical.encode(value).decode()


def _json(value: bytes | None) -> Any:
    return None if value is None else canonical.decode(value)
