"""Many runs from the command line: pages, columns, causes, orphaned and answered runs, several runs at once."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


@pytest.fixture(params=["sqlite", "postgres"], autouse=True)
def _database(request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", str(request.getfixturevalue(f"{request.param}_uri")))


def listed(flujo: Flujo, *words: str) -> list[dict[str, Any]]:
    result = flujo("tasks", "list", "--json", *words)
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_a_full_page_names_how_many_runs_come_after_it_and_the_command_that_lists_them(flujo: Flujo) -> None:
    for number in range(5):
        flujo("run", "hello", "-i", "Ada", "--run-id", f"r{number}", "--metadata", f"n={number}")
    result = flujo("tasks", "list", "-n", "2", "--metadata", "n>=1", "--columns", "run,metadata")
    assert result.stdout.split() == ["RUN", "METADATA", "r4", "n=4", "r3", "n=3"]
    first, following = result.stderr.splitlines()
    assert first == "2 runs listed, 2 more"
    pasted = shlex.split(following.removeprefix("next: ").partition("   (")[0])
    assert pasted[:3] == ["flujo", "tasks", "list"]
    second = flujo(*pasted[1:])
    assert second.stdout.split()[2:] == ["r2", "n=2", "r1", "n=1"]
    assert "more" not in second.stderr
    as_json = flujo("tasks", "list", "--json", "-n", "1")
    assert "1 run listed, 4 more" in as_json.stderr
    assert [
        each["run_id"] for each in listed(flujo, "--cursor", json.loads(as_json.stdout)[0]["cursor"])
    ] == [
        "r3",
        "r2",
        "r1",
        "r0",
    ]


def test_a_list_is_narrowed_by_blueprint_time_status_and_metadata(flujo: Flujo) -> None:
    flujo("run", "ask", "--run-id", "a1", "--metadata", "customer=c1")
    flujo("run", "flaky", "-i", "x", "--run-id", "f1", "--metadata", "customer=c2")
    flujo("run", "hello", "-i", "Ada", "--run-id", "h1")

    def ids(*words: str) -> list[str]:
        return [each["run_id"] for each in listed(flujo, *words)]

    assert ids("--blueprint", "flaky") == ["f1"]
    assert ids("--status", "failed", "--status", "paused") == ["f1", "a1"]
    assert ids("--metadata", "customer=c1", "--metadata", "customer=c2") == ["f1", "a1"]
    assert ids("--metadata", "customer!=c1") == ["f1"]
    assert ids("--since", "1h", "--sort", "oldest") == ["a1", "f1", "h1"]
    assert ids("--since", "1h ago", "--until", "0s ago", "--sort", "oldest") == ["a1", "f1", "h1"]
    assert ids("--until", "1h") == []
    assert ids("--since", "2020-01-01", "--until", "2020-01-02") == []
    flujo("tasks", "resume", "a1", "-f", "ok=true")
    assert ids("--sort", "updated")[0] == "a1"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--since", "2"], "write 2h or 30d for how long ago, or 2026-11-28T09:30"),
        (["--columns", "run,stat"], "did you mean `status`?"),
        (["--cursor", "next"], "pass the `cursor` of a run of the list to continue"),
        (["--metadata", "customer"], "write --metadata KEY=VALUE"),
        (["--metadata", "a b=1"], "a key is a letter or `_`"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(flujo: Flujo, words: list[str], hint: str) -> None:
    result = flujo("tasks", "list", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert hint in result.stderr


def test_a_list_shows_why_runs_failed_and_what_paused_ones_ask(flujo: Flujo) -> None:
    flujo("run", "flaky", "-i", "x", "--run-id", "f1")
    flujo("run", "ask", "--run-id", "a1")
    asks, failed = flujo("tasks", "list", "--columns", "run,detail").stdout.splitlines()[1:]
    assert asks == "a1   approve: Send this? Hello, Ada!"
    assert re.fullmatch(r"f1   .*No such file or directory.*", failed)
    paused, broken = listed(flujo)
    assert (paused["questions"][0]["pause_id"], paused["error"]) == ("approve", None)
    assert paused["questions"][0]["answer_schema"]["required"] == ["ok"]
    assert (broken["questions"], broken["error"]["code"]) == ([], "FLJ401")
    assert "there.txt" in broken["error"]["message"]


def test_a_run_answered_with_detach_is_listed_with_who_answered_and_what_happens_next(flujo: Flujo) -> None:
    flujo("run", "ask", "--run-id", "a1")
    answered = flujo("tasks", "resume", "a1", "-f", "ok=true", "--detach", "--by", "Ada L.")
    assert "a worker or an open runner of its pipeline resumes the run" in answered.stderr
    [task] = listed(flujo, "--status", "paused")
    assert (task["status"], task["display_status"], task["questions"]) == ("paused", "answered", [])
    assert (task["answer"]["pause_id"], task["answer"]["by"]) == ("approve", "Ada L.")
    assert task["answer"]["answered_at"] >= task["created_at"]
    table = flujo("tasks", "list", "--status", "answered")
    assert "answered `approve` by Ada L. 20" in table.stdout
    assert table.stderr == "next: flujo resume a1\n"
    shown = flujo("tasks", "show", "a1")
    assert "status:    answered (no process has resumed it yet; a worker or an open runner" in shown.stdout
    assert "answered `approve` by Ada L. 20" in shown.stdout
    assert "waiting for an answer" not in shown.stdout
    assert shown.stderr == "next: flujo resume a1\n"
    [pause] = json.loads(flujo("tasks", "show", "a1", "--json").stdout)["pauses"]
    assert (pause["open"], pause["answer"], pause["by"]) == (False, {"ok": True}, "Ada L.")
    assert flujo("resume", "a1").stdout == "true\n"
    assert listed(flujo, "--status", "answered") == []


def test_a_run_whose_process_was_killed_is_listed_as_orphaned(flujo: Flujo, project: Project) -> None:
    with project.start("run", "slow", "--run-id", "s1") as running:
        while not (project.root / "waiting").exists():
            assert running.poll() is None
        [living] = listed(flujo)
        assert (living["status"], living["display_status"]) == ("running", "running")
        assert flujo("tasks", "list").stderr == "next: flujo trace s1\n"
        running.kill()
        running.wait(60)
    [orphan] = listed(flujo, "--status", "orphaned")
    assert (orphan["status"], orphan["display_status"]) == ("running", "orphaned")
    assert "orphaned" in flujo("tasks", "list", "--status", "running").stdout
    shown = flujo("tasks", "show", "s1")
    assert "status:    orphaned (its process has ended; a worker or an open runner" in shown.stdout
    assert shown.stderr.endswith("next: flujo resume s1\n")
    (project.root / "go").touch()
    assert flujo("resume", "s1").stdout == "done\n"
    assert listed(flujo, "--status", "orphaned") == []


def test_several_runs_are_answered_retried_and_cancelled_in_one_call(flujo: Flujo, project: Project) -> None:
    for name in ("a1", "a2", "a3"):
        flujo("run", "ask", "--run-id", name)
    answered = flujo("tasks", "resume", "a1", "nothing", "a2:approve", "a1", "-f", "ok=true", "--json")
    assert answered.exit_code == 8
    assert "there is no run 'nothing'" in answered.stderr
    first, unknown, second = (json.loads(line) for line in answered.stdout.splitlines())
    assert [(each["run_id"], each["output"]) for each in (first, second)] == [("a1", True), ("a2", True)]
    assert (unknown["error"]["code"], unknown["error"]["exit_code"]) == ("FLJ506", 8)
    for name in ("f1", "f2"):
        flujo("run", "flaky", "-i", "x", "--run-id", name)
    (project.root / "there.txt").write_text("now")
    assert flujo("tasks", "retry", "f1", "f2").stdout == "now\nnow\n"
    cancelled = flujo("tasks", "cancel", "a3", "f1")
    assert cancelled.exit_code == 8
    assert [each["status"] for each in listed(flujo, "--sort", "oldest")] == [
        "completed",
        "completed",
        "cancelled",
        "completed",
        "completed",
    ]


def test_selected_runs_are_listed_and_changed_only_with_a_confirmation(flujo: Flujo) -> None:
    for name in ("a1", "a2", "a3"):
        flujo("run", "ask", "--run-id", name, "--metadata", f"name={name}")
    selection = "blueprint=ask pause=approve metadata.name!=a3"
    would = flujo("tasks", "resume", "--select", selection, "-f", "ok=true", "--dry-run")
    assert (would.exit_code, "a3" in would.stdout) == (0, False)
    assert would.stderr == "2 matching runs; nothing was changed\n"
    refused = flujo("tasks", "resume", "--select", selection, "-f", "ok=true")
    assert refused.exit_code == 2
    assert "refused to resume 2 runs without a confirmation" in refused.stderr
    assert len(listed(flujo, "--status", "paused")) == 3
    done = flujo("tasks", "resume", "--select", selection, "--yes", "--input", "-", stdin='{"ok": true}')
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["true", "true"]
    assert flujo("tasks", "cancel", "--select", "blueprint=ask", "--yes").exit_code == 0
    assert [each["status"] for each in listed(flujo)] == ["cancelled", "completed", "completed"]
    nothing = flujo("tasks", "retry", "--select", "blueprint=ask", "--yes")
    assert (nothing.exit_code, nothing.stderr) == (0, "0 matching runs; nothing was changed\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cancel"], "there is no run to cancel"),
        (["cancel", "a1", "--select", "user=u"], "RUN and --select exclude each other"),
        (["cancel", "--select", " "], "--select has no condition"),
        (["retry", "--select", "blueprnt=x"], "did you mean `blueprint`?"),
        (["retry", "--select", "status=bogus"], "'bogus' is not the status of a run"),
        (["retry", "--select", "failed"], "'failed' has no `=`"),
        (["retry", "--select", "user='x"], "close the quotation marks"),
        (["retry", "a1", "--dry-run"], "--dry-run needs --select"),
    ],
)
def test_a_selection_that_is_not_clear_is_refused(flujo: Flujo, words: list[str], says: str) -> None:
    result = flujo("tasks", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


def test_runs_is_another_name_of_tasks(flujo: Flujo) -> None:
    flujo("run", "ask", "--run-id", "a1")
    assert flujo("runs", "list").stdout == flujo("tasks", "list").stdout
    assert "flujo runs list" in flujo("runs", "list", "--help").stdout


def test_the_json_of_a_command_on_several_runs_has_no_table_in_front(flujo: Flujo) -> None:
    flujo("run", "ask", "--run-id", "a1")
    words = ("tasks", "cancel", "--select", "blueprint=ask", "--json")
    tried = flujo(*words, "--dry-run")
    assert [each["run_id"] for each in json.loads(tried.stdout)] == ["a1"]
    done = flujo(*words, "--yes")
    assert (json.loads(done.stdout)["status"], "a1" in done.stderr) == ("cancelled", True)
    assert json.loads(flujo(*words, "--yes").stdout) == []
