"""`flujo schedules`: tables with the times of each schedule's zone, JSON, acts, and the next command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

NIGHTLY = """\
version: "1"
name: nightly
schedule: {cron: "30 2 * * *", timezone: Asia/Kathmandu, input: a}
steps:
  - {name: note, call: "skills.work:note", with: {text: ran}}
"""


@pytest.fixture(params=["sqlite", "postgres"], autouse=True)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", str(request.getfixturevalue(f"{request.param}_uri")))


def test_a_project_without_schedules_has_a_message(flujo: Flujo) -> None:
    result = flujo("schedules", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no schedules" in result.stderr


def test_a_schedule_is_applied_shown_paused_and_triggered(flujo: Flujo, project: Project) -> None:
    project.blueprint("nightly", NIGHTLY)
    listed = flujo("schedules", "list")
    assert listed.stdout.splitlines()[0].split() == [
        "SCHEDULE",
        "BLUEPRINT",
        "CRON",
        "ZONE",
        "STATE",
        "NEXT",
        "LAST",
    ]
    assert "not applied" in listed.stdout
    assert "02:30:00+05:45" in listed.stdout
    assert listed.stderr == "next: flujo schedules apply --dry-run   (show what differs from the files)\n"
    assert flujo("schedules", "apply", "--dry-run").stdout == "added      nightly\n"
    assert flujo("schedules", "apply", "--by", "ada").stdout == "added      nightly\n"
    assert json.loads(flujo("schedules", "apply", "--json").stdout) == [
        {"name": "nightly", "change": "unchanged", "keys": []}
    ]
    assert flujo("schedules", "pause", "nightly", "--by", "bob").exit_code == 0
    shown = flujo("schedules", "show", "nightly").stdout
    assert "  state     paused\n" in shown
    assert "pause by bob (cli)" in shown
    assert "apply by ada (cli)" in shown
    data = json.loads(flujo("schedules", "show", "nightly", "--json").stdout)
    assert (data["state"], data["timezone"], len(data["next"])) == ("paused", "Asia/Kathmandu", 5)
    assert [act["by"] for act in data["acts"]] == ["bob", "ada"]
    assert flujo("schedules", "resume", "nightly").exit_code == 0
    times = flujo("schedules", "next", "nightly", "-n", "3").stdout.splitlines()
    assert [each.split()[2:] for each in times] == [["02:30:00+05:45"]] * 3
    assert len(json.loads(flujo("schedules", "next", "nightly", "--json").stdout)) == 5
    triggered = flujo("schedules", "trigger", "nightly", "--at", "2026-11-28T02:30")
    assert triggered.stdout == "nightly-20261127T204500Z\n"
    again = json.loads(flujo("schedules", "trigger", "nightly", "--at", "2026-11-28T02:30", "--json").stdout)
    assert again == {"run_id": "nightly-20261127T204500Z", "existed": True}
    assert "executed 1 run" in flujo("worker", "--once").stderr
    assert project.notes() == ["ran"]
    [row] = json.loads(flujo("schedules", "list", "--json").stdout)
    assert (row["name"], row["state"], row["last_run"]) == ("nightly", "active", None)


def test_what_cannot_be_done_is_an_error_with_its_exit_code(flujo: Flujo, project: Project) -> None:
    project.blueprint("nightly", NIGHTLY)
    flujo("schedules", "apply")
    unknown = flujo("schedules", "pause", "nightli")
    assert (unknown.exit_code, "FLJ528" in unknown.stderr, "`nightly`" in unknown.stderr) == (8, True, True)
    assert flujo("schedules", "trigger", "nightly", "--at", "soon").exit_code == 2
    project.blueprint("nightly", NIGHTLY.replace("30 2", "31 2"))
    differs = flujo("schedules", "trigger", "nightly")
    assert (differs.exit_code, "FLJ529" in differs.stderr) == (8, True)
    assert "flujo schedules apply" in differs.stderr
    project.blueprint("nightly", NIGHTLY.replace("30 2 * * *", "0 0 31 2 *"))
    broken = flujo("schedules", "apply")
    assert (broken.exit_code, "FLJ296" in broken.stderr, "never fires" in broken.stderr) == (4, True, True)


def test_doctor_counts_the_schedules(flujo: Flujo, project: Project) -> None:
    project.blueprint("nightly", NIGHTLY)
    flujo("schedules", "apply")
    assert "1 schedule, none of them late" in flujo("doctor").output
