"""`kill -9` of agents in turns, judged from outside: no effect is repeated, and none differs from the recorded call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import warm
from agents.provider_server import provider_server
from durability.agent_ledger import Barriers, Ledger, Model, barriers
from durability.agent_program import CALLS
from flujo.domain import canonical
from flujo.domain.journal import EntryKind, EntryStatus, RunId
from flujo.domain.ledger import HoldState
from flujo.domain.run import IntentState, PauseKind
from flujo.exceptions import RunNotFound, UsageLimitExceeded
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from durability.conftest import Evidence

pytestmark = pytest.mark.timeout(14400)
PROGRAM = Path(__file__).with_name("agent_program.py")
KILLS = int(os.environ.get("FLUJO_AGENT_KILLS", "8"))
"""Kills together; each way of running gets a quarter."""
EFFECTS = {"look": ("EXACTLY_ONCE", "DUPLICATED"), "refuse": ("EXACTLY_ONCE", "DUPLICATED")}
"""The allowed verdicts, where they are not EXACTLY_ONCE alone: a `read` may be repeated, and what was not sent too."""
DENIED = {"desk/turn[0]/tool[1]"}
"""The call that a human denies: it has an entry and no effect."""
OUTPUT = "All of it is done. done Granted."


class Killed:
    """Runs of the program, killed at barriers and resumed, and what the outside says about each."""

    def __init__(self, folder: Path, store: SqlStateStore, forks: warm.Popen) -> None:
        self.ledger = Ledger(folder)
        self.kills = 0
        self.barriers = 0
        """How many barriers an unbroken run reaches."""
        self._forks = forks
        self._store = store

    def ready(self, gate: Barriers) -> None:
        """Wait for the unbroken run with which the program begins."""
        assert self._heard() == "ready"
        self.barriers = gate.passed
        gate.disarm()

    async def run(self, run: str, gate: Barriers, model: Model, chance: Random) -> list[str]:
        """Kill a run at several barriers until it ends; return the violations."""
        wrong: list[str] = []
        uncertain: set[str] = set()
        kills_left = chance.randint(1, 3)
        while True:
            done = await self._completed(run)
            before = self._made(run, model)
            fatal = chance.randint(1, self.barriers) if kills_left else 0
            result = self._life(run, gate, fatal, chance.choice([0.0, 0.0, chance.uniform(0.0, 0.03)]))
            again = {place for place, n in self._made(run, model).items() if n > before[place]} & done
            wrong += [f"{run}: {place} was completed and made again" for place in sorted(again)]
            if result is None:
                self.kills += 1
                kills_left -= 1
                uncertain |= await self._uncertain(run)
            elif result["status"] == "paused":
                await self._resolve(run)
            else:
                return wrong + await self._judged(run, result, uncertain)

    def _life(self, run: str, gate: Barriers, fatal: int, delay_s: float) -> Any:
        """Execute or resume the run in a process; return its result, or None when it was killed."""
        self._say(run)
        gate.arm(fatal, int(self._heard().removeprefix("pid ")), delay_s)
        result = None
        if (heard := self._heard()) != "ended":
            result = json.loads(heard)
            assert self._heard() == "ended"
        gate.disarm()
        self._say("")
        code = int(self._heard())
        assert code in (0, -signal.SIGKILL), f"{run} ended with {code}"
        return result

    def _say(self, text: str) -> None:
        self._forks.stdin.write(f"{text}\n")
        self._forks.stdin.flush()

    def _heard(self) -> str:
        line: str = self._forks.stdout.readline()
        assert line, "the program has ended"
        return line.strip()

    def _made(self, run: str, model: Model) -> Counter[str]:
        """Return how often each turn was requested and each tool called."""
        made = Counter({place: n for (whose, place), n in model.requests.items() if whose == run})
        for (_, place), arguments in self.ledger.calls(run).items():
            made[place] += len(arguments)
        return made

    async def _completed(self, run: str) -> set[str]:
        try:
            entries = await self._store.entries(RunId(run))
        except RunNotFound:
            return set()
        return {
            entry.path
            for entry in entries
            if entry.kind is EntryKind.WORK and entry.status is EntryStatus.COMPLETED
        }

    async def _uncertain(self, run: str) -> set[str]:
        """Return the announced calls of unsafe tools whose end is unknown, as the dead process left them."""
        try:
            calls = await self._store.intents(RunId(run))
        except RunNotFound:
            return set()
        unsafe = (":pay", ":refuse", ":grant")
        return {
            call.path for call in calls if call.state is IntentState.SENT and str(call.tool).endswith(unsafe)
        }

    async def _resolve(self, run: str) -> None:
        """Answer each question about a call as a human would who looks at the ledger, and approve some calls."""
        known = {place for _, place in self.ledger.calls(run)}
        for pause in await self._store.pauses(RunId(run)):
            if not pause.is_open:
                continue
            said: dict[str, Any] = {"resolution": "retry"}
            if pause.kind is PauseKind.APPROVAL:
                said = {"approved": pause.pause_id not in DENIED, "digest": pause.digest}
            elif pause.pause_id.partition("!")[0] in known:
                said = {"resolution": "done", "result": "done"}
            await self._store.answer(RunId(run), pause.pause_id, canonical.encode(said))

    async def _judged(self, run: str, result: Any, uncertain: set[str]) -> list[str]:
        if (result["status"], result["output"]) != ("completed", OUTPUT):
            return [f"{run}: it is {result}"]
        places = await self._completed(run)
        calls = {place for place in places if not place.rpartition("/")[2].startswith("turn[")}
        made_of_steps = {place for place in calls if any(each.startswith(f"{place}/") for each in places)}
        recorded = calls - made_of_steps - DENIED
        verdicts = self.ledger.verdicts(run, recorded)
        wrong = [
            f"{run}: {tool} at {place} is {found}"
            for (tool, place), found in verdicts.items()
            if found not in EFFECTS.get(tool, ("EXACTLY_ONCE",))
        ]
        wrong += [
            f"{run}: {place} has an effect and no entry" for _, place in verdicts if place not in recorded
        ]
        questions = [each for each in await self._store.pauses(RunId(run)) if each.kind is PauseKind.DOUBT]
        asked = {question.pause_id.partition("!")[0] for question in questions}
        return wrong + [
            f"{run}: {place} was uncertain, and no question lists it" for place in uncertain - asked
        ]


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    made = await SqlStateStore.open(store_uri)
    yield made
    await made.aclose()


class Sharing(Killed):
    """Runs of ten agents with one budget: what the outside has seen is booked, and within the limit."""

    requests = 0
    """The limit."""
    model: Model

    async def _judged(self, run: str, result: Any, uncertain: set[str]) -> list[str]:
        if result["status"] != "completed" and not str(result["error"]).startswith(UsageLimitExceeded.code):
            return [f"{run}: it is {result}"]
        served = sum(count for (whose, _), count in self.model.requests.items() if whose == run)
        called = sum(map(len, self.ledger.calls(run).values()))
        ledger = await self._store.ledger(RunId(run))
        booked = ledger.usage + ledger.unconfirmed
        wrong = [f"{run}: {uncertain} is in doubt, although no call was announced"] if uncertain else []
        if not served <= booked.requests <= self.requests:
            wrong.append(f"{run}: {served} requests were made and {booked.requests} booked")
        if not called <= booked.tool_calls <= CALLS:
            wrong.append(f"{run}: {called} calls were made and {booked.tool_calls} booked")
        return wrong + [f"{run}: {hold} is open" for hold in ledger.holds if hold.state is HoldState.HELD]


@contextmanager
def killing(folder: Path, uri: str, *options: str) -> Iterator[tuple[warm.Popen, Barriers, Model]]:
    """Start the program, its barriers and its model."""
    with provider_server() as provider, barriers(folder) as gate:
        model = Model(gate.reach)
        provider.will_answer(model.answer)
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}
        with warm.Popen(
            [sys.executable, str(PROGRAM), str(folder), uri, *options],
            env={**os.environ, **provider.environment, **path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as forks:
            yield forks, gate, model
            forks.stdin.close()


@pytest.mark.guarantee("G1", "G2", "G3")
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_no_effect_of_a_killed_agent_is_duplicated_divergent_or_lost(
    is_streamed: bool, store_uri: str, store: SqlStateStore, tmp_path: Path, evidence: Evidence
) -> None:
    chance = Random(20261129 + is_streamed)
    violations, number = list[str](), 0
    with killing(tmp_path, store_uri, *["--stream"][: int(is_streamed)]) as (forks, gate, model):
        killed = Killed(tmp_path, store, forks)
        killed.ready(gate)
        while killed.kills < KILLS / 4:
            number += 1
            violations += await killed.run(f"run-{number}", gate, model, chance)
    evidence.add(faults=killed.kills, seeds=number, violations=violations)
    assert violations == []


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("requests", [45, 24] if "FLUJO_AGENT_KILLS" in os.environ else [45])
async def test_ten_agents_never_overspend_the_budget_that_they_share_whatever_is_killed(
    requests: int, sqlite_uri: str, tmp_path: Path, evidence: Evidence
) -> None:
    chance = Random(requests)
    violations, number = list[str](), 0
    store = await SqlStateStore.open(sqlite_uri)
    with killing(tmp_path, sqlite_uri, "--requests", str(requests)) as (forks, gate, model):
        sharing = Sharing(tmp_path, store, forks)
        sharing.requests, sharing.model = requests, model
        sharing.ready(gate)
        while sharing.kills < KILLS / 4:
            number += 1
            violations += await sharing.run(f"run-{number}", gate, model, chance)
    await store.aclose()
    evidence.add(faults=sharing.kills, seeds=number, violations=violations)
    assert violations == []


def test_the_ledger_tells_repeated_divergent_and_lost_effects(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for place, reasons in (("once", "1"), ("twice", "11"), ("other", "12")):
        for why in reasons:
            ledger.append("pay", f"run:{place}", why)
    for place, keys, reasons in (("same", "aa", "11"), ("new", "bc", "11"), ("changed", "dd", "12")):
        for key, why in zip(keys, reasons, strict=True):
            ledger.append("note", f"run:{place}", why)
            ledger.book(key, f"run:{place}")
    ledger.append("note", "run:missing", "1")
    recorded = {"once", "twice", "other", "same", "new", "changed", "missing", "gone"}
    assert ledger.verdicts("run", recorded) == {
        ("pay", "once"): "EXACTLY_ONCE",
        ("pay", "twice"): "DUPLICATED",
        ("pay", "other"): "DIVERGED",
        ("note", "same"): "EXACTLY_ONCE",
        ("note", "new"): "DUPLICATED",
        ("note", "changed"): "DIVERGED",
        ("note", "missing"): "LOST",
        ("?", "gone"): "LOST",
    }
