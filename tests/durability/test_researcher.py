"""`kill -9` of the agent that ships, with the real local model: it continues, and nothing is requested twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import warm
from flujo.domain.journal import Entry, EntryKind, EntryStatus, RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import RunNotFound
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from durability.conftest import Evidence

pytestmark = [pytest.mark.model, pytest.mark.timeout(14400)]
ROOT = Path(__file__).parents[2]
FLUJO = [sys.executable, "-m", "flujo"]
QUESTION = "Search the help pages: how long does delivery take?"
BEGIN = ["run", "researcher", "--input", QUESTION, "--run-id"]
KILLS = int(os.environ.get("FLUJO_LOCAL_KILLS", "1"))
"""The first kill comes after the first tool call, the others at random moments."""
LONGEST_S = 300.0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "blueprints", tmp_path / "blueprints")
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "sqlite:///{tmp_path}/state.db"\n[blueprints]\nallow_callables = ["blueprints.skills.*"]\n'
    )
    warm.run([*FLUJO, "migrate"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
async def store(project: Path) -> AsyncIterator[SqlStateStore]:
    made = await SqlStateStore.open(f"sqlite:///{project}/state.db")
    yield made
    await made.aclose()


def started(project: Path, *words: str) -> warm.Popen:
    return warm.Popen(
        [*FLUJO, *words, "--json"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def exists(store: SqlStateStore, run: str) -> bool:
    """Return whether a run was accepted before its process was killed."""
    try:
        await store.run(RunId(run))
    except RunNotFound:
        return False
    return True


async def completed(store: SqlStateStore, run: str) -> dict[str, Entry]:
    """Return the completed turns and tool calls of a run, by path."""
    return {
        entry.path: entry
        for entry in (await store.entries(RunId(run)) if await exists(store, run) else ())
        if entry.kind is EntryKind.WORK and entry.status is EntryStatus.COMPLETED
    }


async def killed(process: warm.Popen, store: SqlStateStore, run: str, after_s: float | None) -> bool:
    """Kill after so many seconds, or after the first recorded tool call; return whether it was running still."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < LONGEST_S:
        if after_s is None and "research/turn[0]/tool[0]" in await completed(store, run):
            break
        if after_s is not None and time.monotonic() - began >= after_s:
            break
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return bool(process.returncode == -signal.SIGKILL)


async def violations(project: Path, store: SqlStateStore, run: str) -> list[str]:
    """Resume a killed run, and return what it has made again or left out."""
    before = await completed(store, run)
    process = started(project, *(["resume", run] if await exists(store, run) else [*BEGIN, run]))
    out, err = process.communicate(timeout=LONGEST_S)
    if process.returncode:
        return [f"{run} ended with {process.returncode}: {err}"]
    result: dict[str, Any] = json.loads(out)
    after = await completed(store, run)
    turns = [path for path in after if "/tool[" not in path]
    wrong = [f"{run}: {path} is not the entry of before" for path in before if after[path] != before[path]]
    if result["usage"]["requests"] != len(turns):
        wrong.append(f"{run} made {result['usage']['requests']} requests for {len(turns)} turns")
    calls = {str(call.path): call.sends for call in await store.intents(RunId(run))}
    wrong += [f"{run}: {path} was called {calls[path]} times" for path in before if calls.get(path, 1) != 1]
    wrong += [f"{run}: {path} was not announced" for path in after.keys() - calls.keys() - {*turns}]
    record = await store.run(RunId(run))
    if record.status is not RunStatus.COMPLETED or not result["output"]["answer"].strip():
        wrong.append(f"{run} is {record.status} with {result['output']}")
    return wrong


@pytest.mark.guarantee("G1", "G2", "G3")
async def test_a_killed_conversation_with_the_local_model_continues_where_it_was(
    project: Path, store: SqlStateStore, evidence: Evidence
) -> None:
    chance = Random(20261129)
    kills, number, whole_s, wrong = 0, 0, 0.0, list[str]()
    noted: set[str] = set()
    while kills < KILLS:
        run = f"talk-{number}"
        began = time.monotonic()
        process = started(project, *BEGIN, run)
        if await killed(process, store, run, chance.uniform(0, whole_s) if number else None):
            kills += 1
            wrong += await violations(project, store, run)
            noted |= {call.key for call in await store.intents(RunId(run)) if call.tool.endswith("take_note")}
        whole_s = whole_s or time.monotonic() - began
        number += 1
    written = project / "notes.jsonl"  # which tools it uses is up to the model
    lines = written.read_text("utf-8").splitlines() if written.exists() else []
    notes = [json.loads(line)["key"] for line in lines]
    evidence.add(faults=kills, seeds=number, violations=wrong)
    assert wrong == []
    assert len(notes) == len(set(notes))
    assert noted <= set(notes)
