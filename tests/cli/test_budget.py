"""A budget on the command line: exit 6, what was spent where, and how to resume."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from agents.provider_server import Fault, Provider, Response, provider_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

LETTERS = """\
version: "1"
name: letters
agents:
  writer: {model: "openai-chat:gpt-4o-mini", model_settings: {max_tokens: 100}}
BUDGET
steps:
  - {name: draft, agent: writer, input: Write a letter}
  - {name: review, agent: writer, input: "Review: {{ previous }}"}
  - {name: polish, agent: writer, input: "Polish: {{ previous }}"}
"""
"""A request costs $0.00021 here (1,000 tokens in, 100 out)."""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-test")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{running.url}/v1")
        running.will_answer("Dear you")
        yield running


def test_a_run_over_its_budget_reports_the_spending_and_resumes_with_a_higher_budget(
    flujo: Flujo, project: Project, provider: Provider
) -> None:
    project.blueprint("letters", LETTERS.replace("BUDGET", "budget: {requests_limit: 2}"))
    result = flujo("run", "letters")
    assert result.exit_code == 6, result.stderr
    assert len(provider.requests) == 2
    assert "`requests_limit`" in result.stderr
    assert "used by `draft` 1 request, `review` 1 request" in result.stderr
    assert "[FLJ421]" in result.stderr
    assert "flujo resume" in result.stderr
    again = flujo("resume", "@last", "--retry-failed")
    assert again.exit_code == 6, again.stderr
    project.blueprint("letters", LETTERS.replace("BUDGET", "budget: {requests_limit: 3}"))
    assert flujo("resume", "@last", "--retry-failed").exit_code == 6, (
        "the run keeps what it was accepted with"
    )
    result = flujo("resume", "@last", "--retry-failed", "--accept-changes")
    assert (result.exit_code, result.stdout) == (0, "Dear you\n")
    assert len(provider.requests) == 3


def test_the_budgets_of_a_project_hold_for_every_run(
    flujo: Flujo, project: Project, provider: Provider
) -> None:
    settings = project.root / "flujo.toml"
    text = settings.read_text("utf-8")
    settings.write_text(f"{text}\n[budgets]\ntotal_cost_usd_limit = 0.0005\n", "utf-8")
    project.blueprint("letters", LETTERS.replace("BUDGET", "budget: {total_cost_usd_limit: 100}"))
    result = flujo("run", "letters", "--json")
    assert result.exit_code == 6
    assert json.loads(result.stdout)["error"]["code"] == "FLJ421"
    assert json.loads(result.stdout)["usage"]["cost_usd"] == pytest.approx(0.00042)
    settings.write_text(f"{text}\n[budgets]\ntotal_cost_usd_limit = 0.01\n", "utf-8")
    assert flujo("resume", "@last", "--retry-failed").exit_code == 0


def test_an_unknown_price_is_refused_before_the_run(
    flujo: Flujo, project: Project, provider: Provider
) -> None:
    text = LETTERS.replace("gpt-4o-mini", "in-house-7")
    project.blueprint("letters", text.replace("BUDGET", "budget: {total_cost_usd_limit: 1}"))
    result = flujo("run", "letters")
    assert result.exit_code == 4
    assert "FLJ154" in result.stderr
    assert "in-house-7" in result.stderr
    assert provider.requests == []
    allowed = text.replace("BUDGET", "budget: {total_cost_usd_limit: 1, unknown_price: allow}")
    provider.answers[:] = [Response("Dear you", model="in-house-7")]
    project.blueprint("letters", allowed)
    result = flujo("run", "letters")
    assert result.exit_code == 0
    assert "cost unknown" in result.stderr


def test_a_blueprint_whose_answers_nothing_bounds_is_not_valid_under_a_budget(
    flujo: Flujo, project: Project
) -> None:
    text = LETTERS.replace(", model_settings: {max_tokens: 100}", "")
    project.blueprint("letters", text.replace("BUDGET", "budget: {total_cost_usd_limit: 1}"))
    result = flujo("validate", "letters")
    assert result.exit_code == 4
    assert "FLJ271" in result.stdout + result.stderr


def test_what_a_killed_run_may_have_cost_is_shown(flujo: Flujo, project: Project, provider: Provider) -> None:
    provider.answers[:] = [Response("Dear you", delay_s=30)]
    project.blueprint("letters", LETTERS.replace("BUDGET", "budget: {total_cost_usd_limit: 1}"))
    with project.start("run", "letters") as process:
        while not provider.requests and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    for words in (("trace", "@last"), ("tasks", "show", "@last")):
        assert "more, unconfirmed" in flujo(*words).stdout
    provider.answers[:] = [Response("Dear you")]
    result = flujo("resume", "@last", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["unconfirmed"]["requests"] == 1
    assert told["unconfirmed"]["output_tokens"] == 100
    assert told["usage"]["requests"] == 3


def test_a_failed_request_is_one_request_and_stays_charged(
    flujo: Flujo, project: Project, provider: Provider
) -> None:
    provider.answers[:] = [Fault.OVERLOADED]
    project.blueprint("letters", LETTERS.replace("BUDGET", "budget: {requests_limit: 1}"))
    with project.start("run", "letters", "--json") as process:
        told = json.loads(process.communicate()[0])
    assert process.returncode == 1
    assert len(provider.requests) == told["usage"]["requests"] == 1
    assert told["error"]["code"] == "FLJ302"
    assert told["usage"]["cost_usd"] is None
    assert told["unconfirmed"]["output_tokens"] == 100
    assert flujo("resume", "@last", "--retry-failed").exit_code == 6
    assert len(provider.requests) == 1


def test_a_rate_limited_step_waits_and_then_completes(
    flujo: Flujo, project: Project, provider: Provider
) -> None:
    provider.answers[:] = [Response(status=429, headers={"retry-after-ms": "50"}), "Dear you"]
    text = LETTERS.replace("BUDGET", "budget: {requests_limit: 4}")
    project.blueprint("letters", text.replace("input: Write a letter", "input: x, config: {max_retries: 1}"))
    result = flujo("run", "letters", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert len(provider.requests) == told["usage"]["requests"] == 4
    assert told["usage"]["cost_usd"] == pytest.approx(3 * 0.00021)
    assert told["unconfirmed"]["requests"] == 0
