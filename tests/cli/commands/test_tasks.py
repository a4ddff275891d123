"""Runs from outside: listed, shown, answered, traced."""

from __future__ import annotations

import getpass
import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from flujo.cli.commands.tasks import Status
from flujo.domain.run import RunCondition, RunStatus

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


def steady(text: str) -> str:
    """Return a text without what differs between two runs: ids, times, durations."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "<run>", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "<whole run id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<time>", text)
    return re.sub(r"\b\d+\.\ds\b", "<s>", text)


def test_a_list_is_a_table_that_ends_with_the_next_command(flujo: Flujo) -> None:
    flujo("run", "ask", "--metadata", "customer=c1")
    result = flujo("tasks", "list")
    assert steady(result.stdout) == snapshot("""\
RUN           BLUEPRINT  STATUS  UPDATED               SPENT  METADATA     DETAIL
<run>  ask        paused  <time>         customer=c1  approve: Send this? Hello, Ada!
""")
    assert steady(result.stderr) == "next: flujo tasks show <run>\n"


def test_a_list_can_be_narrowed_by_each_status_and_condition() -> None:
    assert {str(each) for each in Status} == {*map(str, RunStatus), *map(str, RunCondition)}


def test_an_empty_list_prints_a_message_to_stderr(flujo: Flujo) -> None:
    result = flujo("tasks", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no matching runs\n")
    assert flujo("tasks", "list", "--json").stdout == "[]\n"


def test_a_list_is_narrowed_by_state(flujo: Flujo) -> None:
    flujo("run", "ask")
    flujo("run", "hello", "-i", "Ada")
    found = json.loads(flujo("tasks", "list", "--status", "paused", "--json").stdout)
    assert [run["pipeline"] for run in found] == ["ask"]
    assert len(json.loads(flujo("tasks", "list", "-n", "1", "--json").stdout)) == 1


def test_a_run_is_shown_with_its_open_question(flujo: Flujo) -> None:
    flujo("run", "ask")
    result = flujo("tasks", "show", "@last")
    assert steady(result.stdout + result.stderr) == snapshot("""\
run:       <whole run id>
blueprint: ask
status:    paused
created:   <time>
updated:   <time>
waiting for an answer at `approve`:
Send this? Hello, Ada!
next: flujo tasks resume <run> --field ok=OK   (OK: true or false)
""")


def test_show_as_json_has_everything(flujo: Flujo) -> None:
    flujo("run", "ask")
    shown = json.loads(flujo("tasks", "show", "@last", "--json").stdout)
    assert shown["status"] == "paused"
    assert shown["pauses"][0]["pause_id"] == "approve"
    assert shown["pauses"][0]["open"] is True
    assert [child["path"] for child in shown["trace"]["children"]] == ["greet", "approve"]


@pytest.mark.parametrize("target", ["@last", "@last:approve"])
def test_an_answer_resumes_the_run(target: str, flujo: Flujo) -> None:
    flujo("run", "ask")
    result = flujo("tasks", "resume", target, "--field", "ok=true")
    assert (result.exit_code, result.stdout) == (0, "true\n")


def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open(flujo: Flujo) -> None:
    flujo("run", "ask")
    result = flujo("tasks", "resume", "@last", "--field", "ok=perhaps")
    assert result.exit_code == 2
    assert "--field ok: 'perhaps' is not true or false" in result.stderr
    assert flujo("tasks", "resume", "@last", "--input", "{}").exit_code == 2
    assert flujo("tasks", "resume", "@last", "-f", "ok=false").stdout == "false\n"


def test_a_detached_answer_is_recorded_and_resume_takes_it_up(flujo: Flujo) -> None:
    flujo("run", "ask")
    result = flujo("tasks", "resume", "@last", "-f", "ok=true", "--detach")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "answer recorded" in result.stderr
    assert flujo("resume", "@last").stdout == "true\n"


def test_a_detached_answer_names_the_files_that_differ_from_the_pinned_ones(
    project: Project, flujo: Flujo
) -> None:
    flujo("run", "ask")
    path = project.root / "blueprints/ask.yaml"
    path.write_text(path.read_text("utf-8") + "# changed\n", "utf-8")
    result = flujo("tasks", "resume", "@last", "-f", "ok=true", "--detach", "--json")
    assert result.exit_code == 0
    assert "on disk `blueprints/ask.yaml` differs from what this run was started with" in result.stderr
    assert "on disk" not in result.stdout
    resumed = flujo("resume", "@last")
    assert "on disk `blueprints/ask.yaml` differs from what this run was started with" in resumed.stderr


def test_a_question_that_is_not_asked_is_refused(flujo: Flujo) -> None:
    flujo("run", "ask")
    result = flujo("tasks", "resume", "@last:aprove", "-f", "ok=true")
    assert result.exit_code == 8
    assert "open questions: approve" in result.stderr


def test_a_run_without_open_questions_refuses_an_answer(flujo: Flujo) -> None:
    flujo("run", "hello", "-i", "Ada")
    assert flujo("tasks", "resume", "@last", "-i", "x").exit_code == 8


@pytest.mark.parametrize("words", [["trace", "nope"], ["tasks", "show", "nope"], ["resume", "nope"]])
def test_a_run_that_is_not_there_is_a_state_error(words: list[str], flujo: Flujo) -> None:
    flujo("run", "ask")
    result = flujo(*words)
    assert result.exit_code == 8
    assert "hint: `flujo tasks list` shows the runs" in result.stderr


def test_resume_alone_lists_what_can_be_resumed(flujo: Flujo, project: Project) -> None:
    assert "no resumable runs" in flujo("resume").stderr
    flujo("run", "flaky", "-i", "x")
    result = flujo("resume")
    assert "flaky" in result.stdout
    assert steady(result.stderr) == "next: flujo resume <run> --retry-failed\n"
    assert json.loads(flujo("resume", "--json").stdout)[0]["status"] == "failed"


def test_a_trace_shows_inputs_and_outputs(flujo: Flujo) -> None:
    flujo("run", "ask")
    flujo("tasks", "resume", "@last", "-f", "ok=true")
    assert steady(flujo("trace").stdout) == snapshot("""\
ask  <run>  completed  <s>
├─ ✓ greet  <s>
│     input   {"name": "Ada"}
│     output  Hello, Ada!
└─ ✓ approve  hitl  <s>
      input   Send this? Hello, Ada!
      output  {"ok": true}
""")


def test_a_trace_shows_why_a_step_failed(flujo: Flujo) -> None:
    flujo("run", "flaky", "-i", "x")
    result = flujo("trace", "@last")
    assert "✗ second  failed" in result.stdout
    assert "there.txt" in result.stdout
    assert "--retry-failed" in result.stderr


def test_a_trace_as_json_is_the_tree(flujo: Flujo) -> None:
    flujo("run", "hello", "-i", "Ada")
    tree = json.loads(flujo("trace", "--json").stdout)
    assert tree["status"] == "completed"
    assert [(child["path"], child["output"]) for child in tree["children"]] == [
        ("greet", "Hello, Ada!"),
        ("count", 3),
    ]


def test_long_values_are_shortened_without_full(flujo: Flujo) -> None:
    name = "x" * 500
    flujo("run", "hello", "-i", name)
    assert name not in flujo("trace").stdout
    assert name in flujo("trace", "--full").stdout


def test_who_answers_is_shown_with_the_run(flujo: Flujo) -> None:
    flujo("run", "ask")
    flujo("tasks", "resume", "@last", "--field", "ok=true", "--by", "Ada L.")
    assert "Ada L. (cli)  answer  approve" in flujo("tasks", "show", "@last").stdout
    [act] = json.loads(flujo("tasks", "show", "@last", "--json").stdout)["acts"]
    assert json.loads(flujo("trace", "--json").stdout)["acts"] == [act]
    assert (act["by"], act["via"], act["verb"], act["after"]) == ("Ada L.", "cli", "answer", {"ok": True})


def test_who_cancels_retries_and_accepts_changes_is_your_user_unless_you_say_so(
    flujo: Flujo, project: Project
) -> None:
    flujo("run", "flaky", "-i", "x")
    flujo("tasks", "retry", "@last")
    path = project.root / "blueprints/flaky.yaml"
    path.write_text(path.read_text("utf-8") + "# changed\n", "utf-8")
    flujo("resume", "@last", "--retry-failed", "--accept-changes", "--by", "bob")
    flujo("tasks", "cancel", "@last")
    acts = json.loads(flujo("tasks", "show", "@last", "--json").stdout)["acts"]
    assert [act["verb"] for act in acts] == ["retry", "retry", "accept_changes", "cancel"]
    assert [act["by"] for act in acts] == [getpass.getuser(), "bob", "bob", getpass.getuser()]
    assert acts[2]["object"] == "blueprints/flaky.yaml"
    assert acts[2]["before"] != acts[2]["after"]


def test_a_name_that_cannot_be_printed_is_refused(flujo: Flujo) -> None:
    flujo("run", "ask")
    refused = flujo("tasks", "cancel", "@last", "--by", "a\nb")
    assert refused.exit_code == 2
    assert "is not a valid actor name" in refused.stderr


def test_a_changed_blueprint_is_reported_and_used_only_with_accept_changes(
    flujo: Flujo, project: Project
) -> None:
    flujo("run", "flaky", "-i", "x")
    path = project.root / "blueprints/flaky.yaml"
    changed = path.read_text("utf-8").replace(
        "skills.work:needs_file", "skills.work:note\n    with: {text: new}"
    )
    path.write_text(changed, "utf-8")
    pinned = flujo("resume", "@last", "--retry-failed")
    assert pinned.exit_code == 1
    assert "on disk `blueprints/flaky.yaml` differs" in pinned.stderr
    taken = flujo("resume", "@last", "--retry-failed", "--accept-changes")
    assert (taken.exit_code, taken.stdout) == (0, "new\n")


def test_changes_that_lose_a_finished_step_are_refused_and_the_run_stays_as_it_was(
    flujo: Flujo, project: Project
) -> None:
    flujo("run", "ask")
    path = project.root / "blueprints/ask.yaml"
    path.write_text(
        path.read_text("utf-8").replace("greet\n", "hello\n", 1).replace("steps.greet", "steps.hello")
    )
    refused = flujo("resume", "@last", "--accept-changes")
    assert refused.exit_code == 8
    assert "lacks `greet`" in refused.stderr
    assert "start a new run" in refused.stderr
    assert flujo("tasks", "resume", "@last", "--field", "ok=true").stdout == "true\n"


def test_a_pinned_run_resumes_without_its_file(flujo: Flujo, project: Project) -> None:
    flujo("run", "ask")
    (project.root / "blueprints/ask.yaml").unlink()
    resumed = flujo("tasks", "resume", "@last", "--field", "ok=true")
    assert (resumed.exit_code, resumed.stdout) == (0, "true\n")


@pytest.mark.guarantee("G18")
@pytest.mark.parametrize("detach", [[], ["--detach"]])
@pytest.mark.parametrize("outcome", ["done", "retry", "fail"])
def test_resolving_a_question_is_refused_and_the_question_stays_open(
    flujo: Flujo, outcome: str, detach: list[str]
) -> None:
    run_id = json.loads(flujo("run", "ask", "--json").stdout)["run_id"]
    refused = flujo("tasks", "resolve", "@last", "--as", outcome, "--json", *detach)
    assert (refused.exit_code, json.loads(refused.stdout)["error"]["code"]) == (8, "FLJ512")
    assert f"`approve` of run {run_id} is a question, not a call in doubt [FLJ512]" in refused.stderr
    assert f"use `flujo tasks resume {run_id}:approve --field ok=OK` (OK: true or false)" in refused.stderr
    assert flujo("tasks", "resolve", "@last:approve", "--as", outcome).exit_code == 8
    assert json.loads(flujo("tasks", "show", "@last", "--json").stdout)["acts"] == []
    assert flujo("tasks", "resume", "@last", "--field", "ok=true").stdout == "true\n"


def test_a_question_that_asks_for_a_resolution_names_the_command_that_answers_it(
    flujo: Flujo, project: Project
) -> None:
    schema = "{type: object, required: [resolution], properties: {resolution: {enum: [done, retry, fail]}}}"
    project.blueprint(
        "sly",
        f"""\
version: "1"
name: sly
steps: [{{kind: hitl, name: ask, message: "How?", answer_schema: {schema}}}]
""",
    )
    result = flujo("run", "sly")
    assert "next: flujo tasks resume" in result.stderr
    refused = flujo("tasks", "resolve", "@last", "--as", "retry")
    assert refused.exit_code == 8
    answered = flujo("tasks", "resume", "@last", "--field", "resolution=retry")
    assert json.loads(answered.stdout) == {"resolution": "retry"}


DECIDE = """\
version: "1"
name: decide
steps:
  - kind: hitl
    name: approve
    message: Well?
    answer_schema:
      type: object
      required: [decision, "in detail; $(touch pasted)"]
      properties:
        decision: {enum: [approve, amend, "no | never"]}
        "in detail; $(touch pasted)": {type: string}
output: "{{ steps.approve.output.decision }}"
"""


def test_a_suggested_answer_is_one_command_that_decides_nothing(flujo: Flujo, project: Project) -> None:
    project.blueprint("decide", DECIDE)
    asked = flujo("run", "decide", "--run-id", "d1").stderr.splitlines()[-1]
    assert asked == snapshot("""\
next: flujo tasks resume d1 --field decision=DECISION --field 'in detail; $(touch pasted)=TEXT'   (DECISION: approve, amend or "no | never")\
""")
    pasted = shlex.split(asked.removeprefix("next: ").partition("   (")[0])
    refused = flujo(*pasted[1:])
    assert refused.exit_code == 2, refused.stderr
    assert "'DECISION'" in refused.stderr
    assert flujo("tasks", "list", "--status", "paused", "--json").stdout != "[]\n"


def test_an_answer_reports_files_that_differ_from_the_pinned_ones(flujo: Flujo, project: Project) -> None:
    flujo("run", "ask", "--run-id", "a1")
    path = project.root / "blueprints/ask.yaml"
    path.write_text(f"{path.read_text('utf-8')}# changed\n", "utf-8")
    resumed = flujo("tasks", "resume", "a1", "--field", "ok=true")
    assert resumed.exit_code == 0
    assert "on disk `blueprints/ask.yaml` differs from what this run was started with" in resumed.stderr
    assert "`flujo resume a1 --accept-changes` takes the files on disk" in resumed.stderr
