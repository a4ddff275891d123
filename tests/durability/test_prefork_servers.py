"""Gunicorn and Celery fork a process that has used a runner: every child's calls are right, and none hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import warm
from durability.prefork_gunicorn import LEAVING, READY, workers
from flujo import TaskClient

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS, PER_WORKER = 40, 10
TASKS, PER_CHILD = 20, 6
LIMIT_S = 90
WORKERS = {
    "sync": ["durability.prefork_service:wsgi", "--max-requests", str(PER_WORKER)],
    "threads": ["durability.prefork_service:wsgi", "--threads", "4"],
    "uvicorn": ["durability.prefork_service:asgi", "--worker-class", "uvicorn_worker.UvicornWorker"],
}


def on_databases(first: str, *kinds: str) -> list[tuple[str, str]]:
    """Return databases and kinds of servers: each pair in `make soak`, otherwise one database in turn for each kind."""
    databases = sorted(["sqlite", "postgres"], key=lambda name: name != first)
    if "FLUJO_KILLS" in os.environ:
        return [*product(databases, kinds)]
    return [*zip(cycle(databases), kinds, strict=False)]


@contextmanager
def serving(*command: str, errors: Path) -> Iterator[warm.Popen]:
    """Start a server that forks; at the end, kill it and its children. A failure shows what the server has written."""
    with (
        errors.open("wb") as stderr,
        warm.Popen(
            [sys.executable, "-m", *command], stdout=stderr, stderr=stderr, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        except BaseException as error:
            error.add_note(errors.read_text("utf-8"))
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def folder(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a path that is short enough for a Unix socket, in the environment of a deployed service."""
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    with tempfile.TemporaryDirectory(prefix="flujo-") as made:
        monkeypatch.setenv("FLUJO_TEST_BROKER", made)
        yield Path(made)


def wait_until_it_listens(path: Path, server: warm.Popen) -> None:
    """Wait for the socket of a server that is starting."""
    with socket.socket(socket.AF_UNIX) as connection:
        while connection.connect_ex(str(path)):
            assert server.poll() is None
            time.sleep(0.05)


def wait_for_every_worker(log: Path, server: warm.Popen) -> None:
    """Wait for the workers that replace those at their limit, because gunicorn cannot stop one that is starting."""
    while (written := log.read_text("utf-8")).count(READY) - written.count(LEAVING) < workers:
        assert server.poll() is None
        time.sleep(0.05)


def outputs_of(runs: list[str]) -> list[Any]:
    """Return what the database has for each run."""

    async def read() -> list[Any]:
        async with TaskClient() as client:
            details = await asyncio.gather(*(client.get_task(run) for run in runs))
        assert {each.task.status for each in details} == {"completed"}
        return [each.output for each in details]

    return asyncio.run(read())


@pytest.mark.guarantee("G4", "G15", "G26")
@pytest.mark.parametrize(("store_uri", "kind"), on_databases("postgres", *WORKERS), indirect=["store_uri"])
def test_workers_of_gunicorn_use_the_runner_of_the_preloaded_application(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    worker = WORKERS[kind]
    path, errors = folder / "socket", tmp_path / "errors"
    options = ["--config", "python:durability.prefork_gunicorn", "--bind", f"unix:{path}"]
    with (
        httpx.Client(
            base_url="http://service",
            transport=httpx.HTTPTransport(uds=str(path), limits=httpx.Limits(max_keepalive_connections=0)),
            timeout=LIMIT_S,
        ) as http,
        ThreadPoolExecutor(8) as pool,
        serving("gunicorn", *worker, *options, errors=errors) as server,
    ):
        wait_until_it_listens(path, server)
        replies = list(pool.map(lambda number: http.get(f"/{number}"), range(REQUESTS)))
        wait_for_every_worker(errors, server)
        server.terminate()
        server.wait(LIMIT_S)
    written = errors.read_text("utf-8")
    assert [reply.status_code for reply in replies] == [200] * REQUESTS, written
    outputs, processes = zip(*(reply.json() for reply in replies), strict=True)
    assert list(outputs) == [(number + 1) * 2 for number in range(REQUESTS)]
    assert outputs_of([f"request-{number}" for number in range(REQUESTS)]) == list(outputs)
    assert server.pid not in processes
    if "--max-requests" in worker:
        assert len(set(processes)) >= REQUESTS / PER_WORKER  # the master has forked again and again
    assert server.returncode == 0, written
    assert "Traceback" not in written
    assert "ERROR" not in written


@pytest.mark.guarantee("G4", "G15", "G26")
@pytest.mark.parametrize("store_uri", [uri for uri, _ in on_databases("sqlite", "celery")], indirect=True)
def test_tasks_of_celery_use_the_runner_of_the_worker_that_forked_their_process(
    folder: Path, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    pool = ["--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", str(PER_CHILD)]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = ["celery", "-A", "durability.prefork_tasks", "worker", *pool, *quick]
    with serving(*command, errors=errors) as server:
        sender = [sys.executable, "-m", "durability.prefork_tasks", str(TASKS)]
        sent = warm.run(sender, capture_output=True, timeout=LIMIT_S)
        server.terminate()
        server.wait(LIMIT_S)
    written = errors.read_text("utf-8")
    assert sent.returncode == 0, sent.stderr + written
    outputs, processes = zip(*json.loads(sent.stdout), strict=True)
    assert list(outputs) == [(number + 1) * 2 for number in range(TASKS)]
    assert outputs_of([f"task-{number}" for number in range(TASKS)]) == list(outputs)
    assert server.pid not in processes
    assert len(set(processes)) >= TASKS / PER_CHILD
    assert server.returncode == 0, written
    assert "Traceback" not in written
