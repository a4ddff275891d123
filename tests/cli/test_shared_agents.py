"""Agents in files of their own, from the command line: checked, run, pinned, locked, and other models for developers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from agents.provider_server import Provider, provider_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

SHARED = """\
version: "1"
agents:
  reviewer: {model: "openai-chat:gpt-4o-mini", instructions_file: ./review.md}
  strict: {extends: reviewer, model_settings: {temperature: 0}}
"""
CONTRACT = """\
version: "1"
name: contract
include: [./agents/common.yaml]
agents: {legal: {extends: strict, model_settings: {max_tokens: 50}}}
steps:
  - {name: read, agent: strict, input: The clause}
  - {kind: hitl, name: approve, message: "{{ previous }}"}
  - {name: judge, agent: legal, input: The clause again}
"""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-test")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{running.url}/v1")
        running.will_answer("It is fine.")
        yield running


@pytest.fixture
def shared(project: Project) -> Project:
    """A project whose blueprint asks agents of another file, whose prompt stands in a third."""
    (project.root / "blueprints/agents").mkdir()
    project.blueprint("agents/common", SHARED)
    (project.root / "blueprints/agents/review.md").write_text("Review it.", "utf-8")
    project.blueprint("contract", CONTRACT)
    return project


def prompts(provider: Provider) -> list[str]:
    """Return the system prompt of each request."""
    return [request["messages"][0]["content"] for request in provider.requests]


def test_a_file_of_agents_is_checked_with_the_blueprints_and_is_none(flujo: Flujo, shared: Project) -> None:
    assert flujo("validate").stderr == "5 blueprints and 1 agent file checked: valid\n"
    assert flujo("validate", "blueprints/agents").stderr == "1 agent file checked: valid\n"
    assert "common" not in flujo("run").output
    assert flujo("ls").exit_code == 0
    run = flujo("run", "blueprints/agents/common.yaml")
    assert run.exit_code == 4
    assert "is a file of agents, but this key needs a blueprint" in run.output


def test_a_mistake_in_a_file_of_agents_is_shown_with_the_line_that_includes_it(
    flujo: Flujo, shared: Project
) -> None:
    shared.blueprint("agents/common", SHARED.replace("extends: reviewer", "extends: reviewr"))
    assert flujo("validate", "contract").stdout == snapshot("""\
error[FLJ270]: agent 'strict' extends 'reviewr', which this file neither defines nor includes
 --> blueprints/agents/common.yaml:4:21
  |
4 |   strict: {extends: reviewr, model_settings: {temperature: 0}}
  |                     ^^^^^^^
 ::: blueprints/contract.yaml:3:11
  |
3 | include: [./agents/common.yaml]
  |           -------------------- included here
  = hint: did you mean `reviewer`?
""")


def test_a_run_resumes_with_the_agents_that_it_was_accepted_with(
    flujo: Flujo, shared: Project, provider: Provider
) -> None:
    assert flujo("run", "contract").exit_code == 5
    (shared.root / "blueprints/agents/review.md").write_text("Praise it.", "utf-8")
    (shared.root / "blueprints/agents/common.yaml").unlink()
    resumed = flujo("tasks", "resume", "@last", "--input", "fine")
    assert (resumed.exit_code, resumed.stdout) == (0, "It is fine.\n")
    assert prompts(provider) == ["Review it.", "Review it."]
    assert provider.requests[-1]["temperature"] == 0


def test_a_developer_edits_a_shared_prompt_and_production_does_not_start_with_it(
    flujo: Flujo, shared: Project, provider: Provider
) -> None:
    with (shared.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write("\n[lockfile]\nenabled = true\n\n[env.dev]\nlockfile.enabled = false\n")
        file.write('agents."*".model = "openai-chat:gpt-4o"\n')
    assert flujo("lock").exit_code == 0
    assert flujo("run", "contract").exit_code == 5
    (shared.root / "blueprints/agents/review.md").write_text("Praise it.", "utf-8")
    assert flujo("--env", "dev", "run", "contract").exit_code == 5
    assert [request["model"] for request in provider.requests] == ["gpt-4o-mini", "gpt-4o"]
    refused = flujo("run", "contract")
    assert refused.exit_code == 7
    assert "agent 'legal' of blueprints/contract.yaml: the instructions" in refused.output
    assert prompts(provider) == ["Review it.", "Praise it."]
