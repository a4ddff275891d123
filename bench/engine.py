"""What the engine costs: a step that does nothing, a large context, many runs that wait.

python bench/engine.py

Each figure comes from a process of its own. Memory is the peak of what the process holds of the machine's
(`ru_maxrss`), above what it held when everything was imported and one small run was done.
"""

import asyncio
import resource
import subprocess
import sys
import time

from pydantic import Field

from flujo import Flujo, MapStep, Pipeline, Step
from flujo.domain.models import PipelineContext
from flujo.domain.steps import CallableRef, Expr, Save

STEPS = 1000
ROUNDS = 15
AT_MOST_US = 15.0
ITEMS = 1000
CONTEXT_KB = 1024
AT_MOST_MB = 64.0
RUNS = 10_000
AT_MOST_KB = 8.0


async def noop(data: object) -> object:
    return data


class Library(PipelineContext):
    """A context of a megabyte, of which a step reads a few bytes."""

    title: str = "everything"
    pages: list[str] = Field(default_factory=list)
    found: list[int] = Field(default_factory=list)


async def look(data: int, context: Library) -> int:
    assert context.title
    return data


async def step_us(runner: Flujo[str, str]) -> float:
    """Microseconds of one step, journaled in memory alone."""
    began = time.perf_counter()
    result = await runner.run_result_async("x" * 200)
    assert result.success
    return (time.perf_counter() - began) / STEPS * 1e6


async def switch_us() -> float:
    """Microseconds of one switch from task to task."""

    async def turns() -> None:
        for _ in range(STEPS):
            await asyncio.sleep(0)

    began = time.perf_counter()
    await asyncio.gather(*(turns() for _ in range(10)))
    return (time.perf_counter() - began) / (10 * STEPS) * 1e6


async def steps() -> None:
    """A thousand steps that do nothing, one after another."""
    tree = Pipeline(tuple(Step(name=f"s{n}", call=CallableRef.of(noop)) for n in range(STEPS)), name="noop")
    async with Flujo[str, str](tree, persist_state=False) as runner:
        await step_us(runner)
        pairs = [(await step_us(runner), await switch_us()) for _ in range(ROUNDS)]
    # The fastest round is the least disturbed one: whatever else the machine does only ever adds.
    step, switch = (min(values) for values in zip(*pairs, strict=True))
    print(
        f"a step that does nothing   {step:7.1f} us   {of_limit(step, AT_MOST_US, 'us on an idle machine')}"
    )
    print(f"a switch between tasks     {switch:7.2f} us")
    print(f"ratio                      {step / switch:7.1f}")


async def large() -> None:
    """A map of a thousand items over a context of a megabyte, which each of them reads and writes."""
    body = Pipeline(
        (Step(name="look", call=CallableRef.of(look), save={"found": Save(Expr("output"), append=True)}),)
    )
    tree = Pipeline(
        (MapStep(name="each", over=Expr("input"), body=body, max_concurrency=50, merge="context_update"),),
        name="large",
    )
    pages = ["p" * 1024 for _ in range(CONTEXT_KB)]
    async with Flujo(tree, context_model=Library, persist_state=False) as runner:
        await runner.run_result_async([1])
        before = peak_kb()
        result = await runner.run_result_async(list(range(ITEMS)), initial_context_data={"pages": pages})
        assert result.context is not None
        assert result.context.found == list(range(ITEMS))
        above = (peak_kb() - before) / 1024
    print(
        f"a map of {ITEMS} items over a megabyte   {above:5.1f} MB above start   "
        f"{of_limit(above, AT_MOST_MB, 'MB')}"
    )


async def waiting() -> None:
    """Ten thousand runs in one process, each of them waiting inside a step."""
    gate, inside = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(data: int) -> int:
        inside.release()
        await gate.wait()
        return data

    tree = Pipeline((Step(name="wait", call=CallableRef("bench:wait", wait)),), name="waiting")
    async with Flujo[int, int](tree, persist_state=False) as runner:
        first = asyncio.create_task(runner.run_result_async(0))
        await inside.acquire()
        before = peak_kb()
        runs = [asyncio.create_task(runner.run_result_async(n)) for n in range(RUNS)]
        for _ in runs:
            await inside.acquire()
        each = (peak_kb() - before) / RUNS
        gate.set()
        assert [(await run).output for run in runs] == list(range(RUNS))
        await first
    print(f"one of {RUNS} runs that wait       {each:5.1f} kB   {of_limit(each, AT_MOST_KB, 'kB')}")


def of_limit(figure: float, limit: float, unit: str) -> str:
    """Return a figure as a part of its limit."""
    return f"{figure / limit:.2f} of the limit of {limit:.0f} {unit}"


def peak_kb() -> float:
    """Return the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform == "darwin" else peak


FIGURES = {"steps": steps, "large": large, "waiting": waiting}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(FIGURES[sys.argv[1]]())
    else:
        for figure in FIGURES:
            subprocess.run([sys.executable, __file__, figure], check=True)
