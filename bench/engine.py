"""What the engine adds to a step that does nothing, as a ratio to a switch between asyncio tasks.

python bench/engine.py
"""

import asyncio
import statistics
import time

from flujo import Flujo, Pipeline, Step
from flujo.domain.steps import CallableRef

STEPS = 1000
ROUNDS = 9
AT_MOST_US = 60.0


async def noop(data: object) -> object:
    return data


TREE = Pipeline(tuple(Step(name=f"s{n}", call=CallableRef.of(noop)) for n in range(STEPS)), name="noop")


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


async def main() -> None:
    async with Flujo[str, str](TREE, persist_state=False) as runner:
        await step_us(runner)
        pairs = [(await step_us(runner), await switch_us()) for _ in range(ROUNDS)]
    step, switch = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"a step that does nothing   {step:7.1f} us   (at most {AT_MOST_US:.0f} on an idle machine)")
    print(f"a switch between tasks     {switch:7.2f} us")
    print(f"ratio                      {step / switch:7.1f}")


asyncio.run(main())
