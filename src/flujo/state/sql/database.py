"""One database by its URL: connections, transactions, and the driver's errors as errors of Flujo."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy import event, exc

from flujo.domain import canonical
from flujo.domain.forks import renew_in_children
from flujo.domain.process_counts import COUNTS
from flujo.exceptions import CorruptState, SettingsError, StateBackendUnavailable, StateError
from flujo.governance.key_ring import NO_KEYS, KeyRing
from flujo.governance.redactor import encoded_userinfo
from flujo.state import owner_tokens
from flujo.state.sql import errors, forks
from flujo.state.sql.encryption import KEYS
from flujo.state.sql.functions import LEASE_CLOCK, Array, julian_day
from flujo.state.sql.retry import ANSWER_S
from flujo.state.sql.tables import SCHEMA, prefix, translation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BUSY_S = 5.0
"""How long SQLite waits for another process's commit before it reports an error."""

MOMENT_S = 0.05
"""How long a server may be silent while an event loop waits for it."""

IDLE_S = 10.0
"""How long a transaction on Postgres may wait for the process that began it."""

LOG_PAGES = 256
"""How long SQLite's log becomes, in pages of 4 kB, before the next commits begin it anew.

A commit that makes the file longer waits up to twice as long for its sync as one that overwrites it. The last
commit before the new beginning copies the log into the database: a megabyte in a few milliseconds.
"""

Synchronous = Literal["FULL", "NORMAL"]

INDEXED_METADATA = "flujo_indexed_metadata"
"""The execution option of a SQLite connection that names the indexed keys."""


def parse(uri: str) -> sa.URL:
    """Return the URL of a state database, a SQLite path made absolute.

    Raises:
        SettingsError: it is not a URL, or its database is not supported.
    """
    try:
        url = sa.make_url(encoded_userinfo(uri))
    except (exc.ArgumentError, ValueError) as error:
        raise _unusable("`state_uri` is not a URL") from error
    match url.drivername:
        case "sqlite":
            return _sqlite(url)
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise _unusable(f"`state_uri` names {other!r}, which Flujo cannot keep runs in")


def is_postgres(uri: str) -> bool:
    """Return whether a URI is one of Postgres.

    Raises:
        SettingsError: it is not a URL, or its database is not supported.
    """
    return parse(uri).get_backend_name() == "postgresql"


def _sqlite(url: sa.URL) -> sa.URL:
    if url.host or not url.database or url.database == ":memory:" or url.query:
        raise _unusable(f"`state_uri` {url.render_as_string()!r} names no file")
    return url.set(database=str(Path(url.database).expanduser().absolute()))


def _unusable(message: str) -> SettingsError:
    # The URL itself is not repeated: it may hold a password in a place where none is expected.
    return SettingsError(
        message,
        hint="write `sqlite:///.flujo/state.db` (three slashes, then a path) "
        "or `postgresql://USER:${PASSWORD}@HOST:5432/DATABASE`",
    )


class Use:
    """Counts the threads that work with connections, and lets a fork wait until none does.

    Such work is done inside `with use:`; while the process forks, new work waits.
    """

    # Not a generator: each commit enters it.

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._depths: dict[int, int] = {}
        """How often each thread has begun."""
        self._forks = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._lock:
            while self._forks and me not in self._depths:
                self._changed.wait()
            self._depths[me] = self._depths.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._lock:
            self._depths[me] -= 1
            if not self._depths[me]:
                del self._depths[me]
                if self._forks:  # else nothing waits
                    self._changed.notify_all()

    @property
    def is_paused(self) -> bool:
        """Whether a new use waits."""
        return bool(self._forks)

    def pause(self, limit_s: float) -> bool:
        """Begin no more uses, wait for those of other threads to end, and return whether all have."""
        me = threading.get_ident()
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._depths.keys() - {me}, limit_s)
            return not self._depths

    def resume(self) -> None:
        """Begin uses again, once no thread forks any more."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


class _Translating(AbstractContextManager[None]):
    """Raises another error in place of those that it translates."""

    # Not a generator: each commit enters it.

    def __init__(self, translation: Callable[[BaseException], StateError | None]) -> None:
        self._translation = translation

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        translated = None if error is None else self._translation(error)
        if translated is not None:
            raise translated from error


class Database:
    """Connections to one database.

    Args:
        uri: `sqlite:///path` or `postgresql://…`.
        schema: the Postgres schema of the tables; SQLite has none.
        connections: how many stay open, and how many there may be at once.
        synchronous: SQLite's own word; NORMAL may lose the last commits in a power cut.
        idle_s: how long Postgres waits for us inside a transaction before it ends it: a process that is
            frozen there holds the locks of its runs no longer than that.
        answer_s: how long Postgres may be silent before its connection is closed; None for no limit.
        indexed_metadata: keys of the metadata of runs that have an index in a SQLite file.
        keys: the keys that encrypt and decrypt values.
        now: the time of day, in seconds since the epoch, instead of that of SQLite; for tests.
    """

    def __init__(
        self,
        uri: str,
        *,
        schema: str = SCHEMA,
        connections: tuple[int, int] = (2, 5),
        synchronous: Synchronous = "FULL",
        idle_s: float = IDLE_S,
        answer_s: float | None = ANSWER_S,
        indexed_metadata: Sequence[str] = (),
        keys: KeyRing = NO_KEYS,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.keys = keys
        self.url = parse(uri)
        self.is_postgres = is_postgres(uri)
        self.indexed_metadata = () if self.is_postgres else tuple(indexed_metadata)
        self.schema = schema if self.is_postgres else None
        self.table_prefix = prefix(self.schema)
        self._path = str(self.url.database)
        self.shown = _shown(self.url)
        pool = {"pool_size": connections[0], "max_overflow": connections[1] - connections[0]}
        if self.is_postgres and now is not None:
            raise SettingsError(
                "a server's clock decides on Postgres", hint="use SQLite or a store in memory"
            )
        if self.is_postgres:
            self._make_engine = partial(_postgres_engine, self.url, schema, pool, idle_s, answer_s)
        else:
            self._make_engine = partial(
                _sqlite_engine, self.url, pool, synchronous, self.indexed_metadata, now
            )
        self._answer_s = answer_s
        self._disposed = False
        self.is_crowded = False
        """Whether the server has refused a connection because there are too many."""
        self._begin()
        self._driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        self._errors = _Translating(self._translation)
        forks.databases.add(self)
        COUNTS.pools.add(self)
        renew_in_children(self, type(self)._renew)

    def _begin(self) -> None:
        self.generation = object()
        """Changes when connections were closed for a fork."""
        self.use = Use()
        self.engine = self._make_engine().execution_options(**{KEYS: self.keys})
        self._pool = self.engine.pool
        self._driver_connections = forks.opened_by(self.engine)

    def in_use(self) -> int:
        """Return how many connections are in use now."""
        return int(self._pool.checkedout()) if isinstance(self._pool, sa.QueuePool) else 0

    def before_fork(self) -> None:
        """Leave no connection to a SQLite file open, for no later than a busy file is waited for.

        SQLite counts its locks on a file by process: a child with an open connection to it would believe
        that it holds the locks of its parent.
        """
        if not self.is_postgres and self.use.pause(2 * BUSY_S):
            for connection in list(self._driver_connections):
                connection.close()
            self._driver_connections.clear()
            self.generation = object()
            self.engine.dispose()
            self._pool = self.engine.pool

    def after_fork(self) -> None:
        """Continue in the parent process."""
        if not self.is_postgres:
            self.use.resume()

    def _renew(self) -> None:
        """Open connections of its own in a forked child, and leave those of the parent alone."""
        forks.keep_apart(self._driver_connections)
        forks.inherited.append(self.engine)  # collecting it would close the parent's connections
        self._begin()

    def connect(self) -> sa.Connection:
        """Open a connection; the caller closes it.

        Raises:
            StateBackendUnavailable: the database does not answer.
        """
        with self.errors():
            return self.engine.connect()

    @contextmanager
    def reading(self, *, moment: bool = False) -> Iterator[sa.Connection]:
        """Lend a connection; with `moment` everything that is read on it is one moment of the database."""
        with self._lent() as connection:
            if self.is_postgres:
                level = "REPEATABLE READ" if moment else "AUTOCOMMIT"
                connection = connection.execution_options(isolation_level=level)
            elif moment:
                connection.begin()
            try:
                yield connection
            except self._driver_error:
                connection.invalidate()  # SQLAlchemy has not seen it, and would lend a dead one again
                raise

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Lend a connection inside one write transaction."""
        with self._lent() as connection, begin_write(connection):
            yield connection

    @contextmanager
    def _lent(self) -> Iterator[sa.Connection]:
        try:
            with self.use, self.errors(), self.engine.connect() as connection:
                yield connection
        finally:
            if self._disposed:  # while it was lent, so `dispose` could not close it
                self._pool.dispose()
                self.engine.dispose()

    def pipelined(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """Send statements to Postgres together; see `postgres_connection`."""
        driver: Any = connection.connection.dbapi_connection
        together: AbstractContextManager[object] = driver.pipelined() if self.is_postgres else nullcontext()
        return together

    def errors(self) -> AbstractContextManager[None]:
        """Translate the driver's errors into Flujo's."""
        return self._errors

    def _translation(self, error: BaseException) -> StateError | None:
        """Return Flujo's error for one of the driver; None when it is none."""
        if isinstance(error, exc.DBAPIError):
            return self._translated(error.orig, lost=error.connection_invalidated)
        if isinstance(error, self._driver_error):
            return self._translated(error, lost=False)
        if isinstance(error, UnicodeDecodeError) and not self.is_postgres:
            # The driver reads SQLite's own message about a damaged schema, which quotes the schema.
            return errors.damaged(self.shown, "its schema is not UTF-8")
        if isinstance(error, exc.TimeoutError):
            return StateBackendUnavailable(
                f"no connection to {self.shown} became free in time", hint="raise `postgres_pool_max`"
            )
        return None

    def _translated(self, error: BaseException | None, *, lost: bool) -> StateError:
        reason = self._without_password(str(error).strip().partition("\n")[0])
        if self.is_postgres:
            self.is_crowded |= errors.takes_no_more(error, reason)
            return errors.of_postgres(self.shown, error, reason, lost=lost)
        return errors.of_sqlite(self.shown, error, reason)

    def set_patience(self, connection: sa.Connection, *, patient: bool) -> None:
        """Let a connection wait for other processes as long as usual, or, in an event loop, hardly at all.

        Without patience SQLite reports a file that is busy at once, and a Postgres that is silent for a
        moment loses the connection.
        """
        driver: Any = connection.connection.dbapi_connection
        if self.is_postgres:
            driver.answer_s = self._answer_s if patient else MOMENT_S
        else:
            driver.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000) if patient else 0}")

    def file_id(self) -> tuple[int, int] | None:
        """Return which file is at the path now; None when there is none, and for Postgres.

        Raises:
            StateBackendUnavailable: the path cannot be looked at.
        """
        if self.is_postgres:
            return None
        try:
            found = os.stat(self._path)  # noqa: PTH116 - before each commit, and making a Path takes longer
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StateBackendUnavailable(
                f"the database {self.shown} cannot be reached: {error.strerror}",
                hint="check that its disk or network share is mounted, and the permissions of its folder",
            ) from error
        return found.st_dev, found.st_ino

    def dispose(self) -> None:
        """Close every connection; one that is in use is closed when it is returned."""
        self._disposed = True
        self.engine.dispose()

    def _without_password(self, text: str) -> str:
        password = self.url.password
        return text.replace(str(password), "***") if password else text


def begin_write(connection: sa.Connection) -> sa.RootTransaction:
    """Begin a transaction that has the right to write from its first moment."""
    # SQLite would otherwise begin as a reader and fail when it wants to become the writer.
    if not connection.get_execution_options().get("flujo_writes"):
        connection.execution_options(flujo_writes=True)
    return connection.begin()


def _shown(url: sa.URL) -> str:
    """Return the URL as people may see it: no password, and of the query only the place."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    where = {name: value for name, value in url.query.items() if name in ("host", "port")}
    return url.set(drivername="postgresql", query=where).render_as_string(hide_password=True)


def _dump(value: Any) -> str:
    return canonical.encode(value, what="metadata").decode()


def _load(stored: bytes) -> Any:
    try:
        return canonical.decode(stored)
    except ValueError as error:
        raise CorruptState(
            f"the metadata of a run is corrupt: {error}", hint="`flujo doctor` names the run"
        ) from error


# Postgres ------------------------------------------------------------------------------------------------


def _postgres_engine(
    url: sa.URL, schema: str, pool: dict[str, int], idle_s: float, answer_s: float | None
) -> sa.Engine:
    # Imported here: psycopg is slow to import, and a project on SQLite does not need it.
    from flujo.state.sql import postgres_connection
    from flujo.state.sql.postgres_arrays import ArrayDumper

    engine = sa.create_engine(
        url,
        **pool,
        pool_timeout=30,
        json_serializer=_dump,
        json_deserializer=_load,
        connect_args={
            "connect_timeout": 10,
            "application_name": "flujo",
            "keepalives_idle": 30,
            "keepalives_interval": 10,  # the default of 75 s is too long when the server's machine is gone
            "tcp_user_timeout": 30_000,  # a network that swallows packets is an error after 30 s
            **url.query,
        },
    )

    idle_ms = str(int(idle_s * 1000))

    @event.listens_for(engine, "do_connect")
    def connect(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        connection = postgres_connection.Connection.connect(*arguments, **options)
        connection.answer_s = answer_s
        return connection

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        # A pooler in transaction mode gives each transaction another server, where nothing that was
        # prepared before is known. It shows: the server that answers is not the one that we connected to.
        connection.autocommit = True
        [(is_ours, _)] = connection.execute(_GREETING, (connection.info.backend_pid, idle_ms)).fetchall()
        connection.autocommit = False
        connection.adapters.register_dumper(Array, ArrayDumper)
        if not is_ours:
            connection.prepare_threshold = None

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        if driver.prepare_threshold is None and not driver.autocommit:  # the next one is on another server
            driver.execute(f"SET LOCAL idle_in_transaction_session_timeout = {idle_ms}")

    return engine.execution_options(schema_translate_map=translation(schema))


_GREETING = """
    WITH answering AS MATERIALIZED (SELECT pg_backend_pid() = %s AS is_ours)
    SELECT is_ours, CASE WHEN is_ours THEN set_config('idle_in_transaction_session_timeout', %s, false)
        || set_config('enable_seqscan', 'off', false) || set_config('jit', 'off', false) END
    FROM answering"""
"""Finds out whether the session is ours alone; only then something may be set for all of it.

Every statement has an index. But Postgres keeps the plan of a prepared statement until the table is analysed,
so in a new database it would read whole tables for the first minutes, however long they have become.
"""


# SQLite --------------------------------------------------------------------------------------------------


def _sqlite_engine(
    url: sa.URL,
    pool: dict[str, int],
    synchronous: Synchronous,
    indexed_metadata: Sequence[str],
    now: Callable[[], float] | None,
) -> sa.Engine:
    engine = sa.create_engine(
        url,
        json_serializer=_dump,
        json_deserializer=_load,
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
        **pool,
    )

    @event.listens_for(engine, "do_connect")
    def prepare(*_: Any) -> None:
        _create_file(Path(str(url.database)))

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.create_function(LEASE_CLOCK, 1, owner_tokens.lease_clock)
        if now is not None:  # a function of the connection comes before SQLite's own of the same name
            connection.create_function("julianday", 1, partial(_julian_day_now, now))
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        _use_wal(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("flujo_writes", False)
        driver: Any = connection.connection.dbapi_connection  # direct: this is in every commit
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine.execution_options(**{INDEXED_METADATA: indexed_metadata})


def _julian_day_now(now: Callable[[], float], _: object) -> float:
    return julian_day(now())


def _create_file(path: Path) -> None:
    """Make the file and its folder readable only by their owner, because runs contain user data."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
    except OSError as error:
        raise StateBackendUnavailable(
            f"the database {path} cannot be opened: {error.strerror}",
            hint="make its folder writable, or set `state_uri` (FLUJO_STATE_URI)",
        ) from error


def _use_wal(connection: sqlite3.Connection) -> None:
    # Two processes that switch a new file at once get "locked" at once: SQLite does not wait here.
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if errors.primary_code(error) not in errors.BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
