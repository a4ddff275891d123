"""The durable engine's workloads, on the harness that measures the peers.

FLUJO_BENCH_HARNESS=DIR python bench/durable.py --workload W1 --backend sqlite --profile out.txt

`DIR` holds `common/harness.py`. W1 has two variants: `default` (each step committed) and `exit` (at the end).
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["FLUJO_BENCH_HARNESS"])

from common.harness import Barrier, Run, big_items, bounded, main, payload, rss_mb
from pydantic import Field

from flujo import Flujo, HumanInTheLoopStep, MapStep, Pipeline, PipelineContext, Step, StepConfig
from flujo.domain.ports import StateStore
from flujo.domain.steps import CallableRef, Expr, Text
from flujo.services.binding.binding import PipelineBinding
from flujo.services.workspace import agent_settings
from flujo.settings import load
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore


class Big(PipelineContext):
    """1 MB in a thousand items, and a number."""

    blob: list[str] = Field(default_factory=list)
    count: int = 0


def written_bytes() -> int:
    """Bytes that this process has written to disk."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


@asynccontextmanager
async def opened(run: Run) -> AsyncIterator[StateStore]:
    """A store that is already in use, so that creating its schema and connections is not measured."""
    store: StateStore
    if run.backend in ("none", "memory"):
        store = MemoryStateStore()
    else:
        uri = f"sqlite:///{run.db_path}" if run.backend == "sqlite" else run.dsn
        migrations.migrate(uri)
        store = await SqlStateStore.open(uri)
    async with runner(chain(3), store) as warm:
        await warm.run_result_async(0)
    writer = getattr(store, "writer", None)
    before = writer.commits if writer else 0
    gc.collect()  # what the imports have left: 50 ms, which otherwise fall into the clock or not, by chance
    run.extra["io_run_bytes"] = written_bytes()
    yield store
    if writer:
        run.extra["commits"] = writer.commits - before
    await store.aclose()
    run.extra["io_run_bytes"] = written_bytes() - run.extra["io_run_bytes"]


def runner(tree: Pipeline, store: StateStore, model: type[PipelineContext] | None = None) -> Flujo[Any, Any]:
    """A runner whose tree is bound already, as a peer's graph is compiled before the clock starts."""
    bound = PipelineBinding(allow_callables=(), agent_settings=agent_settings(load()), context_model=model)
    bound.bind(tree)
    if isinstance(store, MemoryStateStore):  # without persistence, and not with a store that is kept
        return Flujo(tree, persist_state=False, binding=bound, context_model=model)
    return Flujo(tree, store=store, binding=bound, context_model=model)


async def step(data: Any) -> dict[str, Any]:
    return payload(data["step"] + 1 if isinstance(data, dict) else 0)


def call(name: str, target: Callable[..., Any], **more: Any) -> Step:
    return Step(name=name, call=CallableRef.of(target), **more)


def chain(n: int, target: Callable[..., Any] = step, durability: Any = "sync") -> Pipeline:
    config = StepConfig(durability=durability)
    return Pipeline(tuple(call(f"s{i}", target, config=config) for i in range(n)), name=f"chain{n}")


async def w1(run: Run) -> None:
    durability = "exit" if run.variant == "exit" else "sync"
    async with opened(run) as store, runner(chain(run.n, durability=durability), store) as flujo:
        with run.timed():
            assert (await flujo.run_result_async(0)).success


async def w2(run: Run) -> None:
    async with opened(run) as store, runner(chain(3), store) as flujo:
        with run.timed():
            await bounded(run.concurrency, (partial(flujo.run_result_async, 0) for _ in range(run.n)))


async def w3(run: Run) -> None:
    body = Pipeline((call("item", step),))
    tree = Pipeline(
        (MapStep(name="items", over=Expr("input"), body=body, max_concurrency=run.concurrency),), name="map"
    )
    async with opened(run) as store, runner(tree, store) as flujo:
        with run.timed():
            result = await flujo.run_result_async(list(range(run.n)))
        assert len(result.output) == run.n


async def w4(run: Run) -> None:
    tree = Pipeline(
        (call("first", step), HumanInTheLoopStep(name="ask", message=Text("continue?"))), name="ask"
    )
    async with opened(run) as store, runner(tree, store) as flujo:
        ids = [f"{run.workdir.name}-{number}" for number in range(run.n)]

        async def pause(run_id: str) -> None:
            assert (await flujo.run_result_async(0, run_id=run_id)).status == "paused"

        async def resume(run_id: str) -> None:
            assert (await flujo.resume_async(run_id, "yes")).output == "yes"

        with run.timed():
            await bounded(run.concurrency, (partial(pause, each) for each in ids))
            await bounded(run.concurrency, (partial(resume, each) for each in ids))


async def touch(data: Any, context: Big) -> dict[str, Any]:
    result = await step(data)
    context.blob[0] = f"{result['step']:08d}" + context.blob[0][8:]
    return result


async def count(data: Any, context: Big) -> dict[str, Any]:
    context.count += 1
    return await step(data)


async def w5(run: Run, target: Callable[..., Any]) -> None:
    context = {"blob": big_items()}
    async with opened(run) as store, runner(chain(run.n, target), store, Big) as flujo:
        with run.timed():
            result = await flujo.run_result_async(0, initial_context_data=context)
        assert result.success, result.error


async def w8(run: Run) -> None:
    barrier = Barrier(run.n)

    async def hold(_: Any) -> dict[str, Any]:
        await barrier.arrive()
        return payload(0)

    async with opened(run) as store, runner(Pipeline((call("hold", hold),), name="hold"), store) as flujo:
        run.extra["rss_before_mb"] = rss_mb("VmRSS")
        with run.timed():
            await asyncio.gather(*(flujo.run_result_async(0) for _ in range(run.n)))


async def w9(run: Run) -> None:
    async def logged(data: Any) -> dict[str, Any]:
        result = await step(data)
        run.log_step(result["step"])
        return result

    tree = chain(run.n, logged)
    uri = f"sqlite:///{run.db_path}" if run.backend == "sqlite" else run.dsn
    if run.phase == "crash":
        migrations.migrate(uri)
    store = await SqlStateStore.open(uri)
    async with runner(tree, store) as flujo:
        before = rss_mb("VmRSS")
        with run.timed():
            if run.phase == "crash":
                await flujo.run_result_async(0, run_id="recover")
            else:
                await flujo.resume_async("recover")
        run.extra["rss_before_mb"] = before
    await store.aclose()


async def far(run: Run) -> None:
    """Resume a run whose first n steps are completed, and measure time and memory until the next step."""
    reached, done = asyncio.Event(), run.n

    async def last(data: Any) -> Any:
        reached.set()
        await asyncio.sleep(3600)
        return data

    steps = (*chain(done, durability="exit").steps, call("last", last))
    async with opened(run) as store:
        flujo = runner(Pipeline(steps, name="far"), store)
        walk = asyncio.create_task(flujo.run_result_async(0, run_id="far"))
        await reached.wait()
        walk.cancel()
        await asyncio.wait([walk])
        reached.clear()
        gc.collect()
        before, began = rss_mb("VmRSS"), time.perf_counter()
        with run.timed():
            walk = asyncio.create_task(flujo.resume_async("far"))
            await reached.wait()
            run.extra.update(next_step_s=round(time.perf_counter() - began, 3), rss_before_mb=before)
            run.extra["more_mb"] = round(rss_mb("VmRSS") - before, 1)
            walk.cancel()
            await asyncio.wait([walk])


if __name__ == "__main__":
    workloads = {
        "W1": w1,
        "W2": w2,
        "W3": w3,
        "W4": w4,
        "W6": w1,
        "W8": w8,
        "W9": w9,
        "W9far": far,
        "W5": partial(w5, target=step),
        "W5touch": partial(w5, target=touch),
        "W5count": partial(w5, target=count),
    }
    main("flujo", "flujo", workloads, backends=("none", "memory", "sqlite", "postgres"))
