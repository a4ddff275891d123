"""`flujo fork` runs again from a step with another prompt; `flujo diff` and `flujo trace` show the difference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, Response, provider_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

MAIL = """\
version: "1"
name: mail
input_schema: {type: string}
context_schema:
  type: object
  properties: {tone: {type: string, default: formal}}
agents:
  writer:
    model: openai-chat:gpt-4o-mini
    instructions: Write a formal letter.
steps:
  - {name: note, call: "skills.work:note", with: {text: "{{ input }}"}, effect: read}
  - {name: write, agent: writer, input: "{{ input }} ({{ context.tone }})"}
  - {name: send, call: "skills.work:note", with: {text: "{{ previous }}"}}
"""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, project: Project) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        project.blueprint("mail", MAIL)
        yield running


def said(request: dict[str, Any]) -> Response:
    """Answer with the prompt's words, so that another prompt has another answer."""
    return Response("-".join(each["content"] for each in request["messages"]).replace(" ", "_"))


def test_another_prompt_from_a_step_on(project: Project, flujo: Flujo, provider: Provider) -> None:
    provider.will_answer(said)
    done = flujo("run", "mail", "--input", "Ada", "--run-id", "mail")
    assert (done.exit_code, done.stdout) == (0, "Write_a_formal_letter.-Ada_(formal)\n"), done.output
    (project.root / "short.md").write_text("Write a short letter.", "utf-8")
    words = ["fork", "mail", "--at", "write", "--prompt", "writer=@short.md"]
    asked = flujo(*words)
    assert asked.exit_code == 5
    assert "would call `skills.work:note` (effect: unsafe)" in asked.stderr
    assert "--field call=true" in asked.stderr
    assert project.notes() == ["Ada", "Write_a_formal_letter.-Ada_(formal)"], "nothing was called"
    sent = flujo(*words, "--live-effects", "--json", "--set", "context.tone=kind")
    assert sent.exit_code == 0, sent.output
    forked = json.loads(sent.stdout)
    assert forked["output"] == "Write_a_short_letter.-Ada_(kind)"
    assert (forked["parent"], forked["at"], forked["copied"]) == ("mail", "write", 1)
    assert forked["changes"] == {"context": {"tone": "kind"}, "prompts": ["writer"]}
    assert forked["own_usage"]["requests"] == 1
    assert project.notes()[2:] == ["Write_a_short_letter.-Ada_(kind)"]

    family = flujo("trace", "mail").stdout.splitlines()[-1]
    assert family.startswith("forks: ")
    assert flujo("trace", forked["run_id"]).stdout.splitlines()[-1] == "fork of mail at `write`"

    shown = flujo("diff", "mail", forked["run_id"])
    assert shown.exit_code == 0, shown.output
    assert "first difference: `write`, its input" in shown.stdout
    assert "Write a [-formal-]{+short+} letter." in shown.stdout
    found = json.loads(flujo("diff", "mail", forked["run_id"], "--json").stdout)
    assert [(each["path"], each["what"]) for each in found["differences"]] == [
        ("write", "input"),
        ("send", "input"),
    ]
    assert found["first"]["other"] == "Ada (kind)"
    assert found["prompts"][0]["agent"] == "writer"


def test_several_forks_are_a_table_of_their_outcomes(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    provider.will_answer("Good day.")
    flujo("run", "mail", "--input", "Ada", "--run-id", "mail")
    provider.answers[:] = []
    provider.will_answer("Good day.", "Hello.", "Good day.")
    done = flujo("fork", "mail", "--at", "write", "-n", "3", "--model", "writer=openai-chat:gpt-4o", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    counts = sorted((each["status"], each["output"], each["count"]) for each in found["outcomes"])
    assert counts == [("completed", "Good day.", 2), ("paused", None, 1)]
    assert len(found["forks"]) == 3
    stubbed = [fork["stubbed"] for fork in found["forks"] if fork["status"] == "completed"]
    assert stubbed == [[{"path": "send", "tool": "skills.work:note", "by": "recorded"}]] * 2
    assert {request["model"] for request in provider.requests[1:]} == {"gpt-4o"}
    table = flujo("fork", "mail", "--at", "write", "-n", "2").stdout
    assert "COUNT  STATUS" in table
    assert "Good day." in table


def test_the_outputs_of_forks_are_scored(project: Project, flujo: Flujo, provider: Provider) -> None:
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write('[evaluation.evaluators.short]\nexpr = "size(output) < 8"\n')
        file.write('[evaluation.evaluators.broken]\nexpr = "output.nothing"\n')
    provider.will_answer("Good day.")
    flujo("run", "mail", "--input", "Ada", "--run-id", "mail")
    provider.answers[:] = []
    provider.will_answer("Good day.", "Hello.")
    fork = ["fork", "mail", "--at", "write", "-n", "2", "--live-effects"]
    found = json.loads(flujo(*fork, "--evaluator", "short", "--json").stdout)
    scores = {each["output"]: [one["score"] for one in each["scores"]] for each in found["outcomes"]}
    assert scores == {"Good day.": [0.0], "Hello.": [1.0]}
    provider.answers[:] = []
    provider.will_answer("Hello.", "Hello.")
    shown = flujo(*fork, "--evaluator", "short", "--evaluator", "broken")
    assert "COUNT  STATUS     SHORT  BROKEN" in shown.stdout
    assert "2      completed  1.00   -" in shown.stdout
    assert "broken: no score: " in shown.stderr
    sent = len(provider.requests)
    assert flujo(*fork, "--evaluator", "shor").exit_code == 2
    assert len(provider.requests) == sent, "nothing is paid before the names are known"


def test_stubbed_calls_are_listed_and_the_same_runs_do_not_differ(flujo: Flujo, provider: Provider) -> None:
    provider.will_answer("Good day.")
    flujo("run", "mail", "--input", "Ada", "--run-id", "mail")
    done = flujo("fork", "mail", "--at", "write")
    assert (done.exit_code, done.stdout) == (0, "Good day.\n"), done.output
    assert "1 call with an effect not made:\n  send  skills.work:note  (recorded result)" in done.stderr
    assert "no step differs" in flujo("diff", "mail", "@last").stdout


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--at", "writ"], 2, "did you mean `write`?"),
        (["--at", "write", "--prompt", "writr=x"], 2, "did you mean `writer`?"),
        (["--at", "write", "--model", "writr=openai:x"], 2, "did you mean `writer`?"),
        (["--at", "write", "--prompt", "writer=@nowhere.md"], 2, "cannot be read"),
        (["--at", "write", "--set", "tone=kind"], 2, "context.NAME=VALUE"),
        (["--at", "write", "--set", "context.tune=kind"], 2, "did you mean 'tone'?"),
        (["--at", "write", "--answer", "writ=1"], 2, "did you mean `write`?"),
        (["--at", "write", "--input-file", "nowhere.json"], 2, "nowhere.json"),
    ],
)
def test_bad_words_are_typed_errors_and_record_nothing(
    flujo: Flujo, provider: Provider, words: list[str], code: int, told: str
) -> None:
    provider.will_answer("Good day.")
    flujo("run", "mail", "--input", "Ada", "--run-id", "mail")
    refused = flujo("fork", "mail", *words)
    assert (refused.exit_code, told in refused.stderr) == (code, True), refused.output
    assert len(json.loads(flujo("tasks", "list", "--json").stdout)) == 1


def test_a_fork_keeps_the_pinned_files_and_takes_no_changed_ones(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    provider.will_answer(said)
    flujo("run", "mail", "--input", "Ada", "--run-id", "mail")
    project.blueprint("mail", MAIL.replace("formal letter", "rude letter"))
    assert flujo("fork", "mail", "--at", "write").stdout == "Write_a_formal_letter.-Ada_(formal)\n"
    asked = json.loads(flujo("fork", "mail", "--at", "write", "--prompt", "writer=Hi.", "--json").stdout)
    refused = flujo("resume", asked["run_id"], "--accept-changes")
    assert refused.exit_code == 8
    assert "is a fork" in refused.stderr
    done = flujo("tasks", "resume", asked["run_id"], "--field", "call=true")
    assert (done.exit_code, done.stdout) == (0, "Hi.-Ada_(formal)\n"), done.output
    again = flujo("fork", asked["run_id"], "--at", "send")
    assert again.stdout == "Hi.-Ada_(formal)\n"
