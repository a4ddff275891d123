"""Workers killed, frozen and cut off: every run once, no run is stuck, and the limits of a queue hold."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from durability.queue_fleet import MAIL, QueueFleet, submit
from flujo.domain import canonical
from flujo.domain.acts import Actor, Via
from flujo.domain.queues import RunKind
from flujo.domain.run import RunGroup, RunQuery
from flujo.domain.sent_events import NewEvent
from flujo.exceptions import StateError
from flujo.services.project.project import find_project
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from durability.conftest import Evidence
    from flujo.domain.store import StateStore

RUNS = int(os.environ.get("FLUJO_QUEUE_RUNS", "40"))
IS_WHOLE = RUNS >= 2000
CUSTOMERS = 50 if IS_WHOLE else 5


@pytest.mark.guarantee("G4")
async def test_killed_and_frozen_workers_of_a_queue(
    store_uri: str, tmp_path: Path, evidence: Evidence
) -> None:
    if store_uri.startswith("sqlite") and "FLUJO_QUEUE_RUNS" not in os.environ:
        pytest.skip("in `make soak`; the races of claims are tested on SQLite as well")
    with QueueFleet(tmp_path, store_uri, (), Random(RUNS)) as fleet:
        async with aclosing(Workspace(find_project(tmp_path))) as workspace:
            await submit(workspace, range(RUNS), CUSTOMERS)
            store = await workspace.store()
            fleet.start(3)
            end = time.monotonic() + 60 + RUNS
            while (await store.count_runs(RunQuery(), RunGroup.STATUS)).get("completed") != RUNS:
                assert time.monotonic() < end, fleet.diagnostics()
                await asyncio.sleep(0.5)
                fleet.trouble()
                fleet.start(3)
            fleet.wake()
        names = [f"mail-{number}" for number in range(RUNS)]
        violations = fleet.violations(names)
        evidence.add(faults=fleet.faults.total(), seeds=RUNS, violations=violations)
        assert violations == []


# Everything together --------------------------------------------------------------------------------------

ORDER = """\
version: "1"
name: order
steps:
  - {name: first, call: "skills.outside:work", with: {key: "-", name: "{{ input }}-first"}}
  - {name: beside, call: "skills.outside:work", with: {key: "-", name: "{{ input }}-beside"},
     config: {execution_mode: background}}
  - {kind: sleep, name: rest, for: 1s}
  - {kind: event, name: paid, key: input, event_schema: {type: integer}}
  - {kind: await, name: result, task: beside}
  - {name: last, call: "skills.outside:work", with: {key: "-", name: "{{ input }}-last"}}
output: {paid: "{{ steps.paid.output }}", result: "{{ steps.result.output }}"}
"""
STEPS = ("first", "beside", "last")
ORDERS = max(10, RUNS // 4)
WORKERS = 8 if IS_WHOLE else 4
LOOK_S = 0.25
FAULTS, LOOKS = (30, 8) if IS_WHOLE else (4, 4)
"""How many faults there are, and how many looks at the database lie between two: 2 s and 1 s on an idle machine.
The orders are paid during these looks, so all faults hit work that is not done, however slow a look is."""
PATIENCE_S = 180.0
KINDS = tuple(RunKind)


@dataclass
class Shop:
    """Orders, each with a sleep, an event and a background step, and who pays them."""

    store: StateStore
    chance: Random

    def __post_init__(self) -> None:
        self._unpaid = [f"order-{number}" for number in range(ORDERS)]
        self.chance.shuffle(self._unpaid)

    async def pay(self, share: float) -> None:
        """Send events until this share of the orders is paid: before or while they wait, and sometimes twice."""
        for name in self._unpaid[: len(self._unpaid) - int(ORDERS * (1 - share))]:
            number = int(name.rpartition("-")[2])
            sent = NewEvent(
                event_id=f"paid-{name}",
                name="paid",
                payload=canonical.encode(number),
                actor=Actor("shop", Via.API),
                key=name,
            )
            await self.store.send_event(sent)
            if self.chance.random() < 0.2:
                await self.store.send_event(sent)
            self._unpaid.remove(name)

    async def ended(self) -> dict[str | None, int]:
        """Return how many runs and background tasks there are, by status."""
        return dict(await self.store.count_runs(RunQuery(kinds=KINDS), RunGroup.STATUS))

    async def wrong(self) -> list[str]:
        """Return the orders with another result than theirs."""
        found = await self.store.runs(RunQuery(pipeline="order", limit=1000))
        outputs = {str(record.run_id): canonical.decode(record.output or b"null") for record in found}
        return [
            f"order-{number} has {outputs[f'order-{number}']}, not {wanted}"
            for number in range(ORDERS)
            if outputs[f"order-{number}"] != (wanted := {"paid": number, "result": f"order-{number}-beside"})
        ]


@pytest.mark.guarantee("G1", "G2", "G4", "G5")
@pytest.mark.timeout(3600)
async def test_queues_waits_and_background_steps_together(
    postgres_uri: str, tmp_path: Path, evidence: Evidence
) -> None:
    kinds = (("--concurrency", "8"), ("--queue", "mail", "--concurrency", "4"))
    fleet = QueueFleet(
        tmp_path,
        postgres_uri,
        (),
        Random(RUNS),
        concurrency=8,
        words=kinds,
        blueprints={"mail": MAIL, "order": ORDER},
    )
    with fleet:
        async with aclosing(Workspace(find_project(tmp_path))) as workspace:
            await submit(workspace, range(RUNS), CUSTOMERS)
            blueprint = workspace.load("blueprints/order.yaml")
            for number in range(ORDERS):
                name = f"order-{number}"
                request = Request(name, run_id=name)
                await blueprint_runs.submit(
                    workspace, blueprint, request, queue="default", priority=0, delay_s=0.0
                )
            shop = Shop(await workspace.store(), Random(RUNS))
            await _until_all_ended(fleet, shop)
            wrong = await shop.wrong()
        assert fleet.faults.total() >= FAULTS
        wrong += fleet.violations(_names())
    evidence.add(faults=fleet.faults.total(), seeds=RUNS + ORDERS, violations=wrong)
    assert wrong == []


def _names() -> Iterator[str]:
    yield from (f"mail-{number}" for number in range(RUNS))
    yield from (f"order-{number}-{step}" for number in range(ORDERS) for step in STEPS)


async def _until_all_ended(fleet: QueueFleet, shop: Shop) -> None:
    """Pay the orders and strike workers meanwhile; return when all runs have completed."""
    before: Any = None
    moved_at, looks = time.monotonic(), 0
    fleet.start(WORKERS)
    while before != {"completed": RUNS + 2 * ORDERS}:
        await asyncio.sleep(LOOK_S)
        now, looks = time.monotonic(), looks + 1
        while fleet.faults.total() < min(looks // LOOKS, FAULTS):
            fleet.trouble()
        if looks > FAULTS * LOOKS:
            fleet.wake()
        fleet.start(WORKERS)
        try:
            await shop.pay(min(1.0, looks / (FAULTS * LOOKS + 1)))
            found = await shop.ended()
        except StateError:  # its connection was cut off as well
            continue
        if found != before:
            before, moved_at = found, now
        assert now - moved_at < PATIENCE_S, f"no run progresses: {before}\n{fleet.diagnostics()}"
