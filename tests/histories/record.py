"""Records the database that this version of Flujo leaves: once per release.

    python tests/histories/record.py VERSION

writes three SQLite databases as SQL. `stopped/VERSION.sql` has a run of one pipeline, stopped after each of its writes (as
by a killed process), and the same run paused, answered, interrupted and completed. `situations/VERSION.sql` has
a run in every state of `situations.py`, and one of a blueprint. `maps/VERSION.sql` has runs stopped in the middle
of a map. Existing files are not overwritten, so a new situation is recorded by the next release.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo import Flujo, RecoveryPolicy, TaskClient
from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.exceptions import StateBackendUnavailable
from flujo.state.store import SqlStateStore

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from histories.programs import ANSWER, MAPS_INPUT, history, maps  # noqa: E402 - the line above adds its folder to the path
from histories.situations import (  # noqa: E402
    BLUEPRINT_RUN,
    PROJECT,
    SITUATIONS,
    Context,
    Life,
    Situation,
)
from support import StoppingStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.services.runs.streaming import RunStream

# One pipeline, stopped at every write ---------------------------------------------------------------------


async def record_stopped(uri: str) -> None:
    """Fill a database with runs of one pipeline, stopped after each of their writes."""
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
    """Stop a run after this many writes; return whether that was before its question."""
    stopping: Any = StoppingStore(store, writes)
    with contextlib.suppress(StateBackendUnavailable):
        await _started(stopping, f"stopped-{writes}")
        return False
    return True


async def _interrupted(store: SqlStateStore) -> None:
    """Interrupt a run in the middle of its map."""
    calls: list[str] = []
    async with Flujo[Any, Any, Any](history(calls), store=store) as runner:
        stream = runner.run_stream(1, run_id="interrupted")
        reading = asyncio.ensure_future(_read(stream))
        while "square" not in calls:  # noqa: ASYNC110 - this pipeline never changes, so it cannot signal
            await asyncio.sleep(0)
        await stream.aclose()
        await reading


async def record_maps(uri: str) -> None:
    """Fill a database with runs stopped in their maps: after every third of their writes."""
    store = await SqlStateStore.open(uri)
    for writes in count(3, 3):
        stopping: Any = StoppingStore(store, writes)
        try:
            async with Flujo[Any, Any, Any](maps([]), store=stopping) as runner:
                await runner.run_result_async(MAPS_INPUT, run_id=f"maps-{writes}")
            break
        except StateBackendUnavailable:
            continue
    await store.aclose()


async def _read(stream: RunStream[Any, Any]) -> None:
    async for _ in stream:
        pass


async def _started(store: Any, run_id: str) -> None:
    async with Flujo[Any, Any, Any](history([]), store=store) as runner:
        await runner.run_result_async(1, run_id=run_id)


# A run in every state -----------------------------------------------------------------------------------------


async def record_situations(uri: str) -> None:
    """Fill a database with a run in each situation."""
    store = await SqlStateStore.open(uri)
    for situation in SITUATIONS:
        if situation.kills:
            command = [sys.executable, __file__, "--die", uri, situation.name]
            ended = await asyncio.to_thread(subprocess.run, command, check=False)
            assert ended.returncode == 9, f"{situation.name} did not die"
        else:
            await _lived(store, situation)
        await _afterwards(store, situation)
        status = (await store.run(RunId(situation.name))).status
        assert status is situation.left, f"{situation.name} is {status}"
    await store.aclose()
    await asyncio.to_thread(_run_the_blueprint, uri)


async def _lived(store: SqlStateStore, situation: Situation) -> None:
    life = Life(is_first=True)
    async with _runner(store, situation, life) as runner:
        stream = runner.run_stream(
            situation.input,
            run_id=situation.name,
            metadata=situation.metadata or None,
            initial_context_data={"user_id": "ada"} if situation.has_context else None,
        )
        started = asyncio.ensure_future(_read(stream))
        if situation.left is RunStatus.INTERRUPTED:
            while life.calls[-2:] != ["now", "rest"]:  # noqa: ASYNC110 - see above
                await asyncio.sleep(0)
            await stream.aclose()
        await asyncio.wait([started])


def _runner(store: SqlStateStore, situation: Situation, life: Life, **more: Any) -> Flujo[Any, Any, Any]:
    return Flujo(
        situation.build(life),
        store=store,
        context_model=Context if situation.has_context else None,
        usage_limits=situation.limits,
        **{"recovery": False, **more},
    )


async def _afterwards(store: SqlStateStore, situation: Situation) -> None:
    """Do what other processes do to the run."""
    if situation.name == "cancelled":
        await TaskClient(store).cancel_task(situation.name)
    elif situation.name == "doubt-retried":
        async with _runner(store, situation, Life(is_first=True)) as runner:
            first, _ = await store.pauses(RunId(situation.name))
            await runner.resolve_async(situation.name, "retry", pause_id=first.pause_id)
    elif situation.name == "parked":
        policy = RecoveryPolicy(every_s=0.02, max_recoveries=0)
        async with _runner(store, situation, Life(), recovery=policy) as runner:
            await runner.run_result_async(1, run_id="parks-it")
            while (await store.run(RunId(situation.name))).status is RunStatus.RUNNING:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def _die(uri: str, name: str) -> None:
    """Execute a run that kills this process."""
    [situation] = [each for each in SITUATIONS if each.name == name]
    await _lived(await SqlStateStore.open(uri), situation)


def _run_the_blueprint(uri: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path, text in PROJECT.items():
            Path(folder, path).parent.mkdir(exist_ok=True)
            Path(folder, path).write_text(text, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "flujo",
            "run",
            "shouting",
            "--input",
            "hello",
            "--run-id",
            BLUEPRINT_RUN,
        ]
        environment = {**os.environ, "FLUJO_STATE_URI": uri}
        ended = subprocess.run(command, cwd=folder, env=environment, check=False)
        assert ended.returncode == 5, "the run is not paused"


# ----------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Write the missing histories of the version on the command line."""
    if sys.argv[1] == "--die":
        asyncio.run(_die(*sys.argv[2:]))
        return
    recordings: dict[str, Callable[[str], Awaitable[None]]] = {
        "stopped": record_stopped,
        "maps": record_maps,
        "situations": record_situations,
    }
    for folder, record in recordings.items():
        target = HERE / folder / f"{sys.argv[1]}.sql"
        if target.exists():
            print(f"{target.relative_to(HERE)} is already recorded")  # noqa: T201
            continue
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            asyncio.run(record(f"sqlite:///{place}/state.db"))  # type: ignore[arg-type]
            with contextlib.closing(sqlite3.connect(f"{place}/state.db")) as file:
                target.write_text("\n".join(file.iterdump()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
