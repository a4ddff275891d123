"""Queues on the command line: runs that are put into one, workers, and what is shown of both."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Flujo, Project


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, project: Project) -> str:
    uri = str(request.getfixturevalue(f"{request.param}_uri"))
    monkeypatch.setenv("FLUJO_STATE_URI", uri)
    settings = project.root / "flujo.toml"
    settings.write_text(
        settings.read_text("utf-8") + '\n[queues.mail]\nconcurrency = 1\nrate = "100/s"\n', "utf-8"
    )
    (project.root / "there.txt").write_text("there", "utf-8")
    return uri


def put(flujo: Flujo, run_id: str, *words: str) -> Any:
    return flujo("run", "flaky", "--input", run_id, "--run-id", run_id, "--detach", *words)


def listed(flujo: Flujo, command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(flujo(command, "--json").stdout)
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_detached_run_is_executed_by_a_worker_of_its_queue(
    flujo: Flujo, project: Project, database: str
) -> None:
    result = put(flujo, "r1", "--queue", "mail")
    assert (result.exit_code, result.stdout) == (0, "r1\n")
    assert "no worker of queue `mail` is alive; `flujo worker --queue mail` starts one" in result.stderr
    assert "next: flujo tasks show r1" in result.stderr
    assert "executed 0 runs" in flujo("worker", "--once").stderr
    assert project.notes() == []
    assert "executed 1 run" in flujo("worker", "--once", "--queue", "mail").stderr
    assert project.notes() == ["r1"]
    assert [
        task["run_id"] for task in json.loads(flujo("tasks", "list", "--queue", "mail", "--json").stdout)
    ] == ["r1"]
    assert flujo("tasks", "list", "--queue", "default", "--json").stdout.strip() == "[]"


def test_a_higher_priority_goes_first_and_a_drain_waits_for_delayed_runs(
    flujo: Flujo, project: Project, database: str
) -> None:
    put(flujo, "first")
    put(flujo, "urgent", "--priority", "5")
    put(flujo, "late", "--delay", "1s")
    result = flujo("worker", "--drain", "--concurrency", "1")
    assert (result.exit_code, "executed 3 runs" in result.stderr) == (0, True)
    assert project.notes() == ["urgent", "first", "late"]


def test_queues_shows_what_waits_with_the_limits(flujo: Flujo, database: str) -> None:
    put(flujo, "a", "--queue", "mail")
    put(flujo, "b", "--queue", "mail", "--delay", "1h")
    default, mail = listed(flujo, "queues")
    assert (default["queue"], default["depth"], default["oldest_s"], default["limits"]) == (
        "default",
        0,
        None,
        {},
    )
    assert (mail["depth"], mail["delayed"], mail["in_flight"], mail["parked"]) == (1, 1, 0, 0)
    assert mail["oldest_s"] >= 0
    assert mail["limits"] == {"concurrency": 1, "rate": "100/s"}
    assert "concurrency=1 rate=100/s" in flujo("queues").stdout


def test_a_worker_is_listed_and_a_second_signal_releases_its_run(
    flujo: Flujo, project: Project, database: str
) -> None:
    flujo("run", "slow", "--run-id", "s", "--detach")
    with project.start("worker", "--grace", "10m") as worker:
        until(lambda: any(each["runs"] == ["s"] for each in listed(flujo, "workers")))
        [found] = listed(flujo, "workers")
        assert (found["pid"], found["queues"], found["state"]) == (worker.pid, ["default"], "working")
        until((project.root / "waiting").exists)
        worker.send_signal(signal.SIGTERM)
        until(lambda: listed(flujo, "workers")[0]["state"] == "draining")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert listed(flujo, "workers") == []
    assert next((each["depth"], each["in_flight"]) for each in listed(flujo, "queues")) == (1, 0)
    (project.root / "go").touch()
    assert "executed 1 run" in flujo("worker", "--once").stderr


def test_a_stopped_worker_finishes_what_it_executes_within_the_grace_period(
    flujo: Flujo, project: Project, database: str
) -> None:
    flujo("run", "slow", "--run-id", "s", "--detach")
    with project.start("worker", "--grace", "10m") as worker:
        until((project.root / "waiting").exists)
        worker.send_signal(signal.SIGTERM)
        until(lambda: listed(flujo, "workers")[0]["state"] == "draining")
        (project.root / "go").touch()
        assert worker.wait(60) == 0
    assert flujo("tasks", "list", "--status", "completed", "--json").stdout.count('"s"') == 1


def test_a_paused_worker_takes_runs_once_it_is_resumed(
    flujo: Flujo, project: Project, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", sqlite_uri)
    (project.root / "there.txt").write_text("there", "utf-8")
    with project.start("worker", "--paused") as worker:
        until(lambda: bool(listed(flujo, "workers")))
        [found] = listed(flujo, "workers")
        assert found["state"] == "paused"
        put(flujo, "r1")
        result = flujo("workers", "resume", found["worker"])
        assert "resumed 1 worker" in result.stderr
        until(lambda: project.notes() == ["r1"])
        assert "paused 1 worker" in flujo("workers", "pause", "all").stderr
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "flaky", "--input", "x", "--detach", "--queue", "mial"), "write a table `[queues.mial]`"),
        (("run", "flaky", "--input", "x", "--queue", "default"), "add `--detach`"),
        (("run", "flaky", "--input", "x", "--detach", "--delay", "10"), "has no unit"),
        (("worker", "--queue", "mial", "--once"), "there is no queue 'mial'"),
        (("worker", "--grace", "soon"), "is not a duration"),
        (("workers", "pause", "nobody:1"), "no living worker is called 'nobody:1'"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_recorded(
    flujo: Flujo,
    sqlite_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", sqlite_uri)
    result = flujo(*words)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
    assert flujo("tasks", "list", "--json").stdout.strip() == "[]"


def test_without_a_database_there_are_no_workers_and_empty_queues(flujo: Flujo) -> None:
    assert "no worker is alive" in flujo("workers").stderr
    assert [each["depth"] for each in listed(flujo, "queues")] == [0]


def test_a_worker_whose_database_is_not_migrated_does_not_report_that_it_has_started(
    flujo: Flujo, project: Project, empty_postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", empty_postgres_uri)
    heartbeat = project.root / "heartbeat"
    result = flujo("worker", "--heartbeat-file", str(heartbeat))
    assert result.exit_code == 8
    assert result.stderr.startswith("error: the database ")
    assert not heartbeat.exists()
