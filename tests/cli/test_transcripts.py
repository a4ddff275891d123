"""`flujo trace --messages` and `--json` show the transcripts of attempts, and no secret."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from agents.provider_server import Fault, Provider, provider_server
from agents.provider_server import Response as Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

TALK = """\
version: "1"
name: talk
input_schema: {type: string}
agents:
  helper:
    model: openai-chat:gpt-4o-mini
    instructions: Help {{ input }}.
    tools: ["skills.leak:read"]
    model_settings: {max_tokens: 100}
steps:
  - {name: help, agent: helper, config: {max_retries: 1, retry: {initial_s: 0.01}}}
"""
LEAK = '''\
import os


def read(name: str) -> str:
    """Read a variable."""
    return f"{name} is {os.environ[name]}"
'''


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def test_the_messages_of_each_attempt_are_shown_without_secrets(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    key = provider.environment["OPENAI_API_KEY"]
    (project.root / "skills/leak.py").write_text(LEAK, "utf-8")
    project.blueprint("talk", TALK)
    call = Sent(tool_call=("read", {"name": "OPENAI_API_KEY"}))
    provider.will_answer(call, Fault.SERVER_ERROR, call, "It is set.")
    done = flujo("run", "talk", "--input", "Ada", "--run-id", "talk")
    assert (done.exit_code, done.stdout) == (0, "It is set.\n"), done.output

    shown = flujo("trace", "talk", "help", "--messages").stdout
    assert key not in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    first = ["system Help Ada.", "tools read", "user Ada", 'calls read {"name": "OPENAI_API_KEY"}']
    assert lines[:4] == first
    assert lines[4].startswith("result read: OPENAI_API_KEY is ")
    failed = next(number for number, line in enumerate(lines) if line.startswith("failed "))
    assert "HTTP 500" in lines[failed]
    assert lines[failed + 1 : failed + 6] == ["attempt 2", *first]
    assert lines[-1] == "model It is set."

    step = [" ".join(line.split()) for line in flujo("trace", "talk", "help").stdout.splitlines()]
    assert "gpt-4o-mini" in step[1]
    assert {"system Help Ada.", "prompt Ada"} < set(step)
    assert [line[:12] for line in step if line.startswith("attempt")] == ["attempt 1 fa", "attempt 2 co"]

    text = flujo("trace", "talk", "--json").stdout
    assert key not in text
    (step,) = json.loads(text)["children"]
    assert [(said["attempt"], said["status"]) for said in step["transcripts"]] == [
        (1, "failed"),
        (2, "completed"),
    ]
    assert step["transcripts"][0]["instructions"] == "Help Ada."
    assert len(step["transcripts"][1]["messages"]) == 4


def test_without_transcripts_the_command_names_the_setting(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    with (project.root / "flujo.toml").open("a") as file:
        file.write('\n[journal]\ntranscripts = "off"\n')
    provider.will_answer("Hello.")
    project.blueprint("talk", TALK.replace('    tools: ["skills.leak:read"]\n', ""))
    assert flujo("run", "talk", "--input", "Ada", "--run-id", "talk").stdout == "Hello.\n"
    refused = flujo("trace", "talk", "help", "--messages")
    assert refused.exit_code == 2
    assert "[journal] transcripts = 'off'" in refused.stderr


def test_a_pause_says_what_was_spent(project: Project, flujo: Flujo, provider: Provider) -> None:
    (project.root / "skills/leak.py").write_text(LEAK, "utf-8")
    project.blueprint("talk", f"{TALK}  - {{kind: hitl, name: ask, message: well?}}\n")
    provider.will_answer("Hello.")
    paused = flujo("run", "talk", "--input", "Ada")
    assert paused.exit_code == 5
    assert re.search(r"^paused  [\d,]+ tokens", paused.stderr, re.M)
