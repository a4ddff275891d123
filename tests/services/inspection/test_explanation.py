"""`flujo explain BLUEPRINT`: the story tells everything that a reviewer asks about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from flujo import CallableRef, CallableTool, Pipeline, Step
from flujo.domain.agents import AgentSpec
from flujo.domain.steps import GranularStep
from flujo.services.checks.validation import compiled_or_refused
from flujo.services.inspection.explanation import shape, story
from flujo.services.project.project import find_project

if TYPE_CHECKING:
    from flujo.domain.tools import Tooled

ROOT = Path(__file__).parents[3]


def _story(name: str) -> str:
    path = f"blueprints/{name}.yaml"
    project = find_project(ROOT)
    return story(project, path, compiled_or_refused(project, path))


def test_a_state_machine_is_explained_with_its_transitions() -> None:
    assert _story("draft_review") == snapshot("""\
draft_review: Draft a letter, criticise and edit it until it is good, let a human approve it; no model, no key
It takes a text.
It gives what its last step gives.
It keeps a context: an object with wish, edits.

What it does, in order:
   1. letter goes from draft to sent.
      draft (then critique):
         1. text calls blueprints.skills.letters:draft.
      critique (then approval when steps.check.output.ok || context.edits >= 5, else edit):
         1. check calls blueprints.skills.drafts:check, and keeps wish in the context.
      edit (then critique):
         1. text calls blueprints.skills.letters:mend, and keeps edits in the context.
      approval (then sent when steps.approve.output.ok, else edit):
         1. approve asks a human: Send this letter? {{ steps.text.output }}, and keeps wish, edits in the context.
      sent (final):
         1. send calls blueprints.skills.outbox:put.

What it touches:
   - the callable blueprints.skills.letters:draft
   - the callable blueprints.skills.drafts:check
   - the callable blueprints.skills.letters:mend
   - the callable blueprints.skills.outbox:put

Where it waits:
   - at letter:approval/approve for a human, without a deadline; the answer is an object with ok, wish

What bounds it:
   - letter: at most 40 transitions
""")


def test_what_asks_a_model_says_what_bounds_it() -> None:
    told = _story("ticket_triage")
    assert "the model local:smollm2 as writer" in told
    assert "budget: requests_limit 16" in told
    assert "no budget of its own" not in told
    assert "sort: once more when it fails" in told


def test_what_asks_a_model_without_a_budget_says_that_nothing_limits_its_cost() -> None:
    path = "blueprints/ticket_triage.yaml"
    pipeline = compiled_or_refused(find_project(ROOT), path)
    assert "no budget of its own" in story(find_project(ROOT), path, replace(pipeline, budget=None))


def test_an_agent_is_explained_with_the_effects_of_its_tools_and_its_limits() -> None:
    told = _story("researcher")
    assert "search, which researcher may call; effect: read\n" in told
    assert "take_note, which researcher may call; effect: idempotent\n" in told
    assert "research: at most 3 turns, then a last request without tools\n" in told
    assert "research: at most 10 tool calls at a time\n" in told


def test_a_step_is_explained_with_its_files() -> None:
    see = Step("see", agent=AgentSpec("eye", "openai:gpt-5-mini"), input="What is it?", files=["{{ input }}"])
    told = story(find_project(ROOT), "see.yaml", Pipeline((see,), name="see"))
    assert 'see asks eye (openai:gpt-5-mini) with What is it?, and sends ["{{ input }}"].' in told


def test_an_import_is_explained_with_its_steps() -> None:
    assert "answer runs blueprints/answer.yaml." in _story("ticket_triage")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (None, "anything"),
        ({"type": "string"}, "a text"),
        ({"enum": ["a", 1]}, "one of a, 1"),
        ({"type": "array", "items": {"type": "boolean"}}, "a list, each item yes or no"),
        ({"type": "object", "properties": {"a": {}, "b": {}}}, "an object with a, b"),
        ({"type": "object"}, "an object"),
        ({"type": ["string", "null"]}, "anything"),
        ({"type": "null"}, "null"),
    ],
)
def test_a_schema_is_described_in_words(schema: object, words: str) -> None:
    assert shape(schema) == words


def test_a_call_that_can_be_in_doubt_is_explained_with_the_harmless_failures() -> None:
    call = CallableRef("skills.bank:pay")
    steps = (
        Step(name="pay", call=call, enforce_idempotency=True),
        Step(
            name="note", call=call, enforce_idempotency=True, effect="idempotent", in_doubt="retry_same_key"
        ),
    )
    text = story(find_project(ROOT), "blueprints/pay.yaml", Pipeline(steps, name="pay"))
    assert (
        "- pay (`enforce_idempotency`, `in_doubt: pause`) asks a human how its call ended: after a crash and after a failure\n"
        in text
    )
    assert (
        "- note (`enforce_idempotency`, `in_doubt: retry_same_key`) is called again with the same key, as often as it is retried: after a crash\n"
        in text
    )
    assert (
        "- requests: `requests.exceptions.ConnectTimeout`; `requests.exceptions.HTTPError` with HTTP 4xx"
        in text
    )
    assert "unknown whether a call" not in _story("ticket_triage")


def test_the_doubts_of_tools_with_rules_of_their_own_are_explained() -> None:
    tools: list[Tooled] = [
        CallableTool("skills.bank:pay", enforce_idempotency=True, in_doubt="fail"),
        CallableTool("skills.bank:refund", approve=True),
        CallableTool("skills.bank:note", effect="idempotent", approve=True),
        CallableTool("skills.bank:look"),
    ]
    clerk = AgentSpec("clerk", "a:b", tools=tools)
    steps = (GranularStep("talk", clerk), GranularStep("sure", clerk, enforce_idempotency=True))
    text = story(find_project(ROOT), "blueprints/pay.yaml", Pipeline(steps, name="pay"))
    found = [line for line in text.splitlines() if line.endswith("after a crash and after a failure")]
    assert found == [
        "   - sure (`enforce_idempotency`, `in_doubt: pause`) asks a human how its call ended, for each tool call: after a crash and after a failure",
        "   - talk fails, for each call of `pay`: after a crash and after a failure",
        "   - talk asks a human how its call ended, for each call of `refund`: after a crash and after a failure",
        "   - sure fails, for each call of `pay`: after a crash and after a failure",
    ]


def test_a_story_names_schedules_queues_and_retention_from_the_blueprint_and_the_settings(
    tmp_path: Path,
) -> None:
    (tmp_path / "flujo.toml").write_text("""
[queues.slow]
concurrency = 2
rate = "100/min"
per_key = "input.customer"
[retention]
completed = "30d"
failed = "90d"
[schedules.weekly]
blueprint = "report"
cron = "0 6 * * 1"
queue = "slow"
[schedules.other]
blueprint = "missing"
cron = "0 6 * * 1"
""")
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints/report.yaml").write_text("""
version: "1"
name: report
schedule: {cron: "30 2 * * *", timezone: Europe/Berlin}
steps:
  - {kind: sleep, name: rest, for: 1s, config: {execution_mode: background, queue: slow}}
  - {kind: sleep, name: more, for: 1s, config: {execution_mode: background, queue: default}}
""")
    project, path = find_project(tmp_path), "blueprints/report.yaml"
    text = story(project, path, compiled_or_refused(project, path))
    assert text.partition("What workers do with it:")[2] == snapshot("""\

   - schedule report: runs are started at `30 2 * * *` in Europe/Berlin
   - schedule weekly: runs are started at `0 6 * * 1` in UTC, through the queue slow
   - the task of rest waits for a worker of the queue slow: at most 2 at once, at most 100/min, one at a time for each `input.customer`
   - the task of more waits for a worker of the queue default
   - a completed run is deleted 30d after its last change
   - a failed run is deleted 90d after its last change
""")
