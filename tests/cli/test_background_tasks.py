"""Background tasks on the command line: listed, shown, traced, retried and answered."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

LAUNCH = """\
version: "1"
name: launch
steps:
  - {name: work, call: skills.work:needs_file, config: {execution_mode: background}}
  - {name: first, call: skills.work:note, with: {text: first}}
  - {kind: await, name: result, task: work}
output: "{{ steps.result.output }}"
"""

LEAVING = """\
version: "1"
name: leaving
steps:
  - {name: work, call: skills.work:wait_for_file, config: {execution_mode: background}}
  - {name: first, call: skills.work:note, with: {text: first}}
"""

ASKING = """\
version: "1"
name: asking
steps:
  - {kind: hitl, name: approve, message: "Send this?", config: {execution_mode: background}}
  - {name: first, call: skills.work:note, with: {text: first}}
  - {kind: await, name: result, task: approve}
"""


@pytest.fixture(autouse=True)
def _blueprints(project: Project) -> None:
    project.blueprint("launch", LAUNCH)
    project.blueprint("asking", ASKING)


def tasks(flujo: Flujo, *words: str) -> list[dict[str, Any]]:
    """Return the listed tasks."""
    result = flujo("tasks", "list", "--kind", "task", "--json", *words)
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_a_failed_task_is_listed_retried_and_then_its_run(flujo: Flujo, project: Project) -> None:
    failed = flujo("run", "launch", "--run-id", "r")
    assert failed.exit_code == 1
    assert "step `result` awaits background task b-" in failed.stderr
    [task] = tasks(flujo, "--parent", "r", "--status", "failed")
    assert (task["parent"], task["parent_path"], task["kind"]) == ("r", "work", "task")
    assert "No such file" in task["error"]["message"]
    assert [run["run_id"] for run in json.loads(flujo("tasks", "list", "--json").stdout)] == ["r"]
    shown = flujo("tasks", "show", task["run_id"]).stdout
    assert "parent:    r at work" in shown
    assert f"{task['run_id']} failed" in flujo("tasks", "show", "r").stdout

    (project.root / "there.txt").write_text("there", "utf-8")
    retried = flujo("tasks", "retry", task["run_id"])
    assert (retried.exit_code, retried.stdout.strip()) == (0, "there")
    again = flujo("resume", "r", "--retry-failed")
    assert (again.exit_code, again.stdout.strip()) == (0, "there")
    assert project.notes() == ["first"]


def test_a_task_is_traced_below_its_step(flujo: Flujo, project: Project) -> None:
    (project.root / "there.txt").write_text("there", "utf-8")
    run = flujo("run", "launch", "--run-id", "r")
    assert "launch  work" in run.stderr
    [task] = tasks(flujo)
    assert f"task    {task['run_id']} completed" in flujo("trace", "r").stdout
    assert "output  there" in flujo("trace", "r", "--full").stdout
    traced = json.loads(flujo("trace", "r", "--json").stdout)
    [work] = [child for child in traced["children"] if child["path"] == "work"]
    assert work["task"]["run_id"] == task["run_id"]
    assert [child["path"] for child in work["task"]["trace"]["children"]] == ["work"]
    assert "calls skills.work:needs_file, in the background" in flujo("graph", "launch").stdout
    assert "calls skills.work:needs_file, in the background" in flujo("explain", "launch").stdout


def test_a_task_that_asks_is_answered_and_its_run_is_resumed(flujo: Flujo) -> None:
    run = flujo("run", "asking", "--run-id", "r")
    assert run.exit_code == 5
    assert "flujo tasks list --parent r" in run.stderr
    [task] = tasks(flujo, "--parent", "r")
    assert (task["status"], task["questions"][0]["message"]) == ("paused", "Send this?")
    assert flujo("tasks", "resume", task["run_id"], "--input", "yes").exit_code == 0
    resumed = flujo("resume", "r")
    assert (resumed.exit_code, resumed.stdout.strip()) == (0, "yes")


def test_a_wait_for_tasks_cannot_be_answered(flujo: Flujo) -> None:
    flujo("run", "asking", "--run-id", "r")
    refused = flujo("tasks", "resume", "r:result", "--input", "yes")
    assert refused.exit_code == 8
    assert "`result` of run r is a wait for background tasks, not a question [FLJ" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_only_tasks_are_executed_names_them(
    flujo: Flujo, project: Project, number: signal.Signals
) -> None:
    project.blueprint("leaving", LEAVING)
    with project.start("run", "leaving", "--run-id", "r") as running:
        while not (project.root / "waiting").exists() or project.notes() != ["first"]:
            assert running.poll() is None
        while json.loads(flujo("tasks", "show", "r", "--json").stdout)["status"] != "completed":
            assert running.poll() is None
        running.send_signal(number)
        _, words = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert "stopped waiting for background tasks; the run itself is completed" in words
    assert "next: flujo tasks list --parent r   (list its tasks; `flujo worker` continues them)" in words
    assert "flujo resume" not in words
    (project.root / "go").touch()
    assert flujo("worker", "--once").exit_code == 0
    assert [task["status"] for task in tasks(flujo, "--parent", "r")] == ["completed"]


def test_a_cancelled_run_cancels_its_task(flujo: Flujo) -> None:
    flujo("run", "asking", "--run-id", "r")
    assert flujo("tasks", "cancel", "r").exit_code == 0
    flujo("worker", "--once")
    assert [task["status"] for task in tasks(flujo)] == ["cancelled"]


def test_a_limit_of_the_project_refuses_a_step_in_the_background(flujo: Flujo, project: Project) -> None:
    with (project.root / "flujo.toml").open("a") as settings:
        settings.write("\n[budgets]\ntotal_tokens_limit = 5\n")
    refused = flujo("run", "launch")
    assert refused.exit_code != 0
    assert "step 'work' runs in the background under a limit on `total_tokens_limit`" in refused.stderr
    assert "FLJ283" in refused.stderr


def test_an_unknown_parent_is_an_error(flujo: Flujo) -> None:
    flujo("run", "asking", "--run-id", "r")
    result = flujo("tasks", "list", "--parent", "nobody")
    assert result.exit_code == 8
    assert "there is no run 'nobody'" in result.stderr


QUEUED = """\
version: "1"
name: queued
steps:
  - name: work
    call: skills.work:note
    with: {text: "{{ input }}"}
    config: {execution_mode: background, queue: slow, priority: 3}
  - {name: first, call: skills.work:note, with: {text: first}}
  - {kind: await, name: result, task: work}
output: "{{ steps.result.output }}"
"""


@pytest.fixture(params=["sqlite", "postgres"])
def _queue(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", str(request.getfixturevalue(f"{request.param}_uri")))
    with (project.root / "flujo.toml").open("a") as settings:
        settings.write('\n[queues.slow]\nper_key = "input.text"\n')
    project.blueprint("queued", QUEUED)


@pytest.mark.usefixtures("_queue")
def test_a_task_in_a_queue_is_executed_by_a_worker_of_that_queue(flujo: Flujo, project: Project) -> None:
    run = flujo("run", "queued", "--input", "second", "--run-id", "r")
    assert run.exit_code == 5, run.stderr
    assert project.notes() == ["first"]
    [task] = tasks(flujo, "--parent", "r")
    assert (task["status"], task["queue"]) == ("accepted", "slow")
    assert "executed 0 runs" in flujo("worker", "--once").stderr
    assert flujo("resume", "r").exit_code == 5
    worked = flujo("worker", "--once", "--queue", "slow")
    assert (worked.exit_code, project.notes()) == (0, ["first", "second"]), worked.stderr
    resumed = flujo("resume", "r")
    assert (resumed.exit_code, resumed.stdout.strip()) == (0, "second")
    assert "in the background by workers of the queue slow" in flujo("explain", "queued").stdout


@pytest.mark.usefixtures("_queue")
def test_a_launch_into_a_queue_without_a_worker_is_reported(
    flujo: Flujo, caplog: pytest.LogCaptureFixture
) -> None:
    flujo("run", "queued", "--input", "second", "--run-id", "r")
    assert "waits: no worker of queue `slow` is alive; `flujo worker --queue slow` starts one" in caplog.text


def test_a_queue_that_there_is_not_is_refused_before_the_run_is_accepted(
    flujo: Flujo, project: Project
) -> None:
    project.blueprint("queued", QUEUED)
    refused = flujo("run", "queued", "--input", "x", "--run-id", "r")
    assert refused.exit_code != 0
    assert "FLJ289" in refused.stderr
    assert "write a table [queues.slow]" in refused.stderr
    assert flujo("tasks", "list", "--json").stdout.strip() == "[]"
