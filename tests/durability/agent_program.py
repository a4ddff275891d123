"""Agents that work in turns, in processes that are killed: a script, because only a single-threaded process may fork.

    python agent_program.py FOLDER URI [--stream] [--requests N]

reads ids of runs, one a line, and executes or resumes each in a forked process: prints `pid N`, a line of JSON with the
status and the output unless that process is killed, and `ended`; then it reads a line and prints the exit code. The tools write to the
ledger of FOLDER, and have every effect but `transactional`, which writes to the database of the run; one needs an
approval, and two consist of steps. A barrier is before and after each effect. With `--requests` ten agents run at the
same time and share a budget of so many requests.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import flujo
from durability.agent_ledger import Ledger, pass_barrier
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import GranularStep, ParallelStep, Step, StepConfig, Text
from flujo.domain.steps.tools import AgentTool, BlueprintTool
from flujo.domain.tools import CallableTool, Tooled
from flujo.domain.usage import UsageLimits
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.testing.crash_points import in_a_fork

FOLDER = Path()
AGENTS = 10
"""How many agents share a budget."""
CALLS = 22
"""The limit on their tool calls, of which an unbroken run makes 20."""


def _cause(effect: Any) -> str:
    gate = str(FOLDER / "barriers")
    pass_barrier(gate)
    effect()
    pass_barrier(gate)
    return "done"


@flujo.tool(effect="read")
def look(place: str, why: str) -> str:
    """Look something up."""
    return _cause(lambda: Ledger(FOLDER).append("look", place, why))


@flujo.tool(effect="idempotent")
def note(place: str, why: str, idempotency_key: str) -> str:
    """Write a note."""
    Ledger(FOLDER).append("note", place, why)
    return _cause(lambda: Ledger(FOLDER).book(idempotency_key, place))


@flujo.tool(effect="unsafe")
def pay(place: str, why: str) -> str:
    """Pay."""
    return _cause(lambda: Ledger(FOLDER).append("pay", place, why))


@flujo.tool(effect="unsafe")
def refuse(place: str, why: str) -> str:
    """Find the shop closed."""
    Ledger(FOLDER).append("refuse", place, why)
    raise flujo.NotSent("the shop is closed")


@flujo.tool(effect="unsafe")
def grant(place: str, why: str) -> str:
    """Have an effect that a human approves."""
    return _cause(lambda: Ledger(FOLDER).append("grant", place, why))


def is_long(answer: str) -> bool:
    """Return whether an answer has more than a word."""
    return len(answer) > 3


def tree() -> Pipeline:
    """Return a conversation with a rejected answer, one whose model fails after a turn, with its fallback, and one
    with approvals and tools that consist of steps.
    """
    helper = AgentSpec(
        "helper",
        "openai-chat:gpt-4o-mini",
        instructions="Do the work.",
        tools=[look, note, pay, refuse],
        model_settings={"max_tokens": 100},
    )
    config = StepConfig(max_retries=4, retry=RetryPolicy(backoff="none"))
    talks: dict[str, Any] = {"agent": helper, "enforce_idempotency": True, "config": config}
    work = GranularStep("work", input=Text("{{ input }} work"), validators=[is_long], **talks)
    by_hand = Step(
        "by_hand",
        call=pay,
        arguments={"place": Text("{{ input }}:spare/fallback"), "why": "the model is down"},
        enforce_idempotency=True,
    )
    spare = GranularStep("spare", input=Text("{{ input }} spare"), fallback=by_hand, **talks)
    answers = Text("{{ steps.work.output }} {{ steps.spare.output }} {{ previous }}")
    desk = GranularStep("desk", input=Text("{{ input }} desk"), **{**talks, "agent": _clerk()})
    return Pipeline((work, spare, desk), name="talking", output=answers)


def _clerk() -> AgentSpec:
    """Return an agent with a tool that needs an approval, a blueprint, and another agent."""
    buying = Pipeline(
        Step(
            "buy",
            call=pay,
            arguments={"place": Text("{{ input.place }}/buy"), "why": Text("{{ input.why }}")},
            enforce_idempotency=True,
        ),
        name="shop",
        input_schema={
            "type": "object",
            "required": ["place", "why"],
            "properties": {"place": {"type": "string"}, "why": {"type": "string"}},
        },
    )
    model: dict[str, Any] = {"model": "openai-chat:gpt-4o-mini", "model_settings": {"max_tokens": 100}}
    tools: list[Tooled] = [
        CallableTool(grant, approve=True),
        BlueprintTool(buying, "Buys something"),
        AgentTool(AgentSpec("assistant", tools=[pay], **model), "Helps"),
    ]
    return AgentSpec("clerk", instructions="Serve.", tools=tools, **model)


def sharing(requests: int) -> Pipeline:
    """Return ten agents that run at the same time, within one budget."""
    agent = AgentSpec("helper", "openai-chat:gpt-4o-mini", tools=[look], model_settings={"max_tokens": 100})
    branches = {
        name: Pipeline((GranularStep("talk", agent, input=Text(f"{{{{ input }}}} all:{name}/talk")),))
        for name in (f"agent{number}" for number in range(AGENTS))
    }
    budget = UsageLimits(requests_limit=requests, tool_calls_limit=CALLS)
    return Pipeline((ParallelStep("all", branches),), name="sharing", budget=budget)


async def _ignored(_: Any) -> None:
    """A sink, so that the model's text is streamed."""


async def _executed(pipeline: Pipeline, uri: str, run: str, *, is_streamed: bool) -> dict[str, Any]:
    """Execute or resume a run; return its status and output."""
    store = await SqlStateStore.open(uri)
    sink = _ignored if is_streamed else None
    try:
        async with Flujo[Any, Any, Any](pipeline, store=store) as runner:
            result = await runner.run_result_async(run, run_id=run, sink=sink)
            waits = any(pause.is_open for pause in await store.pauses(RunId(run)))
            if result.status is RunStatus.PAUSED and not waits:  # the question is answered
                result = await runner.resume_async(run, sink=sink)
    finally:
        await store.aclose()
    error = result.error and f"{result.error.code} {result.error.message}"
    return {"status": str(result.status), "output": result.output, "error": error}


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def main() -> None:
    """Fork for each run whose id is read."""
    global FOLDER
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("uri")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--requests", type=int, default=0)
    given = parser.parse_args()
    FOLDER = given.folder

    def executed(run: str) -> Any:
        pipeline = sharing(given.requests) if given.requests else tree()
        return _executed(pipeline, given.uri, run, is_streamed=given.stream)

    in_a_fork(
        lambda _: executed("run-0"), 0
    )  # an unbroken run, whose modules later processes need not import
    gc.freeze()
    _say("ready")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _say(json.dumps(asyncio.run(executed(line.strip()))))
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        _say(f"pid {pid}")
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        _say("ended")  # until the answer no other process can get this pid
        sys.stdin.readline()
        _say(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


if __name__ == "__main__":
    main()
