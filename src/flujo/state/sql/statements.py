"""The statements of a batch, built once: SQLAlchemy compiles each a single time for SQLite or a schema.

A change of many rows is a statement for each row on SQLite, where a statement costs nothing but its row. On
Postgres planning, sending and starting one costs more than a row does, so one statement takes all rows, as a
table made of an array for each column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.ledger import HoldState
from flujo.domain.run import IntentState, RunStatus
from flujo.governance.key_ring import NO_KEYS, KeyRing
from flujo.state.sql import encryption
from flujo.state.sql.encryption import all_encrypted, encrypting
from flujo.state.sql.functions import Array, among, database_now, driver_text, ids_parameter, lease_now
from flujo.state.sql.queries import QUESTIONS
from flujo.state.sql.tables import (
    acts,
    blob_refs,
    blobs,
    budget_holds,
    evaluations,
    intents,
    journal,
    outbox,
    pauses,
    prefix,
    runs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Rows = Sequence[dict[str, Any]]

Change = Callable[[sa.Connection, Rows], None]
"""Changes what the rows say; what a row has beside the parameters does not matter."""

_ELEMENTS = {
    sa.BigInteger: "bigint",
    sa.Boolean: "boolean",
    sa.Double: "float8",
    sa.Integer: "integer",
    sa.LargeBinary: "bytea",
}


def element(column_type: sa.types.TypeEngine[Any]) -> str:
    """Return what Postgres calls the type; everything else is sent as text."""
    return _ELEMENTS.get(type(column_type), "text")


def driver(connection: sa.Connection) -> Any:
    """Return a cursor of the driver's own."""
    return connection.connection.cursor()


class BoundColumns:
    """The values that a change is given, by name: for each row on SQLite, columns of a table on Postgres."""

    def __init__(self, types: Mapping[str, sa.types.TypeEngine[Any]], schema: str | None) -> None:
        self._schema = schema
        self.is_postgres = schema is not None
        self._elements = {name: element(kind) for name, kind in types.items()}
        self._columns: Any
        if self.is_postgres:
            arrays = [sa.cast(sa.bindparam(name), postgresql.ARRAY(kind)) for name, kind in types.items()]
            table = sa.func.unnest(*arrays).table_valued(*(sa.column(*each) for each in types.items()))
            self._columns = table.render_derived(name="given").c
        else:
            self._columns = {name: sa.bindparam(name, type_=kind) for name, kind in types.items()}

    def __getitem__(self, name: str) -> sa.ColumnElement[Any]:
        column: sa.ColumnElement[Any] = self._columns[name]
        return column

    def insert(self, into: Any, values: Mapping[str, sa.ColumnElement[Any]]) -> Any:
        """Return an INSERT of these values; `into` is a dialect's `insert(table)`."""
        if self.is_postgres:
            return into.from_select(list(values), sa.select(*values.values()))
        return into.values(**values)

    def change(self, statement: sa.Executable, *key: str) -> Change:
        """Return what executes a statement for rows; those with one `key` one after another.

        Without a key all rows are executed together.
        """
        text = driver_text(statement, self._schema)
        if not self.is_postgres:
            return for_each(text)

        def change(connection: sa.Connection, rows: Rows) -> None:
            for lot in _apart(rows, key) if key else (rows,):
                arrays = {
                    name: Array(element, [row[name] for row in lot])
                    for name, element in self._elements.items()
                }
                driver(connection).execute(text, arrays)

        return change


def for_each(text: str) -> Change:
    """Return what executes a statement of the driver's for each row."""

    def change(connection: sa.Connection, rows: Rows) -> None:
        driver(connection).executemany(text, rows)

    return change


def for_all(text: str, *shared: str) -> Change:
    """Return what executes a statement that says `among` for all rows; they agree about what is `shared`."""

    def change(connection: sa.Connection, rows: Rows) -> None:
        ids = ids_parameter(connection, [row["of_run"] for row in rows])
        driver(connection).execute(text, ids | {name: rows[0][name] for name in shared})

    return change


def _apart(rows: Rows, key: Sequence[str]) -> Iterator[Rows]:
    """Yield the rows in their order, in lots in which no key is twice: a statement sees a row only once."""
    lot: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        named = tuple(row[name] for name in key)
        if named in lot:
            yield list(lot.values())
            lot = {}
        lot[named] = row
    if lot:
        yield list(lot.values())


_run: sa.BindParameter[str] = sa.bindparam("of_run")
_transaction_id = sa.cast(sa.func.pg_current_xact_id(), sa.Text).label("transaction_id")


def _lock(*, postgres: bool) -> sa.Select[Any]:
    left = runs.c.lease_until - lease_now(runs.c.owner)
    names = ("run_id", "status", "fence", "owner", "answered", "wish", "wish_by", "seals", "queue")
    columns = [runs.c[name] for name in names]
    locked = sa.select(*columns, left).where(among(runs.c.run_id)).order_by(runs.c.run_id)
    # Strong enough against a claim, weak enough for the foreign keys of the entries.
    return locked.with_for_update(key_share=True) if postgres else locked


def _moment(*, postgres: bool) -> sa.Executable:
    return sa.select(database_now(), _transaction_id if postgres else sa.null())


_owners: sa.BindParameter[str] = sa.bindparam("owners", expanding=True)
neighbours = sa.select(runs.c.run_id, runs.c.owner, runs.c.taken_from).where(
    sa.or_(
        sa.and_(runs.c.status == sa.literal_column(f"'{RunStatus.RUNNING}'"), runs.c.owner.in_(_owners)),
        runs.c.taken_from.in_(_owners),
    )
)
"""The runs that dead owners executed: those that still carry the owner, and those that were taken from it."""
_last_seq = sa.select(sa.func.max(journal.c.seq)).where(journal.c.run_id == runs.c.run_id)
STANDING = sa.select(
    *runs.c, sa.null().label("lease_left_s"), _last_seq.scalar_subquery().label("last_seq")
).where(among(runs.c.run_id))
"""What a claim is judged by, and what its owner gets: the whole row, and how far the run is."""
_blob: dict[str, Any] = {name: sa.bindparam(name) for name in ("digest", "encoding", "size", "data")}
_known_later = (
    *("context_now", "output", "error", "usage", "lease_until", "recoveries", "answered"),
    *("suspicions", "taken_from"),
    *("wish", "wish_by", "wish_at", "watched_until"),
)


def _insert_runs(insert: Any, schema: str | None, *, again: bool = False) -> Change:
    """Return what inserts accepted runs; `metadata` is canonical JSON text there.

    With `again`, a run that is there already stays as it is.
    """
    columns = {column.name: column for column in runs.c if column.name not in _known_later}
    given = BoundColumns(
        {name: each.type for name, each in columns.items() if name != "metadata"}
        | {"metadata": sa.Text(), "lease_s": sa.Double()},
        schema,
    )
    values = {
        **{name: given[name] for name in columns},
        "metadata": sa.cast(given["metadata"], postgresql.JSONB()) if schema else given["metadata"],
        "lease_until": lease_now(given["owner"]) + given["lease_s"],
    }
    inserted = given.insert(insert(runs), values)
    return given.change(inserted.on_conflict_do_nothing() if again else inserted, "run_id")


ENTRY_COLUMNS = tuple(column.name for column in journal.c)
_columns = ", ".join(ENTRY_COLUMNS)
_marks = ", ".join("?" for _ in ENTRY_COLUMNS)


_ENTRY_ELEMENTS = tuple(element(column.type) for column in journal.c)


def _arrays(elements: Iterable[str]) -> str:
    """Return a table made of an array for each column: twice as fast as an INSERT for each row."""
    return f"unnest({', '.join(f'CAST(%s AS {each}[])' for each in elements)})"


def _insert_entries(schema: str | None) -> str:
    """Return the statement for entries whose runs are locked; on SQLite it is executed for each row."""
    if schema is None:
        return f"INSERT INTO journal ({_columns}) VALUES ({_marks})"  # noqa: S608 - constant names
    rows = _arrays(_ENTRY_ELEMENTS)
    return f"INSERT INTO {prefix(schema)}journal ({_columns}) SELECT * FROM {rows}"  # noqa: S608 - as above


def _append_entries(schema: str | None) -> str:
    """Return the statement that inserts entries where their fence holds, a transaction of its own.

    On Postgres the runs' rows are locked by the same statement, and the fences that are compared are those
    of the locked rows: a claim that is being committed is waited for. On SQLite a statement that writes has
    the whole file to itself from its first moment.
    """
    if schema is None:
        holds = "EXISTS (SELECT 1 FROM runs WHERE run_id = ? AND fence = ? AND owner = ?)"
        return f"INSERT INTO journal ({_columns}) SELECT {_marks} WHERE {holds}"
    rows = _arrays([*_ENTRY_ELEMENTS, "bigint"])
    mine = ", ".join(f"new.{name}" for name in ENTRY_COLUMNS)
    return f"""
        WITH held AS MATERIALIZED (
            SELECT run_id, fence FROM {prefix(schema)}runs
            WHERE run_id = ANY(CAST(%s AS text[])) AND owner = %s
            ORDER BY run_id FOR NO KEY UPDATE
        )
        INSERT INTO {prefix(schema)}journal ({_columns})
        SELECT {mine} FROM {rows} AS new({_columns}, fence)
        JOIN held ON held.run_id = new.run_id AND held.fence = new.fence"""  # noqa: S608 - constant names


def _append_entry(schema: str) -> str:
    """Return Postgres' statement for a single entry: arrays of one would cost it twice the time."""
    values = ", ".join(f"CAST(%s AS {each})" for each in _ENTRY_ELEMENTS)
    return f"""
        WITH held AS MATERIALIZED (
            SELECT fence FROM {prefix(schema)}runs WHERE run_id = %s AND owner = %s FOR NO KEY UPDATE
        )
        INSERT INTO {prefix(schema)}journal ({_columns}) SELECT {values} FROM held WHERE fence = %s"""  # noqa: S608


def _claim_runs(schema: str | None) -> Change:
    news = ("fence", "claims", "recoveries", "suspicions", "taken_from", "entries", "owner", "seals")
    given = BoundColumns(
        {"of_run": runs.c.run_id.type, "now": sa.Double(), "lease_s": sa.Double()}
        | {f"new_{name}": runs.c[name].type for name in news},
        schema,
    )
    claimed = runs.update().where(runs.c.run_id == given["of_run"])
    values = {
        **{name: given[f"new_{name}"] for name in news},
        "status": sa.literal_column(f"'{RunStatus.RUNNING}'"),
        "answered": sa.false(),
        "lease_until": lease_now(given["new_owner"]) + given["lease_s"],
        "output": sa.null(),
        "error": sa.null(),
        "updated_at": given["now"],
    }
    return given.change(claimed.values(values), "of_run")


def _move_runs(schema: str | None) -> Change:
    """Return what changes the state of runs; of some columns None means that they stay as they are."""
    news, kept = ("status", "output", "error", "seals"), ("context_now", "closure", "usage", "entries")
    given = BoundColumns(
        {"of_run": runs.c.run_id.type, "release": sa.Boolean()}
        | {f"new_{name}": runs.c[name].type for name in (*news, *kept)},
        schema,
    )
    values = {
        **{name: given[f"new_{name}"] for name in news},
        **{name: sa.func.coalesce(given[f"new_{name}"], runs.c[name]) for name in kept},
        **{
            name: sa.case((given["release"], sa.null()), else_=runs.c[name])
            for name in ("owner", "lease_until")
        },
        "updated_at": database_now(),
    }
    return given.change(runs.update().where(runs.c.run_id == given["of_run"]).values(values), "of_run")


_renew = (
    runs.update()
    .where(among(runs.c.run_id))
    .values(lease_until=lease_now(runs.c.owner) + sa.bindparam("lease_s", type_=sa.Double()))
)
_void_all = (
    pauses.update()
    .where(among(pauses.c.run_id), pauses.c.answered_at.is_(None), ~pauses.c.void)
    .values(void=sa.true())
)
_void = (
    pauses.update()
    .where(
        pauses.c.run_id == _run,
        pauses.c.pause_id == sa.bindparam("of_pause"),
        pauses.c.answered_at.is_(None),
    )
    .values(void=sa.true())
)
_note_answer = runs.update().where(among(runs.c.run_id)).values(answered=sa.true(), updated_at=database_now())

QUEUE_CHANNEL = "flujo_queue"
"""Where Postgres tells that a run has come into a queue; the payload is the schema."""
_channel: sa.ColumnElement[str] = sa.literal_column(f"'{QUEUE_CHANNEL}'")
SETTLED_CHANNEL = "flujo_settled"
"""Where Postgres tells that a wait of a run is settled; the payload is the schema, the owner and the run."""
_tell_settled = """\
SELECT pg_notify(%(channel)s, concat_ws(' ', CAST(%(schema)s AS text), CAST(%(owner)s AS text), id))
FROM unnest(CAST(%(ids)s AS text[])) AS id"""
_rest = (
    runs.update()
    .where(runs.c.run_id == _run)
    .values(
        available_at=database_now() + sa.bindparam("rest_s", type_=sa.Double()),
        tries=runs.c.tries + sa.literal_column("1"),
    )
)


def _settle_pauses(schema: str | None) -> Change:
    news = ("answer", "answered_at", "digest", "by")
    given = BoundColumns(
        {"of_run": runs.c.run_id.type, "of_pause": pauses.c.pause_id.type}
        | {f"new_{name}": pauses.c[name].type for name in news},
        schema,
    )
    which = (pauses.c.run_id == given["of_run"], pauses.c.pause_id == given["of_pause"])
    settled = pauses.update().where(*which).values({name: given[f"new_{name}"] for name in news})
    return given.change(settled, "of_run", "of_pause")


recorded = sa.select(
    journal.c.seq, journal.c.path, journal.c.kind, journal.c.attempt, journal.c.digest
).where(
    journal.c.run_id == _run,
    sa.or_(
        journal.c.seq.in_(sa.bindparam("seqs", expanding=True)),
        journal.c.path.in_(sa.bindparam("paths", expanding=True)),
    ),
)


def _keep_intents(insert: Any) -> sa.Executable:
    """Return the statement that records calls; a call that is sent again says when it was sent last."""
    given = ("run_id", "key", "path", "tool", "state", "fence", "request", "result", "digest")
    sent = insert(intents).values(sent_at=database_now(), **{name: sa.bindparam(name) for name in given})
    new = sent.excluded
    is_sent = new.state == sa.literal_column(f"'{IntentState.SENT}'")
    statement: sa.Executable = sent.on_conflict_do_update(
        index_elements=["run_id", "key"],
        set_={
            **{name: new[name] for name in ("state", "fence", "request", "result", "digest")},
            "sent_at": sa.case((is_sent, new.sent_at), else_=intents.c.sent_at),
            "settled_at": sa.case((is_sent, sa.null()), else_=new.sent_at),
        },
    )
    return statement


def _keep_holds(insert: Any) -> sa.Executable:
    """Return the statement that writes what is held back of a budget, or replaces what was."""
    news = ("state", "usage", "digest", "shares")
    state = sa.bindparam("state", type_=sa.Text())
    lasting = (HoldState.HELD, HoldState.TIMED, HoldState.LENT)
    lasts = sa.or_(*(state == sa.literal_column(f"'{each}'") for each in lasting))
    settled_at = sa.case((lasts, sa.null()), else_=database_now())
    held = insert(budget_holds).values(
        **{name: sa.bindparam(name) for name in ("run_id", "path", "number", *news)},
        created_at=database_now(),
        settled_at=settled_at,
    )
    statement: sa.Executable = held.on_conflict_do_update(
        index_elements=["run_id", "path", "number"],
        set_={name: held.excluded[name] for name in (*news, "settled_at")},
        # A launch that is written again must not lend again what its task has used meanwhile.
        where=budget_holds.c.state != sa.literal_column(f"'{HoldState.SPENT}'"),
    )
    return statement


IS_TIMED = sa.and_(
    budget_holds.c.state == sa.literal_column(f"'{HoldState.TIMED}'"), budget_holds.c.settled_at.is_(None)
)
"""Whether the time of a body still counts."""


def _end_times(schema: str | None) -> Change:
    """Return what ends the times of claims."""
    number = budget_holds.c.number
    given = BoundColumns(
        {"of_run": runs.c.run_id.type, "of_fence": number.type, "ended_at": sa.Double()}, schema
    )
    timed = budget_holds.update().where(
        budget_holds.c.run_id == given["of_run"], number == given["of_fence"], IS_TIMED
    )
    return given.change(timed.values(settled_at=given["ended_at"]), "of_run", "of_fence")


def _open_pauses(insert: Any, schema: str | None) -> Change:
    """Return the statement that opens questions; a void or overdue one is opened again."""
    kept = ("message", "answer_schema", "position", "digest", "kind", "event", "event_key")
    names = ("run_id", "pause_id", *kept)
    types = {name: pauses.c[name].type for name in (*names, "deadline_at")}
    given = BoundColumns(types | {"deadline_s": sa.Double()}, schema)
    opened = given.insert(
        insert(pauses),
        {
            **{name: given[name] for name in names},
            "asked_at": database_now(),
            "deadline_at": sa.func.coalesce(given["deadline_at"], database_now() + given["deadline_s"]),
            "void": sa.false(),
        },
    )
    news = (*kept, "deadline_at", "asked_at", "void")
    expired = sa.and_(pauses.c.answer.is_(None), pauses.c.answered_at.is_not(None))
    statement: sa.Executable = opened.on_conflict_do_update(
        index_elements=["run_id", "pause_id"],
        set_={"answered_at": sa.null(), "by": sa.null(), **{name: opened.excluded[name] for name in news}},
        where=sa.or_(pauses.c.void, expired),
    )
    return given.change(statement, "run_id", "pause_id")


_hold_blobs = (
    sa.select(blobs.c.digest)
    .where(among(blobs.c.digest))
    .order_by(blobs.c.digest)
    .with_for_update(read=True, key_share=True)
)


def _keep_refs(insert: Any, schema: str | None) -> Change:
    """Return what notes which runs name which blobs."""
    names = ("digest", "run_id")
    given = BoundColumns({name: blob_refs.c[name].type for name in names}, schema)
    named = given.insert(insert(blob_refs), {name: given[name] for name in names})
    return given.change(named.on_conflict_do_nothing(), *names)


def _insert_acts(schema: str | None) -> Change:
    names = ("run_id", "by", "via", "verb", "object", "before", "after", "digest")
    given = BoundColumns({name: acts.c[name].type for name in names}, schema)
    columns = {name: given[name] for name in names}
    return given.change(given.insert(sa.insert(acts).inline(), columns | {"at": database_now()}))


def _insert_messages(schema: str | None) -> Change:
    names = ("run_id", "target", "event", "payload", "digest")
    given = BoundColumns({name: outbox.c[name].type for name in names}, schema)
    columns = {name: given[name] for name in names}
    times = {"created_at": database_now(), "available_at": database_now(), "tries": sa.literal_column("0")}
    return given.change(given.insert(sa.insert(outbox).inline(), columns | times))


def _keep_evaluations(insert: Any, schema: str | None) -> Change:
    """Return what records scores; one with the key of an earlier one replaces it."""
    names = [column.name for column in evaluations.c if column.name not in ("id", "created_at")]
    given = BoundColumns({name: evaluations.c[name].type for name in names}, schema)
    columns = {name: given[name] for name in names}
    kept = given.insert(insert(evaluations), columns | {"created_at": database_now()})
    news = ("score", "reason", "error", "by", "version", "cost", "created_at")
    replaced = kept.on_conflict_do_update(
        index_elements=["key"], set_={name: kept.excluded[name] for name in news}
    )
    return given.change(replaced, "key")


_wish = (
    runs.update()
    .where(runs.c.run_id == _run, runs.c.wish.is_(None))
    .values(
        wish=sa.bindparam("new_wish"),
        wish_by=sa.bindparam("new_by"),
        wish_at=sa.bindparam("now", type_=sa.Double()),
        updated_at=sa.bindparam("now", type_=sa.Double()),
    )
)
_is_mine = runs.c.owner == sa.bindparam("me")
_wishes = sa.union_all(
    sa.select(runs.c.run_id, sa.literal_column("1")).where(_is_mine, runs.c.wish.is_not(None)),
    sa.select(runs.c.run_id, sa.literal_column("0")).where(
        _is_mine, runs.c.watched_until.is_not(None), runs.c.watched_until > database_now()
    ),
)
"""Two indexes, which are usually empty, in one statement."""

_row = itemgetter(*ENTRY_COLUMNS)


class Statements:
    """The statements of a batch, as text for the driver: a fraction of what a compiled statement costs.

    `statements_for` returns those of a kind of database.
    """

    def __init__(self, schema: str | None) -> None:
        def text(statement: sa.Executable) -> str:
            return driver_text(statement, schema)

        postgres = schema is not None
        insert = postgresql.insert if postgres else sqlite.insert
        self.is_postgres = postgres
        self._lock = text(_lock(postgres=postgres))
        self._moment = text(_moment(postgres=postgres))
        self._standing = text(STANDING)
        self._questions = text(QUESTIONS)
        self._insert_entries = _insert_entries(schema)
        self._append_entries = _append_entries(schema)
        self._append_one = _append_entry(schema) if schema else ""
        keep_blobs = insert(blobs).values(created_at=database_now(), **_blob).on_conflict_do_nothing()
        self.keep_blobs = encrypting(encryption.BLOBS, for_each(text(keep_blobs)))
        self._hold_blobs = text(_hold_blobs)
        self.keep_refs = _keep_refs(insert, schema)
        self.insert_acts = encrypting(encryption.ACTS, _insert_acts(schema))
        self.insert_messages = encrypting(encryption.OUTBOX, _insert_messages(schema))
        self.keep_evaluations = encrypting(encryption.EVALUATIONS, _keep_evaluations(insert, schema))
        self.wish = for_each(text(_wish))
        self._wishes = text(_wishes)
        self.insert_runs = encrypting(encryption.RUNS, _insert_runs(insert, schema))
        self.insert_children = encrypting(encryption.RUNS, _insert_runs(insert, schema, again=True))
        self.claim_runs = encrypting(encryption.RUNS, _claim_runs(schema), "of_run")
        self.move_runs = encrypting(encryption.RUNS, _move_runs(schema), "of_run")
        self.renew_leases = for_all(text(_renew), "lease_s")
        self.keep_intents = encrypting(encryption.INTENTS, for_each(text(_keep_intents(insert))))
        self.keep_holds = for_each(text(_keep_holds(insert)))
        self.end_times = _end_times(schema)
        self.open_pauses = encrypting(encryption.PAUSES, _open_pauses(insert, schema))
        self.settle_pauses = encrypting(encryption.PAUSES, _settle_pauses(schema), "of_run", "of_pause")
        self.note_answers = for_all(text(_note_answer))
        self.rest_runs = for_each(text(_rest))
        self._schema = schema
        self._notify = text(sa.select(sa.func.pg_notify(_channel, sa.bindparam("schema"))))
        self.void_pauses = for_each(text(_void))
        self.void_all_pauses = for_all(text(_void_all))

    # Each of these returns a cursor: in a pipeline nothing is fetched before all is sent.

    def lock(self, connection: sa.Connection, ids: Sequence[str]) -> Any:
        """Lock the runs that are there, and return their facts in the order of `_Locked`."""
        return driver(connection).execute(self._lock, ids_parameter(connection, ids))

    def notify(self, connection: sa.Connection) -> None:
        """Tell idle workers, once the transaction is committed, that a run has come into a queue."""
        if self.is_postgres:
            driver(connection).execute(self._notify, {"schema": self._schema})

    def tell_settled(self, connection: sa.Connection, owner: str, run_ids: Sequence[str]) -> None:
        """Tell other processes, once the transaction is committed, that waits of these runs are settled."""
        if self.is_postgres:
            given = {"channel": SETTLED_CHANNEL, "schema": self._schema, "owner": owner}
            driver(connection).execute(_tell_settled, given | ids_parameter(connection, run_ids))

    def hold_blobs(self, connection: sa.Connection, digests: Sequence[str]) -> Any:
        """Query the blobs that are there; no purge deletes them before the transaction ends.

        For Postgres: any number of transactions hold a blob at once. On SQLite one has the whole file.
        """
        return driver(connection).execute(self._hold_blobs, ids_parameter(connection, digests))

    def moment(self, connection: sa.Connection) -> Any:
        """Ask for the database's time, and on Postgres for the transaction's id."""
        return driver(connection).execute(self._moment)

    def standing(self, connection: sa.Connection, ids: Sequence[str]) -> Any:
        """Ask for the whole rows of runs, with the number of their newest entry (`last_seq`)."""
        return driver(connection).execute(self._standing, ids_parameter(connection, ids))

    def questions(self, connection: sa.Connection, ids: Sequence[str]) -> Any:
        """Query the questions of runs, in the order in which they were opened."""
        return driver(connection).execute(self._questions, ids_parameter(connection, ids))

    def wishes(self, connection: sa.Connection, owner: str) -> tuple[list[str], list[str]]:
        """Return the runs of an owner for which there is a wish, and those that are watched."""
        with _autocommit(connection) if self.is_postgres else nullcontext():
            found = list(driver(connection).execute(self._wishes, {"me": owner}))
        return [run_id for run_id, is_wish in found if is_wish], [
            run_id for run_id, is_wish in found if not is_wish
        ]

    def insert_entries(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
        """Insert a batch of entries."""
        values = [_row(row) for row in _stored(connection, rows)]
        if self.is_postgres:
            driver(connection).execute(self._insert_entries, _columnwise(values, _ENTRY_ELEMENTS))
        else:
            driver(connection).executemany(self._insert_entries, values)

    def append_entries(
        self, connection: sa.Connection, owner: str, rows: Sequence[tuple[int, dict[str, Any]]]
    ) -> bool:
        """Insert entries, each with the fence under which it was made, and commit.

        Returns:
            Whether every fence held. If not, on Postgres the entries of the runs whose fence did hold are
            committed, and on SQLite none.
        """
        stored = _stored(connection, [row for _, row in rows])
        rows = [(fence, row) for (fence, _), row in zip(rows, stored, strict=True)]
        if self.is_postgres:
            server: Any = connection.connection.dbapi_connection
            cursor = server.kept_cursor
            with _autocommit(connection):
                if len(rows) == 1:
                    [(fence, row)] = rows
                    cursor.execute(self._append_one, (row["run_id"], owner, *_row(row), fence), binary=True)
                else:
                    ids = sorted({row["run_id"] for _, row in rows})
                    elements = (*_ENTRY_ELEMENTS, "bigint")
                    values = _columnwise([(*_row(row), fence) for fence, row in rows], elements)
                    cursor.execute(self._append_entries, (Array("text", ids), owner, *values))
            return bool(cursor.rowcount == len(rows))
        cursor = driver(connection)
        guarded = [(*_row(row), row["run_id"], fence, owner) for fence, row in rows]
        if len(guarded) == 1:
            return bool(cursor.execute(self._append_entries, guarded[0]).rowcount == 1)
        cursor.execute("BEGIN IMMEDIATE")
        done = cursor.executemany(self._append_entries, guarded).rowcount == len(guarded)
        cursor.execute("COMMIT" if done else "ROLLBACK")
        return bool(done)


def _stored(connection: sa.Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of entries as they are stored."""
    keys: KeyRing = connection.get_execution_options().get(encryption.KEYS, NO_KEYS)
    return rows if keys.writer is None else all_encrypted(connection, encryption.JOURNAL, rows)


def _columnwise(rows: Iterable[tuple[Any, ...]], elements: Iterable[str]) -> list[Array]:
    columns = zip(*rows, strict=True)
    return [Array(element, column) for element, column in zip(elements, columns, strict=True)]


@contextmanager
def _autocommit(connection: sa.Connection) -> Iterator[None]:
    """Let each statement be a transaction of its own for a while: a round trip instead of three."""
    driver: Any = connection.connection.dbapi_connection
    driver.autocommit = True
    try:
        yield
    finally:
        if not driver.closed:
            driver.autocommit = False


@cache
def statements_for(schema: str | None) -> Statements:
    """Return the statements for tables in a Postgres schema (None: in SQLite), one object for all stores."""
    return Statements(schema)
