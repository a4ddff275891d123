"""`kill -9` of a process that forks a run: there is the whole fork or none, and it makes no call with an effect."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import warm
from durability.dying_fork import FORK, tree
from flujo.domain.acts import Verb
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""Kill at each n-th point; 0 takes a sample, as `make test` does."""
SCRIPT = Path(__file__).with_name("crash_forks.py")
DYING = Path(__file__).with_name("dying_fork.py")


@pytest.mark.timeout(3600)
def test_a_process_killed_at_any_point_leaves_the_whole_fork_or_none(store_uri: str) -> None:
    every = EVERY or 47
    command = [sys.executable, str(SCRIPT), store_uri, "--every", str(every), "--first", "11"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == []
    assert report["kills"] >= report["points"] // every > 0


@pytest.mark.parametrize("dies_in", ["step", "answer"])
async def test_an_answer_given_beforehand_survives_the_process_that_forked(
    store_uri: str, dies_in: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(DYING), store_uri, dies_in]
    done = await asyncio.to_thread(warm.run, command, env=environment, capture_output=True)
    assert done.returncode == -9, done.stderr
    store = await SqlStateStore.open(store_uri)
    async with Flujo[Any, Any, Any](tree(), store=store, recovery=False) as runner:
        result = await runner.resume_async(FORK)
        assert (result.output, result.status) == (40, "completed")
        [act] = [act for act in await store.acts(FORK) if act.verb is Verb.ANSWER]
        assert (act.object, act.actor.by) == ("ask", "ada")
    await store.aclose()
