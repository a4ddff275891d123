"""`flujo run --events` writes one JSON object for each event, and the result as the last."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typer.testing import Result

    from cli.conftest import Flujo, Project

LOGGING = """\
import logging


def talk() -> str:
    logging.getLogger("skills.talk").warning("a word")
    return "heard"
"""


def lines(result: Result) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(line["at"] > 0 for line in found[:-1])
    return found


def test_a_run_is_reported_by_its_events(flujo: Flujo, project: Project) -> None:
    (project.root / "skills/talk.py").write_text(LOGGING, "utf-8")
    blueprint = (project.root / "blueprints/ask.yaml").read_text("utf-8")
    project.blueprint(
        "ask", blueprint.replace("steps:", "steps:\n  - {name: talk, call: skills.talk:talk}", 1)
    )
    asked = flujo("run", "ask", "--run-id", "r1", "--events")
    found = lines(asked)
    assert [(line["event"], line.get("path")) for line in found] == [
        ("run", None),
        ("started", "talk"),
        ("logged", "talk"),
        ("completed", "talk"),
        ("started", "greet"),
        ("completed", "greet"),
        ("paused", "approve"),
        ("asked", "approve"),
        ("end", None),
    ]
    assert (found[2]["level"], found[2]["logger"], found[2]["text"]) == ("warning", "skills.talk", "a word")
    assert (found[3]["output"], found[3]["kind"], found[3]["recorded"]) == ("heard", "step", False)
    assert found[7]["message"] == "Send this? Hello, Ada!"
    assert (found[-1]["status"], found[-1]["run_id"], asked.exit_code) == ("paused", "r1", 5)
    again = lines(flujo("resume", "r1", "--events"))
    assert again[-1]["event"] == "end"


def test_a_failure_and_an_error_are_events_too(flujo: Flujo) -> None:
    failed = flujo("run", "flaky", "--input", "x", "--events")
    *_, step, end = lines(failed)
    assert (step["event"], step["path"], step["error"]["type"]) == ("failed", "second", "FileNotFoundError")
    assert (end["status"], end["error"]["exit_code"], failed.exit_code) == ("failed", 1, 1)
    (alone,) = lines(flujo("run", "nothing", "--events"))
    assert (alone["event"], alone["error"]["exit_code"]) == ("end", 2)
    assert flujo("run", "ask", "--events", "--detach").exit_code == 2
