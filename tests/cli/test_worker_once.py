"""`flujo worker --once`: resumed, skipped and waiting runs are counted apart."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from flujo.services.runs.run_request import pinned_by_name
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = str(request.getfixturevalue(f"{request.param}_uri"))
    monkeypatch.setenv("FLUJO_STATE_URI", uri)
    return uri


def test_a_worker_without_work_has_nothing_to_report(flujo: Flujo, database: str) -> None:
    result = flujo("worker", "--once", "--json")
    assert (result.exit_code, result.stderr) == (0, "executed 0 runs; no pending runs left\n")
    assert json.loads(result.stdout) == {"event": "summary", "resumed": 0, "skipped": [], "waiting": {}}


def test_a_worker_reports_runs_that_wait_for_a_human(flujo: Flujo, project: Project, database: str) -> None:
    flujo("run", "ask", "--run-id", "p1")
    flujo("run", "ask", "--run-id", "p2")
    flujo("tasks", "resume", "p2", "-f", "ok=true", "--detach")
    with project.start("run", "slow", "--run-id", "i1") as running:
        while not (project.root / "waiting").exists():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        running.wait(60)
    result = flujo("worker", "--once", "--json")
    assert result.exit_code == 0
    assert "executed 1 run; still waiting for a human: 1 paused, 1 interrupted\n" in result.stderr
    assert "no pending runs" not in result.stderr
    assert result.stderr.endswith("next: flujo tasks list --status paused\n")
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["resumed"], summary["waiting"]) == (1, {"paused": 1, "interrupted": 1})


LATER = """\
version: "1"
name: later
steps:
  - kind: event
    name: paid
output: done
"""


def test_a_worker_reports_runs_that_wait_for_no_human(flujo: Flujo, project: Project, database: str) -> None:
    project.blueprint("later", LATER)
    assert flujo("run", "later", "--run-id", "w1").exit_code == 5
    result = flujo("worker", "--once", "--json")
    expected = (
        "executed 0 runs; waiting for a time, an event or a task: 1 run\n"
        "next: flujo tasks list --status waiting\n"
    )
    assert (result.exit_code, result.stderr) == (0, expected)
    assert json.loads(result.stdout)["waiting"] == {"waiting": 1}
    flujo("run", "ask", "--run-id", "p1")
    result = flujo("worker", "--once")
    assert (
        "still waiting for a human: 1 paused; waiting for a time, an event or a task: 1 run" in result.stderr
    )


async def accept_elsewhere(uri: str, *names: str) -> None:
    """Accept runs of a Python pipeline that no module of the project registers."""
    closure, blobs = pinned_by_name("elsewhere")
    async with aclosing(await SqlStateStore.open(uri)) as store:
        for name in names:
            await store.accept(new_run(name, pipeline="elsewhere", closure=closure), blobs, claim=False)


def test_a_worker_reports_each_run_that_it_skips_with_the_reason(
    flujo: Flujo, project: Project, database: str
) -> None:
    flujo("run", "ask", "--run-id", "p1")
    flujo("tasks", "resume", "p1", "-f", "ok=true", "--detach")
    asyncio.run(accept_elsewhere(database, "e1", "e2"))
    result = flujo("worker", "--once", "--json")
    assert result.exit_code == 1
    assert "executed 1 run; skipped 2 runs\n" in result.stderr
    reason = "Python pipeline 'elsewhere' is not registered in this process [FLJ500]"
    assert f"  2 runs of elsewhere: {reason}\n" in result.stderr
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["skipped"] == [
        {"run_id": name, "pipeline": "elsewhere", "detail": reason} for name in ("e1", "e2")
    ]
    assert summary["waiting"] == {}


SPREAD = """\
version: "1"
name: spread
steps:
  - kind: map
    name: each
    over: "['a', 'b', 'c', 'd']"
    max_concurrency: 2
    config: {executor: queue, queue: heavy, batch_size: 1}
    steps:
      - {name: note, call: "skills.work:note", with: {text: "{{ item }}"}}
"""


def test_a_worker_of_one_queue_continues_the_runs_whose_batches_it_has_executed(
    flujo: Flujo, project: Project, database: str
) -> None:
    with (project.root / "flujo.toml").open("a") as settings:
        settings.write("\n[queues.heavy]\n")
    project.blueprint("spread", SPREAD)
    assert flujo("run", "spread", "--run-id", "r").exit_code == 5
    flujo("run", "spread", "--run-id", "in-a-queue", "--detach")
    assert "executed 1 run;" in flujo("worker", "--once").stderr, "it launches the batches"
    result = flujo("worker", "--once", "--queue", "heavy")
    # The first run has four batches, and is continued after each two; the other one belongs to another queue.
    assert "executed 8 runs; waiting for a time, an event or a task: 1 run" in result.stderr
    assert sorted(project.notes()) == ["a", "a", "b", "b", "c", "d"]
    left = json.loads(flujo("tasks", "list", "--json=run_id,status").stdout)
    assert {each["run_id"]: each["status"] for each in left} == {"r": "completed", "in-a-queue": "waiting"}
    shown = flujo("tasks", "show", "in-a-queue").stdout
    assert re.search(r"tasks: +b-\w+ completed, b-\w+ completed\n", shown), "its own queue continues it"
    assert flujo("worker", "--once").exit_code == 0
    assert flujo("worker", "--once", "--queue", "heavy").exit_code == 0
    flujo("worker", "--once")
    assert flujo("run", "spread", "--run-id", "in-a-queue", "--if-exists", "return").exit_code == 0
