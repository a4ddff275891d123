"""Purges in a loop until its input ends, and once after it; prints `ready`, then how many contents it deleted.

python purging_program.py URI
python purging_program.py URI once      one purge, which waits for a line after each transaction
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Intent, IntentState, Move, NewRun, RunStatus, Write
from flujo.services.admin.purge import purge
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from flujo.domain.run import Purged, RunRecord

WINDOW = 64
"""How many runs share their contents. One run of them stays, so its contents were purged and named again."""
SHARED = 2
"""How many contents a window has."""
AT_ONCE = 8
_ADA = Actor("ada", Via.API)


def content(number: int) -> bytes:
    """Return a value that is too large for its row."""
    return canonical.encode(f"{number} " * 10_000)


def _file(number: int) -> bytes:
    return canonical.encode(f"file {number}")


async def write_run(store: SqlStateStore, number: int, chance: random.Random) -> None:
    """Write one run; every table that can name a content names one."""
    first = number // WINDOW * SHARED
    stays = number % WINDOW == WINDOW - AT_ONCE
    value, file = content(first + chance.randrange(SHARED)), _file(first)
    manifest = canonical.encode({"files": {"a.yaml": canonical.digest(file)}})
    new = NewRun(
        run_id=RunId(f"run-{number}"),
        pipeline="kept",
        closure=canonical.digest(manifest),
        input=content(first + chance.randrange(SHARED)),
        context=b"{}",
    )
    pinned = {canonical.digest(each): each for each in (manifest, file)}
    run = await store.accept(new, pinned)
    call = Intent(key="k", path=StepPath("a"), tool="a:b", state=IntentState.DONE, input=value)
    act = Act(verb=Verb.RETRY, actor=_ADA, run_id=run.run_id, before=value)
    entry = Entry(path=StepPath("a"), kind=EntryKind.WORK, seq=1, output=value)
    await store.write(_write(run, entries=(entry,)))
    await store.write(_write(run, intents=(call,), acts=(act,)))
    status = RunStatus.PAUSED if stays else RunStatus.COMPLETED
    await store.write(_write(run, move=Move(status=status, context=value, entries=1)))


def _write(run: RunRecord, **changes: object) -> Write:
    return Write(run_id=run.run_id, fence=run.fence, **changes)  # type: ignore[arg-type]


async def writing(store: SqlStateStore, count: int) -> None:
    """Write runs, some at once."""
    chance = random.Random(count)

    async def several(start: int) -> None:
        for number in range(start, count, AT_ONCE):
            await write_run(store, number, chance)

    await asyncio.gather(*(several(start) for start in range(AT_ONCE)))


async def kept(store: SqlStateStore, run_id: RunId) -> None:
    """Read everything that a run names."""
    record = await store.run(run_id)
    manifest = canonical.decode((await store.blobs([record.closure]))[record.closure])
    await store.blobs(list(manifest["files"].values()))
    await store.entries(run_id)
    await store.intents(run_id)
    await store.acts(run_id)


async def main(uri: str) -> None:
    """Purge completed runs again and again."""
    deleted = 0
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    async with aclosing(await SqlStateStore.open(uri)) as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        is_last = False
        while not is_last:
            is_last = ended.done()
            deleted += (await purge(store, [RunStatus.COMPLETED], 0.0, batch=7)).contents
            await asyncio.sleep(0)
    sys.stdout.write(f"{deleted}\n")


async def once(uri: str) -> None:
    """Purge completed runs in the smallest transactions; print a line after each, and wait for one."""

    def waits(total: Purged) -> None:
        sys.stdout.write(f"{total.runs}\n")
        sys.stdout.flush()
        sys.stdin.readline()

    async with aclosing(await SqlStateStore.open(uri)) as store:
        await purge(store, [RunStatus.COMPLETED], 0.0, batch=1, on_batch=waits)


if __name__ == "__main__":
    asyncio.run((once if sys.argv[2:] == ["once"] else main)(sys.argv[1]))
