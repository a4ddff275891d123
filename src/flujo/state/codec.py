"""Converts records to rows and back: digests, compression, and large values in separate blobs.

A value of up to 16 KiB is stored in its column. A larger one is stored in `blobs` under its SHA-256, and the
column has `@` and that digest: canonical JSON never begins with `@`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import zstandard

from flujo.domain import canonical
from flujo.domain.access import Role, Session, Token
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.evaluations import Evaluation
from flujo.domain.journal import Entry, EntryKind, EntryStatus, RunId
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.outbox import Message, Notice, NoticeEvent
from flujo.domain.paths import StepPath, level
from flujo.domain.queues import Parent, Queued, RunKind
from flujo.domain.reach import Reach
from flujo.domain.run import (
    Intent,
    IntentState,
    NewRun,
    Pause,
    PauseKind,
    RunRecord,
    RunStatus,
    Wish,
    new_pause,
    new_run_record,
)
from flujo.domain.schedule_records import ScheduleRecord
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import CorruptState
from flujo.governance.key_ring import MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from sqlalchemy import RowMapping

    Row = Mapping[str, Any] | RowMapping

INLINE_LIMIT = 16 * 1024
COMPRESS_FROM = 512
"""Smaller blobs are stored as they are: a frame costs more than it saves."""

REFERENCE = b"@"
SEALED = ("identity", "closure", "context", "context_now", "output", "error", "usage")
_SEAL = hashlib.sha256().digest_size
_SEAL_OF = {name: place for place, name in enumerate(SEALED)}
NO_SEAL = bytes(_SEAL)

ENTRY_VALUES = ("input", "output", "patch", "error", "detail")
INTENT_VALUES = ("request", "result")
ACT_VALUES = ("before", "after")
RUN_VALUES = ("input", "context", "context_now", "output", "error")

Rows = dict[str, dict[str, Any]]

_KINDS = {str(kind): kind for kind in EntryKind}
_STATUSES = {str(status): status for status in EntryStatus}


# Blobs ---------------------------------------------------------------------------------------------------


def blob_row(digest: str, data: bytes) -> dict[str, Any]:
    """Return the row of a blob, compressed when that makes it smaller.

    Raises:
        CorruptState: the bytes are not those of the digest.
    """
    if canonical.digest(data) != digest:
        raise CorruptState(f"the content passed as {digest} has another digest")
    is_marked = data.startswith(MARK)  # so it must not be stored as it is: it would look encrypted
    packed = zstandard.compress(data, 3) if is_marked or len(data) >= COMPRESS_FROM else data
    if is_marked or len(packed) < len(data):
        return {"digest": digest, "encoding": "zstd", "size": len(data), "data": packed}
    return {"digest": digest, "encoding": "plain", "size": len(data), "data": data}


known_blob_row = lru_cache(maxsize=256)(blob_row)
"""For blobs that repeat, such as those pinned by every run of a blueprint."""


def blob(row: Row) -> bytes:
    """Return the bytes of a blob.

    Raises:
        CorruptState: they are corrupt.
    """
    with _Corrupt("blob {digest}", row):
        data = bytes(row["data"])
        if row["encoding"] == "zstd":
            # The size in the frame is checked first, because a flipped bit could allocate a terabyte.
            if zstandard.get_frame_parameters(data).content_size != row["size"]:
                raise ValueError("its size differs")
            data = zstandard.decompress(data)
        if canonical.digest(data) != row["digest"]:
            raise ValueError("its digest differs")
        return data


def _spill(value: bytes | None, aside: Rows | None) -> bytes | None:
    """Return the column's value for `value`; with `aside`, a large value is added there as a blob."""
    if value is None or aside is None or len(value) <= INLINE_LIMIT:
        return value
    digest = canonical.digest(value)
    if digest not in aside:
        aside[digest] = blob_row(digest, value)
    return REFERENCE + digest.encode()


def references(rows: Iterable[Row], columns: Sequence[str]) -> set[str]:
    """Return the digests of the blobs that these rows point at."""
    stored = (row[column] for row in rows for column in columns)
    return {_referenced(value) for value in stored if value is not None and value[:1] == REFERENCE}


def _referenced(stored: bytes) -> str:
    # A damaged reference names no blob, but must still be a text that databases accept.
    return stored[1:].decode("ascii", "backslashreplace").replace("\x00", "\\x00")


def _whole(stored: bytes | None, aside: Mapping[str, bytes]) -> bytes | None:
    if stored is None or stored[:1] != REFERENCE:
        return stored
    return aside[_referenced(stored)]


# Entries -------------------------------------------------------------------------------------------------


def entry_row(run_id: RunId, entry: Entry, aside: Rows) -> dict[str, Any]:
    """Return the row of an entry; large values go to `aside`, by digest."""
    return {
        "run_id": run_id,
        "path": entry.path,
        "kind": str(entry.kind),
        "attempt": entry.attempt,
        "parent": level(entry.path),
        "seq": entry.seq,
        "status": str(entry.status),
        "input": entry.input and _spill(entry.input, aside),
        "output": entry.output and _spill(entry.output, aside),
        "patch": entry.patch and _spill(entry.patch, aside),
        "error": entry.error and _spill(entry.error, aside),
        "detail": entry.detail and _spill(entry.detail, aside),
        "usage": None if entry.usage is NOTHING else _usage_bytes(entry.usage),
        "fingerprint": entry.fingerprint,
        "started_at": entry.started_at,
        "ended_at": entry.ended_at,
        "digest": _entry_digest(run_id, entry),
    }


def entry(row: Row, aside: Mapping[str, bytes]) -> Entry:
    """Return the entry of a row; `aside` has the blobs that it points at.

    Raises:
        CorruptState: the row is corrupt.
    """
    try:
        found = Entry(
            path=StepPath(row["path"]),
            kind=_KINDS[row["kind"]],
            attempt=row["attempt"],
            status=_STATUSES[row["status"]],
            seq=row["seq"],
            input=_whole(row["input"], aside),
            output=_whole(row["output"], aside),
            patch=_whole(row["patch"], aside),
            error=_whole(row["error"], aside),
            detail=_whole(row["detail"], aside),
            usage=usage(row["usage"]),
            fingerprint=row["fingerprint"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
        )
        if _entry_digest(row["run_id"], found) != row["digest"]:
            raise ValueError("its digest differs")
    except _DAMAGE as error:  # without `_Corrupt`, which costs as much as a digest
        raise _corrupt("run {run_id}: journal entry {seq} at {path!r}", row, error) from error
    return found


def _entry_digest(run_id: str, entry: Entry) -> bytes:
    # Includes the run's id, so that a row that was moved to another run is detected too.
    return hashlib.sha256(f"{run_id}|{entry.digest()}".encode()).digest()


def _usage_bytes(usage: Usage) -> bytes | None:
    return None if usage is NOTHING or not usage else canonical.encode(usage.to_json())


def usage(stored: bytes | None) -> Usage:
    """Return the usage of a row's `usage` column."""
    return Usage.from_json(canonical.decode(stored)) if stored else NOTHING


def spent(row: Row) -> Usage:
    """Return the usage of a journal row from its `usage` column alone.

    Raises:
        CorruptState: it is not a usage. A wrong number is only detected with the whole entry.
    """
    with _Corrupt("run {run_id}: the usage of a journal entry", row):
        return usage(row["usage"])


# Runs ----------------------------------------------------------------------------------------------------


def run_row(run: NewRun | RunRecord, aside: Rows) -> dict[str, Any]:
    """Return the row of an accepted run; the store adds the owner."""
    row = {
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "closure": run.closure,
        "lock_digest": run.lock_digest,
        "user_id": run.user_id,
        "metadata": canonical.normalise(dict(run.metadata), what="metadata"),
        "input": _spill(run.input, aside),
        "context": _spill(run.context, aside),
        **_origin_columns(run),
        **_queue_columns(run.queued),
    }
    row["seals"] = _seals({**dict.fromkeys(SEALED), **row})
    return row


def recorded_row(record: RunRecord, aside: Rows) -> dict[str, Any]:
    """Return the row of a run that another database has recorded, and that no process owns."""
    names = ("fence", "claims", "entries", "created_at", "updated_at", "ends_by")
    row = {
        **run_row(record, aside),
        **{name: getattr(record, name) for name in names},
        **{name: _spill(getattr(record, name), aside) for name in ("context_now", "output", "error")},
        "usage": _usage_bytes(record.usage),
        "status": str(record.status),
    }
    return {**row, "seals": _seals(row)}


def _origin_columns(run: NewRun | RunRecord) -> dict[str, Any]:
    parent = run.parent
    if parent is None:
        kind = RunKind.CASE if run.is_case else RunKind.RUN
        return {"kind": str(kind), "parent_run": None, "parent_path": None, "entry": None}
    return {
        "kind": str(parent.kind),
        "parent_run": parent.run_id,
        "parent_path": parent.path,
        "entry": parent.entry,
    }


def _queue_columns(queued: Queued | None) -> dict[str, Any]:
    """Return the columns of a place in a queue, whose time is known."""
    if queued is None:
        columns = ("queue", "queue_key", "rank", "available_at")
        return {**dict.fromkeys(columns), "priority": 0, "tries": 0}
    available_at = queued.available_at or 0.0
    return {
        "queue": queued.queue,
        "queue_key": queued.key,
        "priority": queued.priority,
        "rank": queued.rank(available_at),
        "available_at": available_at,
        "tries": queued.tries,
    }


def _parent(row: Row) -> Parent | None:
    if row["parent_run"] is None:
        return None
    return Parent(
        run_id=RunId(row["parent_run"]),
        path=StepPath(row["parent_path"]),
        entry=row["entry"],
        kind=RunKind(row["kind"]),
    )


def _queued(row: Row) -> Queued | None:
    if row["queue"] is None:
        return None
    return Queued(
        queue=row["queue"],
        key=row["queue_key"],
        priority=row["priority"],
        available_at=row["available_at"],
        tries=row["tries"],
    )


def changed_values(
    run_id: str, seals: bytes, values: Mapping[str, bytes | str | None], aside: Rows
) -> tuple[dict[str, bytes | str | None], bytes]:
    """Return the columns for new values of a run, and its updated seals."""
    stored: dict[str, bytes | str | None] = {}
    parts = [seals[start : start + _SEAL] for start in range(0, len(seals), _SEAL)]
    for name, given in values.items():
        stored[name] = value = given if isinstance(given, str) else _spill(given, aside)
        parts[_SEAL_OF[name]] = NO_SEAL if value is None else _seal(run_id, name, value)
    return stored, b"".join(parts)


def usage_value(usage: Usage) -> bytes:
    """Return the value of a run's `usage` column."""
    return canonical.encode(usage.to_json())


def run_record(row: Row, aside: Mapping[str, bytes]) -> RunRecord:
    """Return the run of a row; `aside` has the blobs that it points at.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("run {run_id}", row):
        if _seals(row) != row["seals"]:
            raise ValueError("the digest of a value differs")
        return new_run_record(
            run_id=RunId(row["run_id"]),
            pipeline=row["pipeline"],
            status=RunStatus(row["status"]),
            closure=row["closure"],
            input=_whole(row["input"], aside) or b"",
            context=_whole(row["context"], aside) or b"",
            context_now=_whole(row["context_now"], aside),
            metadata=row["metadata"],
            user_id=row["user_id"],
            lock_digest=row["lock_digest"],
            fence=row["fence"],
            owner=row["owner"],
            lease_left_s=row["lease_left_s"],
            claims=row["claims"],
            recoveries=row["recoveries"],
            suspicions=row["suspicions"],
            output=_whole(row["output"], aside),
            error=_whole(row["error"], aside),
            usage=usage(row["usage"]),
            entries=row["entries"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            deadline_at=row.get("deadline_at"),
            is_answered=bool(row["answered"]),
            wish=None if row["wish"] is None else Wish(row["wish"], row["wish_by"], row["wish_at"]),
            parent=_parent(row),
            is_case=row["kind"] == RunKind.CASE,
            queued=_queued(row),
            ends_by=row["ends_by"],
        )


def metadata(row: Row) -> Any:
    """Return the metadata of a run's row, which the driver returns as text or parsed.

    Raises:
        CorruptState: it is not JSON.
    """
    with _Corrupt("run {run_id}: its metadata", row):
        stored = row["metadata"]
        return canonical.decode(stored.encode()) if isinstance(stored, str) else stored


def _seals(row: Row) -> bytes:
    run_id, seals = row["run_id"], [_identity_seal(row)]
    for name in SEALED[1:]:
        value = row[name]
        seals.append(NO_SEAL if value is None else _seal(run_id, name, value))
    return b"".join(seals)


def _identity_seal(row: Row) -> bytes:
    stored = row["input"]
    identity = f"{row['pipeline']!r}|{row['lock_digest']!r}|{row['user_id']!r}"
    return NO_SEAL if stored is None else _seal(row["run_id"], identity, stored)


def _seal(run_id: str, name: str, stored: bytes | str) -> bytes:
    value = stored.encode() if isinstance(stored, str) else stored
    return hashlib.sha256(f"{run_id}|{name}|".encode() + value).digest()


# Holds ---------------------------------------------------------------------------------------------------


def hold_row(run_id: RunId, hold: Hold) -> dict[str, Any]:
    """Return the row of a hold; the database adds the time."""
    return {
        "run_id": run_id,
        "path": hold.path,
        "number": hold.number,
        "state": str(hold.state),
        "usage": _usage_bytes(hold.usage),
        "digest": _hold_digest(run_id, hold),
        "shares": None,
    }


def hold(row: Row) -> Hold:
    """Return the hold of a row.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("run {run_id}: hold {number} at {path!r}", row):
        found = Hold(
            path=StepPath(row["path"]),
            number=row["number"],
            state=HoldState(row["state"]),
            usage=usage(row["usage"]),
            is_shared=row["shares"] is not None,
        )
        if _hold_digest(row["run_id"], found) != row["digest"]:
            raise ValueError("its digest differs")
        return found


def _hold_digest(run_id: str, hold: Hold) -> bytes:
    head = f"{run_id}|{hold.path}|{hold.number}|{hold.state}|"
    return hashlib.sha256(head.encode() + canonical.encode(hold.usage.to_json())).digest()


# Pauses --------------------------------------------------------------------------------------------------


def pause_row(run_id: RunId, pause: Pause, position: int) -> dict[str, Any]:
    """Return the row of a new question; the database adds the time."""
    return {
        "run_id": run_id,
        "pause_id": pause.pause_id,
        "message": pause.message,
        "answer_schema": pause.answer_schema,
        "deadline_s": pause.deadline_s,
        "deadline_at": pause.deadline_at if pause.deadline_s is None else None,
        "position": position,
        "kind": str(pause.kind),
        "event": pause.event,
        "event_key": pause.event_key,
        "digest": pause_digest(run_id, pause),
    }


def settled(pause: Pause, answer: bytes | None, answered_at: float, by: str | None = None) -> Pause:
    """Return the settled question; without an answer its deadline has passed."""
    return replace(pause, answer=answer, answered_at=answered_at, by=by)


def pause_digest(run_id: str, pause: Pause) -> bytes:
    """Return the digest of a question and its answer."""
    parts = [run_id.encode(), pause.pause_id.encode(), pause.message.encode()]
    parts += [b"-" if value is None else b"+" + value for value in (pause.answer_schema, pause.answer)]
    parts += [b"expired"] if pause.is_expired else []
    # Questions of 0.1 had no kind: it follows from the id, and is not part of their digests.
    implied = PauseKind.DOUBT if pause.pause_id.endswith("]") else PauseKind.QUESTION
    parts += [f"kind {pause.kind}".encode()] if pause.kind is not implied else []
    parts += [f"by {pause.by}".encode()] if pause.by is not None else []
    parts += [f"event {pause.event!r} {pause.event_key!r}".encode()] if pause.event is not None else []
    return hashlib.sha256(b"\n".join([b"%d:%b" % (len(part), part) for part in parts])).digest()


def pause(row: Row) -> Pause:
    """Return the question of a row.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("run {run_id}: question {pause_id!r}", row):
        found = new_pause(
            pause_id=StepPath(row["pause_id"]),
            message=row["message"],
            answer_schema=row["answer_schema"],
            deadline_at=row["deadline_at"],
            asked_at=row["asked_at"],
            answer=row["answer"],
            answered_at=row["answered_at"],
            void=bool(row["void"]),
            kind=PauseKind(row["kind"]),
            by=row["by"],
            event=row["event"],
            event_key=row["event_key"],
        )
        if pause_digest(row["run_id"], found) != row["digest"]:
            raise ValueError("its digest differs")
        return found


# Intents -------------------------------------------------------------------------------------------------


def intent_row(run_id: RunId, intent: Intent, aside: Rows) -> dict[str, Any]:
    """Return the row of a call; the database adds the time. Large values go to `aside`, by digest."""
    request = {
        "attempt": intent.attempt,
        "sends": intent.sends,
        "input": canonical.decode(intent.input),
    }
    row = {
        "run_id": run_id,
        "key": intent.key,
        "path": intent.path,
        "tool": intent.tool,
        "state": str(intent.state),
        "request": _spill(canonical.encode(request), aside),
        "result": _spill(intent.result, aside),
    }
    return {**row, "digest": _intent_digest(row)}


def intent(row: Row, aside: Mapping[str, bytes]) -> Intent:
    """Return the call of a row; `aside` has the blobs that it points at.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("run {run_id}: call {key}", row):
        if _intent_digest(row) != row["digest"]:
            raise ValueError("its digest differs")
        request = canonical.decode(_whole(row["request"], aside) or b"")
        return Intent(
            key=row["key"],
            path=StepPath(row["path"]),
            tool=row["tool"],
            state=IntentState(row["state"]),
            input=canonical.encode(request["input"]),
            attempt=request["attempt"],
            sends=request["sends"],
            result=_whole(row["result"], aside),
            sent_at=row["sent_at"],
        )


def _intent_digest(row: Row) -> bytes:
    head = [row[name] for name in ("run_id", "key", "path", "tool", "state")]
    return _digest_of(head, row["request"], row["result"])


# Acts ----------------------------------------------------------------------------------------------------


def act_row(act: Act, aside: Rows | None) -> dict[str, Any]:
    """Return the row of an act; the database adds its id and time. Large values go to `aside`, by digest."""
    row = {
        "run_id": act.run_id,
        "by": act.actor.by,
        "via": str(act.actor.via),
        "verb": str(act.verb),
        "object": act.object,
        "before": _spill(act.before, aside),
        "after": _spill(act.after, aside),
    }
    return {**row, "digest": _act_digest(row)}


def act(row: Row, aside: Mapping[str, bytes]) -> Act:
    """Return the act of a row; `aside` has the blobs that it points at.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("act {id} of run {run_id}", row):
        if _act_digest(row) != row["digest"]:
            raise ValueError("its digest differs")
        return Act(
            verb=Verb(row["verb"]),
            actor=Actor(row["by"], Via(row["via"])),
            run_id=None if row["run_id"] is None else RunId(row["run_id"]),
            object=row["object"],
            before=_whole(row["before"], aside),
            after=_whole(row["after"], aside),
            at=row["at"],
        )


def _act_digest(row: Row) -> bytes:
    head = [row[name] or "" for name in ("run_id", "by", "via", "verb", "object")]
    return _digest_of(head, row["before"], row["after"])


# Messages ------------------------------------------------------------------------------------------------


def message_row(run_id: RunId, notice: Notice) -> dict[str, Any]:
    """Return the row of a message; the database adds its id and times."""
    row = {
        "run_id": run_id,
        "target": notice.target,
        "event": str(notice.event),
        "payload": notice.payload,
    }
    return {**row, "digest": _message_digest(row)}


def message(row: Row) -> Message:
    """Return the message of a row.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("message {id} of run {run_id}", row):
        if _message_digest(row) != row["digest"]:
            raise ValueError("its digest differs")
        names = ("id", "run_id", "target", "created_at", "available_at", "tries", "owner")
        return Message(
            **{name: row[name] for name in (*names, "delivered_at", "given_up_at", "error")},
            event=NoticeEvent(row["event"]),
            payload=bytes(row["payload"]),
            key=message_key(row["id"], bytes(row["digest"])),
        )


def message_key(message_id: int, digest: bytes) -> str:
    """Return the key of a message from its id and its digest."""
    return f"msg_{message_id}_{digest[:6].hex()}"


def _message_digest(row: Row) -> bytes:
    return _digest_of([row[name] or "" for name in ("run_id", "target", "event")], row["payload"])


def _digest_of(texts: Sequence[str], *values: bytes | None) -> bytes:
    parts = [text.encode() for text in texts]
    parts += [b"-" if value is None else bytes(value) for value in values]
    return hashlib.sha256(b"\n".join(b"%d:%b" % (len(part), part) for part in parts)).digest()


# Evaluations ---------------------------------------------------------------------------------------------

_EVALUATED = ("pipeline", "user_id", "closure", "lock_digest", "evaluator", "version")
_SCORED = ("score", "reason", "error", "by")


def evaluation_row(evaluation: Evaluation) -> dict[str, Any]:
    """Return the row of an evaluation; the database adds its id and time."""
    names = ("key", "run_id", "path", *_EVALUATED, *_SCORED)
    row = {name: getattr(evaluation, name) for name in names}
    return row | {"cost": evaluation.cost_micro_usd}


def evaluation(row: Row) -> Evaluation:
    """Return the evaluation of a row."""
    names = ("key", *_EVALUATED, *_SCORED, "created_at")
    return Evaluation(
        run_id=RunId(row["run_id"]),
        path=StepPath(row["path"]),
        cost_micro_usd=row["cost"],
        **{name: row[name] for name in names},
    )


# Tokens and sessions -------------------------------------------------------------------------------------


def token_row(token: Token) -> dict[str, Any]:
    """Return the row of a token, without its times, which the database adds."""
    reach = canonical.encode(token.reach.to_json())
    return {"name": token.name, "digest": token.digest, "role": str(token.role), "reach": reach}


def token(row: Row) -> Token:
    """Return the token of a row.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("token {name!r}", row):
        return Token(
            role=Role(row["role"]),
            reach=Reach.from_json(canonical.decode(row["reach"])),
            **{name: row[name] for name in ("name", "digest", "created_at", "expires_at", "revoked_at")},
        )


def session(row: Row) -> Session:
    """Return the session of a row."""
    return Session(**{name: row[name] for name in ("name", "digest", "proof", "created_at", "expires_at")})


# Schedules -----------------------------------------------------------------------------------------------


def schedule_row(record: ScheduleRecord) -> dict[str, Any]:
    """Return the row of a schedule, without the time of the change, which the database adds."""
    return {
        "name": record.name,
        "definition": record.definition,
        "digest": record.digest,
        "closure": record.closure,
        "is_paused": record.is_paused,
        "next_at": record.next_at,
        "last_at": record.last_at,
        "last_run": record.last_run,
    }


def schedule(row: Row) -> ScheduleRecord:
    """Return the schedule of a row.

    Raises:
        CorruptState: the row is corrupt.
    """
    with _Corrupt("schedule {name}", row):
        definition = bytes(row["definition"])
        if canonical.digest(definition) != row["digest"]:
            raise ValueError("its digest differs")
        return ScheduleRecord(
            name=row["name"],
            definition=definition,
            closure=row["closure"],
            is_paused=bool(row["is_paused"]),
            next_at=row["next_at"],
            last_at=row["last_at"],
            last_run=None if row["last_run"] is None else RunId(row["last_run"]),
            updated_at=row["updated_at"],
        )


class _Corrupt:
    """Turn every error that a damaged row causes into one error that names the row."""

    __slots__ = ("_row", "_what")

    def __init__(self, what: str, row: Row) -> None:
        self._what, self._row = what, row

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, _DAMAGE):
            raise _corrupt(self._what, self._row, error) from error


_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, zstandard.ZstdError)


def _corrupt(what: str, row: Row, error: Exception) -> CorruptState:
    named = what.format_map(row)
    return CorruptState(
        f"{named} is corrupt: {error}",
        hint="restore the database from a backup; other runs are not affected",
        row=named,
    )
