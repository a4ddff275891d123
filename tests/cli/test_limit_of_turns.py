"""A granular step at its limit of turns, on the command line: the question, the answers, and the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, provider_server
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
    instructions: Note what you find.
    tools: ["skills.work:note"]
    model_settings: {max_tokens: 100}
steps:
  - {kind: granular, name: help, agent: helper, max_turns: 1, on_limit: pause}
"""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def answer(request: dict[str, Any]) -> Sent:
    """Return a tool call, or the answer when no tool may be called."""
    turn = sum(message["role"] == "assistant" for message in request["messages"])
    if request.get("tool_choice") == "none":
        return Sent("Nothing more.")
    return Sent(tool_call=("note", {"text": str(turn)}))


def test_a_human_allows_more_turns_and_then_has_the_step_finish(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    provider.will_answer(answer)
    project.blueprint("talk", TALK)
    paused = flujo("run", "talk", "--input", "Go.", "--run-id", "talk", "--paused-ok")
    assert paused.exit_code == 0, paused.output
    assert "waiting for an answer at `help!limit[0]`" in paused.stderr
    assert "so far: 1 turn, 0 tool calls, 1,100 tokens, $0.0002" in paused.stdout
    next_line = (
        "next: flujo tasks resume talk --field turns=TURNS   "
        "(TURNS: a whole number; instead of it, `finish=true` or `fail=true`)"
    )
    assert next_line in paused.stderr
    shown = flujo("tasks", "show", "talk")
    assert "step 'help' reached its limit of turns" in shown.stdout
    assert next_line in shown.output

    refused = flujo("tasks", "resume", "talk", "--field", "turns=0")
    assert refused.exit_code == 2
    assert "`turns` is below 1" in refused.stderr
    both = flujo("tasks", "resume", "talk", "--field", "turns=1", "--field", "finish=true")
    assert both.exit_code == 2
    assert "the value has more than 1 key [" in both.stderr
    hint = (
        "`flujo tasks resume talk --field turns=TURNS` (TURNS: a whole number; instead of it, `finish=true`"
    )
    assert hint in both.stderr
    wrong = flujo("tasks", "resolve", "talk", "--as", "done")
    assert "is a question about a limit of turns, not a call in doubt" in wrong.stderr
    assert flujo("trace", "talk").exit_code == 0

    again = flujo("tasks", "resume", "talk", "--field", "turns=1", "--paused-ok")
    assert "waiting for an answer at `help!limit[1]`" in again.stderr
    done = flujo("tasks", "resume", "talk:help!limit.1", "--input", '{"finish": true}', "--by", "ada")
    assert (done.exit_code, done.stdout) == (0, "Nothing more.\n"), done.output
    assert project.notes() == ["0", "1"]
    trace = flujo("trace", "talk").stdout
    places = [trace.index(part) for part in ("turn 0", "!limit[0]", "turn 1", "!limit[1]", "turn 2")]
    assert places == sorted(places), trace
    assert 'output  {"turns": 1}' in trace
    messages = flujo("trace", "talk", "help", "--messages").stdout
    assert messages.count("calls   note") == 2


def test_accepted_changes_keep_the_answers_at_the_limit(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    provider.will_answer(answer, answer, answer, "Enough.")
    project.blueprint("talk", TALK)
    flujo("run", "talk", "--input", "Go.", "--run-id", "talk", "--paused-ok")
    flujo("tasks", "resume", "talk", "--field", "turns=1", "--paused-ok")
    project.blueprint("talk", TALK.replace("max_turns: 1", "max_turns: 4"))
    done = flujo("resume", "talk", "--accept-changes")
    assert (done.exit_code, done.stdout) == (0, "Enough.\n"), done.output
    assert "waiting for" not in flujo("tasks", "show", "talk").output


def test_the_story_of_a_blueprint_names_the_question(project: Project, flujo: Flujo) -> None:
    project.blueprint("talk", TALK)
    story = flujo("explain", "talk").stdout
    assert "at help for a human, when there is no answer after 1 turn" in story
    assert "help: at most 1 turn, then a question" in story
