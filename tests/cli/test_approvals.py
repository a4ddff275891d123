"""Approvals of tool calls on the command line: what it shows of the call, and how it is answered."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from flujo import Flujo as Runner
from flujo import Pipeline, Step
from flujo.domain.approvals import Approval
from flujo.domain.conversations import ToolCall
from flujo.domain.tools import CallableTool
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    import pytest

    from cli.conftest import Flujo, Project

TOOL = "serve/turn[0]/tool[0]"


def desk(paid: list[float], *amounts: float) -> Pipeline:
    def refund(order: str, amount: float) -> str:
        paid.append(amount)
        return f"refunded {amount:g}"

    approval = Approval(message="Refund order {{ args.order }}?", editable=True)
    wanted = [ToolCall("refund", {"order": "B2", "amount": amount}) for amount in amounts or [900]]
    script = [wanted, "done"]
    agent = ScriptedAgent(script, tools=[CallableTool(refund, effect="idempotent", approve=approval)])
    return Pipeline([Step.granular("serve", agent)], name="desk")


async def started(paid: list[float], *amounts: float) -> None:
    async with Runner(desk(paid, *amounts)) as runner:
        await runner.run_result_async("go", run_id="case")


async def resumed(paid: list[float], *amounts: float) -> Any:
    async with Runner(desk(paid, *amounts)) as runner:
        return (await runner.resume_async("case")).output


def test_a_call_is_shown_answered_and_traced(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    paid: list[float] = []
    asyncio.run(started(paid))
    shown = flujo("tasks", "show", "case")
    assert "step 'serve' wants to call `refund` (effect: idempotent).\nRefund order B2?\n" in shown.stdout
    assert 'arguments: {"amount":900,"order":"B2"}\n' in shown.stdout
    found = re.search(r"digest: +(\w+)", shown.stdout)
    assert found is not None
    digest = found[1]
    assert f"next: flujo tasks resume case --field approved=APPROVED --field digest={digest}" in shown.stderr

    for given, code in (("d" * 16, "FLJ508"), ("", "FLJ601")):
        fields = ["--field", f"digest={given}"] if given else []
        wrong = flujo("tasks", "resume", "case", "--field", "approved=true", *fields)
        assert wrong.exit_code != 0
        assert code in wrong.stderr
    arguments = 'arguments={"order": "B2", "amount": 90}'
    fields = ["approved=true", f"digest={digest}", arguments]
    options = [word for field in fields for word in ("--field", field)]
    assert flujo("tasks", "resume", "case", *options, "--by", "Ana").exit_code == 0
    assert paid == []
    assert asyncio.run(resumed(paid)) == "done"
    assert paid == [90]
    assert "approved by Ana, with changed arguments" in flujo("trace", "case").stdout
    assert f"Ana (cli)  answer  {TOOL}" in flujo("tasks", "show", "case").stdout


def test_several_calls_of_one_response_are_answered_by_their_places(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    paid: list[float] = []
    asyncio.run(started(paid, 900, 5))
    printed = flujo("tasks", "show", "case").stderr
    found = re.findall(
        r"next: flujo tasks resume (case:\S+) --field approved=APPROVED --field (\S+)", printed
    )
    assert [place for place, _ in found] == ["case:serve/turn.0/tool.0", "case:serve/turn.0/tool.1"]
    alone = flujo("tasks", "resume", "case", "--field", "approved=true", "--field", found[0][1])
    assert (alone.exit_code, "FLJ510" in alone.stderr) == (8, True), alone.stderr
    for (place, digest), approved in zip(found, ("false", "true"), strict=True):
        words = ["--field", f"approved={approved}", "--field", digest, "--by", "Ana"]
        assert flujo("tasks", "resume", place, *words).exit_code == 0
    again = flujo("tasks", "resume", found[0][0], "--field", "approved=true", "--field", found[0][1])
    assert again.exit_code != 0
    assert "FLJ508" in again.stderr
    assert asyncio.run(resumed(paid, 900, 5)) == "done"
    assert paid == [5]
    shown = flujo("trace", "case").stdout
    assert "idempotent  denied by Ana" in shown
    assert "approved by Ana" in shown


def test_an_explanation_and_a_drawing_name_the_calls_that_wait(flujo: Flujo, project: Project) -> None:
    tool = '{call: "skills.work:note", effect: read, approve: {when: args.text != "", deadline_s: 60}}'
    project.blueprint(
        "chat",
        'version: "1"\nname: chat\ninput_schema: {type: string}\n'
        f'agents:\n  clerk: {{model: "openai:gpt-5-mini", tools: [{tool}]}}\n'
        "steps: [{kind: granular, name: talk, agent: clerk, input: '{{ input }}'}]\n",
    )
    assert "tool note: read, a human approves calls with args.text" in flujo("graph", "chat").stdout
    told = flujo("explain", "chat").stdout
    assert "at talk before it calls `note`, at most 1m: a human approves calls with args.text" in told
