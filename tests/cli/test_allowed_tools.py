"""The allow-list of tools on the command line: a plain step, the checks, and where the list is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, provider_server
from agents.provider_server import Response as Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

VARIABLE = "FLUJO_GOVERNANCE_TOOL_ALLOWLIST"
TALK = """\
version: "1"
name: talk
input_schema: {type: string}
agents:
  helper:
    model: openai-chat:gpt-4o-mini
    tools: ["skills.work:note"]
steps:
  - {name: help, agent: helper}
"""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.mark.parametrize("kind", ["step", "granular"])
def test_the_model_reads_the_refusal_in_every_kind_of_step(
    project: Project, flujo: Flujo, provider: Provider, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    said: list[Any] = []

    def answer(request: dict[str, Any]) -> Sent:
        said.append(request["messages"])
        return Sent("Done.") if len(said) > 1 else Sent(tool_call=("note", {"text": "x"}))

    provider.will_answer(answer)
    monkeypatch.setenv(VARIABLE, "other")
    project.blueprint("talk", TALK.replace("{name: help", f"{{kind: {kind}, name: help"))
    done = flujo("run", "talk", "--input", "Go.")
    assert done.exit_code == 0, done.output
    assert "this project does not allow the tool `note`" in json.dumps(said[-1])
    assert project.notes() == []


def test_a_denied_tool_ends_the_run_with_what_to_add(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    provider.will_answer(lambda _: Sent(tool_call=("note", {"text": "x"})))
    project.blueprint("talk", TALK)
    settings = project.root / "flujo.toml"
    settings.write_text(
        settings.read_text("utf-8") + '\n[governance]\ntools = ["other"]\non_denied = "fail"\n', "utf-8"
    )
    failed = flujo("run", "talk", "--input", "Go.")
    assert failed.exit_code == 1
    assert "`note` is not on the list of allowed tools: `other`" in failed.output
    assert "add 'skills.work:note' to `[governance] tools`" in failed.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('tools = ["a", " "]', "which does not name a tool"),
        ('tools = ["note*"]', "names are exact"),
        ('tools = "note"', "must be a list"),
        ('tool = ["note"]', "did you mean `tools`?"),
        ('on_denied = "ask"', "must be 'refuse' or 'fail'"),
    ],
)
def test_a_wrong_list_is_an_error_with_its_line(
    project: Project, flujo: Flujo, given: str, message: str
) -> None:
    settings = project.root / "flujo.toml"
    settings.write_text(settings.read_text("utf-8") + f"\n[governance]\n{given}\n", "utf-8")
    refused = flujo("validate")
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr
    assert f"flujo.toml:{len(settings.read_text('utf-8').splitlines())}:" in refused.stderr


def test_validate_warns_about_a_denied_tool(
    project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.blueprint("talk", TALK)
    for listed, is_denied in (("other", True), ("note", False), ("skills.work:note", False)):
        monkeypatch.setenv(VARIABLE, listed)
        found = flujo("validate", "talk")
        assert found.exit_code == 0, found.output
        assert ("FLJ469" in found.output) is is_denied


def test_doctor_shows_the_list(project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "note,other")
    assert VARIABLE in flujo("doctor").stdout


def test_explain_shows_the_list_and_the_shared_budgets(project: Project, flujo: Flujo) -> None:
    project.blueprint("talk", TALK)
    settings = project.root / "flujo.toml"
    rules = "".join(
        f'\n[[budgets.rule]]\nname = "{name}"\nmatch = {{pipeline = "{of}"}}\nrequests_limit = 5\n'
        for name, of in (("mine", "talk"), ("theirs", "other"))
    )
    settings.write_text(settings.read_text("utf-8") + '\n[governance]\ntools = ["note"]\n' + rules, "utf-8")
    said = flujo("explain", "talk").stdout
    assert "tools that models may call in this project: note" in said
    assert "budget `mine` of several runs: requests_limit 5 (window: month)" in said
    assert "theirs" not in said
