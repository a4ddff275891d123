"""A model of a provider calls a blueprint and another agent as tools, in a real `flujo run`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

import warm
from agents.provider_server import Provider, provider_server
from agents.provider_server import Response as Sent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli.conftest import Flujo, Project

FLUJO = [sys.executable, "-m", "flujo"]
DESK = """\
version: "1"
name: desk
input_schema: {type: string}
agents:
  clerk:
    model: openai-chat:gpt-4o-mini
    instructions: You are the clerk.
    model_settings: {max_tokens: 100}
    tools:
      - {blueprint: ./order.yaml, description: Look an order up}
      - {agent: helper, description: Answer a question}
  helper:
    model: openai-chat:gpt-4o-mini
    instructions: "You help with {{ input }}."
    model_settings: {max_tokens: 100}
steps:
  - {kind: granular, name: talk, agent: clerk}
"""
ORDER = """\
version: "1"
name: order
input_schema: {type: object, required: [order], properties: {order: {type: string}}}
steps:
  - {kind: hitl, name: ok, message: "Refund {{ input.order }}?"}
"""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


def answer(request: dict[str, Any]) -> Sent:
    """Return the answer of the helper, or the next call or the answer of the clerk."""
    said = request["messages"]
    if "You help with lamps." in json.dumps(said):
        return Sent("It is a lamp.")
    turn = sum(message["role"] == "assistant" for message in said)
    calls = [("order", {"order": "A-7"}), ("helper", {"prompt": "What is A-7?"})]
    return Sent(tool_call=calls[turn]) if turn < len(calls) else Sent(" ".join(_results(said)))


def _results(said: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in said if message["role"] == "tool"]


def test_a_model_calls_a_blueprint_that_pauses_and_an_agent(tmp_path: Path, provider: Provider) -> None:
    (tmp_path / "flujo.toml").write_text("")
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints/desk.yaml").write_text(DESK)
    (tmp_path / "blueprints/order.yaml").write_text(ORDER)
    provider.will_answer(answer)
    environment = {**os.environ, **provider.environment}

    def flujo(*words: str, code: int = 0) -> str:
        done = warm.run([*FLUJO, *words], cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == code, done.stderr
        return str(done.stdout)

    flujo("run", "desk", "--input", "lamps", "--run-id", "lamp", code=5)
    shown = provider.requests[0]["tools"]
    assert [tool["function"]["name"] for tool in shown] == ["order", "helper"]
    assert shown[0]["function"]["description"] == "Look an order up"
    assert list(shown[0]["function"]["parameters"]["properties"]) == ["order"]
    flujo("tasks", "resume", "lamp", "--input", "yes")
    trace = json.loads(flujo("trace", "lamp", "--json"))
    assert "yes It is a lamp." in json.dumps(trace)
    assert "talk/turn[0]/tool[0]/ok" in json.dumps(trace)
    assert "talk/turn[1]/tool[0]/turn[0]" in json.dumps(trace)


def test_accepted_changes_keep_the_calls_of_tools_that_consist_of_steps(
    flujo: Flujo, project: Project, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    project.blueprint("desk", DESK)
    project.blueprint("order", ORDER)
    provider.will_answer(answer)
    assert flujo("run", "desk", "--input", "lamps", "--run-id", "lamp").exit_code == 5
    project.blueprint("desk", DESK.replace("name: talk,", "name: talk, max_turns: 9,"))
    accepted = flujo("resume", "lamp", "--accept-changes", "--paused-ok")
    assert accepted.exit_code == 0, accepted.stderr
    done = flujo("tasks", "resume", "lamp", "--input", "yes")
    assert done.stdout == "yes It is a lamp.\n"


ASKING = """\
version: "1"
name: asking
input_schema: {type: string}
agents:
  clerk: {model: openai-chat:gpt-4o-mini, model_settings: {max_tokens: 100}, tools: [skills.ask:which]}
steps:
  - {KIND, name: ask, agent: clerk}
  - {name: note, call: skills.work:note, with: {text: "{{ previous }}"}}
"""
WHICH = """\
from flujo.exceptions import PausedException

def which(name: str) -> str:
    raise PausedException(f"which {name}?")
"""


@pytest.mark.parametrize("kind", ["step", "granular"])
def test_accepted_changes_keep_the_records_of_attempts_that_paused(
    flujo: Flujo, project: Project, provider: Provider, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    (project.root / "skills/ask.py").write_text(WHICH, "utf-8")
    blueprint = ASKING.replace("KIND", f"kind: {kind}")
    project.blueprint("asking", blueprint)
    provider.will_answer(Sent(tool_call=("which", {"name": "lamp"})), "The red one.")
    paused = flujo("run", "asking", "--input", "A lamp?", "--run-id", "lamp")
    assert (paused.exit_code, "which lamp?" in paused.stderr) == (5, True)
    trace = json.loads(flujo("trace", "lamp", "--json").stdout)
    step = trace["children"][0]
    assert step["status"] == "paused"
    if kind == "step":
        assert step["usage"]["requests"] == 1
        assert step["usage"]["cost_usd"] > 0
        assert step["transcripts"][0]["status"] == "paused"
        messages = flujo("trace", "lamp", "ask", "--messages").stdout
        assert "calls   which" in messages
    project.blueprint("asking", blueprint.replace("{{ previous", "Got {{ previous"))
    accepted = flujo("resume", "lamp", "--accept-changes", "--paused-ok")
    assert accepted.exit_code == 0, accepted.stderr
    done = flujo("tasks", "resume", "lamp", "--input", "the red one")
    assert done.exit_code == 0, done.stderr
    assert len(provider.requests) == (1 if kind == "step" else 2)


def test_a_changed_agent_is_named_once_and_the_next_command_accepts_the_change(
    flujo: Flujo, project: Project, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    tools = project.root / "skills/ask.py"
    tools.write_text(WHICH, "utf-8")
    project.blueprint("asking", ASKING.replace("KIND", "kind: granular"))
    provider.will_answer(Sent(tool_call=("which", {"name": "lamp"})), "The red one.")
    project.start("run", "asking", "--input", "A lamp?", "--run-id", "lamp").communicate(timeout=120)
    tools.write_text(WHICH.replace("name: str) -> str:", "name: str) -> str:\n    'Choose.'"), "utf-8")
    process = project.start("tasks", "resume", "lamp", "--input", "red")
    _, errors = process.communicate(timeout=120)
    assert "error: step `ask`: the agent has changed since its conversation began: `tool which`" in errors
    next_line = "next: flujo resume lamp --retry-failed --accept-changes"
    assert f"{next_line}   (continue with the changed agent)" in errors
    assert next_line in flujo("trace", "lamp").stderr
    process = project.start("resume", "lamp", "--retry-failed", "--accept-changes")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_the_lock_holds_what_runs_below_a_tool(tmp_path: Path) -> None:
    (tmp_path / "flujo.toml").write_text("")
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints/desk.yaml").write_text(DESK)
    (tmp_path / "blueprints/order.yaml").write_text(ORDER)

    def flujo(*words: str) -> Any:
        return warm.run([*FLUJO, *words], cwd=tmp_path, capture_output=True)

    made = flujo("lock")
    assert made.returncode == 0, made.stderr
    lock = (tmp_path / "flujo.lock").read_text()
    assert "blueprints/order.yaml" in lock
    assert "Look an order up" in lock
    (tmp_path / "blueprints/order.yaml").write_text(ORDER.replace("Refund", "Return"))
    changed = flujo("lock", "verify")
    assert changed.returncode != 0
    assert "order.yaml" in changed.stdout + changed.stderr
