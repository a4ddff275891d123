"""Finds the runs of a person: their own, and all that descend from these, by families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from flujo.domain import chains
from flujo.domain.acts import Verb
from flujo.domain.erasure import USER, Family, FamilyRun
from flujo.domain.journal import RunId
from flujo.domain.queues import RunKind
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.run_forks import forks_of
from flujo.state import codec
from flujo.state.sql import listing
from flujo.state.sql.encryption import ACTS, decrypted
from flujo.state.sql.functions import lease_now
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.tables import acts, runs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from flujo.domain.erasure import Subject

Key = TypeVar("Key", str, int)

CHUNK = 200
"""How many ids one statement names."""

_LIVE = sa.or_(
    runs.c.status.in_([str(RunStatus.ACCEPTED), str(RunStatus.RUNNING)]),
    sa.and_(runs.c.owner.is_not(None), runs.c.lease_until > lease_now(runs.c.owner)),
)
FACTS = sa.select(runs.c.run_id, runs.c.status, _LIVE.label("is_live"))
"""What a `FamilyRun` has."""


@without_timeout
def families(connection: sa.Connection, subject: Subject) -> list[Family]:
    """Return the runs of a person with their tasks, evaluations, chains and forks, by families."""
    found: dict[str, FamilyRun] = {}
    heads: dict[str, str] = {}
    new = {row.run_id: row for row in connection.execute(FACTS.where(*is_of(connection, subject)))}
    while new:
        for run_id, row in new.items():
            found[run_id] = FamilyRun(RunId(run_id), RunStatus(row.status), bool(row.is_live))
            heads.setdefault(run_id, run_id)
        links = list(_links(connection, list(new)))
        missing = {child for _, child in links} - found.keys()
        new = {
            row.run_id: row
            for some in chunks(missing)
            for row in connection.execute(FACTS.where(runs.c.run_id.in_(some)))
        }
        for one, other in links:
            if other in found or other in new:
                _join(heads, one, other)
    members: dict[str, list[FamilyRun]] = {}
    for run_id, run in found.items():
        members.setdefault(_head(heads, run_id), []).append(run)
    return [Family(tuple(group)) for group in members.values()]


def is_of(connection: sa.Connection, subject: Subject) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the runs that name a person."""
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
    for some in chunks(run_ids):
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


def chunks(ids: Collection[Key]) -> Iterator[list[Key]]:
    """Yield ids in their order, as many as one statement names."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
