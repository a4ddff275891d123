"""A wire to Postgres that is cut at any message: what became of a COMMIT is looked up, and nothing is done twice."""

from __future__ import annotations

import os
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

import pytest

from durability.proxy import Fault, proxied
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.state.store import SqlStateStore
from support import PROGRAMS, World, start

if TYPE_CHECKING:
    from durability.conftest import Evidence
    from durability.proxy import Proxy

EVERYTHING = PROGRAMS["everything"]
EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0")) or 5
"""Cut at each n-th message; `make soak` takes every one."""
ANSWER_S = 0.3
"""How long a wire that is open and dead is waited for; a busy machine only makes more wires dead."""


async def come_through(uri: str, fault: Fault, at: int) -> tuple[Proxy, list[str]]:
    """Execute a run over a wire with a fault; return the wire, and what was wrong with the run."""
    world, run_id = World(), f"{fault.replace(' ', '-')}-{at}"
    async with proxied(uri, fault, at) as (through, proxy):
        store = SqlStateStore(through, retry_s=30, answer_s=ANSWER_S)
        result = await start(EVERYTHING.build(world), store, 1, run_id=run_id)
        entries = await store.entries(RunId(run_id))
        progress = await store.progress(RunId(run_id))
        await store.aclose()
    checks = {
        "the status": (result.status, RunStatus.COMPLETED),
        "the output": (result.output, EVERYTHING.output),
        "the calls": (Counter(world.calls), Counter(EVERYTHING.calls)),
        "the journal": ([each.seq for each in entries], list(range(1, progress.last_seq + 1))),
    }
    return proxy, [f"{fault} at {at}: {what} is {a}, not {b}" for what, (a, b) in checks.items() if a != b]


@pytest.mark.guarantee("G9", "G13")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("fault", "first"),
    [("lost request", 1), ("lost answer", 1), ("swallowed request", 2), ("swallowed answer", 2)],
)
async def test_a_run_whose_connection_is_cut_at_any_message_executes_each_step_once(
    postgres_uri: str, fault: Fault, first: int, evidence: Evidence
) -> None:
    cuts = 0
    # Who swallows the very first message is a database that was never there, which is not waited for.
    for at in count(first, EVERY):
        proxy, violations = await come_through(postgres_uri, fault, at)
        if not proxy.has_struck:
            break
        cuts += 1
        evidence.add(faults=1, violations=violations)
        assert violations == []
    assert cuts * EVERY > len(EVERYTHING.calls), "more was cut than there are steps"


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("fault", ["slow", "in pieces"])
async def test_a_slow_or_fragmented_connection_changes_nothing(
    postgres_uri: str, fault: Fault, evidence: Evidence
) -> None:
    proxy, violations = await come_through(postgres_uri, fault, 1)
    evidence.add(faults=proxy.messages, violations=violations)
    assert violations == []
