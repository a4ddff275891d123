"""The lines of an exported run: each is one JSON object, for a record of a database or for a content.

`docs/reference/run-files.md` describes them. A value that is not there has no key, so that null is a value.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import Entry, EntryKind, EntryStatus, RunId
from flujo.domain.ledger import Hold, HoldState, Spending
from flujo.domain.paths import StepPath
from flujo.domain.queues import Parent, Queued
from flujo.domain.recorded_run import RecordedRun
from flujo.domain.run import Intent, IntentState, Pause, PauseKind, RunRecord, RunStatus, Wish
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import NotJournalable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Line = dict[str, Any]

_RUN_VALUES = ("input", "context", "context_now", "output", "error")
_RUN_FACTS = ("pipeline", "closure", "user_id", "lock_digest", "fence", "claims", "recoveries", "suspicions")
_RUN_TIMES = ("entries", "created_at", "updated_at", "ends_by", "is_answered")
_ENTRY_VALUES = ("input", "output", "patch", "error", "detail")
_ENTRY_FACTS = ("attempt", "seq", "fingerprint", "started_at", "ended_at")
_PAUSE_VALUES = ("answer_schema", "answer")
_PAUSE_FACTS = ("message", "deadline_at", "asked_at", "answered_at", "void", "by", "event", "event_key")
_INTENT_FACTS = ("key", "tool", "attempt", "sends", "sent_at")
_QUEUE_FACTS = ("queue", "key", "priority", "available_at", "tries")


def lines_of(run: RecordedRun) -> Iterator[Line]:
    """Yield the lines of a run, without those of its contents."""
    yield _run_line(run.record)
    for entry in run.entries:
        yield _line("entry", run, _entry_line(entry))
    for pause in run.pauses:
        kind = {"pause_id": pause.pause_id, "kind": str(pause.kind)}
        yield _line("pause", run, {**kind, **_facts(pause, _PAUSE_FACTS), **_values(pause, _PAUSE_VALUES)})
    for call in run.intents:
        where = {"path": call.path, "state": str(call.state)}
        yield _line("intent", run, {**where, **_facts(call, _INTENT_FACTS), **_values(call, _CALL_VALUES)})
    for act in run.acts:
        yield _line("act", run, _act_line(act))
    for hold in run.holds:
        where = {"path": hold.path, "state": str(hold.state)}
        yield _line("hold", run, {**where, "number": hold.number, "usage": hold.usage.to_json()})
    for time in run.times:
        span = {"started_at": time.started_at, "ended_at": time.ended_at}
        yield _line("time", run, {"path": time.path, **span})


_CALL_VALUES = ("input", "result")


def content_line(digest: str, data: bytes) -> Line:
    """Return the line of a content: as JSON where it is canonical JSON, as text where it is UTF-8."""
    try:
        value = canonical.decode(data)
        if canonical.encode(value) == data:
            return {"type": "content", "digest": digest, "json": value}
    except (ValueError, NotJournalable):
        pass
    try:
        text = data.decode()
        canonical.encode(text)
    except (ValueError, NotJournalable):
        return {"type": "content", "digest": digest, "base64": b64encode(data).decode()}
    return {"type": "content", "digest": digest, "text": text}


def _line(kind: str, run: RecordedRun, rest: Line) -> Line:
    return {"type": kind, "run_id": run.run_id, **rest}


def _facts(source: Any, names: Sequence[str]) -> Line:
    found = {name: getattr(source, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _values(source: Any, names: Sequence[str]) -> Line:
    found = {name: getattr(source, name) for name in names}
    return {name: canonical.decode(value) for name, value in found.items() if value is not None}


def _run_line(record: RunRecord) -> Line:
    line = {
        "type": "run",
        "run_id": record.run_id,
        "status": str(record.status),
        "metadata": dict(record.metadata),
        "usage": record.usage.to_json(),
        **_facts(record, (*_RUN_FACTS, *_RUN_TIMES)),
        **_values(record, _RUN_VALUES),
    }
    if record.wish is not None:
        line["wish"] = {"what": record.wish.what, "by": record.wish.by, "at": record.wish.at}
    if record.parent is not None:
        origin = record.parent
        line["parent"] = {"run_id": origin.run_id, "path": origin.path, "entry": origin.entry}
    if record.is_case:
        line["is_case"] = True
    if record.queued is not None:
        line["queued"] = _facts(record.queued, _QUEUE_FACTS)
    return line


def _entry_line(entry: Entry) -> Line:
    return {
        "path": entry.path,
        "kind": str(entry.kind),
        "status": str(entry.status),
        "digest": entry.digest(),
        **({"usage": entry.usage.to_json()} if entry.usage else {}),
        **_facts(entry, _ENTRY_FACTS),
        **_values(entry, _ENTRY_VALUES),
    }


def _act_line(act: Act) -> Line:
    who = {"by": act.actor.by, "via": str(act.actor.via), "verb": str(act.verb), "object": act.object}
    return {**who, **_facts(act, ("at",)), **_values(act, ("before", "after"))}


# Reading -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Parts:
    """The records of one run that were read so far."""

    record: RunRecord
    entries: list[Entry] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    times: list[Spending] = field(default_factory=list)


class LineReader:
    """Takes the lines of runs one after another, and checks each.

    `take` raises ValueError, KeyError or TypeError for a line that is damaged.
    """

    def __init__(self) -> None:
        self._parts: dict[str, _Parts] = {}
        self.contents: dict[str, bytes] = {}
        self.masked: set[str] = set()
        """The digests of contents in which a secret is masked."""

    def take(self, line: Line) -> None:
        """Take a line."""
        kind, is_masked = line["type"], line.get("masked", False)
        if kind == "run":
            self._parts[line["run_id"]] = _Parts(_record(line))
            return
        if kind == "content":
            self._take_content(line, is_masked=is_masked)
            return
        parts = self._parts[line["run_id"]]
        match kind:
            case "entry":
                parts.entries.append(_entry(line, is_masked=is_masked, seq=len(parts.entries) + 1))
            case "pause":
                parts.pauses.append(_pause(line))
            case "intent":
                parts.intents.append(_intent(line))
            case "act":
                parts.acts.append(_act(line))
            case "hold":
                hold = Hold(
                    path=StepPath(line["path"]),
                    number=line["number"],
                    state=HoldState(line["state"]),
                    usage=_usage(line),
                )
                parts.holds.append(hold)
            case "time":
                at = line["started_at"], line["ended_at"]
                parts.times.append(Spending(StepPath(line["path"]), NOTHING, *at))
            case _:
                raise ValueError(f"version 1 has no lines of type {kind!r}")

    def _take_content(self, line: Line, *, is_masked: bool) -> None:
        digest = line["digest"]
        if "json" in line:
            data = canonical.encode(line["json"])
        else:
            data = line["text"].encode() if "text" in line else b64decode(line["base64"], validate=True)
        if is_masked:
            self.masked.add(digest)
        elif canonical.digest(data) != digest:
            raise ValueError(f"the digest of content {digest} differs")
        self.contents[digest] = data

    def runs(self) -> dict[RunId, RecordedRun]:
        """Return the runs, each with the contents of all."""
        return {
            RunId(run_id): RecordedRun(
                record=each.record,
                entries=each.entries,
                pauses=each.pauses,
                intents=each.intents,
                acts=each.acts,
                holds=each.holds,
                times=each.times,
                blobs=self.contents,
            )
            for run_id, each in self._parts.items()
        }


def _bytes(line: Line, names: Sequence[str]) -> Mapping[str, Any]:
    return {name: canonical.encode(line[name]) for name in names if name in line}


def _given(line: Line, names: Sequence[str]) -> Mapping[str, Any]:
    return {name: line[name] for name in names if name in line}


def _usage(line: Line) -> Usage:
    return Usage.from_json(line.get("usage") or None)


def _record(line: Line) -> RunRecord:
    wish, origin, queued = line.get("wish"), line.get("parent"), line.get("queued")
    if origin is not None:
        origin = Parent(run_id=RunId(origin["run_id"]), path=StepPath(origin["path"]), entry=origin["entry"])
    return RunRecord(
        run_id=RunId(line["run_id"]),
        status=RunStatus(line["status"]),
        metadata=line["metadata"],
        usage=_usage(line),
        wish=None if wish is None else Wish(**wish),
        parent=origin,
        is_case=line.get("is_case", False),
        queued=None if queued is None else Queued(**queued),
        **_given(line, (*_RUN_FACTS, *_RUN_TIMES)),
        **_bytes(line, _RUN_VALUES),
    )


def _entry(line: Line, *, is_masked: bool, seq: int) -> Entry:
    entry = Entry(
        path=StepPath(line["path"]),
        kind=EntryKind(line["kind"]),
        status=EntryStatus(line["status"]),
        usage=_usage(line),
        **_given(line, _ENTRY_FACTS),
        **_bytes(line, _ENTRY_VALUES),
    )
    if entry.seq != seq:
        raise ValueError(f"journal entry {seq} is missing")
    if not is_masked and entry.digest() != line["digest"]:
        raise ValueError(f"the digest of journal entry {seq} at {entry.path!r} differs")
    return entry


def _pause(line: Line) -> Pause:
    return Pause(
        pause_id=StepPath(line["pause_id"]),
        kind=PauseKind(line["kind"]),
        **_given(line, _PAUSE_FACTS),
        **_bytes(line, _PAUSE_VALUES),
    )


def _intent(line: Line) -> Intent:
    return Intent(
        path=StepPath(line["path"]),
        state=IntentState(line["state"]),
        **_given(line, _INTENT_FACTS),
        **_bytes(line, _CALL_VALUES),
    )


def _act(line: Line) -> Act:
    return Act(
        verb=Verb(line["verb"]),
        actor=Actor(line["by"], Via(line["via"])),
        run_id=RunId(line["run_id"]),
        object=line["object"],
        at=line.get("at"),
        **_bytes(line, ("before", "after")),
    )
