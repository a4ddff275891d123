"""`flujo logs`: the log of a run, also while another process executes it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from cli.test_signals import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    import warm
    from cli.conftest import Flujo, Project


def test_a_log_has_a_line_for_each_entry_and_question(project: Project, flujo: Flujo) -> None:
    flujo("run", "ask", "--run-id", "a1")
    flujo("tasks", "resume", "a1", "--field", "ok=true")
    lines = [line.split(maxsplit=2)[2] for line in flujo("logs", "a1").stdout.splitlines()]
    assert [" ".join(line.split()) for line in lines] == [
        "0 accepted ask",
        "1 completed greet 0.0s",
        "1 asked approve Send this? Hello, Ada!",
        '2 answered approve {"ok": true}',
        "2 status completed",
    ]


def test_an_error_is_one_line_and_has_its_code(project: Project, flujo: Flujo) -> None:
    flujo("run", "flaky", "--input", '"x"', "--run-id", "f1")
    *_, failed, status = flujo("logs", "f1").stdout.splitlines()
    assert "failed     second" in failed
    assert "FileNotFoundError" in failed
    assert failed.endswith("[FLJ401]")
    assert "status     failed" in status


def test_json_has_one_object_a_line_and_continues_at_an_offset(project: Project, flujo: Flujo) -> None:
    flujo("run", "ask", "--run-id", "a1")
    lines = [json.loads(line) for line in flujo("logs", "a1", "--json").stdout.splitlines()]
    assert [(each["offset"], each["kind"], each["path"]) for each in lines] == [
        (0, "accepted", ""),
        (1, "completed", "greet"),
        (1, "asked", "approve"),
        (1, "status", ""),
    ]
    rest = flujo("logs", "a1", "--since", "1", "--json").stdout.splitlines()
    assert [json.loads(line) for line in rest] == lines[2:]
    assert flujo("logs", "a1", "--since", "-1").exit_code == 2


def test_a_secret_is_masked(project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "skills/work.py").write_text(
        "import os\n\n\ndef needs_file() -> str:\n    raise OSError(os.environ['OPENAI_API_KEY'])\n\n\n"
        "def note(text: str) -> str:\n    return text\n"
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-12345678")
    flujo("run", "flaky", "--input", '"x"', "--run-id", "f1")
    for words in (("logs", "f1"), ("logs", "f1", "--json")):
        shown = flujo(*words).output
        assert "canary" not in shown
        assert "***" in shown


def committed(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines that the journal has."""
    return [each for each in lines if not each["provisional"]]


def seen_until(follower: warm.Popen, path: str) -> list[dict[str, Any]]:
    """Return the committed lines that a follower has written up to the one about a step."""
    lines: list[dict[str, Any]] = []
    while not lines or lines[-1]["path"] != path:
        lines += committed([json.loads(follower.stdout.readline())])
    return lines


def test_a_run_is_followed_from_another_process_and_ctrl_c_leaves_it_alone(
    project: Project, flujo: Flujo, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
    running = project.start("run", "slow", "--run-id", "s1")
    wait_for(project.root / "waiting", running)
    follower = project.start("logs", "s1", "-f", "--json")
    impatient = project.start("logs", "s1", "-f", "--json")
    first = seen_until(follower, "first")
    assert seen_until(impatient, "first") == first
    assert [each["kind"] for each in first] == ["accepted", "completed"]

    impatient.send_signal(signal.SIGINT)
    _, err = impatient.communicate(timeout=30)
    assert (impatient.returncode, err) == (130, "interrupted\n")
    assert running.poll() is None

    (project.root / "go").touch()
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, "done\n")
    rest, err = follower.communicate(timeout=60)
    lines = committed(json.loads(line) for line in rest.splitlines())
    assert (follower.returncode, err) == (0, "")
    assert [(each["kind"], each["path"], each["text"]) for each in lines] == [
        ("status", "", "running"),
        ("completed", "wait", ""),
        ("completed", "last", ""),
        ("status", "", "completed"),
    ]


def test_a_log_of_a_chain_names_the_runs_before_and_after(flujo: Flujo, project: Project) -> None:
    project.blueprint(
        "counted",
        'version: "1"\nname: counted\ninput_schema: {type: integer}\nsteps:\n'
        "  - {kind: hitl, name: ask, message: Go on?}\n"
        '  - {kind: continue_as_new, name: again, input: "{{ input + 1 }}"}\n',
    )
    assert flujo("run", "counted", "--input", "1", "--run-id", "c").exit_code == 5
    flujo("tasks", "resume", "c", "--input", "yes")
    first = flujo("logs", "c")
    assert "run c is continued by c~2\n" in first.stderr
    assert "next: flujo tasks list --chain c " in first.stderr
    assert "run c~2 continues c\n" in flujo("logs", "c~2").stderr
