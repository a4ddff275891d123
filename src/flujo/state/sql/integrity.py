"""Checks the integrity of the newest runs: rows, journals, questions, calls, holds, blueprints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.exceptions import CorruptState
from flujo.governance.key_ring import NO_KEYS, KeyRing
from flujo.state.sql import queries
from flujo.state.sql.database import Database
from flujo.state.sql.tables import SCHEMA, journal, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEWEST = 100
"""The number of runs to check."""
MOST_ENTRIES = 20_000
"""The maximum number of journal entries to read in all; the newest run is always read."""

_newest = (
    sa.select(runs.c.run_id, runs.c.closure)
    .where(queries.is_whole(runs))
    .order_by(runs.c.created_at.desc(), runs.c.run_id)
)
_counted = sa.select(journal.c.run_id, sa.func.count().label("entries")).group_by(journal.c.run_id)


@dataclass(frozen=True, slots=True)
class Damage:
    """A corrupt part of a run."""

    run_id: str
    error: CorruptState


@dataclass(frozen=True, slots=True)
class Soundness:
    """The extent of the check, and the damage that was found."""

    runs: int
    entries: int
    damaged: tuple[Damage, ...] = ()


def soundness(
    uri: str,
    schema: str = SCHEMA,
    *,
    keys: KeyRing = NO_KEYS,
    newest: int = NEWEST,
    most_entries: int = MOST_ENTRIES,
) -> Soundness:
    """Check the newest runs of a database, in one snapshot.

    Of each run the first damage in each of: row, journal, questions, calls, holds, and pinned files.

    Raises:
        KeyMissing | WrongKey: a value is encrypted with a key that `keys` does not have.
        StateError: the database does not answer, or is damaged as a whole.
    """
    database = Database(uri, schema=schema, keys=keys)
    try:
        with database.reading(moment=True) as connection:
            chosen = _chosen(connection, newest, most_entries)
            damaged: list[Damage] = []
            for run_id, closure, _ in chosen:
                damaged += _damage(database, connection, run_id, closure)
    finally:
        database.dispose()
    return Soundness(len(chosen), sum(count for _, _, count in chosen), tuple(damaged))


def _chosen(connection: sa.Connection, newest: int, most_entries: int) -> list[tuple[RunId, str, int]]:
    """Return the runs to look at, each with its closure and how many entries it has."""
    rows = connection.execute(_newest.limit(newest)).all()
    counted = _counted.where(journal.c.run_id.in_([row.run_id for row in rows]))
    counts = {row.run_id: int(row.entries) for row in connection.execute(counted)}
    chosen: list[tuple[RunId, str, int]] = []
    left = most_entries
    for row in rows:
        left -= counts.get(row.run_id, 0)
        if chosen and left < 0:
            break
        chosen.append((RunId(row.run_id), row.closure, counts.get(row.run_id, 0)))
    return chosen


def _damage(database: Database, connection: sa.Connection, run_id: RunId, closure: str) -> Iterator[Damage]:
    looks: tuple[Callable[[], object], ...] = (
        lambda: queries.records(connection, [run_id]),
        lambda: queries.entries(connection, run_id),
        lambda: queries.questions(connection, [run_id]),
        lambda: queries.calls(connection, run_id),
        lambda: queries.ledger(connection, run_id),
        lambda: _pinned(connection, closure),
    )
    reported: set[str] = set()
    for look in looks:
        try:
            with database.errors():
                look()
        except CorruptState as error:
            if error.message not in reported:  # a large value may be named by several rows
                reported.add(error.message)
                yield Damage(run_id, error)


def _pinned(connection: sa.Connection, closure: str) -> None:
    """Read what a run executes: its manifest, and the files that this names."""
    manifest = canonical.decode(queries.contents(connection, [closure])[closure])
    queries.contents(connection, set(manifest.get("files", {}).values()))
