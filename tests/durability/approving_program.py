"""A process that answers the approvals of all runs as fast as it can, in a race with others.

    python approving_program.py URI NAME RUNS LEDGER

prints `ready`, waits for a line, then prints as JSON which of the RUNS runs accepted its answer. Processes with an odd name
deny. The tool writes a line to LEDGER for each call. Every second run is answered through a `TaskClient`. Only the winner
resumes a run, because no process recovers runs of others.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from flujo import CallableTool, Flujo, Pipeline, Step, TaskClient
from flujo.domain.journal import RunId
from flujo.exceptions import ResumeConflict
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent, ToolCall


def run_id(number: int) -> RunId:
    """Return the id of the run of a number."""
    return RunId(f"run-{number:04}")


def pipeline(ledger: str) -> Pipeline:
    """Return an agent with a tool whose calls are approved."""

    def refund(run: str) -> str:
        file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{run}\n".encode())
        os.close(file)
        return "refunded"

    def answer(ask: Any) -> Any:
        if len(ask.data) > 1:
            return "done"
        return ToolCall("refund", {"run": ask.data[0]["parts"][0]["content"]})

    agent = ScriptedAgent(answer, tools=[CallableTool(refund, effect="unsafe", approve=True)])
    return Pipeline([Step.granular("serve", agent)], name="approvals")


async def main(uri: str, name: str, runs: int, ledger: str) -> list[int]:
    """Answer all approvals, while others do the same; return the runs that accepted an answer."""
    accepted = list[int]()
    store = await SqlStateStore.open(uri)
    async with Flujo[Any, Any, Any](pipeline(ledger), store=store, recovery=False) as runner:
        client = TaskClient(store, runners=[runner], by=name)
        print("ready", flush=True)  # noqa: T201 - to the test, which starts all of them at once
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(runs):
            (question,) = await store.pauses(run_id(number))
            said = {"approved": int(name) % 2 == 0, "digest": question.digest, "reason": name}
            try:
                if number % 2:
                    result = await client.resume_task(run_id(number), said)
                else:
                    result = await runner.resume_async(run_id(number), said, by=name)
            except ResumeConflict:
                continue
            assert result.output == "done", result
            accepted.append(number)
    await store.aclose()
    return accepted


if __name__ == "__main__":
    from durability import approving_program  # the tool has the name that the question was opened with

    found = asyncio.run(approving_program.main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    print(json.dumps(found))  # noqa: T201 - the script's output
