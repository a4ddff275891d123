"""The reads: each function is one query, and returns checked records."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain import chains
from flujo.domain.acts import STEERING
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.ledger import OF_TASKS, HoldState, Ledger, Spending
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.queues import RunKind
from flujo.domain.run import UNENDED, Due, Progress
from flujo.domain.usage import NOTHING
from flujo.exceptions import CorruptState
from flujo.state import codec, owner_tokens, rules
from flujo.state.sql.encryption import BLOBS, RUNS, decrypted
from flujo.state.sql.functions import among, database_now, fetch, fetch_all, ids_parameter, lease_now
from flujo.state.sql.tables import (
    CAN_GO_ON,
    HAS_OWNER,
    IS_NEEDED,
    acts,
    blobs,
    budget_holds,
    intents,
    journal,
    pauses,
    runs,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from flujo.domain.acts import Act
    from flujo.domain.run import Intent, Pause, RunRecord

LAST = "@last"
_PAGE = 500
"""How many names one `IN` has at most."""

RUN_COLUMNS = (*runs.c, (runs.c.lease_until - lease_now(runs.c.owner)).label("lease_left_s"))
is_needed = sa.text(IS_NEEDED)
EARLIEST_DEADLINE = (
    sa.select(sa.func.min(pauses.c.deadline_at))
    .where(pauses.c.run_id == runs.c.run_id, is_needed, pauses.c.answered_at.is_(None), ~pauses.c.void)
    .scalar_subquery()
    .label("deadline_at")
)
PURGE = "purge"
"""The wish on the row of a run that is being deleted in parts; no reader finds such a run."""


def is_whole(run: Any) -> sa.ColumnElement[bool]:
    """Return the condition that a run (the table or an alias) is not being deleted in parts."""
    found: sa.ColumnElement[bool] = run.c.wish.is_distinct_from(sa.literal_column(f"'{PURGE}'"))
    return found


_newest_first = (runs.c.created_at.desc(), runs.c.run_id)


def newest(connection: sa.Connection) -> str:
    """Return the id of the run that a caller started last, or raise `RunNotFound`."""
    is_run = runs.c.kind == str(RunKind.RUN)
    found = connection.scalar(
        sa.select(runs.c.run_id).where(is_run, is_whole(runs)).order_by(*_newest_first).limit(1)
    )
    if found is None:
        raise rules.no_run(LAST)
    return str(found)


def beginning_with(connection: sa.Connection, text: str) -> str:
    """Return the id of the one run whose id begins so, or raise `RunNotFound`.

    A text that begins the ids of a whole chain means its first run, or when that is purged the earliest one
    that is there.
    """
    if (found := _earliest(connection, text)) is not None:
        return found
    known = _beginning(connection, text)
    if not known:
        raise rules.no_run(text)
    if len(known) > 1:
        raise rules.several_runs(text, sorted(known)[:5])
    [(first, run_id)] = known.items()
    return run_id if run_id == first else _earliest(connection, first) or run_id


def _beginning(connection: sa.Connection, text: str) -> dict[str, str]:
    """Return up to six first runs whose ids begin so, each with a run of its chain that is there."""
    known: dict[str, str] = {}
    after = text
    while len(known) < 6:
        following = sa.select(sa.func.min(runs.c.run_id)).where(
            begins(text), runs.c.run_id > after, is_whole(runs)
        )
        if (run_id := connection.scalar(following)) is None:
            break
        first = chains.first_of(run_id)
        known.setdefault(first, run_id)
        after = run_id if run_id == first else f"{first}{chains.MARK}\U0010ffff"  # past the chain
    return known


def begins(text: str) -> sa.ColumnElement[bool]:
    """Return whether the id of a run begins with a text."""
    # A range instead of LIKE: it uses the key's index, and no character of the text is special in it.
    return sa.and_(runs.c.run_id >= text, runs.c.run_id < text + "\U0010ffff")


def _earliest(connection: sa.Connection, first: str) -> str | None:
    """Return the earliest run that continues the run of this id; None when there is none."""
    following = sa.select(runs.c.run_id).where(begins(first + chains.MARK), is_whole(runs))
    return connection.scalar(following.order_by(sa.func.length(runs.c.run_id), runs.c.run_id).limit(1))


_whole_journal = sa.select(*journal.c).where(journal.c.run_id == sa.bindparam("run")).order_by(journal.c.seq)
_one_level = _whole_journal.where(
    journal.c.parent == sa.bindparam("above"), journal.c.path != sa.bindparam("above")
)
_later_of_level = _one_level.where(journal.c.seq > sa.bindparam("seq"))
_journal_after = _whole_journal.where(journal.c.seq > sa.bindparam("seq"))
# Not ordered here: a database would rather read the whole journal in order than sort a few rows.
_some_paths = sa.select(*journal.c).where(journal.c.run_id == sa.bindparam("run"), among(journal.c.path))
_recorded = sa.select(runs.c.entries, is_whole(runs).label("is_whole")).where(
    runs.c.run_id == sa.bindparam("run")
)
can_go_on = sa.text(CAN_GO_ON)
has_owner = sa.text(HAS_OWNER)
# The index by deadline holds few runs, that by status all; `coalesce` keeps databases from the second.
_is_late = sa.and_(
    runs.c.ends_by <= database_now(),
    sa.func.coalesce(runs.c.status, "").in_([str(status) for status in UNENDED]),
)


def _each_owner() -> sa.Select[str]:
    """Return what reads the owners in their order, each by one look into `runs_by_owner`.

    `DISTINCT` would read every run that has one. A condition on the status would make SQLite do so.
    """
    first = sa.select(sa.func.min(runs.c.owner).label("owner")).where(has_owner)
    found = first.cte("owners", recursive=True)
    following = sa.select(sa.func.min(runs.c.owner)).where(runs.c.owner > found.c.owner, has_owner)
    found = found.union_all(sa.select(following.scalar_subquery()).where(found.c.owner.is_not(None)))
    return sa.select(found.c.owner).where(found.c.owner.is_not(None))


EACH_OWNER = _each_owner()
_overdue = (
    sa.select(pauses.c.run_id, pauses.c.pause_id)
    .where(pauses.c.deadline_at <= database_now(), pauses.c.answered_at.is_(None), ~pauses.c.void)
    .order_by(pauses.c.deadline_at)
    .limit(sa.bindparam("most"))
)
_spendings = (
    sa.select(journal.c.run_id, journal.c.path, journal.c.usage, journal.c.started_at, journal.c.ended_at)
    .where(
        journal.c.run_id == sa.bindparam("run"),
        sa.or_(journal.c.kind == sa.literal_column(f"'{EntryKind.WORK}'"), journal.c.usage.is_not(None)),
    )
    .order_by(journal.c.seq)
)
_holds = (
    sa.select(*budget_holds.c)
    .where(
        budget_holds.c.run_id == sa.bindparam("run"),
        budget_holds.c.state != sa.literal_column(f"'{HoldState.SETTLED}'"),
    )
    .order_by(budget_holds.c.path, budget_holds.c.number)
)
_acts = sa.select(*acts.c).where(acts.c.run_id == sa.bindparam("run")).order_by(acts.c.id)
_calls = (
    sa.select(*intents.c)
    .where(intents.c.run_id == sa.bindparam("run"))
    .order_by(intents.c.sent_at, intents.c.key)
)


def entries(
    connection: sa.Connection, run_id: RunId, parent: StepPath | None = None, after: int = 0
) -> list[Entry]:
    """Return the journal in order, each entry checked; without `parent` also for entries that are missing."""
    if parent is None:
        if after:
            rows = fetch(connection, _journal_after, {"run": run_id, "seq": after})
        else:  # without a condition, which would hide an entry whose number is damaged
            rows = fetch(connection, _whole_journal, {"run": run_id})
        _check_complete(run_id, [row["seq"] for row in rows], _promised(connection, run_id), after)
    elif after:
        rows = fetch(connection, _later_of_level, {"run": run_id, "above": parent, "seq": after})
    else:
        rows = fetch(connection, _one_level, {"run": run_id, "above": parent})
    large = aside(connection, rows, codec.ENTRY_VALUES)
    return [codec.entry(row, large) for row in rows]


def entries_at(connection: sa.Connection, run_id: RunId, paths: Collection[StepPath]) -> list[Entry]:
    """Return the entries at some paths in order, each entry checked."""
    rows = fetch(connection, _some_paths, {"run": run_id, **ids_parameter(connection, list(paths))})
    large = aside(connection, rows, codec.ENTRY_VALUES)
    return sorted((codec.entry(row, large) for row in rows), key=lambda entry: entry.seq)


def _promised(connection: sa.Connection, run_id: RunId) -> int:
    found = connection.execute(_recorded, {"run": run_id}).one_or_none()
    if found is not None and not found.is_whole:
        raise rules.being_purged(run_id)
    return 0 if found is None else int(found.entries)


def _check_complete(run_id: RunId, seqs: Sequence[int], promised: int, after: int) -> None:
    missing = next((expected for expected, seq in enumerate(seqs, after + 1) if seq != expected), None)
    if missing is None and after + len(seqs) < promised:
        missing = after + len(seqs) + 1
    if missing is not None:
        raise CorruptState(
            f"run {run_id}: journal entry {missing} is missing",
            hint="restore the database from a backup; other runs are not affected",
            run_id=run_id,
            seq=missing,
        )


def due(connection: sa.Connection, pipeline: str | None, without: Collection[str], limit: int) -> Due:
    """Return the questions whose deadline has passed, and the runs without a living owner that can resume."""
    questions = connection.execute(_overdue, {"most": limit}).all()
    conditions: list[Any] = [unattended(connection)]
    if pipeline is not None:
        conditions.append(runs.c.pipeline == pipeline)
    late = sa.select(runs.c.run_id).where(_is_late, *conditions).order_by(runs.c.ends_by).limit(limit)
    overdue = connection.scalars(late).all()
    conditions += [can_go_on, runs.c.queue.is_(None)]
    if without:
        conditions.append(runs.c.closure.not_in(list(without)))
    is_suspect = sa.and_(runs.c.owner.is_not(None), runs.c.suspicions > 0).label("is_suspect")
    chosen = sa.select(runs.c.run_id, is_suspect).where(*conditions)
    found = connection.execute(chosen.order_by(runs.c.updated_at, runs.c.run_id).limit(limit)).all()
    return Due(
        questions=tuple((RunId(row.run_id), StepPath(row.pause_id)) for row in questions),
        runs=tuple(RunId(row.run_id) for row in found),
        suspects=frozenset(RunId(row.run_id) for row in found if row.is_suspect),
        overdue=tuple(RunId(run_id) for run_id in overdue),
    )


def unattended(connection: sa.Connection) -> sa.ColumnElement[bool]:
    """Return the condition that a run has no living owner."""
    expired = runs.c.lease_until <= lease_now(runs.c.owner)
    return sa.or_(runs.c.owner.is_(None), expired, runs.c.owner.in_(owners(connection).dead))


@dataclass(frozen=True, slots=True)
class Owners:
    """Who holds runs: executes them, or has executed them and did not release them."""

    dead: tuple[str, ...]
    """Their processes are certainly gone."""
    others: tuple[str, ...]
    """Their leases decide."""


def owners(connection: sa.Connection) -> Owners:
    """Return the owners of all runs that have one."""
    found = connection.scalars(EACH_OWNER).all()
    dead = tuple(owner for owner in found if owner_tokens.is_provably_dead(owner))
    return Owners(dead, tuple(owner for owner in found if owner not in dead))


def ledger(connection: sa.Connection, run_id: RunId) -> Ledger:
    """Return what each attempt used and when, and what is held back."""
    spendings = fetch(connection, _spendings, {"run": run_id})
    rows = fetch(connection, _holds, {"run": run_id})
    holds = [codec.hold(row) for row in rows]
    return Ledger(
        tuple(
            Spending(StepPath(row["path"]), codec.spent(row), row["started_at"], row["ended_at"])
            for row in spendings
        )
        + tuple(
            Spending(hold.path, NOTHING, row["created_at"], row["settled_at"])
            for hold, row in zip(holds, rows, strict=True)
            if hold.state is HoldState.TIMED and row["settled_at"] is not None
        ),
        tuple(hold for hold in holds if hold.state in (HoldState.HELD, HoldState.UNCONFIRMED)),
        tuple(hold for hold in holds if hold.state in OF_TASKS),
    )


def calls(connection: sa.Connection, run_id: RunId) -> list[Intent]:
    """Return the calls that a run has announced, in the order in which they were sent last."""
    rows = fetch(connection, _calls, {"run": run_id})
    large = aside(connection, rows, codec.INTENT_VALUES)
    return [codec.intent(row, large) for row in rows]


def acts_of(connection: sa.Connection, run_id: RunId) -> list[Act]:
    """Return who changed a run, in order."""
    rows = fetch(connection, _acts, {"run": run_id})
    large = aside(connection, rows, codec.ACT_VALUES)
    return [codec.act(row, large) for row in rows]


def aside(
    connection: sa.Connection, rows: Sequence[Mapping[str, Any] | sa.RowMapping], columns: Sequence[str]
) -> dict[str, bytes]:
    """Return the blobs that rows point at; raise `CorruptState`, with the run, when one is not good."""
    try:
        return contents(connection, codec.references(rows, columns))
    except CorruptState:
        for row in rows:
            _check_contents(connection, row, columns)
        raise


def _check_contents(
    connection: sa.Connection, row: Mapping[str, Any] | sa.RowMapping, columns: Sequence[str]
) -> None:
    try:
        contents(connection, codec.references([row], columns))
    except CorruptState as error:
        run_id = row["run_id"]
        raise CorruptState(f"run {run_id}: {error.message}", hint=error.hint, run_id=run_id) from error


def contents(connection: sa.Connection, digests: Collection[str]) -> dict[str, bytes]:
    """Return blobs by digest, each one checked; raise `CorruptState` when one is missing."""
    wanted = sorted(digests)
    found: dict[str, bytes] = {}
    for start in range(0, len(wanted), _PAGE):
        chosen = sa.select(*blobs.c).where(blobs.c.digest.in_(wanted[start : start + _PAGE]))
        rows = decrypted(connection, BLOBS, connection.execute(chosen).mappings())
        found.update((row["digest"], codec.blob(row)) for row in rows)
    for digest in wanted:
        if digest not in found:
            raise CorruptState(
                f"the content {digest} is missing from the database",
                hint="restore the database from a backup; other runs are not affected",
                digest=digest,
            )
    return found


def decoded(connection: sa.Connection, rows: list[dict[str, Any]]) -> list[RunRecord]:
    """Return the runs of rows as the driver gives them."""
    for row in rows:
        row["metadata"] = codec.metadata(row)
    return _checked(connection, rows)


def run_records(connection: sa.Connection, chosen: sa.Select[Any]) -> list[RunRecord]:
    """Return the runs that a statement chooses."""
    return _checked(connection, decrypted(connection, RUNS, connection.execute(chosen).mappings()))


def _checked(connection: sa.Connection, rows: Sequence[Mapping[str, Any] | sa.RowMapping]) -> list[RunRecord]:
    large = aside(connection, rows, codec.RUN_VALUES)
    return [codec.run_record(row, large) for row in rows]


# Many runs at once: one statement for all of them costs hardly more than one for each -----------------------

_runs = sa.select(*RUN_COLUMNS, EARLIEST_DEADLINE).where(among(runs.c.run_id), is_whole(runs))
# One look into the index for each run: with GROUP BY, databases read it for every entry.
_last_entries = sa.select(
    runs.c.run_id,
    sa.select(sa.func.max(journal.c.seq))
    .where(journal.c.run_id == runs.c.run_id)
    .scalar_subquery()
    .label("last_seq"),
).where(among(runs.c.run_id))
QUESTIONS = (
    sa.select(*pauses.c)
    .where(among(pauses.c.run_id))
    .order_by(pauses.c.run_id, pauses.c.asked_at, pauses.c.position)
)
"""The questions of runs, in the order in which they were opened."""
_needed_questions = QUESTIONS.where(is_needed)
OPEN_QUESTIONS = _needed_questions.where(pauses.c.answered_at.is_(None), ~pauses.c.void)
_usages = sa.select(journal.c.run_id, journal.c.usage).where(
    among(journal.c.run_id), journal.c.usage.is_not(None)
)
_steering = (
    sa.select(*acts.c)
    .where(
        among(acts.c.run_id), sa.or_(*(acts.c.verb == sa.literal_column(f"'{verb}'") for verb in STEERING))
    )
    .order_by(acts.c.id)
)
_first_level = (
    sa.select(*journal.c)
    .where(
        among(journal.c.run_id),
        journal.c.parent == sa.literal_column(f"'{ROOT}'"),
        journal.c.path != sa.literal_column(f"'{ROOT}'"),
    )
    .order_by(journal.c.run_id, journal.c.seq)
)


def records(connection: sa.Connection, ids: Sequence[str]) -> Mapping[str, RunRecord]:
    """Return the runs that are there."""
    [rows] = fetch_all(connection, [_runs], ids_parameter(connection, ids))
    return {record.run_id: record for record in decoded(connection, rows)}


def with_progress(
    connection: sa.Connection, ids: Sequence[str]
) -> Mapping[str, tuple[RunRecord, Progress | None]]:
    """Return the runs that are there, then the progress of those without an owner."""
    found = records(connection, ids)
    released = [run_id for run_id, each in found.items() if each.owner is None]
    known = progress(connection, released) if released else {}
    return {run_id: (each, known.get(run_id)) for run_id, each in found.items()}


def questions(
    connection: sa.Connection, ids: Sequence[str], chosen: sa.Select[Any] = QUESTIONS
) -> Mapping[str, list[Pause]]:
    """Return the questions of runs, in the order in which they were opened."""
    [rows] = fetch_all(connection, [chosen], ids_parameter(connection, ids))
    asked = _by_run(rows)
    return {run_id: [codec.pause(row) for row in asked[run_id]] for run_id in ids}


def open_questions(connection: sa.Connection, ids: Sequence[str]) -> Mapping[str, list[Pause]]:
    """Return the questions and waits of runs that are open."""
    return questions(connection, ids, OPEN_QUESTIONS)


def progress(connection: sa.Connection, ids: Sequence[str]) -> Mapping[str, Progress]:
    """Return how far runs are, and what a walk reads first."""
    statements = [_last_entries, _usages, _first_level, _needed_questions, _steering]
    newest, used, level, asked, steered = map(
        _by_run, fetch_all(connection, statements, ids_parameter(connection, ids))
    )
    rows = [row for each in level.values() for row in each]
    large = aside(connection, rows, codec.ENTRY_VALUES)
    changed = [row for each in steered.values() for row in each]
    values = aside(connection, changed, codec.ACT_VALUES)
    return {
        run_id: Progress(
            last_seq=max((row["last_seq"] or 0 for row in newest[run_id]), default=0),
            usage=sum((codec.spent(row) for row in used[run_id]), NOTHING),
            first=tuple(codec.entry(row, large) for row in level[run_id]),
            pauses=tuple(codec.pause(row) for row in asked[run_id]),
            acts=tuple(codec.act(row, values) for row in steered[run_id]),
        )
        for run_id in ids
    }


def _by_run(rows: Iterable[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["run_id"]].append(row)
    return found
