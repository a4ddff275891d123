"""Which requests a store allows: one set of rules, so that SQL and memory cannot disagree."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, chains
from flujo.domain.acts import Act, Verb
from flujo.domain.approvals import arguments_in
from flujo.domain.commands import command
from flujo.domain.paths import shown
from flujo.domain.questions import require_seen
from flujo.domain.run import (
    GivenAnswer,
    NewRun,
    Pause,
    PauseKind,
    RunCondition,
    RunCursor,
    RunOrder,
    RunQuery,
    RunRecord,
    RunStatus,
    Write,
    kinds_of,
)
from flujo.exceptions import (
    Fenced,
    FlujoError,
    IllegalMove,
    JournalConflict,
    NotJournalable,
    ResumeConflict,
    RunConflict,
    RunNotFound,
    SettingsError,
    StateError,
    TokenExists,
    TokenRefused,
    TransactionRefused,
)
from flujo.state import metadata_conditions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.journal import Entry, RunId
    from flujo.domain.paths import StepPath
    from flujo.domain.questions import QuestionQuery
    from flujo.domain.queues import Queued
    from flujo.domain.recorded_run import RecordedRun

MAX_LIMIT = 10_000

FROM_QUEUE = (RunStatus.ACCEPTED, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.WAITING)
"""The statuses from which a run is claimed from its queue; one at a pause only once the pause is settled."""


def accept_twice(there: RunRecord, new: NewRun) -> StateError:
    """Return why a run id that is taken cannot be accepted again.

    A run's identity is its pipeline, closure, input and initial context. Metadata is not part of it.
    """
    differs = _difference(there, new)
    if differs:
        return RunConflict(
            f"run {new.run_id} exists already with {differs}",
            hint="choose another run id, or omit it to get a new one",
            run_id=new.run_id,
        )
    return ResumeConflict(
        f"run {new.run_id} exists already; it is {there.status}",
        hint=way_to(there),
        record=there,
        status=there.status,
        run_id=new.run_id,
    )


def pull_act(run_id: RunId, was: RunStatus, actor: Actor, origin: str) -> Act:
    """Return the act of taking a run over from another database, where it had the status `was`."""
    return Act(verb=Verb.PULL, actor=actor, run_id=run_id, object=origin, before=canonical.encode(str(was)))


def import_refusal(there: RecordedRun, new: RecordedRun) -> RunConflict | None:
    """Return why a run cannot be taken over whose id is taken; None if it is the same run."""
    differs = there.difference(new)
    if not differs:
        return None
    return RunConflict(
        f"run {new.run_id} is here already, with {differs}",
        hint="pull it into another database: `[settings] state_uri`, or `state_uri` in an `[env.NAME]`",
        run_id=new.run_id,
    )


def in_queue(queued: Queued, accepted_at: float) -> Queued:
    """Return the place of a run that was accepted into a queue at this time."""
    return replace(queued, delay_s=0.0, available_at=accepted_at + queued.delay_s)


def way_to(there: RunRecord) -> str:
    """Return what can be done with a stored run."""
    match there.status:
        case RunStatus.COMPLETED:
            return "`--if-exists return` shows its result; choose another run id for a new run"
        case RunStatus.CANCELLED:
            trace = command("flujo", "trace", there.run_id)
            return f"`{trace}` shows what happened; choose another run id for a new run"
        case RunStatus.PAUSED | RunStatus.WAITING:
            return f"`{command('flujo', 'tasks', 'show', there.run_id)}` shows what it waits for"
        case RunStatus.FAILED if there.is_handled:
            fork = command("flujo", "fork", there.run_id, "--at", "PATH", "--live-effects")
            return f"its `on_failure` has ended; `{fork}` begins a new run at a step"
        case RunStatus.FAILED:
            retry = command("flujo", "resume", there.run_id, "--retry-failed")
            return f"`{retry}` retries the failed step"
        case _:
            return f"`{command('flujo', 'resume', there.run_id)}` continues it when no process executes it"


def _difference(there: RunRecord, new: NewRun) -> str:
    """Return what differs between a stored run and a new one of the same id; empty if nothing does."""
    if there.pipeline != new.pipeline:
        return f"another pipeline, {there.pipeline!r}"
    if there.closure != new.closure:
        return "another version of its blueprint"
    if not canonical.is_same(there.input, new.input):
        return "another input"
    if not canonical.is_same(there.context, new.context):
        fields = _fields_that_differ(canonical.decode(there.context), canonical.decode(new.context))
        return f"another initial context; different fields: {fields}"
    return ""


def _fields_that_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the names of the fields; their values may be private."""
    # As bytes, because `true` is not 1, and an absent field is not null.
    ours, theirs = ({name: canonical.encode(tree[name]) for name in tree} for tree in (one, other))
    return ", ".join(f"`{name}`" for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name))


def claim_refusal(
    run_id: RunId,
    status: RunStatus,
    statuses: Sequence[RunStatus],
    owner: str | None,
    lease_left_s: float | None,
) -> ResumeConflict | None:
    """Return why a run cannot be taken over; `owner` is None when no living owner holds it."""
    if status not in statuses or not status.can_become(RunStatus.RUNNING):
        return ResumeConflict(
            f"run {run_id} is {status}, so there is nothing to continue here",
            hint=f"`{command('flujo', 'trace', run_id)}` shows what happened in it",
            run_id=run_id,
            status=status,
        )
    if owner is None or lease_left_s is None or lease_left_s <= 0:
        return None
    return ResumeConflict(
        f"run {run_id} is being executed by another process or task",
        hint=f"wait until it ends, or stop it; if it is dead, its lease ends in {lease_left_s:.0f} s",
        run_id=run_id,
        status=status,
        owner=owner,
        lease_left_s=lease_left_s,
    )


CANCEL = "cancel"

CANCELLED_WITH = "the run that launched it"
"""Who wishes that a background task be cancelled when its parent is."""


def cancel_refusal(run_id: RunId, status: RunStatus) -> ResumeConflict | None:
    """Return why a run cannot be cancelled."""
    if status.can_become(RunStatus.CANCELLED):
        return None
    return ResumeConflict(
        f"run {run_id} is {status} and cannot be cancelled",
        hint=f"`{command('flujo', 'trace', run_id)}` shows what happened in it",
        run_id=run_id,
        status=status,
    )


def answer_act(run_id: RunId, pause: Pause, answer: bytes, actor: Actor) -> Act:
    """Return the act of answering a question, or of resolving a call in doubt."""
    verb = Verb.RESOLVE if pause.kind is PauseKind.DOUBT else Verb.ANSWER
    asked = arguments_in(pause.answer_schema) if pause.kind is PauseKind.APPROVAL else None
    before = None if asked is None else canonical.encode({"arguments": asked})
    return Act(verb=verb, actor=actor, run_id=run_id, object=pause.pause_id, before=before, after=answer)


def write_refusal(
    write: Write, fence: int, status: RunStatus, owner: str | None, me: str
) -> FlujoError | None:
    """Return why a write of the store `me` may not become true in a run as it stands.

    A released run takes no writes, although its fence grows only at the next claim. Its status alone may
    still change: a run that waits for a human is cancelled without being executed.
    """
    if write.fence != fence:
        return _fenced(write, "was taken over by another process")
    if write.move is not None and not status.can_become(write.move.status):
        return IllegalMove(
            f"run {write.run_id} is {status} and cannot become {write.move.status}",
            hint="another process has ended or stopped this run in the meantime",
            run_id=write.run_id,
            status=status,
        )
    if owner != me and not (owner is None and write.is_move):
        return _fenced(write, "was released")
    if not write.pauses:
        return None
    texts = (text for pause in write.pauses for text in (pause.pause_id, pause.message))
    return next((_unstorable(text, "question") for text in texts if not _is_storable(text)), None)


def _fenced(write: Write, what: str) -> Fenced:
    return Fenced(
        f"run {write.run_id} {what}, so this one may not write to it any more",
        hint="nothing is lost: another process resumes it from its recorded steps",
        run_id=write.run_id,
        fence=write.fence,
    )


def recorded_otherwise(run_id: RunId, entry: Entry) -> JournalConflict:
    """Return the error for an entry whose key or number is taken by another one."""
    return JournalConflict(
        f"run {run_id} has recorded something else as entry {entry.seq}, {entry.kind} at "
        f"{shown(entry.path)!r}",
        run_id=run_id,
        path=entry.path,
        seq=entry.seq,
    )


def refused_commit(error: BaseException | None) -> TransactionRefused:
    """Return the refusal for what a database says against the commit of what a tool wrote."""
    return TransactionRefused(
        f"the database refused to commit what a transactional tool wrote: {error}",
        hint="change what the tool writes; nothing of it is in the database",
    )


class GapTracker:
    """The runs in which an entry could not be written: a later one would leave a hole in the journal."""

    def __init__(self) -> None:
        self._holes: dict[RunId, tuple[int, int, FlujoError]] = {}

    def before(self, write: Write) -> FlujoError | None:
        """Return why an earlier entry of this run is missing, if one is."""
        hole = self._holes.get(write.run_id)
        if hole is None or not write.entries:
            return None
        fence, seq, error = hole
        return error if fence == write.fence and write.entries[0].seq > seq else None

    def failed(self, write: Write, error: FlujoError) -> None:
        """Remember the first entry that is missing."""
        if write.entries and self.before(write) is None:
            self._holes[write.run_id] = (write.fence, write.entries[0].seq, error)

    def succeeded(self, write: Write) -> None:
        """Forget a hole that was filled after all, or whose run was released."""
        if write.entries or (write.move is not None and write.move.release):
            self._holes.pop(write.run_id, None)


def voids_pauses(status: RunStatus) -> bool:
    """Return whether a move to `status` makes the run's open questions pointless."""
    return status.is_settled or status is RunStatus.FAILED


def answered(run_id: RunId, pauses: Sequence[Pause], given: GivenAnswer) -> Pause:
    """Return the pause that an answer goes to; it has this very answer already when it came twice.

    Raises:
        RunNotFound: the run asks no such question.
        ResumeConflict: another answer came first, or the question is void.
        QuestionChanged: the question was opened again since it was shown.
    """
    pause_id = given.pause_id
    pause = asked(run_id, pauses, pause_id)
    if pause.is_expired:
        raise ResumeConflict(
            f"the deadline of the question at {shown(pause_id)!r} of run {run_id} passed before this "
            "answer came",
            hint="the run applied `on_deadline` and continued; "
            f"see `{command('flujo', 'tasks', 'show', run_id)}`",
            run_id=run_id,
            won="deadline",
        )
    if pause.answer is not None and pause.answer != given.value:
        raise ResumeConflict(
            f"the question at {shown(pause_id)!r} of run {run_id} was answered before, with something else",
            hint=f"`{command('flujo', 'tasks', 'show', run_id)}` shows that answer",
            run_id=run_id,
            won="answer",
            by=pause.by,
            answered_at=pause.answered_at,
            answer=canonical.decode(pause.answer),
        )
    if pause.void and pause.answer is None:
        raise ResumeConflict(
            f"the question at {shown(pause_id)!r} of run {run_id} is closed: the run continued or "
            "ended without it",
            hint=f"`{command('flujo', 'trace', run_id)}` shows what happened",
            run_id=run_id,
            won="run",
        )
    require_seen(run_id, pause, given.seen)
    return pause


def asked(run_id: RunId, pauses: Sequence[Pause], pause_id: StepPath) -> Pause:
    """Return the question of a run that has this id.

    Raises:
        RunNotFound: the run asks no such question.
    """
    for pause in pauses:
        if pause.pause_id == pause_id:
            return pause
    open_ones = ", ".join(shown(one.pause_id) for one in pauses if one.is_open) or "none"
    raise RunNotFound(
        f"run {run_id} asks nothing at {shown(pause_id)!r}",
        hint=f"its open questions: {open_ones}",
        run_id=run_id,
    )


def blame(there: RunRecord, *, recovering: bool, together: bool, grown: bool) -> tuple[int, int]:
    """Return how often a claimed run lost its owner since it last made progress: alone, and with others.

    An owner that executed several runs (`together`) may have died of any of them. Only an owner that died
    counts: a run that was released, or never begun, has cost nothing.
    """
    if not recovering or there.status is not RunStatus.RUNNING:
        return 0, 0
    alone, with_others = (0, 0) if grown else (there.recoveries, there.suspicions)
    if there.owner is None:
        return alone, with_others
    return (alone, with_others + 1) if together else (alone + 1, with_others)


def taken_from(dead: str | None, earlier: str | None, *, together: bool) -> str | None:
    """Return the dead owner that a claimed run is a witness of: others that it executed were not alone.

    An owner that executed this run alone needs none, so the one before it is kept: a run that ends one
    process after another is taken over often, and its first neighbours may be taken over later.
    """
    return dead if together or dead is None else earlier or dead


def check_run(run: NewRun) -> None:
    """Return when every store can hold what a run is called and described by.

    Raises:
        NotJournalable: a name holds a character that no database keeps.
        SettingsError: see `check_metadata`.
    """
    names = {"run id": run.run_id, "pipeline name": run.pipeline, "user id": run.user_id or ""}
    for what, text in names.items():
        if not _is_storable(text):
            raise _unstorable(text, what)
    check_metadata(run.metadata)


def _is_storable(text: str) -> bool:
    """Return whether a text is UTF-8 without NUL, which Postgres refuses and SQLite cuts off at."""
    if "\x00" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _unstorable(text: str, what: str) -> NotJournalable:
    """Return the error for a text with a character that no database keeps."""
    return NotJournalable(
        f"the {what} {text[:60]!r} has a NUL or half a character in it, which no database can hold",
        hint="leave the character out, or escape it",
        path="",
    )


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Return when every key is an identifier and every value is JSON.

    Raises:
        SettingsError: naming the key.
    """
    for key in metadata:
        metadata_conditions.check_key(key)
    try:
        canonical.encode(dict(metadata), what="metadata")
    except NotJournalable as error:
        raise SettingsError(error.message, hint=error.hint) from error


def check_query(query: RunQuery) -> None:
    """Check that every store supports a query.

    Raises:
        SettingsError: for metadata conditions that cannot be compared, a time that is not a number, a limit
            out of bounds, a cursor of another order.
    """
    metadata_conditions.conditions(query.metadata)
    if not 1 <= query.limit <= MAX_LIMIT:
        raise SettingsError(f"a query lists 1 to {MAX_LIMIT} runs, not {query.limit}")
    times = (query.since, query.until, None if query.after is None else query.after.at)
    if not all(math.isfinite(each) for each in times if each is not None):
        raise SettingsError("a time in a query is not a finite number")
    if query.after is not None and query.after.order is not query.order:
        raise SettingsError(
            f"the cursor is one of the order `{query.after.order}`, and this list has `{query.order}`",
            hint="use a cursor with the order of the list that it comes from",
        )


def check_questions(query: QuestionQuery) -> None:
    """Check that every store supports a query of open questions.

    Raises:
        SettingsError: for metadata conditions that cannot be compared, or a limit out of bounds.
    """
    check_query(replace(query.runs, limit=query.limit))


def no_question(run_id: RunId, pause_id: StepPath) -> RunNotFound:
    """Return the error for a question that a run does not ask."""
    return RunNotFound(f"run {run_id} asks no question {shown(pause_id)!r}", run_id=run_id)


def fits(record: RunRecord, pauses: Sequence[Pause], query: RunQuery, *, unattended: bool) -> bool:
    """Return whether a run matches; `unattended` is whether it has no living owner."""
    return (
        (not query.statuses or any(_has(record, pauses, each, unattended) for each in query.statuses))
        and (query.pause is None or any(each.is_open and each.pause_id == query.pause for each in pauses))
        and record.kind in kinds_of(query)
        and (query.parent is None or (record.parent is not None and record.parent.run_id == query.parent))
        and (query.chain is None or chains.first_of(record.run_id) == query.chain)
        and (query.pipeline is None or record.pipeline == query.pipeline)
        and (query.user_id is None or record.user_id == query.user_id)
        and (query.queue is None or (record.queued is not None and record.queued.queue == query.queue))
        and query.reach.has(
            record.pipeline, None if record.queued is None else record.queued.queue, record.metadata
        )
        and _is_in_time(record, query)
        and all(each.fits(record.metadata) for each in metadata_conditions.conditions(query.metadata))
    )


def _has(
    record: RunRecord, pauses: Sequence[Pause], status: RunStatus | RunCondition, unattended: bool
) -> bool:
    match status:
        case RunCondition.ORPHANED:
            return record.status is RunStatus.RUNNING and unattended
        case RunCondition.ANSWERED:
            return record.status is RunStatus.PAUSED and not any(pause.needs_answer for pause in pauses)
        case RunCondition.IN_DOUBT:
            doubts = (pause for pause in pauses if pause.kind is PauseKind.DOUBT and pause.is_open)
            return record.status is RunStatus.PAUSED and any(doubts)
        case _:
            return record.status is status


def _is_in_time(record: RunRecord, query: RunQuery) -> bool:
    at = RunCursor.of(record, query.order).at
    within = (query.since is None or at >= query.since) and (query.until is None or at < query.until)
    return within and (query.after is None or place(record, query.order) > _key(query.after))


def place(record: RunRecord, order: RunOrder) -> tuple[float, str]:
    """Return what runs are sorted by in an order."""
    return _key(RunCursor.of(record, order))


def _key(cursor: RunCursor) -> tuple[float, str]:
    return (cursor.at if cursor.order is RunOrder.OLDEST else -cursor.at), cursor.run_id


def no_token(name: str) -> TokenRefused:
    """Return the error for a name that no token has."""
    return TokenRefused(f"there is no token {name!r} in this database", token=name)


def token_exists(name: str) -> TokenExists:
    """Return the error for a name that another token has."""
    return TokenExists(f"there is a token {name!r} already", token=name)


def no_run(text: str) -> RunNotFound:
    """Return the error for an id that no run has."""
    return RunNotFound(f"there is no run {text!r} in this database", run_id=text)


def being_purged(run_id: str) -> RunNotFound:
    """Return the error for a run whose rows a purge is deleting."""
    return RunNotFound(
        f"run {run_id!r} is being purged",
        hint="choose another run id, or `flujo purge` once more to finish a purge that was interrupted",
        run_id=run_id,
    )


def several_runs(text: str, candidates: Sequence[str]) -> RunNotFound:
    """Return the error for a prefix that several runs share."""
    return RunNotFound(
        f"{text!r} is the beginning of several runs: {', '.join(candidates)}",
        hint="type more of the id",
        candidates=tuple(candidates),
    )
