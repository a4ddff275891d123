"""Erases a person: deletes the runs by families in bounded transactions, and writes the proof.

Each transaction locks its runs, looks at their status again, and records an act with what it has removed. An
erasure that was interrupted is begun again: it finds the runs that are left, and the acts of those that are
gone are added up in one proof.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain import canonical
from flujo.domain.acts import OF_LOGINS, Act, Verb
from flujo.domain.erasure import (
    BEYOND,
    BEYOND_POSTGRES,
    BEYOND_SQLITE,
    USER,
    FamilyRun,
    Proof,
    TableCount,
)
from flujo.domain.journal import CACHE_MISS, RunId
from flujo.domain.run import AT_A_PAUSE, RunStatus
from flujo.state import codec
from flujo.state.erasure_rules import require_erasable
from flujo.state.sql import retention, shared_budgets
from flujo.state.sql.encryption import ACTS, JOURNAL, decrypted, encrypted
from flujo.state.sql.functions import database_now
from flujo.state.sql.person_runs import FACTS, chunks, families, is_of
from flujo.state.sql.queries import PURGE
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.tables import (
    acts,
    blob_refs,
    blobs,
    budget_holds,
    cache,
    evaluations,
    events,
    feed,
    intents,
    journal,
    limits,
    outbox,
    pauses,
    runs,
    sessions,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.erasure import Subject

_OWN = (journal, pauses, intents, budget_holds, acts, outbox, feed)
"""The tables whose rows belong to one run, and are deleted with it."""

_WHY = {
    "acts": "those of runs that wait, by `--keep-paused`, and of logins during the erasure",
    "blobs": "contents that runs of others name too, such as blueprints, stay",
    "cache": "an answer that a run of another person has computed from the same input stays",
    "events": "events that no run has taken, with the person's value as their key; deleted after 7 days",
    "evaluations": "scores of runs that were purged before are found by `user_id` only",
    "limits": "a counter of the person stays while one of their runs is left; sums over several people stay",
    "runs": "runs that wait, and their families, by `--keep-paused`",
    "sessions": "the person has logged in during the erasure: remove [serve.users.NAME] first, and repeat it",
}
"""Why rows of a table stay; of the others, because their run does."""
_ALWAYS = ("cache", "evaluations", "limits")
"""The tables where rows can stay that cannot be counted."""


# Runs ----------------------------------------------------------------------------------------------------


ENTRIES = 10_000
"""How many entries one transaction deletes at most: of several runs, or a part of one."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What one transaction of an erasure came to."""

    runs: int
    """How many of the runs were there; no reader finds them any more."""
    taken: int
    """How many of the given runs were taken; the others would have been too much for this transaction."""
    in_parts: tuple[str, ...]
    """The runs whose rows `erase_part` deletes."""


@without_timeout
def erase_runs(
    connection: sa.Connection,
    subject: Subject,
    run_ids: Sequence[RunId],
    actor: Actor,
    cancel_paused: bool,
    entries: int,
) -> Erased:
    """Delete the first ones of some runs with all that belongs to them, and record the counts.

    A claim by a worker and this take the lock of the run's row: the later one sees what the earlier one did.
    A run with more than `entries` entries is marked: only another erasure of the person finds it.

    Raises:
        ErasureRefused: one of them is executed by now, or waits and is not to be cancelled.
    """
    _overwrite(connection)
    locking = FACTS.add_columns(runs.c.entries).where(runs.c.run_id.in_(run_ids))
    rows = {row.run_id: row for row in connection.execute(locking.order_by(runs.c.run_id).with_for_update())}
    taken, ids, small, large, left = 0, list[str](), list[str](), list[str](), entries
    for run_id in run_ids:
        size = rows[run_id].entries if run_id in rows else 0
        if small and entries >= size > left:
            break
        taken += 1
        if run_id in rows:
            ids.append(run_id)
            (large if size > entries else small).append(run_id)
            left -= size if size <= entries else 0
    there = [
        FamilyRun(RunId(run_id), RunStatus(rows[run_id].status), bool(rows[run_id].is_live)) for run_id in ids
    ]
    require_erasable(there, cancel_paused=cancel_paused)
    if ids:
        removed = Counter({"cancelled": sum(run.status in AT_A_PAUSE for run in there)})
        for table, condition in (
            (events, sa.or_(events.c.run_id.in_(ids), events.c.taken_by.in_(ids))),
            (evaluations, sa.or_(evaluations.c.run_id.in_(ids), evaluations.c.key.in_(ids))),
        ):
            removed[table.name] += connection.execute(table.delete().where(condition)).rowcount
        shared = _delete_whole(connection, small, removed) if small else []
        if large:
            retention.mark(connection, large, f"{retention.ERASURE}{subject.digest}")
        _record(connection, subject, actor, {"removed": _plain(removed), "shared": shared})
    return Erased(len(ids), taken, tuple(large))


def _overwrite(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def _delete_whole(connection: sa.Connection, ids: Sequence[str], removed: Counter[str]) -> list[str]:
    """Delete runs with their rows, answers and contents; return the contents that others name too."""
    removed["runs"] += len(ids)
    for table in _OWN:
        removed[table.name] += _count(connection, table, table.c.run_id.in_(ids))
    missed = _answers(connection, journal.c.run_id.in_(ids))
    _delete_answers(connection, missed.values(), removed)
    named = sa.select(blob_refs.c.digest).where(blob_refs.c.run_id.in_(ids)).distinct()
    digests = connection.scalars(named).all()
    removed["blob_refs"] += _count(connection, blob_refs, blob_refs.c.run_id.in_(ids))
    connection.execute(runs.delete().where(runs.c.run_id.in_(ids)))
    return _delete_contents(connection, digests, removed)


@without_timeout
def erase_part(connection: sa.Connection, subject: Subject, run_id: str, actor: Actor, entries: int) -> bool:
    """Delete up to `entries` rows of a marked run, and record the counts; return whether it was there.

    First what its rows lead to: cached answers, and contents. The row of the run is the last.
    """
    _overwrite(connection)
    is_marked = sa.and_(runs.c.run_id == run_id, runs.c.wish == PURGE)
    if connection.scalar(sa.select(runs.c.run_id).where(is_marked).with_for_update()) is None:
        return False
    removed, shared = Counter[str](), list[str]()
    own = blob_refs.c.run_id == run_id
    if missed := _answers(connection, journal.c.run_id == run_id, limit=entries):
        _delete_answers(connection, missed.values(), removed)
        for some in chunks(missed):
            is_one = sa.and_(journal.c.run_id == run_id, journal.c.seq.in_(some))
            removed["journal"] += connection.execute(journal.delete().where(is_one)).rowcount
    elif digests := connection.scalars(
        sa.select(blob_refs.c.digest).where(own).order_by(blob_refs.c.digest).limit(entries)
    ).all():
        for some in chunks(digests):
            is_one = sa.and_(own, blob_refs.c.digest.in_(some))
            removed["blob_refs"] += connection.execute(blob_refs.delete().where(is_one)).rowcount
        shared = _delete_contents(connection, digests, removed)
    else:
        removed = retention.delete_rows(connection, run_id, entries)
    _record(connection, subject, actor, {"removed": _plain(removed), "shared": shared})
    return True


def _delete_contents(connection: sa.Connection, digests: Collection[str], removed: Counter[str]) -> list[str]:
    """Delete contents that no run names any more; return the others."""
    shared: list[str] = []
    for some in chunks(digests):
        removed["blobs"] += retention.delete_blobs(connection, some)
        shared += connection.scalars(sa.select(blobs.c.digest).where(blobs.c.digest.in_(some)))
    return shared


def _delete_answers(connection: sa.Connection, keys: Iterable[str], removed: Counter[str]) -> None:
    for some in chunks(set(keys)):
        removed["cache"] += connection.execute(cache.delete().where(cache.c.key.in_(some))).rowcount


def _answers(
    connection: sa.Connection, condition: sa.ColumnElement[bool], limit: int | None = None
) -> dict[int, str]:
    """Return the keys of the cached answers that runs have computed, by the number of their entry."""
    names = (*JOURNAL.bound_to, "output", "seq")
    missed = sa.select(*(journal.c[name] for name in dict.fromkeys(names))).where(
        condition, journal.c.fingerprint == CACHE_MISS, journal.c.output.is_not(None)
    )
    rows = decrypted(connection, JOURNAL, connection.execute(missed.limit(limit)).mappings())
    return {row["seq"]: bytes(row["output"]).decode("ascii", "replace").strip('"') for row in rows}


def _count(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(table).where(condition)) or 0)


def _plain(removed: Counter[str]) -> dict[str, int]:
    return {str(table): count for table, count in removed.items()}  # SQLAlchemy's names are not quite text


def _record(connection: sa.Connection, subject: Subject, actor: Actor, after: dict[str, Any]) -> None:
    act = Act(verb=Verb.ERASE, actor=actor, object=subject.digest, after=canonical.encode(after))
    # Kept in its row, whatever its size: no run is left that could name a content.
    connection.execute(
        acts.insert().values(at=database_now(), **encrypted(connection, ACTS, codec.act_row(act, None)))
    )


# Rows without a run, and the proof -----------------------------------------------------------------------


@without_timeout
def erase_rest(connection: sa.Connection, subject: Subject, actor: Actor) -> None:
    """Delete what names the person and belongs to no run that is left: scores, logins, budgets' counters."""
    _overwrite(connection)
    removed = Counter[str]()
    if subject.field == USER:
        orphaned = evaluations.c.run_id.not_in(sa.select(runs.c.run_id))
        of_user = evaluations.c.user_id == subject.value
        removed["evaluations"] += connection.execute(evaluations.delete().where(of_user, orphaned)).rowcount
        for table, condition in _logins(subject):
            removed[table.name] += connection.execute(table.delete().where(condition)).rowcount
    keys = _counters(connection, subject)
    if keys:
        is_one = sa.tuple_(limits.c.name, limits.c.key).in_(sorted(keys))
        connection.execute(
            sa.select(limits.c.name)
            .where(is_one)
            .order_by(limits.c.name, limits.c.key, limits.c.window)
            .with_for_update()
        )
        # A statement of its own: it sees each run that has reserved before the rows were locked.
        if not connection.scalar(sa.select(sa.exists().where(*is_of(connection, subject)))):
            removed["limits"] += connection.execute(limits.delete().where(is_one)).rowcount
    if removed.total():
        _record(connection, subject, actor, {"removed": _plain(removed), "shared": []})


def _logins(subject: Subject) -> list[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """Return the sessions of a user, and the acts of their logins, as conditions on the tables."""
    if subject.field != USER:
        return []
    of_logins = acts.c.verb.in_([str(verb) for verb in OF_LOGINS])
    return [
        (sessions, sessions.c.name == subject.value),
        (acts, sa.and_(of_logins, acts.c.object == subject.value)),
    ]


def _counters(connection: sa.Connection, subject: Subject) -> set[tuple[str, str]]:
    """Return the names and scopes of the budgets' counters that name the person."""
    return {
        (each.name, each.scope)
        for each in shared_budgets.counters(connection)
        if subject.is_in(canonical.decode(each.scope.encode()))
    }


@without_timeout
def prove(connection: sa.Connection, subject: Subject, actor: Actor, is_overwritten: bool) -> Proof:
    """Return the proof of an erasure, and record it as an act that does not name the person."""
    on_sqlite = connection.dialect.name == "sqlite"
    removed, shared = _removed(connection, subject)
    kept = _kept(connection, subject, shared)
    proof = Proof(
        field=subject.field,
        subject=subject.digest,
        at=float(connection.scalar(sa.select(database_now())) or 0.0),
        actor=actor,
        database=connection.dialect.name,
        tables=tuple(
            TableCount(
                str(table.name), removed[table.name], kept[table.name], _why(table.name, removed, kept)
            )
            for table in (runs, *_OWN, events, evaluations, cache, limits, sessions, blob_refs, blobs)
        ),
        is_overwritten=is_overwritten,
        out_of_reach=(*BEYOND, *(BEYOND_SQLITE if on_sqlite else BEYOND_POSTGRES)),
    )
    _record(connection, subject, actor, dict(proof.to_json()))
    return proof


def _removed(connection: sa.Connection, subject: Subject) -> tuple[Counter[str], set[str]]:
    """Return the removed rows since the last proof of this person, and the contents that others shared."""
    removed, shared = Counter[str](), set[str]()
    erased = sa.select(acts).where(
        acts.c.run_id.is_(None), acts.c.verb == str(Verb.ERASE), acts.c.object == subject.digest
    )
    for row in decrypted(connection, ACTS, connection.execute(erased.order_by(acts.c.id)).mappings()):
        said = canonical.decode(codec.act(row, {}).after or b"{}")
        if "tables" in said:  # a proof, which counts all acts before it
            removed, shared = Counter[str](), set[str]()
        else:
            removed.update(said["removed"])
            shared.update(said["shared"])
    return removed, shared


def _kept(connection: sa.Connection, subject: Subject, shared: Collection[str]) -> Counter[str]:
    """Return how many rows of each table are there that belong to the person, or were shared with others."""
    left = [run.run_id for family in families(connection, subject) for run in family.runs]
    kept = Counter({"runs": len(left)})
    for some in chunks(shared):
        kept["blobs"] += _count(connection, blobs, blobs.c.digest.in_(some))
    for some in chunks(left):
        for table in (*_OWN, blob_refs, evaluations):
            kept[table.name] += _count(connection, table, table.c.run_id.in_(some))
        of_run = sa.or_(events.c.run_id.in_(some), events.c.taken_by.in_(some))
        kept["events"] += _count(connection, events, of_run)
    untaken = sa.and_(events.c.run_id.is_(None), events.c.taken_at.is_(None))
    kept["events"] += _count(connection, events, sa.and_(untaken, events.c.key == subject.value))
    for table, condition in _logins(subject):
        kept[table.name] += _count(connection, table, condition)
    for name, scope in _counters(connection, subject):
        kept["limits"] += _count(connection, limits, sa.and_(limits.c.name == name, limits.c.key == scope))
    return kept


def _why(table: str, removed: Counter[str], kept: Counter[str]) -> str:
    if table == "runs" and removed["cancelled"]:
        return f"{removed['cancelled']} of them waited and were cancelled"
    return _WHY.get(table, _WHY["runs"]) if kept[table] or table in _ALWAYS else ""
