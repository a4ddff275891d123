"""`flujo plan`: what a run will probably cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flujo.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

LETTER = """\
version: "1"
name: letter
input_schema:
  type: object
  required: [topics]
  properties: {topics: {type: array, items: {type: string}}}
agents:
  writer:
    model: openai:gpt-5-mini
    model_settings: {max_tokens: 800}
steps:
  - {kind: map, name: each, over: "{{ input.topics }}", as: topic, steps: [{name: draft, agent: writer, input: "Write: {{ topic }}"}]}
"""
TOPICS = '{"topics": ["a", "b"]}'


def test_the_input_bounds_a_map(project: Project, flujo: Flujo) -> None:
    project.blueprint("letter", LETTER)
    without = flujo("plan", "letter")
    assert without.exit_code == ExitCode.OK
    assert "UNBOUNDED" in without.stdout
    assert "each/draft: nothing bounds its tokens" in without.stderr
    given = json.loads(flujo("plan", "letter", "--input", TOPICS, "--json").stdout)
    assert given["total"]["requests"] == [2, 2]
    assert given["total"]["output_tokens"] == [2, 1600]
    assert given["unbounded"] == []
    assert given["history"] is None
    assert not (project.root / ".flujo/state.db").exists(), "a forecast creates no database"


def test_a_forecast_above_the_limit_exits_with_6(project: Project, flujo: Flujo) -> None:
    project.blueprint("letter", LETTER)
    assert flujo("plan", "letter", "--max-cost", "5").exit_code == ExitCode.BUDGET
    assert flujo("plan", "letter", "-i", TOPICS, "--max-cost", "5").exit_code == ExitCode.OK
    refused = flujo("plan", "letter", "-i", TOPICS, "--max-cost", "0.0001")
    assert refused.exit_code == ExitCode.BUDGET
    assert "over --max-cost 0.0001: it may cost $0.0" in refused.stderr


def test_a_price_of_the_project_counts_and_an_unknown_one_is_reported(project: Project, flujo: Flujo) -> None:
    project.blueprint("letter", LETTER.replace("gpt-5-mini", "in-house-7"))
    unknown = flujo("plan", "letter", "-i", TOPICS, "--max-cost", "1")
    assert unknown.stdout.count("UNKNOWN PRICE") == 2
    assert unknown.exit_code == ExitCode.BUDGET
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write('\n[prices."openai:in-house-*"]\ninput_mtok = 0\noutput_mtok = 1000\n')
    found = json.loads(flujo("plan", "letter", "-i", TOPICS, "--json").stdout)
    assert found["unknown_price"] == []
    assert found["total"]["cost_usd"][1] == 1.6


def test_recorded_runs_are_shown_beside_the_forecast(project: Project, flujo: Flujo) -> None:
    assert flujo("run", "hello", "--input", "Ada").exit_code == ExitCode.OK
    shown = flujo("plan", "hello")
    assert shown.exit_code == ExitCode.OK
    assert "no agent of the blueprint has a model" in shown.stdout
    assert "1 RUN RECORDED" in shown.stdout


def test_a_database_that_cannot_be_read_is_an_error(project: Project, flujo: Flujo) -> None:
    (project.root / ".flujo").mkdir(exist_ok=True)
    (project.root / ".flujo/state.db").write_bytes(b"not a database" * 400)
    refused = flujo("plan", "hello")
    assert refused.exit_code == ExitCode.STATE
    assert "state.db" in refused.stderr


def test_what_cannot_be_forecast_is_refused(project: Project, flujo: Flujo) -> None:
    project.blueprint("letter", LETTER)
    assert flujo("plan", "leter").exit_code == ExitCode.USAGE
    assert flujo("plan", "letter", "-i", '{"topic": []}').exit_code == ExitCode.USAGE
    assert flujo("plan", "letter", "--max-cost", "-1").exit_code == ExitCode.USAGE
    assert flujo("plan", "letter", "--max-cost", "abc").exit_code == ExitCode.USAGE
    project.blueprint("letter", LETTER.replace("over:", "ower:"))
    assert flujo("plan", "letter").exit_code == ExitCode.BLUEPRINT


OWN = """\
class Own:
    async def ask(self, ask): ...

class Other: ...

reader: object = Own()
thing = Other()
"""
CALLS = """\
version: "1"
name: own
steps:
  - {name: thing, call: "skills.own:thing"}
  - {name: read, call: "skills.own:reader"}
"""


def test_the_cost_of_an_agent_in_python_is_unknown(project: Project, flujo: Flujo) -> None:
    (project.root / "skills/own.py").write_text(OWN, "utf-8")
    project.blueprint("own", CALLS)
    refused = flujo("plan", "own", "--max-cost", "1")
    assert refused.exit_code == ExitCode.BUDGET
    assert "read   skills.own:reader  in Python" in refused.stdout
    assert refused.stdout.count("UNKNOWN COST") == 2
    assert "thing" not in refused.stdout
    assert "read: the agent is in Python, so nothing is known of its requests" in refused.stderr
    assert "over --max-cost 1: its cost is unknown" in refused.stderr
    [agent] = json.loads(flujo("plan", "own", "--json").stdout)["agents"]
    assert (agent["model"], agent["price_known"], agent["cost_usd"]) == (None, False, [0, None])
