"""`flujo validate`: quiet when all is well, exact when it is not; `flujo explain` says why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

WRONG = """\
version: "1"
name: wrong
steps:
  - name: one
    call: skills.greet:greet
    wth: {name: Ada}
"""


def test_a_good_project_gives_no_output_and_one_word(flujo: Flujo) -> None:
    result = flujo("validate")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "4 blueprints checked: valid\n"


def test_a_mistake_is_shown_in_its_line_with_a_caret(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    result = flujo("validate", "wrong")
    assert result.exit_code == 4
    assert result.stdout == snapshot("""\
error[FLJ120]: `wth` is not a key of a step
 --> blueprints/wrong.yaml:6:5
  |
6 |     wth: {name: Ada}
  |     ^^^
  = hint: did you mean `with`?
""")
    assert "1 blueprint checked: 1 error" in result.stderr
    assert "next: flujo explain FLJ" in result.stderr


def test_the_others_are_checked_as_well(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    project.blueprint("worse", WRONG.replace("wth", "agnt"))
    result = flujo("validate")
    assert "wrong.yaml:6" in result.stdout
    assert "worse.yaml:6" in result.stdout
    assert "6 blueprints checked" in result.stderr


def test_json_names_every_finding(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    for words in (["--json"], ["--format", "json"]):
        result = flujo("validate", "blueprints/wrong.yaml", "hello", *words)
        first, second = json.loads(result.stdout)
        assert (first["path"], first["valid"], second["valid"]) == ("blueprints/wrong.yaml", False, True)
        assert first["diagnostics"][0]["span"]["line"] == 6
        assert result.exit_code == 4


def test_github_gets_workflow_commands(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    result = flujo("validate", "wrong", "--format", "github")
    assert result.stdout.startswith("::error file=blueprints/wrong.yaml,line=6,col=5,")
    assert "%0Ahint: " in result.stdout


@pytest.mark.parametrize("what", ["gone.yaml", "../elsewhere.yaml", "gone"])
def test_a_blueprint_that_is_not_there_is_refused(what: str, flujo: Flujo) -> None:
    result = flujo("validate", what)
    assert result.exit_code in (2, 4)
    assert "Traceback" not in result.output


def test_a_folder_is_checked_whole(flujo: Flujo) -> None:
    assert "4 blueprints checked" in flujo("validate", "blueprints").stderr


def test_a_run_of_a_wrong_blueprint_shows_the_same_and_runs_nothing(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    result = flujo("run", "wrong")
    assert (result.exit_code, result.stdout) == (4, "")
    assert flujo("validate", "wrong").stdout.strip() in result.stderr
    assert not (project.root / ".flujo").exists()


def test_a_warning_is_an_error_with_strict_dsl(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = 'agents: {spare: {model: "local:smollm2"}}\nsteps:'
    project.blueprint("spare", WRONG.replace("steps:", unused).replace("wth", "with"))
    assert flujo("validate", "spare").exit_code == 0
    monkeypatch.setenv("FLUJO_STRICT_DSL", "1")
    assert flujo("validate", "spare").exit_code == 4


def test_explain_gives_the_rule_and_what_to_write_instead(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", WRONG)
    code = json.loads(flujo("validate", "wrong", "--json").stdout)[0]["diagnostics"][0]["code"]
    text = flujo("explain", code).stdout
    assert text.startswith(f"# {code} ")
    assert "## Write instead" in text


def test_explain_knows_errors_too_and_takes_any_case(flujo: Flujo) -> None:
    assert flujo("explain", "flj650").stdout == snapshot("""\
# FLJ650 LockMismatch

The blueprint or one of its parts differs from `flujo.lock`.

## What to do

list the differences with `flujo lock verify`; once they are tested, update it with `flujo lock`
""")


def test_every_code_that_is_listed_can_be_explained(flujo: Flujo) -> None:
    codes = [each["code"] for each in json.loads(flujo("explain", "--json").stdout)]
    assert codes == sorted(set(codes))
    assert len(codes) > 30
    for code in codes:
        assert flujo("explain", code).exit_code == 0


def test_an_unknown_code_is_refused(flujo: Flujo) -> None:
    result = flujo("explain", "FLJ999")
    assert result.exit_code == 2
    assert "no rule or error has the code 'FLJ999'" in result.stderr


def test_the_budget_of_the_project_or_the_importing_blueprint_bounds_retries(
    flujo: Flujo, project: Project
) -> None:
    loop = "{kind: loop, name: again, until: previous == 'yes', steps: [{name: ask, agent: a}]}"
    project.blueprint(
        "asks", f'version: "1"\nname: asks\nagents: {{a: {{model: "openai:gpt-5-mini"}}}}\nsteps: [{loop}]\n'
    )
    head = 'version: "1"\nname: over\n'
    steps = "steps: [{kind: import, name: sub, blueprint: ./asks.yaml}]\n"
    project.blueprint("over", head + steps)
    assert "FLJ293" in flujo("validate", "blueprints/over.yaml").stdout
    project.blueprint("over", head + "budget: {requests_limit: 9}\n" + steps)
    assert "FLJ293" not in flujo("validate", "blueprints/over.yaml").stdout
    assert "FLJ293" in flujo("validate", "blueprints/asks.yaml").stdout
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as settings:
        settings.write("\n[budgets]\nrequests_limit = 9\n")
    assert "FLJ293" not in flujo("validate", "blueprints/asks.yaml").stdout


def test_a_run_that_was_accepted_is_not_judged_again_by_stricter_settings(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.blueprint(
        "asks",
        'version: "1"\nname: asks\nsteps:\n'
        "  - {kind: hitl, name: ok, message: 'ok?', answer_schema: {type: boolean}}\n"
        "  - {name: greet, call: skills.greet:greet, with: {name: Ada}}\n",
    )
    assert flujo("run", "asks", "--run-id", "r1", "--paused-ok").exit_code == 0
    monkeypatch.setenv("FLUJO_STRICT_DSL", "1")
    assert flujo("validate", "blueprints/asks.yaml").exit_code == 4, "nobody reads the answer"
    assert flujo("tasks", "resume", "r1", "--input", "true").exit_code == 0
