"""Long runs: the memory of a map of many streamed items, and how long a resume reads.

    python bench/scale.py map 100000         execute a map over an iterator; memory every tenth of the items
    python bench/scale.py resume 1000000     resume a map whose items have ended, except the last thousand
    python bench/scale.py steps 100000       execute and resume a run of so many steps (a loop)
    python bench/scale.py paused 100000      pause so many runs, list some, then resume one

The database is a new SQLite file, or that of `--uri`. `resume` writes the journal that the engine would have
written, because executing a million items takes longer than what it measures.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from flujo import Expr, Flujo, HumanInTheLoopStep, LoopStep, MapStep, Pipeline, Step
from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.paths import StepPath, indexed, ranged
from flujo.domain.run import Move, NewRun, RunQuery, RunStatus, Write
from flujo.domain.steps import CallableRef
from flujo.services.runs.run_request import pinned_by_name
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore

LENGTH = 1000
RUN = RunId("scale")


def memory_mb() -> int:
    """The greatest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Clock:
    """Wall-clock and CPU seconds since it was made, and the greatest memory."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return f"{wall:.2f} s (CPU {cpu:.2f} s), {memory_mb()} MB"


def streamed(count: int, clock: Clock) -> Pipeline:
    """A map over an iterator; reports its progress."""

    def numbers(_: Any) -> Iterator[int]:
        yield from range(count)

    async def work(data: int) -> int:
        if data % max(1, count // 10) == 0 or data == count - LENGTH:
            print(f"item {data:,}: {clock}", flush=True)
        return data

    body = Pipeline((Step(name="work", call=CallableRef("scale:work", work)),))
    items = MapStep(
        "items", over=CallableRef("scale:numbers", numbers), body=body, keep="none", max_concurrency=100
    )
    return Pipeline((items,), name="scale")


async def run_map(store: SqlStateStore, count: int) -> None:
    """Execute a map of `count` items."""
    clock = Clock()
    async with Flujo(streamed(count, clock), store=store, recovery=False) as runner:
        result = await runner.run_result_async(0, run_id=RUN)
    print(f"{result.status}: {clock}")


async def resume_map(store: SqlStateStore, count: int) -> None:
    """Resume a map of `count` items at its last thousand."""
    closure, blobs = pinned_by_name("scale")
    new = NewRun(run_id=RUN, pipeline="scale", closure=closure, input=b"0", context=b"{}")
    record, clock = await store.accept(new, blobs), Clock()
    for entries in journal(count - LENGTH):
        await store.write(Write(run_id=RUN, fence=record.fence, entries=entries))
    await store.write(
        Write(
            run_id=RUN, fence=record.fence, move=Move(status=RunStatus.INTERRUPTED, entries=entries[-1].seq)
        )
    )
    print(f"{entries[-1].seq:,} entries written: {clock}", flush=True)
    await resumed(store, count)


async def resumed(store: SqlStateStore, count: int) -> None:
    """Resume the run, and report when its first item is executed."""
    clock = Clock()
    async with Flujo(streamed(count, clock), store=store, recovery=False) as runner:
        result = await runner.resume_async(RUN)
    print(f"{result.status}: {clock}")


def journal(count: int) -> Iterator[tuple[Entry, ...]]:
    """Yield the entries of `count` ended items, a range at a time."""
    seq, keeps = 0, ["none", "fail", False]
    for first in range(0, count, LENGTH):
        entries = []
        for item in range(first, first + LENGTH):
            path, value = indexed(StepPath("items"), item), canonical.encode(item)
            entries += [
                Entry(path=path, kind=EntryKind.DECISION, output=value),
                Entry(
                    path=StepPath(f"{path}/work"),
                    kind=EntryKind.WORK,
                    input=value,
                    output=value,
                    fingerprint="step",
                ),
                Entry(path=path, kind=EntryKind.DONE, output=value, fingerprint="map"),
            ]
        digest = canonical.digest(canonical.encode(list(range(first, first + LENGTH))))
        entries.append(
            Entry(
                path=ranged(StepPath("items"), first, first + LENGTH - 1),
                kind=EntryKind.DONE,
                output=b"[]",
                detail=canonical.encode({"failed": 0, "items": digest, "keeps": keeps}),
                fingerprint="map",
            )
        )
        yield tuple(entry.numbered(seq := seq + 1) for entry in entries)


# Steps and questions ---------------------------------------------------------------------------------------


async def run_steps(store: SqlStateStore, count: int) -> None:
    """Execute a loop of `count` iterations, stop in its last one, and resume it."""
    is_first, clock = True, Clock()

    async def work(data: int) -> int:
        if data == count - 1 and is_first:
            raise ValueError("stop here")
        return data + 1

    body = Pipeline((Step(name="work", call=CallableRef("scale:work", work)),))
    loop = LoopStep("loop", body=body, until=Expr(f"loop.index == {count - 1}"), max_iterations=count)
    async with Flujo(Pipeline((loop,), name="scale"), store=store, recovery=False) as runner:
        result = await runner.run_result_async(0, run_id=RUN)
        print(f"{result.status} after {count:,} steps: {clock}", flush=True)
        is_first, clock = False, Clock()
        result = await runner.resume_async(RUN, retry_failed=True)
    print(f"{result.status}, resumed: {clock}")


async def pause_runs(store: SqlStateStore, count: int) -> None:
    """Pause `count` runs, a hundred at a time, list the newest, and answer one."""
    clock = Clock()
    tree = Pipeline((HumanInTheLoopStep(name="ask", message="continue?"),), name="scale")
    async with Flujo(tree, store=store, recovery=False) as runner:
        for first in range(0, count, 100):
            numbers = range(first, min(first + 100, count))
            await asyncio.gather(*(runner.run_result_async(0, run_id=f"p{number}") for number in numbers))
        print(f"{count:,} runs paused: {clock}", flush=True)
        clock = Clock()
        listed = await store.runs(RunQuery(statuses=(RunStatus.PAUSED,)))
        print(f"{len(listed)} of them listed: {clock}", flush=True)
        clock = Clock()
        result = await runner.resume_async(f"p{count // 2}", "yes")
    print(f"{result.status}, resumed: {clock}")


PARTS = {"map": run_map, "resume": resume_map, "again": resumed, "steps": run_steps, "paused": pause_runs}


async def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("count", type=int)
    parser.add_argument("--uri", help="an empty database; default: a new SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = options.uri or f"sqlite:///{folder}/scale.db"
        migrations.migrate(uri)
        store = await SqlStateStore.open(uri)
        print(f"start: {memory_mb()} MB")
        await PARTS[options.part](store, options.count)
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
