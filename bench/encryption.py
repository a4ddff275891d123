"""What encryption at rest costs a step: the CPU time of runs with and without keys, in turn, on SQLite.

    python bench/encryption.py
    python bench/encryption.py --steps 500 --runs 11 --bytes 1000

Each step returns a text of so many bytes, and its entry is committed before the next step begins. The table
has the CPU time of this process for a step, because the time of a commit depends on the disk. It is the
median of the runs.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, Step
from flujo.governance.key_ring import NO_KEYS, KeyRing, new_key
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--bytes", type=int, default=1000)
    given = parser.parse_args()
    print("| values | CPU of a step | of reading an entry |\n|---|---|---|")
    rings = {"plain": NO_KEYS, "encrypted": KeyRing((new_key("k1"),), source="bench")}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rings}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.runs):
            for name, keys in rings.items():
                uri = f"sqlite:///{Path(folder) / name}-{number}.db"
                found[name].append(asyncio.run(_measured(uri, keys, given.steps, given.bytes)))
    for name, times in found.items():
        step, read = (statistics.median(each) * 1e6 for each in zip(*times, strict=True))
        print(f"| {name} | {step:.0f} µs | {read:.1f} µs |")


async def _measured(uri: str, keys: KeyRing, steps: int, size: int) -> tuple[float, float]:
    """Return the seconds of CPU for a step, and for reading an entry back."""
    text = "x" * size

    def work(_: Any) -> str:
        return text

    tree = Pipeline(tuple(Step(f"s{n}", CallableRef("bench:work", work)) for n in range(steps)), "bench")
    store = await SqlStateStore.open(uri, keys=keys)
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        await runner.run_result_async("", run_id="warm")
        begun = time.process_time()
        result = await runner.run_result_async("", run_id="measured")
        ran = time.process_time() - begun
        begun = time.process_time()
        entries = await store.entries(result.run_id)
        read = time.process_time() - begun
    await store.aclose()
    return ran / steps, read / len(entries)


if __name__ == "__main__":
    main()
