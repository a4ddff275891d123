"""A granular step with a limit of its history, on the command line: requests, trace, messages and findings."""

from __future__ import annotations

import json
from itertools import count
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
  - {kind: granular, name: help, agent: helper, history: {max_tokens: 300, keep: summary}}
"""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def test_a_summary_is_a_line_of_the_trace_with_its_cost(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    turns = count()

    def answer(request: dict[str, Any]) -> Sent:
        if "Summarise the conversation" in str(request["messages"][-1]):
            return Sent("Two notes were written.", tokens=(500, 10))
        turn = next(turns)
        return Sent("Done.") if turn == 4 else Sent(tool_call=("note", {"text": str(turn)}))

    provider.will_answer(answer)
    project.blueprint("talk", TALK)
    done = flujo("run", "talk", "--input", "Go.", "--run-id", "talk")
    assert (done.exit_code, done.stdout) == (0, "Done.\n"), done.output
    assert project.notes() == ["0", "1", "2", "3"]
    roles = [[message["role"] for message in request["messages"]] for request in provider.requests]
    system, user, turn = ["system"], ["user"], ["assistant", "tool"]
    assert roles[3:5] == [
        [*system, *user, *turn, *turn, *user],
        [*system, *user, *turn],
    ] or roles[3:5] == [
        [*system, *user, *turn, *turn, *user],
        [*system, *user, *user, *turn],
    ], roles
    assert provider.requests[3]["tool_choice"] == "none"
    assert "Two notes were written." in str(provider.requests[4]["messages"][1:3])

    trace = flujo("trace", "talk").stdout
    (line,) = [line for line in trace.splitlines() if "summary 0" in line]
    assert "510 tokens  <$0.0001" in line
    places = [trace.index(part) for part in ("turn 2", "summary 0", "turn 3", "turn 4")]
    assert places == sorted(places), trace
    assert "output  Two notes were written." in trace
    assert "history without the oldest 2 turns" in trace
    messages = flujo("trace", "talk", "help", "--messages").stdout
    assert "summary Two notes were written." in messages
    until = flujo("trace", "talk", "help/summary.0", "--messages").stdout
    assert until.endswith("summary Two notes were written.\n")
    head, *below = flujo("trace", "talk", "help/summary.0").stdout.splitlines()
    assert head == "talk  talk  help/summary[0]"
    assert below[0].startswith("✓ summary 0  "), "the step itself"
    assert ["output", "Two", "notes", "were", "written."] in [line.split() for line in below]
    one = json.loads(flujo("trace", "talk", "help/summary.0", "--json").stdout)
    assert (one["kind"], one["output"]) == ("summary", "Two notes were written.")


def test_a_limit_below_the_task_is_reported_with_its_line(project: Project, flujo: Flujo) -> None:
    talk = TALK.replace("history: {max_tokens: 300", "input: Read all the reports., history: {max_tokens: 3")
    project.blueprint("talk", talk)
    checked = flujo("validate", "talk")
    assert checked.exit_code == 4, checked.output
    assert "FLJ431" in checked.output
    assert "its `input` has about 7 tokens, and `history.max_tokens` is 3" in checked.output
    assert "talk.yaml:11:" in checked.output


@pytest.mark.usefixtures("provider")
def test_a_limit_that_the_task_exceeds_at_run_time_names_step_limit_and_size(
    project: Project, flujo: Flujo
) -> None:
    project.blueprint("talk", TALK.replace("max_tokens: 300", "max_tokens: 3"))
    failed = flujo("run", "talk", "--input", "Read all the reports.")
    assert failed.exit_code == 1, failed.output
    assert "step `help`: its task has about 7 tokens, and `history.max_tokens` is 3" in failed.stderr
    assert "error: step `help`: its task" in failed.stderr
    assert "FLJ430" in failed.stderr


def test_the_story_of_a_blueprint_names_the_limit(project: Project, flujo: Flujo) -> None:
    project.blueprint("talk", TALK)
    story = flujo("explain", "talk").stdout
    assert "at most 300 tokens of history, then older turns are replaced by a summary" in story


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ("last", "full"),
        ("{keep: last}", "max_tokens"),
        ("{max_tokens: 0}", "max_tokens"),
        ("{max_tokens: 9, keep: all}", "keep"),
        ("{max_tokns: 9}", "did you mean `max_tokens`"),
    ],
)
def test_a_malformed_limit_is_reported(project: Project, flujo: Flujo, history: str, words: str) -> None:
    project.blueprint("talk", TALK.replace("{max_tokens: 300, keep: summary}", history))
    checked = flujo("validate", "talk")
    assert checked.exit_code == 4, checked.output
    assert words in checked.output
    assert "talk.yaml:11:" in checked.output
