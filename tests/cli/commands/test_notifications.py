"""`flujo notifications`, and workers that send messages; one is killed after it has sent and before it records."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from receiver import SECRET, Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

SETTINGS = """
[notify.ops]
url = "${OPS_URL}"
secret = "${OPS_SECRET}"
"""


@pytest.fixture
def receiver(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as settings:
        settings.write(SETTINGS)
    with receiving() as receiver:
        monkeypatch.setenv("OPS_URL", receiver.url)
        monkeypatch.setenv("OPS_SECRET", SECRET)
        yield receiver


def now(project: Project) -> None:
    """Let the time of leases and of waits between tries pass."""
    with sqlite3.connect(project.root / ".flujo/state.db") as database:
        database.execute("UPDATE outbox SET available_at = 0")


def test_the_next_worker_reports_a_pause_and_a_cancel(
    flujo: Flujo, project: Project, receiver: Receiver
) -> None:
    assert flujo("run", "ask", "--run-id", "r").exit_code == 5
    assert flujo("tasks", "cancel", "r").exit_code == 0
    listed = flujo("notifications", "list", "--run", "r")
    assert listed.exit_code == 0
    assert [line.split()[3:6] for line in listed.stdout.splitlines()[1:]] == [
        ["ops", "cancelled", "r"],
        ["ops", "paused", "r"],
    ]
    assert flujo("worker", "--once").exit_code == 0
    assert sorted(body["type"] for _, body in receiver.arrived) == ["run.cancelled", "run.paused"]
    shown = json.loads(flujo("notifications", "list", "--state", "delivered", "--json").stdout)
    assert {each["webhook_id"] for each in shown} == set(receiver.ids)
    assert SECRET not in json.dumps(shown)
    assert receiver.url not in json.dumps(shown)


def test_a_given_up_message_is_sent_again_on_request(
    flujo: Flujo, project: Project, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    assert flujo("run", "ask", "--run-id", "r").exit_code == 5
    flujo("worker", "--once")
    listed = flujo("notifications", "list")
    assert "the receiver answered 410" in listed.stdout
    assert "flujo notifications redeliver 1" in listed.stderr
    assert json.loads(flujo("notifications", "redeliver", "1", "--json").stdout) == {"redelivered": 1}
    flujo("worker", "--once")
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1
    assert "given_up" not in flujo("notifications", "list").stdout
    assert "0 messages" in flujo("notifications", "redeliver", "--given-up", "--target", "ops").stderr


def test_bad_requests_change_nothing(flujo: Flujo, project: Project, receiver: Receiver) -> None:
    assert flujo("run", "ask", "--run-id", "r").exit_code == 5
    unknown = flujo("notifications", "redeliver", "1", "7")
    assert (unknown.exit_code, "there is no message 7" in unknown.stderr) == (8, True)
    for words, message in (
        ([], "neither ID... nor `--given-up` is given"),
        (["1", "--given-up"], "both ID... and `--given-up` are given"),
        (["1", "--target", "ops"], "`--target` needs `--given-up`"),
    ):
        refused = flujo("notifications", "redeliver", *words)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
    assert flujo("notifications", "list", "--run", "nobody").exit_code == 8
    assert "no matching messages" in flujo("notifications", "list", "--target", "nobody").stderr


def test_a_worker_that_is_killed_before_it_records_a_delivery_leaves_the_message_to_the_next_one(
    flujo: Flujo, project: Project, receiver: Receiver
) -> None:
    assert flujo("run", "ask", "--run-id", "r").exit_code == 5
    killed = project.start("worker")
    receiver.on_request = lambda: os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    receiver.on_request = lambda: None
    assert len(receiver.ids) == 1
    flujo("worker", "--once")
    assert len(receiver.ids) == 1, "its lease lasts"
    now(project)
    flujo("worker", "--once")
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1
    [message] = json.loads(flujo("notifications", "list", "--json").stdout)
    assert (message["state"], message["tries"]) == ("delivered", 2)
