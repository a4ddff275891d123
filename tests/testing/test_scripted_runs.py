"""A blueprint is tested with a script instead of its models."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from flujo.exceptions import SettingsError
from flujo.testing import ScriptedAgent, TestClock, ToolCall, scripted_runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = '[blueprints]\nallow_callables = ["scripted_skills"]\n'
SKILLS = '''
def find(number: str) -> str:
    """Find an order."""
    return f"{number}: a lamp"
'''
DESK = """\
version: "1"
name: desk
input_schema: {type: string}
agents:
  sorter: {model: "openai:gpt-5-mini"}
  clerk: {model: "openai:gpt-5-mini", tools: ["scripted_skills:find"]}
steps:
  - {name: sort, agent: sorter, input: "{{ input }}", cache: {ttl_s: 60}, output_schema: {enum: [order, other]}}
  - {kind: granular, name: serve, agent: clerk, input: "{{ input }}"}
  - {kind: hitl, name: approve, message: "Send {{ steps.serve.output }}?", deadline_s: 60, on_deadline: {answer: late}}
output: "{{ steps.sort.output }}, {{ steps.serve.output }}, {{ steps.approve.output }}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    path = [*sys.path]
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "flujo.toml").write_text(SETTINGS)
    (tmp_path / "scripted_skills.py").write_text(SKILLS)
    (tmp_path / "blueprints/desk.yaml").write_text(DESK)
    yield tmp_path
    sys.path[:] = path
    with contextlib.suppress(KeyError):
        del sys.modules["scripted_skills"]


async def test_a_script_takes_the_place_of_each_agent_and_tools_are_called(project: Path) -> None:
    clerk = ScriptedAgent([ToolCall("find", {"number": "A-1"}), "your lamp"])
    async with scripted_runner("desk", {"sorter": "order", "clerk": clerk}, project=project) as runner:
        result = await runner.run_result_async("Where is A-1?")
        assert result.pauses[0].message == "Send your lamp?"
        result = await runner.resume_async(result.run_id, "yes")
    assert result.output == "order, your lamp, yes"
    assert "A-1: a lamp" in str(clerk.asked[-1].data)


async def test_answers_are_checked_and_time_is_the_clocks(project: Path) -> None:
    clock, questions = TestClock(), []

    def clerk(ask: Any) -> str:
        questions.append(ask.data)
        return "your lamp"

    script = {"sorter": ["neither", "other"], "clerk": clerk}
    async with scripted_runner("desk", script, project=project, clock=clock) as runner:
        refused = await runner.run_result_async("Hello", run_id="refused")
        assert refused.error is not None
        assert refused.error.code == "FLJ304"  # the schema of the blueprint holds for a script too
        waiting = await runner.resume_async("refused", retry_failed=True)
        await clock.advance(seconds=60)
        assert (await runner.resume_async(waiting.run_id)).output == "other, your lamp, late"
    assert len(questions) == 1


def test_an_agent_without_a_script_is_named(project: Path) -> None:
    with pytest.raises(SettingsError, match="asks agent 'clerk', and the script has no answer for it"):
        scripted_runner("desk", {"sorter": "order"}, project=project)
