"""A connection to Postgres is cut at any message: the outcome of a COMMIT is looked up, and no step runs twice."""

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
EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0")) or 11
"""Cut at each n-th message; `make soak` takes every one."""
ANSWER_S = 0.3
"""The response timeout of a connection; a busy machine only causes more timeouts."""


async def execute_over(uri: str, fault: Fault, at: int) -> tuple[Proxy, list[str]]:
    """Execute a run over a faulty connection; return the proxy and the violations of the run."""
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
    # When the very first message is swallowed, the database was never there, so there is no retry.
    for at in count(first, EVERY):
        proxy, violations = await execute_over(postgres_uri, fault, at)
        if not proxy.has_struck:
            break
        cuts += 1
        evidence.add(faults=1, violations=violations)
        assert violations == []
    assert cuts * EVERY > len(EVERYTHING.calls), "more messages were cut than there are steps"


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("fault", ["slow", "in pieces"])
async def test_a_slow_or_fragmented_connection_changes_nothing(
    postgres_uri: str, fault: Fault, evidence: Evidence
) -> None:
    proxy, violations = await execute_over(postgres_uri, fault, 1)
    evidence.add(faults=proxy.messages, violations=violations)
    assert violations == []
