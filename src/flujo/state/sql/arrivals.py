"""Takes over runs of another database: their rows, journals and contents, in one transaction."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.ledger import Hold, HoldState
from flujo.domain.recorded_run import RecordedRun, times_in
from flujo.domain.run import IntentState
from flujo.state import codec, rules
from flujo.state.sql import encryption, queries
from flujo.state.sql.encryption import ENCRYPTED, all_encrypted, encrypted
from flujo.state.sql.functions import database_now, schema_of
from flujo.state.sql.statements import statements_for
from flujo.state.sql.tables import acts, budget_holds, intents, journal, pauses, runs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import sqlalchemy as sa

    from flujo.domain.acts import Actor
    from flujo.domain.journal import RunId
    from flujo.domain.ledger import Spending
    from flujo.domain.paths import StepPath


def take_over(
    connection: sa.Connection, arriving: Sequence[RecordedRun], actor: Actor, origin: str
) -> list[RunId]:
    """Insert the runs that are not here yet, and return their ids.

    The primary key decides between two processes that take over one run: the second waits for the commit of
    the first, finds the run, and compares it.

    Raises:
        RunConflict: a run with one of the ids is another one.
        CorruptState: a content is damaged, or a run that is here already.
    """
    taken = []
    for run in sorted(
        arriving, key=lambda each: each.run_id
    ):  # in one order, so that no two wait in a circle
        new = run.pulled()
        aside: codec.Rows = {digest: codec.blob_row(digest, data) for digest, data in new.blobs.items()}
        if _insert_run(connection, new, aside):
            _insert_rest(connection, new, aside)
            act = rules.pull_act(run.run_id, run.record.status, actor, origin)
            row = encrypted(connection, encryption.ACTS, codec.act_row(act, aside))
            connection.execute(acts.insert().values(at=database_now(), **row))
            _keep(connection, run.run_id, aside)
            taken.append(run.run_id)
        elif refusal := rules.import_refusal(_recorded(connection, run.run_id), new):
            raise refusal
    return taken


def _insert_run(connection: sa.Connection, run: RecordedRun, aside: codec.Rows) -> bool:
    """Insert the row of a run; return whether its id was free."""
    on_postgres = connection.dialect.name == "postgresql"
    insert = (postgresql.insert if on_postgres else sqlite.insert)(runs)
    row = encrypted(connection, encryption.RUNS, codec.recorded_row(run.record, aside))
    inserted = insert.values(**row).on_conflict_do_nothing(index_elements=["run_id"])
    return connection.execute(inserted.returning(runs.c.run_id)).first() is not None


def _insert_rest(connection: sa.Connection, run: RecordedRun, aside: codec.Rows) -> None:
    run_id, fence = run.run_id, run.record.fence
    calls = [
        {
            **codec.intent_row(run_id, call, aside),
            "fence": fence,
            "sent_at": call.sent_at,
            "settled_at": None if call.state is IntentState.SENT else call.sent_at,
        }
        for call in run.intents
    ]
    at = run.record.updated_at
    held = [{**codec.hold_row(run_id, hold), "created_at": at, "settled_at": None} for hold in run.holds]
    for table, rows in (
        (journal, [codec.entry_row(run_id, entry, aside) for entry in run.entries]),
        (pauses, [_pause_row(run_id, run, number) for number in range(len(run.pauses))]),
        (intents, calls),
        (budget_holds, held + _time_rows(run_id, run.times)),
        (acts, [{**codec.act_row(act, aside), "at": act.at} for act in run.acts]),
    ):
        of = ENCRYPTED.get(table.name)
        if rows:
            connection.execute(table.insert(), rows if of is None else all_encrypted(connection, of, rows))


def _pause_row(run_id: RunId, run: RecordedRun, position: int) -> dict[str, Any]:
    pause = run.pauses[position]
    row = codec.pause_row(run_id, pause, position)
    del row["deadline_s"]
    settled = ("asked_at", "answer", "answered_at", "void", "by")
    return {**row, **{name: getattr(pause, name) for name in settled}}


def _time_rows(run_id: RunId, times: Sequence[Spending]) -> list[dict[str, Any]]:
    """Return the rows of the times of bodies.

    Those of one body are numbered from 1: a body has at most one for each claim, so no number is that of a
    later claim.
    """
    rows = []
    numbers: Counter[StepPath] = Counter()
    for time in times:
        numbers[time.path] += 1
        hold = Hold(path=time.path, number=numbers[time.path], state=HoldState.TIMED)
        row = codec.hold_row(run_id, hold)
        rows.append({**row, "created_at": time.started_at, "settled_at": time.ended_at})
    return rows


def _keep(connection: sa.Connection, run_id: RunId, aside: codec.Rows) -> None:
    """Insert the contents that are not here, and note that the run names all of them.

    On Postgres a purge may delete a content between the insert that found it and the lock that holds it.
    """
    known = statements_for(schema_of(connection))
    missing: Collection[str] = aside.keys()
    while missing:
        known.keep_blobs(connection, [aside[digest] for digest in sorted(missing)])
        if not known.is_postgres:
            break
        held = {digest for (digest,) in known.hold_blobs(connection, sorted(aside)).fetchall()}
        missing = aside.keys() - held
    if aside:
        known.keep_refs(connection, [{"digest": digest, "run_id": run_id} for digest in sorted(aside)])


def _recorded(connection: sa.Connection, run_id: RunId) -> RecordedRun:
    """Return a run as it is here, without the contents that it names."""
    entries, ledger = queries.entries(connection, run_id), queries.ledger(connection, run_id)
    return RecordedRun(
        record=queries.records(connection, [run_id])[run_id],
        entries=entries,
        pauses=queries.questions(connection, [run_id])[run_id],
        intents=queries.calls(connection, run_id),
        acts=queries.acts_of(connection, run_id),
        holds=ledger.holds,
        times=times_in(ledger, entries),
    )
