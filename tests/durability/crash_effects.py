"""Kills non-idempotent calls at every point: a script, like `crash_programs.py`.

    python crash_effects.py POLICY MODE URI FOLDER [--every N] [--first N]

prints the report as JSON. A run pays the same amount twice on purpose. POLICY is the `in_doubt` of the steps. MODE is
the reply to the first attempt of each payment: answer, drop the connection, stay silent, fail, answer late, drop it so
that the client raises an error of its own.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from durability.world import World
from flujo.domain.journal import RunId
from flujo.domain.paths import parent
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import IntentState, RunStatus
from flujo.domain.steps import CallableRef, InDoubt, Step, StepConfig, Text
from flujo.exceptions import RunNotFound
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.testing.crash_points import enumerate_crashes, reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.models import PipelineResult

MODES = ("answer", "drop", "hang", "fail", "late", "wrapped")
POLICIES = get_args(InDoubt)
PAYMENTS = ("pay", "pay_again")
TIMEOUT_S = 0.5


class NoReceiptError(Exception):
    """An error of a client library, which says only in words that the reply is missing."""


class Paying:
    """A pipeline that pays twice, a human who checks before answering, and the conditions that must hold afterwards."""

    def __init__(self, policy: InDoubt, mode: str, uri: str, folder: Path) -> None:
        self._policy: InDoubt = policy
        self._mode = mode
        self._uri = uri
        self._world = World(folder)
        self._looked: list[str] = []

    async def run(self, run: int) -> Any:
        """Execute or resume the run, answer as a careful human would, and return all that can be observed."""
        store = await SqlStateStore.open(self._uri)
        run_id = RunId(f"run-{run}")
        try:
            before = await self._cut_off(store, run_id)
            async with Flujo[Any, Any, Any](self._tree(run), store=store) as runner:
                result = await runner.run_result_async(1, run_id=run_id)
                asked = [pause.pause_id for pause in await store.pauses(run_id)]
                while result.status is RunStatus.PAUSED:
                    result = await self._answer(runner, store, run, run_id)
            return {
                "status": str(result.status),
                "code": result.error.code if result.error else None,
                "output": result.output,
                "calls": [
                    [call.path, call.key, call.sends, str(call.state)] for call in await store.intents(run_id)
                ],
                "cut_off": before,
                "asked": [parent(path) for path in asked],
                "looked": self._looked,
            }
        finally:
            await store.aclose()

    def check(self, run: int, seen: Any) -> Iterator[str]:
        """Yield violations: a repeated payment, a guessed one, or a different result."""
        made = Counter(self._world.effects(f"{run}:"))
        sends = {key: times for _, key, times, _ in seen["calls"]}
        for key, times in made.items():
            if key not in sends:
                yield f"{key} was called without an announcement"
            elif times > (sends[key] if self._policy == "retry_same_key" else 1):
                yield f"{key} was called {times} times"
        if len(made) > len(PAYMENTS):
            yield f"{len(made)} payments were made instead of two"
        yield from self._surfaced(seen)
        if seen["status"] == "failed":
            if self._policy != "fail" or seen["code"] != "FLJ441":
                yield f"the run failed with {seen['code']}"
        elif seen["output"] != ["receipt for 5"] * 2 or len(made) != len(PAYMENTS):
            yield f"the run is {seen['status']} with {seen['output']} after {len(made)} payments"

    def _surfaced(self, seen: Any) -> Iterator[str]:
        """Yield the calls that a dead process had sent without a question to a human."""
        for path in seen["cut_off"]:
            match self._policy:
                case "pause":
                    asked = path in seen["asked"]
                case "reconcile":
                    asked = path in seen["looked"]
                case "fail":
                    asked = seen["status"] == "failed"
                case _:
                    asked = any(where == path and sends > 1 for where, _, sends, _ in seen["calls"])
            if not asked:
                yield f"{path} was sent by a dead process, and its end was guessed"

    async def _cut_off(self, store: SqlStateStore, run_id: RunId) -> list[str]:
        """Return the steps whose call is announced but not settled, as the dead process left them."""
        try:
            await store.run(run_id)
        except RunNotFound:
            return []
        return [call.path for call in await store.intents(run_id) if call.state is IntentState.SENT]

    async def _answer(
        self, runner: Flujo[Any, Any, Any], store: SqlStateStore, run: int, run_id: RunId
    ) -> PipelineResult[Any, Any]:
        waiting = [pause for pause in await store.pauses(run_id) if pause.is_open]
        if not waiting:
            return await runner.resume_async(
                run_id
            )  # the answer is recorded; its author was killed afterwards
        path = parent(waiting[0].pause_id)
        key = next(call.key for call in await store.intents(run_id) if call.path == path)
        done = key in self._world.effects(f"{run}:")
        if not done:
            return await runner.resolve_async(run_id, "retry", pause_id=waiting[0].pause_id)
        return await runner.resolve_async(
            run_id, "done", result="receipt for 5", pause_id=waiting[0].pause_id
        )

    def _send(self, key: str, amount: int, mode: str) -> None:
        try:
            self._world.effect(key, amount, "drop" if mode == "wrapped" else mode)
        except ConnectionError as error:
            if mode == "wrapped":
                raise NoReceiptError(str(error)) from None
            raise

    def _tree(self, run: int) -> Pipeline:
        steps = [self._payment(name, run) for name in PAYMENTS]
        both = Text("{{ [steps.pay.output, steps.pay_again.output] }}")
        return Pipeline(steps, name="paying", output=both)

    def _payment(self, name: str, run: int) -> Step:
        def pay(amount: int, idempotency_key: str) -> str:  # in a thread, because a hung one can be abandoned
            first = idempotency_key not in self._world.effects(f"{run}:")
            reach("before call")
            self._send(f"{run}:{idempotency_key}", amount, self._mode if first else "answer")
            reach("after call")
            return f"receipt for {amount}"

        def look(data: Any, idempotency_key: str) -> dict[str, Any]:
            self._looked.append(name)
            done = idempotency_key in self._world.effects(f"{run}:")
            return {"done": done, "result": f"receipt for {data['amount']}"}

        return Step(
            name=name,
            call=CallableRef("bank:pay", pay),
            arguments={"amount": 5},
            enforce_idempotency=True,
            effect="unsafe",
            in_doubt=self._policy,
            reconcile=CallableRef("bank:look", look) if self._policy == "reconcile" else None,
            config=StepConfig(timeout_s=TIMEOUT_S, max_retries=3, retry=RetryPolicy(backoff="none")),
        )


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("policy", choices=POLICIES)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    paying = Paying(given.policy, given.mode, given.uri, given.folder)
    report = enumerate_crashes(paying.run, paying.run, paying.check, every=given.every, first=given.first)
    print(json.dumps(report.to_json()))  # noqa: T201 - the script's output


if __name__ == "__main__":
    main()
