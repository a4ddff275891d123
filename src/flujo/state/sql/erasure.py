"""Erases a person: finds the runs, deletes them by families in bounded transactions, and writes the proof.

Each transaction locks its runs, looks at their status again, and records an act with what it has removed. An
erasure that was interrupted is begun again: it finds the runs that are left, and the acts of those that are
gone are added up in one proof.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain import canonical, chains
from flujo.domain.acts import OF_LOGINS, Act, Verb
from flujo.domain.erasure import (
    BEYOND,
    BEYOND_POSTGRES,
    BEYOND_SQLITE,
    USER,
    Family,
    FamilyRun,
    Proof,
    TableCount,
)
from flujo.domain.journal import CACHE_MISS, RunId
from flujo.domain.queues import RunKind
from flujo.domain.run import AT_A_PAUSE, RunQuery, RunStatus
from flujo.domain.run_forks import forks_of
from flujo.state import codec
from flujo.state.erasure_rules import require_erasable
from flujo.state.sql import listing, retention, shared_budgets
from flujo.state.sql.encryption import ACTS, JOURNAL, decrypted, encrypted
from flujo.state.sql.functions import database_now, lease_now
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
    from collections.abc import Collection, Iterator, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.erasure import Subject

CHUNK = 200
"""How many ids one statement names."""

_OWN = (journal, pauses, intents, budget_holds, acts, outbox, feed)
"""The tables whose rows belong to one run, and are deleted with it."""

_LIVE = sa.or_(
    runs.c.status.in_([str(RunStatus.ACCEPTED), str(RunStatus.RUNNING)]),
    sa.and_(runs.c.owner.is_not(None), runs.c.lease_until > lease_now(runs.c.owner)),
)
_facts = sa.select(runs.c.run_id, runs.c.status, _LIVE.label("is_live"))

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


@without_timeout
def families(connection: sa.Connection, subject: Subject) -> list[Family]:
    """Return the runs of a person with their tasks, evaluations, chains and forks, by families."""
    found: dict[str, FamilyRun] = {}
    heads: dict[str, str] = {}
    new = {row.run_id: row for row in connection.execute(_facts.where(*_is_of(connection, subject)))}
    while new:
        for run_id, row in new.items():
            found[run_id] = FamilyRun(RunId(run_id), RunStatus(row.status), bool(row.is_live))
            heads.setdefault(run_id, run_id)
        links = list(_links(connection, list(new)))
        missing = {child for _, child in links} - found.keys()
        new = {
            row.run_id: row
            for some in _chunks(missing)
            for row in connection.execute(_facts.where(runs.c.run_id.in_(some)))
        }
        for one, other in links:
            if other in found or other in new:
                _join(heads, one, other)
    members: dict[str, list[FamilyRun]] = {}
    for run_id, run in found.items():
        members.setdefault(_head(heads, run_id), []).append(run)
    return [Family(tuple(group)) for group in members.values()]


def _is_of(connection: sa.Connection, subject: Subject) -> list[sa.ColumnElement[bool]]:
    wanted: Any = subject.forms
    for key in reversed(subject.keys):
        wanted = {key: wanted}
    of_user = subject.field == USER
    query = RunQuery(
        user_id=subject.value if of_user else None,
        metadata={} if of_user else wanted,
        kinds=tuple(RunKind),
    )
    return listing.conditions(connection, query)


def _links(connection: sa.Connection, run_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each of the runs with a run that descends from it or is the next or last one of its chain."""
    for some in _chunks(run_ids):
        children = sa.select(runs.c.parent_run, runs.c.run_id).where(runs.c.parent_run.in_(some))
        yield from ((row.parent_run, row.run_id) for row in connection.execute(children))
        forked = sa.select(acts).where(
            acts.c.run_id.in_(some), acts.c.verb == str(Verb.FORK), acts.c.before.is_(None)
        )
        for row in decrypted(connection, ACTS, connection.execute(forked).mappings()):
            yield from ((row["run_id"], fork) for fork, _ in forks_of([codec.act(row, {})]))
    for run_id in run_ids:
        yield run_id, chains.successor_of(run_id)
        before = chains.predecessor_of(run_id)
        if before is not None:
            yield run_id, before


def _join(heads: dict[str, str], one: str, other: str) -> None:
    heads.setdefault(other, other)
    heads[_head(heads, other)] = _head(heads, one)


def _head(heads: dict[str, str], run_id: str) -> str:
    while heads[run_id] != run_id:
        heads[run_id] = run_id = heads[heads[run_id]]
    return run_id


def _chunks(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


# Runs ----------------------------------------------------------------------------------------------------


@without_timeout
def erase_runs(
    connection: sa.Connection, subject: Subject, run_ids: Sequence[RunId], actor: Actor, cancel_paused: bool
) -> int:
    """Delete runs with all that belongs to them, and record the counts; return how many runs.

    A claim by a worker and this take the lock of the run's row: the later one sees what the earlier one did.

    Raises:
        ErasureRefused: one of them is executed by now, or waits and is not to be cancelled.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    locking = _facts.where(runs.c.run_id.in_(run_ids)).order_by(runs.c.run_id).with_for_update()
    there = [
        FamilyRun(RunId(row.run_id), RunStatus(row.status), bool(row.is_live))
        for row in connection.execute(locking)
    ]
    require_erasable(there, cancel_paused=cancel_paused)
    ids = [run.run_id for run in there]
    if not ids:
        return 0
    removed = Counter({"runs": len(ids)})
    for table in _OWN:
        removed[table.name] += _count(connection, table, table.c.run_id.in_(ids))
    removed["cancelled"] += sum(run.status in AT_A_PAUSE for run in there)
    for table, condition in (
        (events, sa.or_(events.c.run_id.in_(ids), events.c.taken_by.in_(ids))),
        (evaluations, sa.or_(evaluations.c.run_id.in_(ids), evaluations.c.key.in_(ids))),
        *((cache, cache.c.key.in_(some)) for some in _chunks(_answer_keys(connection, ids))),
    ):
        removed[table.name] += connection.execute(table.delete().where(condition)).rowcount
    named = sa.select(blob_refs.c.digest).where(blob_refs.c.run_id.in_(ids)).distinct()
    digests = connection.scalars(named).all()
    removed["blob_refs"] += _count(connection, blob_refs, blob_refs.c.run_id.in_(ids))
    connection.execute(runs.delete().where(runs.c.run_id.in_(ids)))
    shared: list[str] = []
    for some in _chunks(digests):
        removed["blobs"] += retention.delete_blobs(connection, some)
        shared += connection.scalars(sa.select(blobs.c.digest).where(blobs.c.digest.in_(some)))
    _record(connection, subject, actor, {"removed": _plain(removed), "shared": shared})
    return len(ids)


def _answer_keys(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Return the keys of the cached answers that these runs have computed."""
    names = (*JOURNAL.bound_to, "output")
    missed = sa.select(*(journal.c[name] for name in names)).where(
        journal.c.run_id.in_(ids), journal.c.fingerprint == CACHE_MISS, journal.c.output.is_not(None)
    )
    rows = decrypted(connection, JOURNAL, connection.execute(missed).mappings())
    return {bytes(row["output"]).decode("ascii", "replace").strip('"') for row in rows}


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
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
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
        if not connection.scalar(sa.select(sa.exists().where(*_is_of(connection, subject)))):
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
    for some in _chunks(shared):
        kept["blobs"] += _count(connection, blobs, blobs.c.digest.in_(some))
    for some in _chunks(left):
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
