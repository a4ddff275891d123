"""`flujo run`: words in, an answer on stdout, talk on stderr, and an exit code that says how it went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from inline_snapshot import snapshot

if TYPE_CHECKING:
    from typer.testing import Result

    from cli.conftest import Flujo, Project

SHAPES = """\
version: "1"
name: shapes
input_schema:
  type: object
  required: [text]
  properties: {text: {type: string}, times: {type: integer}}
context_schema:
  type: object
  properties: {label: {type: string, default: none}}
steps:
  - name: greet
    call: skills.greet:greet
    with: {name: "{{ input.text }}"}
    output_schema: {type: string}
output: {greeting: "{{ steps.greet.output }}", label: "{{ context.label }}"}
"""


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_run_alone_lists_the_blueprints_and_runs_nothing(flujo: Flujo, project: Project) -> None:
    result = flujo("run")
    assert result.exit_code == 0
    assert result.stdout == snapshot("""\
NAME   PATH                   DESCRIPTION
ask    blueprints/ask.yaml
flaky  blueprints/flaky.yaml
hello  blueprints/hello.yaml  Greet somebody by name; no model, no key
slow   blueprints/slow.yaml
""")
    assert "next: flujo run " in result.stderr
    assert not (project.root / ".flujo").exists()
    assert [each["name"] for each in json.loads(flujo("run", "--json").stdout)] == [
        "ask",
        "flaky",
        "hello",
        "slow",
    ]


def test_a_callable_of_no_module_is_an_error_with_its_line_and_starts_no_run(
    flujo: Flujo, project: Project
) -> None:
    (project.root / "blueprints" / "lost.yaml").write_text(
        'version: "1"\nname: lost\nsteps:\n  - {name: a, call: "skills.gret:greet"}\n'
    )
    result = flujo("run", "lost")
    assert result.exit_code == 4
    assert "there is no module `skills.gret`" in result.stderr
    assert "--> blueprints/lost.yaml:4:" in result.stderr
    assert flujo("tasks", "list", "--json").stdout.strip() == "[]"


def test_an_answer_that_is_text_is_written_as_it_is(flujo: Flujo) -> None:
    result = flujo("run", "hello", "--input", "Ada")
    assert (result.exit_code, result.stdout) == (0, "Hello, Ada! Your name has 3 letters.\n")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("run     hello  ")
    assert lines[-2] == "completed"
    assert lines[-1].startswith("next: flujo trace ")


@pytest.mark.parametrize("what", ["hello", "blueprints/hello.yaml"])
def test_a_blueprint_is_named_or_a_path(what: str, flujo: Flujo) -> None:
    assert flujo("run", what, "-i", "Ada").exit_code == 0


def test_an_answer_that_is_data_is_written_as_json(flujo: Flujo, project: Project) -> None:
    project.blueprint("shapes", SHAPES)
    assert answer(flujo("run", "shapes", "--input", "Ada")) == {"greeting": "Hello, Ada!", "label": "none"}


def test_text_for_an_object_fills_the_only_required_text_with_a_note(flujo: Flujo, project: Project) -> None:
    project.blueprint("shapes", SHAPES)
    assert "input text assigned to field `text`" in flujo("run", "shapes", "--input", "Ada").stderr


def test_every_way_of_giving_an_input_gives_the_same(flujo: Flujo, project: Project) -> None:
    project.blueprint("shapes", SHAPES)
    for name, text in (("in.json", '{"text": "Ada"}'), ("in.yaml", "text: Ada"), ("in.txt", "Ada")):
        (project.root / name).write_text(text, "utf-8")
        assert answer(flujo("run", "shapes", "--input-file", name))["greeting"] == "Hello, Ada!"
    ways = (["--field", "text=Ada"], ["--input", '{"text": "Ada"}'])
    for words in ways:
        assert answer(flujo("run", "shapes", *words))["greeting"] == "Hello, Ada!"
    assert answer(flujo("run", "shapes", stdin="Ada"))["greeting"] == "Hello, Ada!"
    assert answer(flujo("run", "shapes", "--input", "-", stdin="Ada"))["greeting"] == "Hello, Ada!"


def test_an_input_that_does_not_fit_is_refused_before_anything_is_recorded(
    flujo: Flujo, project: Project
) -> None:
    project.blueprint("shapes", SHAPES)
    result = flujo("run", "shapes", "--input", '{"times": "two"}')
    assert result.exit_code == 2
    assert "text" in result.stderr
    assert "times" in result.stderr
    assert flujo("tasks", "list").stdout == ""


def test_no_input_says_how_to_give_it(flujo: Flujo) -> None:
    result = flujo("run", "hello")
    assert result.exit_code == 2
    assert result.stderr == snapshot("""\
error: the input is missing [FLJ601]
  hint: pass `--input TEXT`
""")


def test_context_and_metadata_are_kept_with_the_run(flujo: Flujo, project: Project) -> None:
    project.blueprint("shapes", SHAPES)
    words = ["--field", "text=Ada", "--context", "label=vip", "--metadata", "n=7", "--metadata", "id=007"]
    assert answer(flujo("run", "shapes", *words))["label"] == "vip"
    listed = json.loads(flujo("tasks", "list", "--metadata", "id=007", "--json").stdout)
    assert [run["metadata"] for run in listed] == [{"n": 7, "id": "007"}]
    assert flujo("tasks", "list", "--metadata", "id=7", "--json").stdout == "[]\n"


def test_an_unknown_context_field_is_refused(flujo: Flujo, project: Project) -> None:
    project.blueprint("shapes", SHAPES)
    result = flujo("run", "shapes", "--field", "text=Ada", "--context", "lable=vip")
    assert result.exit_code == 2
    assert "lable" in result.stderr


def test_a_warning_is_mentioned_and_stops_nothing(flujo: Flujo, project: Project) -> None:
    project.blueprint("shapes", SHAPES.replace("steps:", 'agents: {spare: {model: "local:smollm2"}}\nsteps:'))
    result = flujo("run", "shapes", "--input", "Ada")
    assert result.exit_code == 0
    assert "1 warning: `flujo validate blueprints/shapes.yaml` shows them" in result.stderr


def test_json_gives_the_whole_result(flujo: Flujo) -> None:
    result = answer(flujo("run", "hello", "-i", "Ada", "--json"))
    assert result["status"] == "completed"
    assert result["output"] == "Hello, Ada! Your name has 3 letters."
    assert [step["path"] for step in result["steps"]] == ["greet", "count"]
    assert result["usage"]["cost_usd"] == 0


@pytest.mark.parametrize("if_exists", ["fail", "resume", "return"])
def test_a_run_id_with_another_context_is_a_conflict(flujo: Flujo, project: Project, if_exists: str) -> None:
    project.blueprint("shapes", SHAPES)
    words = ["run", "shapes", "--field", "text=Ada", "--run-id", "r1", "--json"]
    assert flujo(*words, "--context", "label=alice").exit_code == 0
    other = flujo(*words, "--context", "label=bob", "--if-exists", if_exists)
    assert (other.exit_code, json.loads(other.stdout)["error"]["code"]) == (8, "FLJ507")
    assert flujo(*words, "--context", "label=bob").exit_code == 8
    assert "run r1 exists already with another initial context; different fields: `label`" in other.stderr
    assert flujo(*words, "--if-exists", if_exists).exit_code == 8
    assert flujo(*words, "--context", "label=alice").exit_code == 0


def test_a_context_with_its_default_spelled_out_attaches_to_the_run(flujo: Flujo, project: Project) -> None:
    project.blueprint("shapes", SHAPES)
    words = ["run", "shapes", "--field", "text=Ada", "--run-id", "r1"]
    assert answer(flujo(*words)) == answer(flujo(*words, "--context", "label=none"))


def test_a_run_id_that_is_taken_is_judged_by_if_exists(flujo: Flujo) -> None:
    first = flujo("run", "hello", "-i", "Ada", "--run-id", "greet-1")
    assert first.exit_code == 0
    again = flujo("run", "hello", "-i", "Ada", "--run-id", "greet-1")
    assert again.stdout == first.stdout
    assert "run greet-1 already exists; no step was executed" in again.stderr
    assert "is there already" not in first.stderr
    assert flujo("run", "hello", "-i", "Bo", "--run-id", "greet-1").exit_code == 8
    assert flujo("run", "hello", "-i", "Ada", "--run-id", "greet-1", "--if-exists", "fail").exit_code == 8
    kept = flujo("run", "hello", "-i", "Ada", "--run-id", "greet-1", "--if-exists", "return")
    assert (kept.exit_code, kept.stdout) == (0, first.stdout)


def test_a_run_that_waits_exits_with_5_and_says_how_to_answer(flujo: Flujo) -> None:
    result = flujo("run", "ask")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "\nSend this? Hello, Ada!\n" in result.stderr
    wanted = flujo("run", "ask", "--paused-ok")
    assert (wanted.exit_code, wanted.stdout) == (0, "Send this? Hello, Ada!\n")
    assert "waiting for an answer at `approve`:\n" in result.stderr
    assert "next: flujo tasks resume " in result.stderr
    assert result.stderr.rstrip().endswith("--field ok=OK   (OK: true or false)")
    assert flujo("run", "ask", "--paused-ok").exit_code == 0


def test_debug_shows_where_a_step_failed_and_nothing_else_does(flujo: Flujo, project: Project) -> None:
    assert "Traceback" not in flujo("run", "flaky", "-i", "once").stderr
    shown = flujo("--debug", "run", "flaky", "-i", "once").stderr
    assert "Traceback" in shown
    assert "skills" in shown


def test_a_failed_run_exits_with_1_and_resumes_from_the_failed_step(flujo: Flujo, project: Project) -> None:
    result = flujo("run", "flaky", "-i", "once")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: step `second`: " in result.stderr
    assert "Traceback" not in result.stderr
    assert "--retry-failed" in result.stderr.splitlines()[-1]
    assert flujo("resume", "@last").exit_code == 8
    (project.root / "there.txt").write_text("now", "utf-8")
    again = flujo("resume", "@last", "--retry-failed")
    assert (again.exit_code, again.stdout) == (0, "now\n")
    assert project.notes() == ["once"]


def test_a_callable_that_is_not_there_exits_with_3_and_records_nothing(
    flujo: Flujo, project: Project
) -> None:
    (project.root / "skills/broken.py").write_text("import nothing_of_this_name\n\n\ndef f(): ...\n", "utf-8")
    project.blueprint("broken", 'version: "1"\nname: broken\nsteps: [{name: a, call: "skills.broken:f"}]\n')
    result = flujo("run", "broken")
    assert result.exit_code == 3
    assert "skills.broken" in result.stderr
    assert "Traceback" not in result.stderr
    assert flujo("tasks", "list").stdout == ""


def test_a_lock_that_does_not_match_exits_with_7(flujo: Flujo, project: Project) -> None:
    (project.root / "flujo.toml").write_text(
        (project.root / "flujo.toml").read_text("utf-8") + "\n[lockfile]\nenabled = true\n", "utf-8"
    )
    assert flujo("run", "hello", "-i", "Ada").exit_code == 7
    assert flujo("lock").exit_code == 0
    assert flujo("run", "hello", "-i", "Ada").exit_code == 0
    path = project.root / "blueprints/hello.yaml"
    path.write_text(path.read_text("utf-8").replace("Your name", "The name"), "utf-8")
    result = flujo("run", "hello", "-i", "Ada")
    assert result.exit_code == 7
    assert "blueprint blueprints/hello.yaml: `output` was" in result.stderr
    assert flujo("run", "ask").exit_code == 5


def test_the_project_may_be_named_from_elsewhere(flujo: Flujo, project: Project, tmp_path: Any) -> None:
    import os

    os.chdir(tmp_path)
    assert flujo("-C", str(project.root), "run", "hello", "-i", "Ada").exit_code == 0
    assert (project.root / ".flujo/state.db").exists()
    assert flujo("-C", "gone", "run").exit_code == 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("run", "hello", "--input", "Ada"), "`--if-exists return` shows its result"),
        (("run", "ask"), "`flujo tasks show r1` shows what it waits for"),
        (("run", "flaky", "--input", "x"), "`flujo resume r1 --retry-failed` retries the failed step"),
    ],
)
def test_the_hint_about_a_run_id_that_is_taken_fits_the_state_of_the_run(
    flujo: Flujo, words: tuple[str, ...], hint: str
) -> None:
    flujo(*words, "--run-id", "r1")
    refused = flujo(*words, "--run-id", "r1", "--if-exists", "fail")
    assert refused.exit_code == 8
    assert hint in refused.stderr


def test_a_secret_that_is_not_set_exits_with_2_at_its_line_and_records_nothing(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = "{call: skills.greet:greet, with: {name: {secret: CANARY_PASS}}}"
    project.blueprint(
        "asks",
        f'version: "1"\nname: asks\nagents:\n  clerk:\n    model: local:smollm2\n    tools:\n      - {tool}\n'
        "steps:\n  - {kind: granular, name: talk, agent: clerk, input: hello}\n",
    )
    for value, why in (
        (None, "the environment variable CANARY_PASS is not set"),
        ("short", "fewer than 8 characters"),
    ):
        monkeypatch.setenv("CANARY_PASS", value or "")
        result = flujo("run", "asks")
        assert result.exit_code == 2, result.stderr
        assert "blueprints/asks.yaml:7: tool `skills.greet:greet` needs a secret, and" in result.stderr
        assert why in result.stderr
        assert "[FLJ465]" in result.stderr
        assert not (project.root / ".flujo").exists()
        checked = flujo("validate", "asks")
        assert checked.exit_code == 0
        assert "FLJ465" in checked.stdout
    monkeypatch.setenv("CANARY_PASS", "0123456789")
    assert "FLJ465" not in flujo("validate", "asks").stdout


def test_a_deadline_in_json_is_that_of_the_database(flujo: Flujo, project: Project) -> None:
    project.blueprint(
        "timed",
        'version: "1"\nname: timed\nsteps: [{kind: hitl, name: ask, message: Yes or no?, deadline_s: 7200}]\n',
    )
    (pause,) = json.loads(flujo("run", "timed", "--run-id", "r1", "--json").stdout)["pauses"]
    (listed,) = json.loads(flujo("tasks", "show", "r1", "--json").stdout)["questions"]
    assert pause["deadline_at"] == listed["deadline_at"] > 0


@pytest.mark.parametrize("text", ['{"question": "x"', " [{'a': 1}"])
def test_text_that_begins_like_json_is_refused_before_the_run(
    flujo: Flujo, project: Project, text: str
) -> None:
    schema = "{type: object, required: [question], properties: {question: {type: string}}}"
    for name, given in (("typed", schema), ("plain", "{type: string}")):
        project.blueprint(
            name,
            f'version: "1"\nname: {name}\ninput_schema: {given}\nsteps: [{{kind: hitl, name: ask, message: hi}}]\n',
        )
        refused = flujo("run", name, "--input", text)
        assert refused.exit_code == 2
        assert "the input begins like JSON and is not JSON: " in refused.stderr
        assert "line 1 column" in refused.stderr
        (project.root / "input.txt").write_text(text, "utf-8")
        assert flujo("run", name, "--input-file", "input.txt").exit_code == 5
    assert flujo("run", "plain", "--input", "{name} is a placeholder, [1] a note").exit_code == 5
    context = flujo("run", "plain", "--input", "x", "--context", f"note={text}")
    assert (context.exit_code, "--context note begins like JSON" in context.stderr) == (2, True)
