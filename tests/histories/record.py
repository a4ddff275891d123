"""Record what this version of Flujo leaves in its database: once for each release, and never again.

    python tests/histories/record.py VERSION

writes `tests/histories/VERSION.sql`: a SQLite database with a run that was stopped after each of its writes (as a
killed process leaves it), one that waits for a human, one whose answer is only recorded, one that was interrupted, and
one that has completed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from flujo.domain import canonical
from flujo.domain.journal import RunId, StepPath
from flujo.exceptions import StateBackendUnavailable
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from histories.programs import ANSWER, history  # noqa: E402 - where it is has only just been said
from support import StoppingStore  # noqa: E402


async def record(uri: str) -> None:
    """Fill a database with runs in every state."""
    store = await SqlStateStore.open(uri)
    for writes in count(1):
        if not await _stopped(store, writes):
            break
    for name in ("answered", "completed"):
        await _started(store, name)
        if name == "answered":
            await store.answer(RunId(name), StepPath("ask"), canonical.encode(ANSWER))
        else:
            async with Flujo[Any, Any, Any](history([]), store=store) as runner:
                await runner.resume_async(name, ANSWER)
    await _interrupted(store)
    await store.aclose()


async def _stopped(store: SqlStateStore, writes: int) -> bool:
    """Stop a run after so many writes; return whether that came before its question."""
    stopping: Any = StoppingStore(store, writes)
    with contextlib.suppress(StateBackendUnavailable):
        await _started(stopping, f"stopped-{writes}")
        return False
    return True


async def _interrupted(store: SqlStateStore) -> None:
    """Interrupt a run in the middle of its map."""
    calls: list[str] = []
    async with Flujo[Any, Any, Any](history(calls), store=store) as runner:
        task = asyncio.ensure_future(runner.run_result_async(1, run_id="interrupted"))
        while "square" not in calls:  # noqa: ASYNC110 - the pipeline is one that never changes
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


async def _started(store: Any, run_id: str) -> None:
    async with Flujo[Any, Any, Any](history([]), store=store) as runner:
        await runner.run_result_async(1, run_id=run_id)


def main() -> None:
    """Write the history of the version that the command line names; a recorded one is left alone."""
    target = HERE / f"{sys.argv[1]}.sql"
    if target.exists():
        raise SystemExit(f"{target.name} is recorded already: a history is never recorded again")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(record(f"sqlite:///{folder}/state.db"))
        with contextlib.closing(sqlite3.connect(f"{folder}/state.db")) as file:
            target.write_text("\n".join(file.iterdump()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
